"""Random programs, run here and in PyTorch, compared after every step; those that differ, shrunk.

    python -m tests.faults.programs --programs 2000 --seed 0 [--processes 2]
    python -m tests.faults.programs --seed 17 --only            one program, as Python

Exit code 1 where a difference has no reason among those of explained.py.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import dataclass, field
from multiprocessing import get_context

import numpy as np

try:
    import torch
except ImportError:
    print("skipped: random programs need PyTorch, pip install -e '.[oracle]'")
    raise SystemExit(0) from None

from tensor import kernels
from tensor.kernels.cpu import compiled
from tests.faults.programs import comparing, rounding
from tests.faults.programs.drawing import FLOATS, Drawer, UnfitError
from tests.faults.programs.ops import GROUPS, OPS
from tests.faults.programs.running import Run, replayed
from tests.faults.programs.shrinking import printed, runnable, shrunk
from tests.faults.programs.step import HERE, TORCH, Step

PIECE = 50  # programs that a process takes at once
LENGTH = 8, 36  # steps


@dataclass
class Summary:
    """What was run and what came of it."""

    programs: int = 0
    ops: Counter[str] = field(default_factory=Counter)
    dtypes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    both_raised: int = 0
    cut: int = 0  # programs that could not be compared to their end
    ours: list[tuple[int, str]] = field(default_factory=list)  # seed, shrunk program

    def join(self, other: Summary) -> None:
        self.programs += other.programs
        self.both_raised += other.both_raised
        self.cut += other.cut
        self.ours += other.ours
        self.ops += other.ops
        self.dtypes += other.dtypes
        self.reasons += other.reasons

    def lines(self) -> list[str]:
        """The table."""
        steps = sum(self.ops.values())
        head = f"{self.programs:,} programs, {steps:,} steps"
        dtypes = ", ".join(f"{n:,} in {name}" for name, n in self.dtypes.most_common())
        lines = [head, dtypes, f"{self.both_raised:,} steps raised in both libraries", ""]
        width = max(map(len, self.ops), default=0)
        used = [f"{name:{width}} {n:9,}" for name, n in self.ops.most_common()]
        lines += ["  ".join(used[i : i + 2]) for i in range(0, len(used), 2)]
        lines += ["", f"differences with a reason: {self.reasons.total():,}"]
        lines += [f"{n:9,}  {reason}" for reason, n in self.reasons.most_common()]
        lines += [f"{self.cut:,} programs were compared up to such a step only"]
        return [*lines, "", f"differences without one: {len(self.ours)}"]


def drawn(
    rng: np.random.Generator, run: Run, dtype: str, number: int, name: str | None
) -> Step | None:
    """A step that the values so far allow, of that op or of any; None where the draw found none."""
    live = dict(comparing.tensors(run.there))
    drawer = Drawer(rng, dtype, live)
    drawer.careless = drawer.chance(0.03)
    name = name or named(rng, fresh=len(live) < 3)
    entry = OPS[name]
    try:
        inputs, options = entry.draw(drawer)
    except (UnfitError, IndexError, TypeError, ValueError):  # the others: a careless draw
        return None
    often = 0.7 if entry.op.kind == "write" else 0.05
    return Step(entry.op, name, f"x{number}", tuple(inputs), options, drawer.chance(often))


def named(rng: np.random.Generator, fresh: bool) -> str:
    """An op by its share; a fresh program first makes tensors."""
    groups = [group for group, _ in GROUPS.values()]
    shares = np.array([share for _, share in GROUPS.values()])
    if fresh:
        shares[1:] = 0
    group = groups[rng.choice(len(groups), p=shares / shares.sum())]
    weights = np.array([entry.share for entry in group.values()])
    return list(group)[rng.choice(len(weights), p=weights / weights.sum())]


def program(seed: int) -> tuple[Run, str]:
    """Draw a program step by step, and run it."""
    rng = np.random.default_rng(seed)
    dtype = str(rng.choice(FLOATS, p=(0.4, 0.4, 0.2)))
    run = Run()
    length = int(rng.integers(*LENGTH))
    for number in range(3 * length):
        if run.over:
            break
        last = len(run.steps) >= length
        step = drawn(rng, run, dtype, number, "backward of several" if last else None)
        if step is not None:
            run.do(step)
        if last:
            break
    if not run.over:
        run.look_at_all()
    return run, dtype


def off(seed: int) -> bool:
    """Whether a program runs without kernels: one in four."""
    return seed % 4 == 3


def several(start: int, stop: int) -> Summary:
    """The programs of these seeds."""
    summary = Summary()
    for seed in range(start, stop):
        summary.programs += 1
        try:
            with np.errstate(all="ignore"), kernels.off() if off(seed) else nullcontext():
                compare(seed, summary)
        except Exception:  # of the comparison: the other programs still run
            summary.ours.append((seed, f"# the comparison failed\n{traceback.format_exc()}"))
    return summary


def compare(seed: int, summary: Summary) -> None:
    """One program, and what came of it."""
    run, dtype = program(seed)
    summary.dtypes[dtype] += 1
    summary.ops.update(step.name for step in run.steps)
    summary.reasons.update(run.reasons)
    summary.both_raised += run.both_raised
    summary.cut += run.over and not run.difference
    if run.difference:
        steps = shrunk(run.tried, run.difference)
        again = replayed(steps)
        summary.ours.append((seed, printed(steps, again if again.difference else run)))


def apart(start: int, stop: int) -> Summary:
    """The programs of these seeds in a process of their own; one that crashes is a difference."""
    try:
        with ProcessPoolExecutor(1, get_context("fork"), quiet) as process:
            return process.submit(several, start, stop).result()
    except BrokenProcessPool:
        if stop - start == 1:
            return Summary(programs=1, ours=[(start, "# the process crashed")])
        middle = (start + stop) // 2
        summary = apart(start, middle)
        summary.join(apart(middle, stop))
        return summary


def quiet() -> None:
    """One thread for each process, and no warnings: of both libraries, about programs drawn."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    compiled.unavailable()  # builds the kernels
    with rounding.Noise(0):  # the first use imports a thousand modules: once, before any fork
        torch.ones(1)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.programs")
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", action="store_true", help="print the program of --seed")
    options = parser.parse_args()
    quiet()
    if options.only:
        run, _ = program(options.seed)
        print(runnable(run.tried, HERE), runnable(run.tried, TORCH), sep="\n\n# ----\n")
        return 0
    start = time.perf_counter()
    total = Summary()
    last = options.seed + options.programs
    starts = range(options.seed, last, PIECE)
    stops = [min(last, begin + PIECE) for begin in starts]
    with ThreadPoolExecutor(options.processes) as pool:
        for summary in pool.map(apart, starts, stops):
            total.join(summary)
            for seed, text in summary.ours:
                print(f"# seed {seed}\n{text}\n", flush=True)
            if sys.stderr.isatty():
                print(f"\r{total.programs:,}", end="", file=sys.stderr, flush=True)
    print("\n".join(total.lines()))
    print(f"{time.perf_counter() - start:.0f} s")
    return int(bool(total.ours))


if __name__ == "__main__":
    sys.exit(main())
