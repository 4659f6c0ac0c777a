"""Layer normalisation on the GPU: what calls layer_norm.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.dtypes import float32, float64
from tensor.kernels import kernel_for
from tensor.kernels.cuda.launch import C_TYPES, contiguous, launch
from tensor.memory.devices import Array

WARPS = 8  # rows a block
CHUNK = 256  # rows that one line of partial column sums covers


def _supports(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> str | None:
    if x.dtype not in C_TYPES or gain.dtype != x.dtype or bias.dtype != x.dtype:
        return f"dtypes {x.dtype}, {gain.dtype}, {bias.dtype}: one float type is needed"
    if x.ndim == 0 or x.size == 0 or gain.shape != x.shape[-1:] or bias.shape != gain.shape:
        return f"shapes {x.shape}, {gain.shape}, {bias.shape}"
    return (
        None if x.size < 2**31 * 32 and x.shape[-1] < 2**31 else "more elements than an int counts"
    )


@kernel_for("layer_norm", device="cuda", supports=_supports)
def layer_norm_by_warp(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> Any:
    """One warp a row; mean and 1 / std are kept for backward, in float32 (float64 for float64)."""
    x, gain, bias = contiguous(x), contiguous(gain), contiguous(bias)
    dtype, wide = x.dtype, float64 if x.dtype == float64 else float32
    columns = x.shape[-1]
    rows = x.size // columns
    y, statistics = np.empty_like(x), np.empty_like(x, shape=(2, rows), dtype=wide)
    mean, inverse_std = statistics
    grid, block, kept = (-(-rows // WARPS),), (32, WARPS), {"mean": wide, "inverse_std": wide}
    small = np.full_like(mean, eps, shape=(1,))
    arguments = {
        "x": x,
        "gain": gain,
        "bias": bias,
        "y": y,
        "mean": mean,
        "inverse_std": inverse_std,
        "eps": small,
        "rows": rows,
        "C": columns,
    }
    launch("layer_norm_forward", dtype, grid, block, arguments, {**kept, "eps": wide})

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        dy, dx = contiguous(dy), np.empty_like(x)
        arguments = {
            "dy": dy,
            "x": x,
            "gain": gain,
            "mean": mean,
            "inverse_std": inverse_std,
            "dx": dx,
            "rows": rows,
            "C": columns,
        }
        launch("layer_norm_backward", dtype, grid, block, arguments, kept)
        chunks = -(-rows // CHUNK)
        partial = np.empty_like(mean, shape=(2, chunks, columns))
        arguments = {
            "dy": dy,
            "x": x,
            "mean": mean,
            "inverse_std": inverse_std,
            "gain_partial": partial[0],
            "bias_partial": partial[1],
        }
        launch(
            "layer_norm_columns",
            dtype,
            (-(-columns // 32), chunks),
            (32, 8),
            {**arguments, "rows": rows, "C": columns, "chunk": CHUNK},
            {**kept, "gain_partial": wide, "bias_partial": wide},
        )
        dgain, dbias = partial.sum(1).astype(dtype)
        return dx, dgain, dbias

    return y, backward
