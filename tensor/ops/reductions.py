"""Sums and their kind, over one axis, several (a tuple) or all (None). float16 and bfloat16 are
summed in float32.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensor.dtypes import float64
from tensor.errors import ArgumentError, ShapeError
from tensor.memory.devices import Array
from tensor.memory.layout import Shape, normalise_axes, normalise_axis
from tensor.ops.op import check_float, compute_op, reference_of
from tensor.ops.wider import in_float64, overflowed, squares_lost

Axis = Any  # an int, a tuple of ints, or None for all axes


@compute_op
def sum(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """y = sum of x over the axes;   dx = dy, repeated along them."""
    axes, shape = _axes(x, axis, keepdims), x.shape
    return total(x, axes, keepdims), (
        lambda dy: np.broadcast_to(dy if keepdims else np.expand_dims(dy, axes), shape),
    )


@compute_op
def mean(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """y = sum of x / n, n the number of elements summed;   dx = dy / n, repeated.   Integers give
    floats.
    """
    axes, count = _over(x, axis, keepdims, "mean")
    shape = x.shape

    def dx(dy: Array) -> Array:
        share = dy / count
        return np.broadcast_to(share if keepdims else np.expand_dims(share, axes), shape)

    return total(x, axes, keepdims, count), (dx,)


def total(x: Array, axes: Shape | None = None, keepdims: bool = False, count: Any = None) -> Any:
    """sum of x / count; in float64 where float32 overflows on the way: [3e38, 3e38, -3e38]."""
    y = x.sum(axis=axes, keepdims=keepdims)
    lost = overflowed(y)
    if count is not None:
        y = y / count
    if lost:
        wide = x.sum(axis=axes, keepdims=keepdims, dtype=float64)
        y = np.where(np.isfinite(y), y, wide if count is None else wide / count).astype(x.dtype)
    return y


def _axes(x: Array, axis: Axis, keepdims: bool) -> Shape:
    """The axes of a reduction. Raises ArgumentError for a second axis in the place of keepdims."""
    if keepdims is not True and keepdims is not False:
        tip = f". Two axes are a tuple: axis=({axis}, {keepdims})" if isinstance(axis, int) else ""
        raise ArgumentError(f"keepdims={keepdims!r} is neither True nor False{tip}")
    return normalise_axes(axis, x.ndim)


def _over(x: Array, axis: Axis, keepdims: bool, name: str) -> tuple[Shape, int]:
    """(the axes, the number of elements summed). Raises ShapeError for none."""
    axes = _axes(x, axis, keepdims)
    count = math.prod(x.shape[axis] for axis in axes)
    if count == 0:
        raise ShapeError(f"`{name}` over no elements: shape {x.shape}, axes {axes}")
    return axes, count


@compute_op
def var(x: Array, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Any:
    """y = sum (x - mean)^2 / (n - correction);   dx = 2 (x - mean) dy / (n - correction).
    correction=0 is NumPy's default; correction=1 is PyTorch's, the sample variance.
    """
    axes, centred, count = _centre(x, axis, keepdims, correction, "var")
    y = (centred * centred).sum(axis=axes, keepdims=keepdims) / count
    if squares_lost(y):
        return in_float64(reference_of("var"), x, axes, keepdims, correction=correction)
    return y, (lambda dy: centred * (2 / count * (dy if keepdims else np.expand_dims(dy, axes))),)


@compute_op
def std(x: Array, axis: Axis = None, keepdims: bool = False, correction: float = 0) -> Any:
    """y = sqrt(var);   dx = (x - mean) dy / ((n - correction) y), and 0 where y is 0.
    correction=0 is NumPy's default; correction=1 is PyTorch's, of the sample variance.
    """
    axes, centred, count = _centre(x, axis, keepdims, correction, "std")
    squares = (centred * centred).sum(axis=axes, keepdims=True) / count
    if squares_lost(squares):
        return in_float64(reference_of("std"), x, axes, keepdims, correction=correction)
    y = np.sqrt(squares)
    return y if keepdims else y.squeeze(axes), (
        lambda dy: centred * (dy.reshape(y.shape) / (count * np.where(y == 0, 1, y))),
    )


def _centre(
    x: Array, axis: Axis, keepdims: bool, correction: float, name: str
) -> tuple[Shape, Array, float]:
    """(the axes, x minus its mean, the divisor n - correction). The mean is taken from the first
    element, so that equal elements give exactly 0.
    """
    axes, size = _over(x, axis, keepdims, name)
    if size <= correction:
        raise ShapeError(
            f"`{name}` of {size} element{'s' if size > 1 else ''} with correction={correction}: "
            f"needs more than {correction}"
        )
    first = x[tuple(slice(1 if i in axes else None) for i in range(x.ndim))]
    shifted = x - 1.0 * first  # 1.0: as floats, for integers too
    return axes, shifted - shifted.sum(axis=axes, keepdims=True) / size, size - correction


def _extreme(x: Array, axis: Axis, keepdims: bool, name: str) -> Any:
    """max or min: the elements that equal it share its gradient. NaN is the extreme of all."""
    axes, _ = _over(x, axis, keepdims, name)
    y = getattr(x, name)(axis=axes, keepdims=True)

    def dx(dy: Array) -> Array:
        chosen = (x == y) | (x != x)
        return chosen * (
            dy.reshape(y.shape) / chosen.sum(axis=axes, keepdims=True).astype(dy.dtype)
        )

    return y.copy() if keepdims else y.squeeze(axes), (dx,)


@compute_op
def max(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """The largest value over the axes; equal largest elements share the gradient equally, and so
    do NaNs. The result has no indices: `values, indices = x.max(1), x.argmax(1)`.
    """
    return _extreme(x, axis, keepdims, "max")


@compute_op
def min(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """The smallest value over the axes; equal smallest elements share the gradient equally, and so
    do NaNs. The result has no indices: `values, indices = x.min(1), x.argmin(1)`.
    """
    return _extreme(x, axis, keepdims, "min")


@compute_op
def argmax(x: Array, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the largest value is (the first, at a tie), as an integer; over the flattened tensor
    when axis is None. No gradient.
    """
    _axes(x, axis, keepdims)
    return x.argmax(axis=axis, keepdims=keepdims), None


