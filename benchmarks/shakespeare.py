"""nanoGPT's Shakespeare run for a CPU, in tinygpt and in PyTorch, from the same weights on the same
batches; and the time to a loss of 1.88.

    python benchmarks/shakespeare.py tinyshakespeare.txt           # the run, with three seeds
    python benchmarks/shakespeare.py tinyshakespeare.txt --race    # seconds until 1.88

The settings are nanoGPT's own: 4 layers, width 128, 4 heads, context 64, batch 12, no biases in the
linear layers, 2,000 steps of AdamW. The rate is 1e-3 after 100 steps of warm-up, and falls along a
cosine to 1e-4. The betas are 0.9 and 0.99, the decay is 0.1, and gradients are clipped at 1.
Windows are drawn at random from the first 90 % of the text. The validation loss is the mean over
the last 10 %, in windows side by side.

In the race each side trains until its validation loss is below 1.88. The loss is measured every 50
steps, outside the time. PyTorch trains by nanoGPT's recipe. Ours is the fastest recipe that was
found.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from tensor.optim import warmup_cosine
from tensor.random import Generator
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig
from tinygpt.data.reading import read_text
from tinygpt.data.windows import Windows
from tinygpt.training.measure import mean_loss
from tinygpt.training.order import random_rows
from tinygpt.training.step import train

CONTEXT, GOAL = 64, 1.88
RECIPE = TrainConfig(
    text="x",
    batch=12,
    batches="random",
    steps=2000,
    lr=1e-3,
    final_lr=0.1,
    warmup=100,
    weight_decay=0.1,
    beta1=0.9,
    beta2=0.99,
    clip=1.0,
)
# ours in the race
FAST = replace(RECIPE, optimizer="muon", muon_lr=0.04, lr=4e-3, steps=600, warmup=15, final_lr=0.0)


class Data(NamedTuple):
    learned: Windows
    measured: Windows
    vocabulary: int


def data_of(path: str) -> Data:
    text = read_text(path)
    tokenizer = CharacterTokenizer(text)
    ids = tokenizer.encode(text)
    kept = len(ids) * 9 // 10
    return Data(Windows(ids[:kept], CONTEXT), Windows(ids[kept:], CONTEXT, CONTEXT), tokenizer.size)


def new_model(data: Data, seed: int) -> GPT:
    return GPT(
        GPTConfig(data.vocabulary, CONTEXT, 128, 4, 4, bias=False), generator=Generator(seed)
    )


def our_steps(data: Data, recipe: TrainConfig) -> Iterator[Callable[[], float]]:
    """After each step, a function that measures the validation loss."""
    model = new_model(data, recipe.seed)
    # as `tinygpt train` does at this size: Muon's products are small, and the kernels have threads
    # of their own
    with threadpool_limits(1, user_api="blas"):
        for _ in train(model, data.learned, recipe):
            yield lambda: mean_loss(model, data.measured, 128)


def torch_steps(data: Data, recipe: TrainConfig, threads: int) -> Iterator[Callable[[], float]]:
    """The same in PyTorch, eager."""
    import torch
    from peer import Peer, peer_optimizer

    torch.set_num_threads(threads)
    peer = Peer(new_model(data, recipe.seed))
    optimizer = peer_optimizer(peer, recipe.lr, recipe.betas, recipe.weight_decay)

    def loss_of(x: Any, y: Any) -> Any:
        return peer(torch.from_numpy(x), torch.from_numpy(y))

    def measure() -> float:
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(data.measured), 128):
                x, y = data.measured[np.arange(start, min(start + 128, len(data.measured)))]
                total += float(loss_of(x, y)) * len(x)
        return total / len(data.measured)

    for step in range(recipe.steps):
        x, y = data.learned[random_rows(step, recipe.batch, len(data.learned), recipe.seed)]
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(
                step,
                peak=recipe.lr,
                warmup=recipe.warmup_steps,
                total=recipe.steps,
                floor=recipe.lr * recipe.final_lr,
            )
        optimizer.zero_grad(set_to_none=True)
        loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), recipe.clip)
        optimizer.step()
        yield measure


def serve(path: str, side: str, recipe: TrainConfig, goal: float) -> dict[str, float]:
    """Train in this process; to the end, or until a measuring every 50 steps finds the goal."""
    data = data_of(path)
    steps = our_steps(data, recipe) if side == "ours" else torch_steps(data, recipe, 2)
    seconds, loss, step, start = 0.0, math.nan, 0, time.perf_counter()
    for step, measure in enumerate(steps, 1):
        if step == recipe.steps or (goal > 0 and step % 50 == 0):
            seconds += time.perf_counter() - start
            loss = measure()
            if loss <= goal:
                break
            start = time.perf_counter()
    return {"loss": loss, "seconds": seconds, "steps": step}


def ask(path: str, side: str, seed: int, race: bool) -> dict[str, float]:
    """One training in a process of its own."""
    command = [
        sys.executable,
        __file__,
        path,
        "--serve",
        side,
        "--seeds",
        str(seed),
        *(["--race"] if race else []),
    ]
    result: dict[str, float] = json.loads(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description="nanoGPT's Shakespeare run for a CPU, ours and PyTorch's."
    )
    parser.add_argument("text", help="tinyshakespeare.txt")
    parser.add_argument(
        "--race",
        action="store_true",
        help="stop at a validation loss of 1.88, ours with its own recipe",
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, help="folder for shakespeare.json")
    parser.add_argument("--serve", choices=["ours", "torch"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        recipe = replace(
            FAST if options.race and options.serve == "ours" else RECIPE, seed=options.seeds[0]
        )
        print(json.dumps(serve(options.text, options.serve, recipe, GOAL if options.race else 0.0)))
        return
    rows = []
    print(
        "seed    ours: loss  steps  seconds    PyTorch: loss  steps  seconds    "
        "time, PyTorch / ours"
    )
    for seed in options.seeds:
        ours, theirs = (ask(options.text, side, seed, options.race) for side in ("ours", "torch"))
        rows.append({"seed": seed, "ours": ours, "torch": theirs})
        left, right = (
            f"{side['loss']:10.4f} {side['steps']:6.0f} {side['seconds']:8.1f}"
            for side in (ours, theirs)
        )
        print(
            f"{seed:4} {left}         {right}    {theirs['seconds'] / ours['seconds']:.2f}",
            flush=True,
        )
    losses = [statistics.median(row[side]["loss"] for row in rows) for side in ("ours", "torch")]
    print(
        f"median loss {losses[0]:.4f} ours, {losses[1]:.4f} PyTorch: "
        f"a difference of {losses[0] - losses[1]:+.4f}"
    )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / ("race.json" if options.race else "shakespeare.json")).write_text(
            json.dumps(rows, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
