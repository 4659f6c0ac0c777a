"""A side of benchmarks/gpu.py: a process that trains one model, and answers questions.

A question is a line of JSON, and so is the answer:

    {"ask": "turn", "steps": 10}                 the milliseconds of each step, but for one before
    {"ask": "losses", "steps": 200, "seed": 1}   the losses of a training from fresh weights
    {"ask": "memory"}                            GiB: the peak of what was in use, what is held
    {"ask": "rest"}                              gives back the memory that is free between steps
    {"ask": "facts"}                             versions, and which attention ran

Each side has a process of its own, because the memory of one library would disturb the other's. A
side that waits takes no time from the GPU: its queue is empty. It gives free memory back, since the
memory of all sides together is larger than the GPU's. The first step of a turn allocates again, and
does not count.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

Ids = np.ndarray[Any, Any]
Batch = tuple[Ids, Ids]
WARM = 20  # steps before the first that counts


class Size(NamedTuple):
    """A model and its batch. Of the dtype are the weights and activations of ours."""

    layers: int
    width: int
    heads: int
    context: int
    batch: int
    vocabulary: int
    dtype: str


SIZES = {
    "gpt2": Size(12, 768, 12, 1024, 32, 50304, "bfloat16"),
    "baby": Size(6, 384, 6, 256, 64, 65, "bfloat16"),
    "story": Size(2, 64, 4, 32, 8, 22, "float32"),
    "losses": Size(12, 768, 12, 256, 8, 50304, "bfloat16"),  # gpt2, fast enough in float32 too
    "tiny": Size(2, 32, 2, 16, 4, 96, "bfloat16"),  # to try the program without a GPU
}
RECIPE: dict[str, Any] = {"lr": 6e-4, "betas": (0.9, 0.95), "weight_decay": 0.1, "clip": 1.0}


class Trainer(Protocol):
    """What a library must answer."""

    def step(self, ids: Ids, targets: Ids, lr: float) -> Any:
        """Forward, backward, clipping, AdamW. The loss stays where it is, unread."""

    def stamp(self) -> Any:
        """A moment in the queue of the GPU."""

    def milliseconds(self, start: Any, end: Any) -> float:
        """Between two stamps that the GPU has passed."""

    def wait(self) -> None:
        """Until the GPU has done all that was asked."""

    def memory(self) -> dict[str, float]:
        """GiB: "peak" of what was in use in a step, and "held" by the library."""

    def rest(self) -> None:
        """Give the memory that is free between two steps back to the GPU."""

    def facts(self) -> dict[str, str]:
        """Versions, the name of the GPU, the attention that ran."""


def new_model(size: Size, seed: int, **options: Any) -> Any:
    """Our model with fresh weights, the same in every dtype and on every device."""
    from tensor import Generator
    from tinygpt import GPT, GPTConfig

    layers, width, heads, context, _, vocabulary, _ = size
    config = GPTConfig(vocabulary, context, width, heads, layers)
    return GPT(config, generator=Generator(seed), **options)


def random_batches(size: Size, count: int) -> list[Batch]:
    """Random ids and targets."""
    ids = np.random.default_rng(0).integers(
        0, size.vocabulary, (count, 2, size.batch, size.context)
    )
    return [(x, y) for x, y in ids]


def text_batches(size: Size, count: int, seed: int) -> list[Batch]:
    """Batches of a language that can be learnt: half of the tokens follow from the one before. The
    others are drawn, the token number n with a probability like 1 / (n + 1), as words of a text.
    """
    rng = np.random.default_rng(seed)
    shape = count * size.batch, size.context + 1
    ids = np.minimum(size.vocabulary ** rng.random(shape), size.vocabulary).astype(np.int64) - 1
    follows = rng.random(shape) < 0.5
    for t in range(1, shape[1]):
        ids[:, t] = np.where(follows[:, t], (ids[:, t - 1] * 31 + 7) % size.vocabulary, ids[:, t])
    return [(part[:, :-1].copy(), part[:, 1:].copy()) for part in np.split(ids, count)]


def new_trainer(side: str, size: Size, device: str, seed: int = 0) -> Trainer:
    """ "ours bfloat16"; "ours bfloat16 by-hand", with attention by hand; "ours bfloat16 queued",
    without a CUDA graph; or PyTorch's "kind precision attention", as "compile autocast flash".
    """
    if side.startswith("ours"):
        from gpu_ours import Ours

        _, dtype, *words = side.split()
        size = size._replace(dtype=dtype)
        return Ours(size, device, seed, by_hand="by-hand" in words, queued="queued" in words)
    from gpu_peers import InOneGraph, Theirs

    kind = InOneGraph if side.startswith("graph") else Theirs
    return kind(size, device, seed, *side.split())


class Side:
    """A process that takes steps on request."""

    def __init__(self, side: str, name: str, device: str):
        self.name = side
        command = [sys.executable, __file__, side, name, device]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, what: str, **options: Any) -> Any:
        """The answer to a question. Raises RuntimeError where the process has ended."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"ask": what, **options}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(f"{self.name} has ended; its error is above") from None
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} has ended; its error is above")
        return json.loads(answer)

    def turn(self, steps: int) -> list[float]:
        """The milliseconds of so many steps."""
        times: list[float] = self.ask("turn", steps=steps)
        return times

    def close(self) -> None:
        """End the process, which frees its memory on the GPU."""
        self.process.kill()
        self.process.communicate()


class Server:
    """The answers of a side's process."""

    def __init__(self, side: str, name: str, device: str):
        self.side, self.size, self.device = side, SIZES[name], device
        self.trainer: Trainer | None = None
        self.batches = random_batches(self.size, 8)
        self.taken = 0

    def ready(self) -> Trainer:
        """The trainer, made at its first use."""
        if self.trainer is None:
            self.trainer = new_trainer(self.side, self.size, self.device)
        return self.trainer

    def turn(self, steps: int) -> list[float]:
        trainer, stamps = self.ready(), []
        for _ in range(1 + steps):
            trainer.step(*self.batches[self.taken % len(self.batches)], RECIPE["lr"])
            stamps.append(trainer.stamp())
            self.taken += 1
        trainer.wait()
        return list(map(trainer.milliseconds, stamps, stamps[1:]))

    def losses(self, steps: int, seed: int) -> list[float]:
        """Of steps from fresh weights; the rate rises over a tenth of them."""
        self.trainer = None  # the memory of the last training is free
        self.trainer = new_trainer(self.side, self.size, self.device, seed)
        unread = []
        for i, (x, y) in enumerate(text_batches(self.size, steps, seed)):
            rate = RECIPE["lr"] * min(1, (i + 1) / (steps / 10))
            # a copy: a CUDA graph writes the loss of each step to the same place
            unread.append(1 * self.trainer.step(x, y, rate))
        return [float(loss) for loss in unread]

    def memory(self) -> dict[str, float]:
        return self.ready().memory()

    def rest(self) -> None:
        self.ready().rest()

    def facts(self) -> dict[str, str]:
        return self.ready().facts()


def main() -> None:
    """Answer until the questions end."""
    parser = argparse.ArgumentParser(description="A side of benchmarks/gpu.py, which starts it.")
    for name in ("side", "size", "device"):
        parser.add_argument(name)
    given = parser.parse_args()
    # answers alone go to the standard output: compilers write there too
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    server = Server(given.side, given.size, given.device)
    for line in sys.stdin:
        question = json.loads(line)
        print(
            json.dumps(getattr(server, question.pop("ask"))(**question)), file=answers, flush=True
        )


if __name__ == "__main__":
    main()
