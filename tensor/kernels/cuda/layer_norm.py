"""LayerNorm on the GPU, alone and of a residual sum: what calls layer_norm.cu."""

from __future__ import annotations

import functools
from typing import Any

from tensor.dtypes import float64
from tensor.kernels import kernel_for
from tensor.kernels.cuda.launch import C_TYPES, Source, contiguous, empty, wide, width_of
from tensor.kernels.cuda.sums import add_lines
from tensor.memory.devices import Array

THREADS = 192  # of a block at most
BLOCKS = 132  # of THREADS, in backward: one for each multiprocessor of an H200


def _held(x: Array) -> int:
    """The elements of a row that one thread holds, HELD in layer_norm.cu: as few as a warp needs,
    since fewer registers let more rows run at once.
    """
    most = 12 if x.dtype == float64 else 24
    needed = -(-x.shape[-1] // 32)
    return next((count for count in (4, 12) if needed <= count <= most), most)


@functools.cache
def _norms(held: int) -> Source:
    return Source("layer_norm.cu", HELD=held)


def _width(held: int, *arrays: Array) -> int:
    """V for rows of the first array. Packs of 4 divide any HELD."""
    width = width_of(arrays[0].shape[-1], *arrays)
    return width if held % width == 0 else 4


def _supports(x: Array, gain: Array, bias: Array, **_: float) -> str | None:
    if x.dtype not in C_TYPES or gain.dtype != x.dtype or bias.dtype != x.dtype:
        return f"dtypes {x.dtype}, {gain.dtype}, {bias.dtype}: one float type is needed"
    if x.ndim == 0 or x.size == 0 or gain.shape != x.shape[-1:] or bias.shape != gain.shape:
        return f"shapes {x.shape}, {gain.shape}, {bias.shape}"
    most = THREADS * _held(x)  # of a row that needs more than a warp
    if x.shape[-1] > most:
        return f"rows of {x.shape[-1]} elements: a block holds {most} at most"
    return None if x.size // x.shape[-1] < 2**30 else "2^30 rows or more"


def _supports_residual(x: Array, y: Array, gain: Array, bias: Array, **_: float) -> str | None:
    if x.shape != y.shape or x.dtype != y.dtype:
        return f"shapes {x.shape}, {y.shape}, dtypes {x.dtype}, {y.dtype}"
    return _supports(x, gain, bias)


@kernel_for("layer_norm", device="cuda", supports=_supports)
def layer_norm_in_registers(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> Any:
    """A row is read once. Its mean and its standard deviation are kept for backward."""
    _, y, backward = _norm(x, None, gain, bias, eps)
    return y, backward


@kernel_for("residual_layer_norm", device="cuda", supports=_supports_residual)
def residual_layer_norm_in_registers(
    x: Array, y: Array, gain: Array, bias: Array, *, eps: float = 1e-5
) -> Any:
    """s = x + y and its LayerNorm in one pass. In backward dx is added to the gradient that s has
    already, in one pass too.
    """
    s, n, backward = _norm(x, y, gain, bias, eps)
    return [
        ("add", (0, 1), s, (lambda ds: ds, lambda ds: ds)),
        ("layer_norm", (4, 2, 3), n, backward),
    ]


def _norm(x: Array, addend: Array | None, gain: Array, bias: Array, eps: float) -> Any:
    """(s, its norm, the backward function of the norm)"""
    x, gain, bias = contiguous(x), contiguous(gain), contiguous(bias)
    shape, dtype, columns = x.shape, x.dtype, x.shape[-1]
    rows = x.size // columns
    s, y, held = x, empty(shape, dtype), _held(x)
    kept = empty((2, rows), wide(dtype))  # mean, std
    if addend is None:
        width = _width(held, x, gain, bias)
    else:
        addend, s = contiguous(addend), empty(shape, dtype)
        width = _width(held, x, gain, bias, addend)
    # a row has whole warps; where one is enough for a row, several rows share a block
    lanes = 32 * -(-columns // (32 * held))
    block = lanes, THREADS // 32 if lanes == 32 else 1
    arrays = x, addend, s, gain, bias, y, kept
    grid = (-(-rows // block[1]),)
    norms = _norms(held)
    norms.launch("layer_norm_forward", grid, block, *arrays, eps, rows, columns, width=width)

    def backward(
        dy: Array,
        *,
        out: Any = (None,) * 3,
        add: Any = (False,) * 3,
        plus: Array | None = None,
    ) -> tuple[Array, Array, Array]:
        rows, columns = kept.shape[1], s.shape[-1]
        dy, dx = contiguous(dy), empty(s.shape, s.dtype)
        if plus is None:
            width = _width(held, s, gain, dy)
        else:
            plus = contiguous(plus)
            width = _width(held, s, gain, dy, plus)
        blocks = BLOCKS * THREADS // (block[0] * block[1])
        blocks *= 1 + (s.dtype.itemsize == 2) + (held * kept.itemsize < 96)  # BACKWARD_BLOCKS
        blocks = min(blocks, -(-rows // block[1]))
        lines = empty((2, blocks, columns), kept.dtype)
        arrays = dy, s, gain, kept, plus, dx, lines
        norms.launch("layer_norm_backward", (blocks,), block, *arrays, rows, columns, width=width)
        dgain, dbias = [empty((columns,), s.dtype) if to is None else to for to in out[1:]]
        add_lines(lines, (dgain, dbias), add[1:])
        return dx, dgain, dbias

    return s, y, backward