@compute_op
def argmin(x: Array, axis: int | None = None, keepdims: bool = False) -> Any:
    """Where the smallest value is (the first, at a tie), as an integer. No gradient."""
    _axes(x, axis, keepdims)
    return x.argmin(axis=axis, keepdims=keepdims), None


@compute_op
def any(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether an element over the axes is not 0, as a bool. No gradient."""
    return x.any(axis=_axes(x, axis, keepdims), keepdims=keepdims), None


@compute_op
def all(x: Array, axis: Axis = None, keepdims: bool = False) -> Any:
    """Whether no element over the axes is 0, as a bool. No gradient."""
    return x.all(axis=_axes(x, axis, keepdims), keepdims=keepdims), None


@compute_op
def logsumexp(x: Array, axis: Axis = -1, keepdims: bool = False) -> Any:
    """y = ln sum e^x = m + ln sum e^(x - m), m the maximum;   dx = softmax(x) dy.   All -inf gives
    -inf and gradient 0.
    """
    check_float("logsumexp", x)
    axes, _ = _over(x, axis, keepdims, "logsumexp")
    m = x.max(axis=axes, keepdims=True)
    m = np.where(np.isfinite(m), m, 0)  # inf - inf would be NaN
    e = np.exp(x - m)
    total = e.sum(axis=axes, keepdims=True)
    with np.errstate(divide="ignore"):
        y = m + np.log(total)
    return y if keepdims else y.squeeze(axes), (
        lambda dy: e * (dy.reshape(total.shape) / np.where(total == 0, 1, total)),
    )


@compute_op
def cumsum(x: Array, axis: int = -1) -> Any:
    """y_i = x_0 + ... + x_i along an axis;   dx_i = dy_i + ... + dy_last."""
    axis = normalise_axis(axis, x.ndim)
    return _running(x, axis), (lambda dy: np.flip(_running(np.flip(dy, axis), axis), axis),)


def _running(x: Array, axis: int) -> Array:
    """np.cumsum, row-major: CuPy's has its axis last in memory."""
    y = np.cumsum(x, axis)
    return y if y.flags.c_contiguous else y.copy()
