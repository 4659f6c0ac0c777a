"""Layer normalisation on the GPU: what calls layer_norm.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.kernels import kernel_for
from tensor.kernels.cuda.launch import C_TYPES, Source, contiguous, wide
from tensor.memory.devices import Array

NORMS = Source("layer_norm.cu")
WARPS = 8  # rows a block
CHUNK = 256  # rows that one line of partial column sums covers


def _supports(x: Array, gain: Array, bias: Array, **_: float) -> str | None:
    if x.dtype not in C_TYPES or gain.dtype != x.dtype or bias.dtype != x.dtype:
        return f"dtypes {x.dtype}, {gain.dtype}, {bias.dtype}: one float type is needed"
    if x.ndim == 0 or x.size == 0 or gain.shape != x.shape[-1:] or bias.shape != gain.shape:
        return f"shapes {x.shape}, {gain.shape}, {bias.shape}"
    few = x.size < 2**31 * 32 and x.shape[-1] < 2**31
    return None if few else "more elements than an int counts"


@kernel_for("layer_norm", device="cuda", supports=_supports)
def layer_norm_by_warp(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> Any:
    """One warp a row; mean and 1 / std are kept for backward, in float32 (float64 for float64)."""
    x, gain, bias = contiguous(x), contiguous(gain), contiguous(bias)
    rows, columns = x.size // x.shape[-1], x.shape[-1]
    y, kept = np.empty_like(x), np.empty_like(x, shape=(2, rows), dtype=wide(x.dtype))
    small = np.full_like(kept, eps, shape=(1,))
    grid, block = (-(-rows // WARPS),), (32, WARPS)
    NORMS.launch("layer_norm_forward", grid, block, x, gain, bias, y, *kept, small, rows, columns)

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dy, dx = contiguous(dy), np.empty_like(x)
        NORMS.launch("layer_norm_backward", grid, block, dy, x, gain, *kept, dx, rows, columns)
        chunks = -(-columns // 32), -(-rows // CHUNK)
        partial = np.empty_like(kept, shape=(2, chunks[1], columns))
        sizes = rows, columns, CHUNK
        NORMS.launch("layer_norm_columns", chunks, (32, 8), dy, x, *kept, *partial, *sizes)
        dgain, dbias = partial.sum(1).astype(x.dtype)
        return dx, dgain, dbias

    return y, backward
