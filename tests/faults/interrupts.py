"""Interrupts at random moments: no switch stays on, and what is computed afterwards is right.

    python -m tests.faults.interrupts --interrupts 20000

A timer raises KeyboardInterrupt while a subject runs again and again. After each interrupt every
switch must stand as it did before, and
from restored weights a step must give the same bits as ever.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tensor
import tinygpt
from tensor import Tensor, kernels, nn
from tensor.mode import MODE
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.model.gpt import GPT
from tinygpt.training.step import optimizer_of, update

PACKAGES = tuple(str(Path(package.__file__).parent) for package in (tensor, tinygpt))
LONGEST = 2.0  # timer delays reach this many times the duration of one run of the subject
# seconds after which the timer fires once more, should something have swallowed the interrupt
AGAIN = 2.0


class Bench:
    """A small model with its optimiser, a leaf, and their right gradients and right step."""

    def __init__(self) -> None:
        self.x = Tensor(np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4), requires_grad=True)
        self.dropout = nn.Dropout(0.5)
        self.model = GPT(
            GPTConfig(11, 8, 16, 2, 1, dropout=0.1), generator=tensor.Generator(0)
        ).train()
        self.model.recompute = True
        self.optimizer = optimizer_of(self.model, TrainConfig(lr=1e-2))
        self.ids, self.targets = np.random.default_rng(0).integers(0, 11, (2, 4, 8))
        self.weights = {name: x.numpy().copy() for name, x in self.model.state_dict().items()}
        state = self.optimizer.state_dict()
        self.state = state | {
            "arrays": {name: array.copy() for name, array in state["arrays"].items()}
        }
        self.floor = 0  # draws of the default generator that are known to have been taken
        self.mode, self.trace = MODE.get(), sys.gettrace()
        self.gradient, self.stepped = self.small_gradient(), self.step_from_start()

    # -- what is interrupted --

    def no_grad(self) -> None:
        with tensor.no_grad():
            pass
        self._quiet()

    @tensor.no_grad()
    def _quiet(self) -> None:
        pass

    def detect_anomaly(self) -> None:
        with tensor.detect_anomaly():
            pass

    def kernels_off(self) -> None:
        with kernels.off():
            pass

    def keyed(self) -> None:
        with tensor.random.keyed(tensor.random.Key(1)), nn.undrawn():
            pass

    def checkpoint(self) -> None:
        y = tensor.checkpoint(lambda x: self.dropout(x.exp()) * x, self.x)
        self.drawn(tensor.rand(1))
        y.sum().backward()

    def record(self) -> None:
        with tensor.record(implementation="reference") as tape:
            self.x.exp().sum().backward()
        tape.forwards[0].lines()

    def generate(self) -> None:
        self.model.generate([1, 2, 3], 3, temperature=0)
        with kernels.off():
            self.model.generate([1, 2, 3], 2, temperature=0)

    def step(self) -> None:
        update(self.model, self.optimizer, self.ids, self.targets, 1.0, accumulation=2)

    # -- what must be so afterwards --

    def drawn(self, _: Any) -> None:
        """The default generator has taken all draws so far, and never goes back behind them."""
        self.floor = tensor.random.default.state()["draws"]

    def left_on(self) -> bool:
        """Whether anything stands otherwise than at the beginning. What outlives a context is put
        back.
        """
        draws, trace = tensor.random.default.state()["draws"], sys.gettrace()
        training = all(module.training for _, module in self.model.named_modules())
        keyed = tensor.random.next_key()[:2] != (0, draws)
        undrawn = not nn.Linear(3, 3).weight.numpy().any()
        found = (
            MODE.get() is not self.mode
            or keyed
            or undrawn
            or draws < self.floor
            or trace is not self.trace
            or not training
        )
        self.model.train()
        self.drawn(None)
        sys.settrace(self.trace)
        return found

    def small_gradient(self) -> bytes:
        self.x.grad = None
        y = tensor.checkpoint(lambda x: x.exp() * x, self.x).softmax().log()
        y.sum().backward()
        assert self.x.grad is not None
        return self.x.grad.numpy().tobytes()

    def step_from_start(self) -> bytes:
        self.model.load_state_dict(self.weights)
        self.optimizer.load_state_dict(self.state)
        self.step()
        return b"".join(flat.weights.numpy().tobytes() for flat in self.optimizer.flats)

    def wrong(self) -> bool:
        """Whether a gradient, or a step from the first weights on, is another than before."""
        try:
            return self.small_gradient() != self.gradient or self.step_from_start() != self.stepped
        except Exception as error:
            print(f"afterwards: {type(error).__name__}: {error}", file=sys.stderr)
            return True


SUBJECTS: tuple[Callable[[Bench], None], ...] = (
    *(Bench.no_grad, Bench.detect_anomaly, Bench.kernels_off, Bench.keyed),
    *(Bench.checkpoint, Bench.record, Bench.generate, Bench.step),
)


@dataclass
class Row:
    """What the interrupts of one subject did."""

    subject: str
    interrupts: int = 0
    inside: int = 0  # of these, so many in the code of the packages
    left_on: int = 0
    wrong: int = 0
    seed: int | None = None  # of the first interrupt after which something was amiss

    @property
    def good(self) -> bool:
        return not (self.left_on or self.wrong)

    def add(self, other: Row) -> None:
        """Count what another counted."""
        for name in ("interrupts", "inside", "left_on", "wrong"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def line(self) -> str:
        """The line of the table."""
        seed = "" if self.seed is None else self.seed
        found = f"{self.left_on:>9,} {self.wrong:>7,}   {seed:>10}"
        return f"{self.subject:<16} {self.interrupts:>10,} {self.inside:>8,} {found}"


def _interrupt(run: Callable[[], None], delay: float) -> bool:
    """Run it until the timer interrupts it. Returns whether that was inside the packages."""
    try:
        signal.setitimer(signal.ITIMER_REAL, delay, AGAIN)
        while True:
            run()
    except KeyboardInterrupt as interrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return any(
            frame.f_code.co_filename.startswith(PACKAGES)
            for frame, _ in traceback.walk_tb(interrupt.__traceback__)
        )


@contextmanager
def _alarms() -> Iterator[None]:
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _duration(run: Callable[[], None]) -> float:
    start, count = time.perf_counter(), 20
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def drive(subject: Callable[[Bench], None], interrupts: int, seed: int) -> Row:
    """Interrupt a subject that many times; interrupt i has the seed `seed + i`."""
    bench, row = Bench(), Row(subject.__name__)
    longest = max(LONGEST * _duration(lambda: subject(bench)), 1e-4)
    with _alarms():
        for i in range(interrupts):
            delay = random.Random(seed + i).uniform(2e-5, longest)
            row.interrupts += 1
            context = copy_context()  # what is left on in it ends with it
            row.inside += context.run(_interrupt, lambda: subject(bench), delay)
            left_on, wrong = context.run(bench.left_on), context.run(bench.wrong)
            row.left_on, row.wrong = row.left_on + left_on, row.wrong + wrong
            if (left_on or wrong) and row.seed is None:
                row.seed = seed + i
    return row


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Interrupt switches and steps at random moments, and look at what is left."
    )
    parser.add_argument(
        "--interrupts",
        type=int,
        default=20_000,
        help="in all, shared out among the subjects (default: 20000)",
    )
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    each = -(-options.interrupts // len(SUBJECTS))
    print("subject          interrupts   inside   left on   wrong   first seed")
    total = Row("all")
    for subject in SUBJECTS:
        row = drive(subject, each, options.seed)
        print(row.line(), flush=True)
        total.add(row)
    print(total.line())
    return 0 if total.good else 1


if __name__ == "__main__":
    sys.exit(main())
