"""The cost of `tensor.record`, off and on.

    python benchmarks/recording.py

*Off*: an op looks at its mode, and so does its backward, to see whether there is a recording. These
statements run in a loop, and the time of an empty loop is subtracted. The result is multiplied by
the number of ops in a step of the story, and printed beside the time of the step.

*On*: four kinds of steps of the story take turns: not recorded, recorded without values, recorded
with values, and recorded with references in place of kernels. Printed are the medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
from tensor.mode import MODE
from tensor.optim import AdamW
from tensor.random import Generator, Key
from tensor.recording import Backward, Forward
from tinygpt import GPT, GPTConfig
from tinygpt.training.step import update

STEPS, LOOPS, REPEATS = 200, 200_000, 9
STORY = GPTConfig(vocabulary=22, context=32, width=64, heads=4, layers=2)
BATCH = 16


def in_op() -> None:
    """The look of an op at the mode, which it has in any case."""
    start = perf_counter() if MODE_NOW.tape is not None else 0.0
    if MODE_NOW.tape is not None:
        raise AssertionError(start)


def in_backward(tape: Any = None) -> None:
    """The look of a backward at the mode."""
    start = perf_counter() if tape is not None else 0.0
    if tape is not None and tape.values:
        raise AssertionError(start)
    if tape is not None and not tape.values:
        raise AssertionError(start)


def nothing(tape: Any = None) -> None:
    """An empty call, whose time is subtracted."""


MODE_NOW = MODE.get()


def nanoseconds(function: Callable[[], None]) -> float:
    """The least of several loops, a call."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(LOOPS):
            function()
        times.append(time.perf_counter() - start)
    return min(times) / LOOPS * 1e9


def main() -> None:
    """Measure and print."""
    model = GPT(STORY, generator=Generator(0))
    optimizer = AdamW(model, lr=1e-4)
    ids = np.random.default_rng(0).integers(0, STORY.vocabulary, (BATCH, STORY.context + 1))
    x, y = ids[:, :-1], ids[:, 1:]

    def step(number: int, around: AbstractContextManager[Any]) -> float:
        start = time.perf_counter()
        with around:
            update(model, optimizer, x, y, 1.0, key=Key(0, number))
        return time.perf_counter() - start

    ways: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "not recorded": nullcontext,
        "facts alone": lambda: tensor.record(values=False),
        "with values": tensor.record,
        "references, with values": lambda: tensor.record("reference"),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(STEPS):
        for name, around in ways.items():
            times[name].append(step(number, around()))
    with tensor.record(values=False) as tape:
        update(model, optimizer, x, y, 1.0)
    forwards, backwards = (
        sum(isinstance(entry, kind) for entry in tape.entries) for kind in (Forward, Backward)
    )

    empty = nanoseconds(nothing)
    op, backward = nanoseconds(in_op) - empty, nanoseconds(in_backward) - empty
    median = {name: statistics.median(seconds[10:]) for name, seconds in times.items()}
    off = (forwards * op + backwards * backward) * 1e-9
    print(
        f"off    {op:.0f} ns an op, {backward:.0f} ns a backward; "
        f"{forwards} and {backwards} of them in a story step: {off * 1e6:.2f} us"
    )
    print(
        f"       of {median['not recorded'] * 1e3:.2f} ms, "
        f"which is {off / median['not recorded']:.4%} of the step"
    )
    for name, seconds in median.items():
        print(f"on     {name:24} {seconds * 1e3:6.2f} ms  {seconds / median['not recorded']:5.2f}")


if __name__ == "__main__":
    with threadpool_limits(1, user_api="blas"):  # as `tinygpt train` does for a model so small
        main()
