"""A reference in a wider dtype: 16-bit floats in float32, and float32 in float64 where float32
overflows on the way to a result that it can hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tensor.dtypes import NARROW, float32, float64
from tensor.memory.devices import Array, is_cuda

Function: TypeAlias = Callable[..., Any]


def in_float32(function: Function, *arrays: Any, **options: Any) -> tuple[Any, Any]:
    """Run a reference on float16 or bfloat16 arrays in float32, and round its results once; so too
    its gradients.
    """
    narrow = next(x.dtype for x in arrays if getattr(x, "dtype", None) in NARROW)
    return _in_wider(narrow, float32, function, arrays, options)


def in_float64(function: Function, *arrays: Any, **options: Any) -> tuple[Any, Any]:
    """Run a reference on float32 arrays in float64, and round its results once; so too its
    gradients.
    """
    return _in_wider(float32, float64, function, arrays, options)


def _in_wider(
    narrow: Any, wide: Any, function: Function, arrays: Any, options: dict[str, Any]
) -> tuple[Any, Any]:
    narrower = {*NARROW, narrow}

    def widened(x: Any) -> Any:
        return x.astype(wide) if getattr(x, "dtype", None) in narrower else x

    def rounded(y: Any) -> Any:
        return y.astype(narrow) if hasattr(y, "dtype") and y.dtype == wide else y

    def around(x: Any, backward: Function | None) -> Any:
        fitting = rounded if getattr(x, "dtype", narrow) in narrower else widened
        return backward and (lambda dy: fitting(backward(widened(dy))))

    def of_all(*dys: Any) -> tuple[Any, ...]:
        return tuple(map(rounded, backward(*map(widened, dys))))

    y, backward = function(*map(widened, arrays), **options)
    ys = tuple(map(rounded, y)) if isinstance(y, tuple) else rounded(y)
    if isinstance(backward, tuple):
        return ys, tuple(map(around, arrays, backward))
    return ys, backward and of_all


def overflowed(y: Array) -> bool:
    """Whether a float32 array holds something that is not finite. On a GPU False: to look would be
    to wait for the device.
    """
    if y.dtype != float32 or is_cuda(y):
        return False
    if y.ndim == 0:
        return not math.isfinite(y)
    flat = y.ravel()
    # most of the time the sum of squares is finite, and found fast
    return not math.isfinite(flat.dot(flat)) and not bool(np.isfinite(flat).all())


def squares_lost(y: Array) -> bool:
    """Whether a float32 array, made from squares, is beyond what squares in float32 can reach: too
    large, or so small that squares may have vanished. On a GPU False.
    """
    if y.dtype != float32 or is_cuda(y) or y.size == 0:
        return False
    return not (y.min() > 1e-30 and y.max() < math.inf)
