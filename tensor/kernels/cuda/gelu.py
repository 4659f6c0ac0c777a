"""GELU on the GPU: what calls gelu.cu."""

from __future__ import annotations

from typing import Any

from tensor.kernels import kernel_for
from tensor.kernels.cuda.launch import C_TYPES, Source, contiguous, empty, width_of
from tensor.kernels.cuda.sums import STACK, add_lines, stripes
from tensor.memory.devices import Array

GELU = Source("gelu.cu", "gelu.cuh", "columns.cuh")
THREADS = 256
BLOCKS = 528  # with sums, at once: four for each of an H200's 132 multiprocessors


def gelu_of(x: Array) -> Array:
    """y = gelu(x), in x's shape, row-major."""
    x = contiguous(x)
    y = empty(x.shape, x.dtype)
    _each("gelu_forward", x, y)
    return y


def gelu_backward(dy: Array, x: Array) -> Array:
    """dx of y = gelu(x)."""
    dy, x = contiguous(dy), contiguous(x)
    dx = empty(x.shape, x.dtype)
    _each("gelu_backward", dy, x, dx)
    return dx


def gelu_backward_sums(
    dy: Array, x: Array, out: Array | None = None, add: bool = False
) -> tuple[Array, Array]:
    """(dx of y = gelu(x), the sums of dx over all axes but the last), in one pass. The sums are of
    dx before it is rounded; they are written into `out`, or added to it.   out: (C,)
    """
    dy, x = contiguous(dy), contiguous(x)
    C = x.shape[-1]
    N = x.size // C
    dx = empty(x.shape, x.dtype)
    if out is None:
        out, add = empty((C,), x.dtype), False
    width = width_of(C, dy, x, dx)
    grid, lines = stripes(N, C, width, x.dtype, BLOCKS)
    block = 32, STACK
    GELU.launch("gelu_backward_lines", grid, block, dy, x, dx, lines, N, C, width=width)
    add_lines(lines, (out,), (add,))
    return dx, out


def _each(kernel: str, *arrays: Array) -> None:
    """Run a kernel that has a thread for each pack."""
    count = arrays[0].size
    width = width_of(count, *arrays)
    grid = (-(-count // (width * THREADS)),)
    GELU.launch(kernel, grid, (THREADS,), *arrays, count, width=width)


def _supports(x: Array, form: str = "tanh") -> str | None:
    if x.dtype not in C_TYPES or x.size == 0:
        return f"dtype {x.dtype}, shape {x.shape}"
    return None if form == "tanh" else f"form {form!r}: the kernel has the tanh form alone"


@kernel_for("gelu", device="cuda", supports=_supports)
def gelu_by_packs(x: Array, form: str = "tanh") -> Any:
    """16 bytes a thread; x alone is kept for backward."""
    return gelu_of(x), (lambda dy: gelu_backward(dy, x),)
