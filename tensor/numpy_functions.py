"""NumPy's functions that have an op of the same meaning: `np.var(x)` of a tensor calls `var` here.

The signatures are NumPy's, without arguments such as `out=`, `where=` and `dtype=`, which are
refused in words. A docstring says where a function does less than NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensor import ops
from tensor.base import TensorBase
from tensor.errors import ArgumentError, DTypeError, OptionError, ShapeError, brief
from tensor.memory.layout import normalise_axis
from tensor.ops.inputs import REALS

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def numpys(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the function under its own name and others."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        for name in (function.__name__.strip("_"), *names):
            FUNCTIONS[name] = brief(function)
        return function

    return register


def _tensor(a: Any) -> Any:
    return TensorBase.wrap(a)


# -- reductions


def _reduction(name: str, *names: str) -> None:
    op = ops.OPS[name]

    def reduced(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        return op(a, axis=axis, keepdims=keepdims)

    reduced.__name__ = reduced.__qualname__ = name
    reduced.__doc__ = op.__doc__
    numpys(*names)(reduced)


for _name in ["sum", "mean", "any", "all", "argmax", "argmin"]:
    _reduction(_name)
_reduction("max", "amax")
_reduction("min", "amin")


@numpys()
def var(
    a: Any,
    axis: Any = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
) -> Any:
    """y = sum (a - mean)^2 / (n - ddof), n the number of elements over the axes. `correction` is
    another name of `ddof`. Raises ShapeError unless n > ddof.
    """
    return ops.var(a, axis, keepdims, _correction(ddof, correction))


@numpys()
def std(
    a: Any,
    axis: Any = None,
    *,
    ddof: float = 0,
    correction: float | None = None,
    keepdims: bool = False,
) -> Any:
    """y = sqrt(var), with the arguments of `var`."""
    return ops.std(a, axis, keepdims, _correction(ddof, correction))


def _correction(ddof: float, correction: float | None) -> float:
    """The value of the name that was given. As in NumPy, ddof=0 counts as not given."""
    if correction is None:
        return ddof
    if ddof:
        raise ArgumentError(f"ddof={ddof} and correction={correction} mean the same: give one")
    return correction


@numpys()
def average(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The mean: without weights."""
    return ops.mean(a, axis, keepdims)


