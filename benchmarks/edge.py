"""Errors at the edge: every op against float64, over the whole range of floats.

    python benchmarks/edge.py                 # writes benchmarks/edge.md
    python benchmarks/edge.py --only gelu     # prints some lines

*Functions* (exp, gelu, ...). The inputs are every 4,099th float32, or every bfloat16: all
exponents, both signs, subnormals. The unit is an ulp: the distance of two neighbouring floats at
the exact result, and for a slope at the sum of the sizes of its terms. At most 4 for values, at
most 8 for slopes, the gradients where dy = 1.

*Sums* (mean, softmax, attention, ...). The inputs are random numbers at scales from 1e-38 to 1e38,
also with a mean far from 0. The unit is n eps times the sum of the sizes of the terms, n the length
of the longest axis. At most 1. The exact results are those of the references in float64, whose
gradients `python -m tensor.gradcheck` checks. Products of matrices are not here: BLAS adds in its
own order, and a sum of products may overflow on the way.

A result is compared where the exact one is a normal number of the dtype. There, NaN, infinity, and
0 for a number that is not 0 count as an infinite error.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from edge_functions import FUNCTIONS, OPERATIONS, Error, elementwise_errors, floats, pairs
from edge_sums import SUMS, sum_errors

from tensor import kernels
from tensor.dtypes import bfloat16, float32

BOUNDS = {"functions": (4, 8), "sums": (1, 1)}  # of values, of slopes
PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Errors at the edge

Made by `python benchmarks/edge.py`, which says what is measured. Functions: in ulps, at most 4 for
values and 8 for slopes. Sums: in n eps of the sizes of their terms, at most 1. Where an op has no
kernel, the third column is empty.

| op | dtype | kernels | worst value | worst slope |
|---|---|---|---|---|
"""


def ways(name: str) -> Iterator[tuple[str, str]]:
    """(dtype, whether kernels are on); both only where there are kernels."""
    has_kernel = bool(kernels.KERNELS.get(name.split(",")[0]))
    for dtype in (str(float32), str(bfloat16)):
        yield dtype, "on" if has_kernel else ""
        if has_kernel:
            yield dtype, "off"


def errors_of(name: str, dtype: str, coarseness: int) -> tuple[Error, Error]:
    if name in FUNCTIONS:
        call, exact, terms = FUNCTIONS[name]
        return elementwise_errors(call, exact, (terms,), [floats(dtype, coarseness)])
    if name in OPERATIONS:
        operation, result, *slopes = OPERATIONS[name]
        return elementwise_errors(operation, result, tuple(slopes), pairs(name, dtype, coarseness))
    return sum_errors(*SUMS[name], dtype)


def rows(
    names: list[str], coarseness: int = 1
) -> Iterator[tuple[str, str, str, Error, Error, bool]]:
    """(op, dtype, kernels, worst value, worst slope, whether both are within the bounds)

    coarseness: so many times fewer inputs
    """
    for name in names:
        bounds = BOUNDS["sums" if name in SUMS else "functions"]
        for dtype, on in ways(name):
            with np.errstate(all="ignore"), kernels.off(*(() if on == "off" else ("random_bits",))):
                value, slope = errors_of(name, dtype, coarseness)
            yield name, dtype, on, value, slope, value.size <= bounds[0] and slope.size <= bounds[1]


def shown(error: Error) -> str:
    return f"{error.size:.2g} at {error.where}" if error.size else "0"


def main() -> int:
    parser = argparse.ArgumentParser(description="Errors of every op over the range of floats.")
    known = [*FUNCTIONS, *OPERATIONS, *SUMS]
    parser.add_argument(
        "--only", nargs="+", choices=known, metavar="OP", help=f"of {', '.join(known)}"
    )
    options = parser.parse_args()
    print(HEAD, end="")
    lines, failures = [], 0
    for name, dtype, on, value, slope, fits in rows(options.only or known):
        mark = "" if fits else " too large"
        lines.append(f"| {name} | {dtype} | {on} | {shown(value)} | {shown(slope)}{mark} |")
        print(lines[-1], flush=True)
        failures += not fits
    if not options.only:
        PAGE.write_text(HEAD + "\n".join(lines) + "\n")
    print(f"{failures} lines beyond the bounds", file=sys.stderr)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
