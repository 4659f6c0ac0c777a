"""Softmax and its logarithm, over one axis, shifted by the maximum so that e^x cannot overflow."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.memory.devices import Array, is_cuda
from tensor.memory.layout import normalise_axis
from tensor.ops.op import check_float, compute_op


def softmax_array(x: Array, axis: int) -> Array:
    """e^(x - m) / sum e^(x - m), m the maximum. A row of nothing but -inf gives zeros, not NaN."""
    if x.size == 0:
        normalise_axis(axis, x.ndim)  # raises, as NumPy does for a full tensor
        return x.copy()
    m = x.max(axis=axis, keepdims=True)
    y = np.exp(x - np.where(np.isneginf(m), 0, m))
    total = y.sum(axis=axis, keepdims=True)
    return y / np.where(total == 0, 1, total)


@compute_op
def softmax(x: Array, axis: int = -1) -> Any:
    """y_i = e^x_i / sum_j e^x_j,   dx = y (dy - sum_j y_j dy_j).   A row of nothing but -inf gives
    zeros and gradient 0.
    """
    check_float("softmax", x)
    y = softmax_array(x, axis)
    return y, (lambda dy: y * (dy - (y * dy).sum(axis=axis, keepdims=True)),)


@compute_op
def log_softmax(x: Array, axis: int = -1) -> Any:
    """y_i = x_i - ln sum_j e^x_j,   dx = dy - softmax(x) sum_j dy_j.   A row of nothing but -inf
    stays so, with gradient 0: the logarithm of softmax's zeros.
    """
    check_float("log_softmax", x)
    if x.size == 0:
        normalise_axis(axis, x.ndim)
        return x.copy(), (lambda dy: dy,)
    m = x.max(axis=axis, keepdims=True)
    shifted = x - np.where(np.isfinite(m), m, 0)
    total = np.exp(shifted).sum(axis=axis, keepdims=True)
    nothing = total == 0
    y = shifted - np.log(np.where(nothing, 1, total))

    def dx(dy: Array) -> Array:
        gradient = dy - np.exp(y) * dy.sum(axis=axis, keepdims=True)
        return np.where(nothing, 0, gradient) if is_cuda(dy) or nothing.any() else gradient

    return y, (dx,)