@numpys()
def ptp(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """y = max - min over the axes: peak to peak. Equal extremes share the gradient equally."""
    return ops.max(a, axis, keepdims) - ops.min(a, axis, keepdims)


@numpys()
def cumsum(a: Any, axis: int | None = None) -> Any:
    """y_i = a_0 + ... + a_i along `axis`, or of the flattened tensor if `axis` is None."""
    return ops.cumsum(ops.flatten(a), 0) if axis is None else ops.cumsum(a, axis)


@numpys()
def trace(a: Any, offset: int = 0) -> Any:
    """The sum of `diagonal`, with the arguments of `diagonal`."""
    return ops.sum(diagonal(a, offset), -1)


# -- choices


@numpys()
def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    """y = min(max(a, a_min), a_max). None is no bound. The bounds may be named `min` and `max` too.

    An element that equals a bound gets the whole gradient if both bounds are Python's numbers or
    None, else half of the gradient.
    """
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    if all(bound is None or type(bound) in REALS for bound in (low, high)):
        return ops.clip(a, low, high)
    a = a if low is None else ops.maximum(a, low)
    return a if high is None else ops.minimum(a, high)


@numpys()
def where(condition: Any, *choices: Any) -> Any:
    """where(condition, a, b): a where the condition is True, else b.

    where(condition): the places where the condition is True, as np.nonzero returns them. Each axis
    has one NumPy array of places.
    """
    return ops.where(condition, *choices) if choices else np.nonzero(_tensor(condition).numpy())


@numpys()
def take(a: Any, indices: Any, axis: int | None = None, *, mode: str = "raise") -> Any:
    """y = a[indices] along `axis`, or of the flattened tensor if `axis` is None. Raises DTypeError
    if the indices are bools. The modes "clip" and "wrap" are missing.
    """
    if mode != "raise":
        instead = "np.clip(indices, 0, n - 1) clips, np.mod(indices, n) wraps"
        raise OptionError(f"np.take with mode={mode!r}: only 'raise' is here. {instead}")
    a = ops.flatten(a) if axis is None else _tensor(a)
    if _tensor(indices).dtype == bool:
        raise DTypeError("np.take takes positions: x[mask] takes what a mask of bools says")
    return a[(slice(None),) * normalise_axis(axis or 0, a.ndim) + (indices,)]


@numpys()
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    """y[..., i, ...] = arr[..., indices[..., i, ...], ...] along `axis`; None flattens arr first.
    Raises ShapeError unless arr and indices have equally many axes.
    """
    return ops.gather(ops.flatten(arr) if axis is None else arr, indices, axis or 0)


@numpys()
def diagonal(a: Any, offset: int = 0) -> Any:
    """Diagonal `offset` of a matrix: a copy, where NumPy returns a view. offset=1 is the diagonal
    above the main one. axis1 and axis2 are missing: more than two axes are refused.
    """
    a = _tensor(a)
    if a.ndim != 2:
        raise ShapeError(f"the diagonal of shape {a.shape}: two axes are needed")
    count = len(np.diagonal(np.broadcast_to(0, a.shape), offset))
    places = np.arange(count)
    return a[places + max(-offset, 0), places + max(offset, 0)]


@numpys()
def tril(m: Any, k: int = 0) -> Any:
    """m with 0 above diagonal k of the last two axes; k=1 is the diagonal above the main one.
    A vector counts as every row of a square matrix: (N,) -> (N, N).
    """
    return ops.masked_fill(m, ~_triangle(m, k), False)  # the zero of every dtype, bool too


@numpys()
def triu(m: Any, k: int = 0) -> Any:
    """m with 0 below diagonal k of the last two axes; k and a vector as in `tril`."""
    return ops.masked_fill(m, _triangle(m, k - 1), False)


def _triangle(m: Any, k: int) -> Any:
    """True on and below the k-th diagonal of the last two axes; a vector counts as every row."""
    shape = _tensor(m).shape
    if not shape:
        raise ShapeError(f"np.tril and np.triu of shape {shape}: at least one axis is needed")
    rows, columns = (shape * 2)[-2:]
    return np.tri(rows, columns, k, bool)


# -- products


@numpys()
def dot(a: Any, b: Any) -> Any:
    """y = a * b if a or b is a number, else y = a @ b, where b has two axes at most."""
    a, b = _tensor(a), _tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if b.ndim > 2:
        raise ShapeError(f"np.dot of {a.shape} and {b.shape}: a matrix at most; use @ for stacks")
    return a @ b


@numpys()
def inner(a: Any, b: Any) -> Any:
    """y = a * b if a or b is a number, else y = a @ b.T, where b has two axes at most: the sum
    over both last axes.
    """
    a, b = _tensor(a), _tensor(b)
    return dot(a, b.T if a.ndim else b)


@numpys()
def outer(a: Any, b: Any) -> Any:
    """y[i, j] = a[i] b[j], both flattened."""
    return ops.flatten(a)[:, None] * ops.flatten(b)


@numpys()
def vdot(a: Any, b: Any) -> Any:
    """y = sum a[i] b[i], both flattened: a scalar. Raises ShapeError unless the sizes are equal."""
    return ops.flatten(a) @ ops.flatten(b)


@numpys()
def vecdot(x1: Any, x2: Any) -> Any:
    """y = sum x1 x2 over the last axis; the other axes broadcast. Raises ShapeError unless both
    last axes have one size. axis= is missing.
    """
    a, b = _tensor(x1), _tensor(x2)
    if a.shape[-1:] != b.shape[-1:]:
        raise ShapeError(f"np.vecdot of {a.shape} and {b.shape}: the last axes differ")
    return ops.sum(a * b, -1)


@numpys()
def matmul(x1: Any, x2: Any) -> Any:
    """y = x1 @ x2: (..., M, K), (..., K, N) -> (..., M, N). The leading axes broadcast."""
    return ops.matmul(x1, x2)


# -- ufuncs; the others have the names of ops

UFUNCS: dict[str, Callable[..., Any]] = {
    "absolute": ops.abs,
    "fabs": ops.abs,
    "true_divide": ops.divide,
    "square": lambda x: x * x,
    "reciprocal": lambda x: 1 / x,
    "positive": lambda x: x,
    "conjugate": lambda x: x,
    "exp2": lambda x: 2.0**x,
    "log2": lambda x: ops.log(x) / np.log(2),
    "log10": lambda x: ops.log(x) / np.log(10),
    "degrees": lambda x: x * (180 / np.pi),
    "rad2deg": lambda x: x * (180 / np.pi),
    "radians": lambda x: x * (np.pi / 180),
    "deg2rad": lambda x: x * (np.pi / 180),
    "vecdot": vecdot,
}
