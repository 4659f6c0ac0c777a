"""Layer normalisation."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.errors import ShapeError
from tensor.memory.devices import Array
from tensor.ops.op import compute_op, reference_of
from tensor.ops.wider import in_float64, squares_lost


@compute_op
def layer_norm(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> Any:
    """y = gain * (x - mean) / sqrt(variance + eps) + bias, over the last axis.      Ba et al. 2016,
    eq. 4

    x: (..., C)   gain, bias: (C,)   y: (..., C).   With n = (x - mean) / sqrt(variance + eps) and
    dn = gain * dy:

        dx = (dn - mean(dn) - n * mean(dn * n)) / sqrt(variance + eps),   dgain = sum n * dy,
        dbias = sum dy
    """
    width = x.shape[-1] if x.ndim else 0
    if width == 0 or gain.shape != (width,) or bias.shape != (width,):
        raise ShapeError(
            f"layer_norm of {x.shape}: gain {gain.shape} and bias {bias.shape} must both be "
            f"({width},), and not empty"
        )
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred * centred).mean(-1, keepdims=True) + eps  # (..., 1)
    if squares_lost(variance):
        return in_float64(reference_of("layer_norm"), x, gain, bias, eps=eps)
    inverse_std = 1 / np.sqrt(variance)  # (..., 1)
    normed = centred * inverse_std  # (..., C)

    def backward(dy: Array) -> tuple[Array, Array, Array]:
        rows = tuple(range(dy.ndim - 1))
        dnormed = dy * gain
        dx = inverse_std * (
            dnormed
            - dnormed.mean(-1, keepdims=True)
            - normed * (dnormed * normed).mean(-1, keepdims=True)
        )
        return dx, (dy * normed).sum(rows), dy.sum(rows)

    return normed * gain + bias, backward
