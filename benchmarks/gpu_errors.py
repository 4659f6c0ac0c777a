"""Errors of every op in NumPy and on a GPU, against float64.

    python benchmarks/gpu_errors.py                  # writes benchmarks/gpu_errors.md
    python benchmarks/gpu_errors.py --only gelu      # prints some lines

The calls are those of `python -m tensor.gradcheck`, every op in several shapes. float64 and float32
run in all seven memory layouts (C, F, permuted, step 2, negative step, expanded, offset slice), 16
bits in C. An error is the largest difference to the float64 result of NumPy, over the largest
number of all results, or of all gradients, of the call. It is given in eps of the dtype: 2^-52,
2^-23, 2^-10, 2^-7. One rounding is 0.5 eps. The inputs are rounded to the dtype first, so their
rounding is no error. The gradients that come from above are random float64 numbers, and their
rounding counts: up to 0.5 eps.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import ml_dtypes
import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1]))
from gpu_ours import versions

from tensor import kernels
from tensor.dtypes import as_dtype
from tensor.gradient_cases import CASES
from tests.helpers.agreement import Fact, Facts, largest, layouts_of, of_case

PAGE = Path(__file__).with_suffix(".md")
DTYPES = ["float64", "float32", "float16", "bfloat16"]
HEAD = """# Errors of NumPy and of a GPU

Made by `python benchmarks/gpu_errors.py`, which says what is measured. Values, then gradients, in
eps of the largest number of all results, or of all gradients; the layout is the one with the
largest error on the GPU.

{versions}

| op | dtype | NumPy | GPU, kernels off | GPU, kernels on | layout |
|---|---|---|---|---|---|
"""


class Worst(NamedTuple):
    """The largest errors of an op in one dtype, in eps, and the layout of the largest."""

    value: float = 0.0
    gradient: float = 0.0
    layout: str = "C"

    def with_case(self, value: float, gradient: float, layout: str) -> Worst:
        worse = max(value, gradient) > max(self.value, self.gradient)
        return Worst(
            max(value, self.value),
            max(gradient, self.gradient),
            layout if worse else self.layout,
        )

    def __str__(self) -> str:
        return f"{self.value:.2g}, {self.gradient:.2g}"


def error(found: Fact | str, exact: Fact | str, scale: float) -> float:
    """The largest difference, over `scale`. Infinite where one raised and the other did not, or one
    is finite and the other not.
    """
    if isinstance(found, str) or isinstance(exact, str):
        return 0.0 if isinstance(found, str) and isinstance(exact, str) else np.inf
    x, right = found.values.astype(np.float64), exact.values.astype(np.float64)
    finite = np.isfinite(right)
    if x.shape != right.shape or not np.array_equal(x[~finite], right[~finite], equal_nan=True):
        return np.inf
    if not np.isfinite(x[finite]).all():
        return np.inf
    return float(np.abs(x - right)[finite].max(initial=0) / scale)


def errors(found: Facts, exact: Facts, eps: float) -> tuple[float, float]:
    """(of the results, of the gradients), each in eps of the largest of its kind: a gradient may
    cancel to nearly 0.
    """
    if list(found) != list(exact):
        return np.inf, np.inf
    worst = []
    for kind in (False, True):
        names = [name for name in exact if name.startswith("gradient") is kind]
        scale = eps * largest(exact[name] for name in names)
        worst.append(max((error(found[name], exact[name], scale) for name in names), default=0.0))
    return worst[0], worst[1]


def rows_of(name: str, device: str) -> list[tuple[str, list[Worst]]]:
    """For each dtype the worst of NumPy, of the GPU without kernels, and with them."""
    rows = []
    for dtype in DTYPES:
        eps, worst = float(ml_dtypes.finfo(as_dtype(dtype)).eps), [Worst()] * 3
        for case in (case for case in CASES if case.op == name):
            for layout in layouts_of(case, dtype):
                exact = of_case(case, layout, dtype, "cpu", exact=True)
                found = [of_case(case, layout, dtype, "cpu"), {}, {}]
                with kernels.off():
                    found[1] = of_case(case, layout, dtype, device)
                found[2] = of_case(case, layout, dtype, device)
                for i, facts in enumerate(found):
                    worst[i] = worst[i].with_case(*errors(facts, exact, eps), layout)
        rows.append((dtype, worst))
    return rows


def lines_of(name: str, device: str) -> str:
    """The lines of the table for one op."""
    with np.errstate(all="ignore"):
        return "".join(
            f"| {name} | {dtype} | {' | '.join(map(str, worst))} | {worst[2].layout} |\n"
            for dtype, worst in rows_of(name, device)
        )


def table(names: Iterable[str], device: str, processes: int) -> str:
    """Markdown. CuPy compiles thousands of small kernels meanwhile, so processes share the work."""
    names = list(names)
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        known = ", ".join(f"{name} {text}" for name, text in versions(device).items())
        return HEAD.format(versions=known) + "".join(
            pool.map(lines_of, names, [device] * len(names))
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = sorted({case.op for case in CASES})
    parser.add_argument("--only", nargs="+", choices=known, metavar="OP", help="of all ops")
    parser.add_argument("--device", default="cuda", help="cpu tries the program (%(default)s)")
    parser.add_argument("--processes", type=int, default=min(15, os.cpu_count() or 1))
    options = parser.parse_args()
    text = table(options.only or known, options.device, options.processes)
    print(text, end="")
    if not options.only and options.device != "cpu":
        PAGE.write_text(text)
    return int("inf" in text)


if __name__ == "__main__":
    sys.exit(main())
