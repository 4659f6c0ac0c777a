"""Sums of columns on the GPU: what calls sums.cu."""

from __future__ import annotations

from collections.abc import Sequence

from tensor.dtypes import DType
from tensor.kernels.cuda.launch import Source, contiguous, empty, wide, width_of
from tensor.memory.devices import Array

SUMS = Source("sums.cu", "columns.cuh")
STACK = 8  # rows of threads in a block, as in columns.cuh
BLOCKS = 1056  # at once: eight for each of an H200's 132 multiprocessors


def column_sums(x: Array, out: Array | None = None, add: bool = False) -> Array:
    """The sums of the columns, in float32 (float64 for float64).   rows: (N, C)

    out: (C,), of the dtype of the rows or of the sums: the sums are written there, with `add` added
    to what is there. The same bits every time.
    """
    x = contiguous(x)
    C = x.shape[-1]
    N = x.size // max(C, 1)
    if out is None:
        out, add = empty((C,), wide(x.dtype)), False
    width = width_of(C, x)
    grid, lines = stripes(N, C, width, x.dtype)
    SUMS.launch("column_lines", grid, (32, STACK), x, lines, N, C, width=width)
    add_lines(lines, (out,), (add,))
    return out


def stripes(
    N: int, C: int, width: int, dtype: DType, blocks: int = BLOCKS
) -> tuple[tuple[int, int], Array]:
    """(the grid of a kernel that leaves lines of column sums, memory for those lines)

    blocks: how many run at once
    """
    across = -(-C // (32 * width))
    shares = max(1, min(blocks // across, N // (4 * STACK)))
    return (across, shares), empty((1, shares, C), wide(dtype))


def add_lines(lines: Array, outs: Sequence[Array], adds: Sequence[bool]) -> None:
    """Add up the lines of each result into `out`, or onto it.   lines: (results, count, C), one or
    two results   outs: (C,) each
    """
    results, count, C = lines.shape
    grid = -(-C // 32), results
    sizes = count, C, adds[0], adds[-1]
    outs = outs[0], outs[-1]
    SUMS.launch("add_lines", grid, (32, 32), lines, *outs, *sizes, dtype=outs[0].dtype)
