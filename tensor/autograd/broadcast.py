"""The gradient of broadcasting: where an input was repeated, its gradient is a sum."""

from __future__ import annotations

from collections.abc import Callable

from tensor.dtypes import NARROW, float32
from tensor.memory.devices import Array
from tensor.memory.layout import Shape


def sum_to(shape: Shape) -> Callable[[Array], Array]:
    """Backward of expand: sum over the axes that were repeated. (2, 3, 4) -> (3, 1): over axis 0,
    and over axis 2, which stays with size 1.
    """

    def backward(dy: Array) -> Array:
        if new := dy.ndim - len(shape):
            dy = accumulate(dy, tuple(range(new)), False)
        stretched = tuple(axis for axis, n in enumerate(shape) if n == 1 and dy.shape[axis] != 1)
        return accumulate(dy, stretched, True) if stretched else dy

    return backward


def accumulate(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """x.sum, in float32 for the 16-bit floats: bfloat16 alone would stop counting ones at 256."""
    if x.dtype in NARROW:
        return x.astype(float32).sum(axis=axis, keepdims=keepdims).astype(x.dtype)
    return x.sum(axis=axis, keepdims=keepdims)
