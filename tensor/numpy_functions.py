"""NumPy's functions that have an op of the same meaning: `np.var(x)` of a tensor calls `var` here.

The signatures are NumPy's, without arguments such as `out=`, `where=` and `dtype=`, which are
refused in words. A docstring says where a function does less than NumPy's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensor import ops
from tensor.base import TensorBase
from tensor.errors import DTypeError, ShapeError, brief
from tensor.memory.layout import Sizes, normalise_axes, normalise_axis
from tensor.ops.inputs import REALS

FUNCTIONS: dict[str, Callable[..., Any]] = {}


def _numpys(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
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
    _numpys(*names)(reduced)


for _name in ["sum", "mean", "any", "all", "argmax", "argmin"]:
    _reduction(_name)
_reduction("max", "amax")
_reduction("min", "amin")


@_numpys()
def var(
    a: Any, axis: Any = None, *, ddof: float = 0, correction: float = 0, keepdims: bool = False
) -> Any:
    return ops.var(a, axis, keepdims, correction or ddof)


@_numpys()
def std(
    a: Any, axis: Any = None, *, ddof: float = 0, correction: float = 0, keepdims: bool = False
) -> Any:
    return ops.std(a, axis, keepdims, correction or ddof)


@_numpys()
def average(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """The mean: without weights."""
    return ops.mean(a, axis, keepdims)


@_numpys()
def ptp(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return ops.max(a, axis, keepdims) - ops.min(a, axis, keepdims)


@_numpys()
def cumsum(a: Any, axis: int | None = None) -> Any:
    return ops.cumsum(ops.flatten(a), 0) if axis is None else ops.cumsum(a, axis)


@_numpys()
def trace(a: Any) -> Any:
    """The sum of the main diagonal of a matrix."""
    return ops.sum(diagonal(a), -1)


# -- choices


@_numpys()
def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = (a_min if min is None else min), (a_max if max is None else max)
    if all(bound is None or type(bound) in REALS for bound in (low, high)):
        return ops.clip(a, low, high)
    a = a if low is None else ops.maximum(a, low)
    return a if high is None else ops.minimum(a, high)


@_numpys()
def where(condition: Any, *choices: Any) -> Any:
    return ops.where(condition, *choices) if choices else np.nonzero(_tensor(condition).numpy())


@_numpys()
def take(a: Any, indices: Any, axis: int | None = None) -> Any:
    a = ops.flatten(a) if axis is None else _tensor(a)
    if _tensor(indices).dtype == bool:
        raise DTypeError("np.take takes positions: x[mask] takes what a mask of bools says")
    return a[(slice(None),) * normalise_axis(axis or 0, a.ndim) + (indices,)]


@_numpys()
def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Any:
    return ops.gather(ops.flatten(arr) if axis is None else arr, indices, axis or 0)


@_numpys()
def diagonal(a: Any, offset: int = 0) -> Any:
    """Of a matrix only."""
    a = _tensor(a)
    if a.ndim != 2:
        raise ShapeError(f"the diagonal of shape {a.shape}: two axes are needed")
    count = len(np.diagonal(np.broadcast_to(0, a.shape), offset))
    places = np.arange(count)
    return a[places + max(-offset, 0), places + max(offset, 0)]


@_numpys()
def tril(m: Any, k: int = 0) -> Any:
    return ops.masked_fill(m, ~_triangle(m, k), 0)


@_numpys()
def triu(m: Any, k: int = 0) -> Any:
    return ops.masked_fill(m, _triangle(m, k - 1), 0)


def _triangle(m: Any, k: int) -> Any:
    """True on and below the k-th diagonal of the last two axes; a vector counts as every row."""
    shape = _tensor(m).shape
    rows, columns = (shape * 2)[:2] if len(shape) == 1 else shape[-2:]
    return np.tri(rows, columns, k, bool)


# -- products


@_numpys()
def dot(a: Any, b: Any) -> Any:
    """a @ b, or a * b for a number; b has two axes at most."""
    a, b = _tensor(a), _tensor(b)
    if a.ndim == 0 or b.ndim == 0:
        return a * b
    if b.ndim > 2:
        raise ShapeError(f"np.dot of {a.shape} and {b.shape}: a matrix at most; use @ for stacks")
    return a @ b


@_numpys()
def inner(a: Any, b: Any) -> Any:
    a, b = _tensor(a), _tensor(b)
    return dot(a, b.T if a.ndim else b)


@_numpys()
def outer(a: Any, b: Any) -> Any:
    return ops.flatten(a)[:, None] * ops.flatten(b)


@_numpys()
def vdot(a: Any, b: Any) -> Any:
    return ops.flatten(a) @ ops.flatten(b)


def _vecdot(a: Any, b: Any) -> Any:
    a, b = _tensor(a), _tensor(b)
    if a.shape[-1:] != b.shape[-1:]:
        raise ShapeError(f"np.vecdot of {a.shape} and {b.shape}: the last axes differ")
    return ops.sum(a * b, -1)


@_numpys()
def matmul(x1: Any, x2: Any) -> Any:
    return ops.matmul(x1, x2)


# -- shapes


@_numpys()
def reshape(a: Any, shape: Sizes) -> Any:
    return ops.reshape(a, shape)


@_numpys()
def ravel(a: Any) -> Any:
    return ops.flatten(a)


@_numpys("permute_dims")
def transpose(a: Any, axes: Sizes | None = None) -> Any:
    return _tensor(a).T if axes is None else ops.permute(a, axes)


@_numpys()
def matrix_transpose(x: Any) -> Any:
    return _tensor(x).mT


@_numpys()
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    return ops.transpose(a, axis1, axis2)


@_numpys()
def moveaxis(a: Any, source: Sizes, destination: Sizes) -> Any:
    a = _tensor(a)
    # where the axes of a lie in the result: NumPy knows
    order = np.moveaxis(np.empty(range(1, a.ndim + 1)), source, destination).shape
    return ops.permute(a, [size - 1 for size in order])


@_numpys()
def expand_dims(a: Any, axis: int) -> Any:
    return ops.unsqueeze(a, axis)


@_numpys()
def squeeze(a: Any, axis: Sizes | None = None) -> Any:
    return ops.squeeze(a, axis)


@_numpys()
def broadcast_to(array: Any, shape: Sizes) -> Any:
    return ops.expand(array, shape)


def _at_least(count: int) -> None:
    """np.atleast_1d, 2d, 3d: axes of size 1 in front; the third comes last."""
    name = f"atleast_{count}d"

    def padded(*arys: Any) -> Any:
        shaped = [ops.reshape(a, getattr(np, name)(_tensor(a).numpy()).shape) for a in arys]
        return shaped[0] if len(shaped) == 1 else tuple(shaped)

    padded.__name__ = padded.__qualname__ = name
    _numpys()(padded)


for _count in (1, 2, 3):
    _at_least(_count)


@_numpys()
def copy(a: Any) -> Any:
    return ops.clone(a)


@_numpys()
def flip(m: Any, axis: Sizes | None = None) -> Any:
    m = _tensor(m)
    turned = normalise_axes(axis, m.ndim)
    return m[tuple(slice(None, None, -1 if a in turned else 1) for a in range(m.ndim))]


@_numpys()
def flipud(m: Any) -> Any:
    return flip(m, 0)


@_numpys()
def fliplr(m: Any) -> Any:
    return flip(m, 1)


# -- several tensors


@_numpys("concat")
def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    if axis is None:
        arrays, axis = [ops.flatten(a) for a in arrays], 0
    return ops.concatenate(arrays, axis)


@_numpys()
def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    return ops.stack(arrays, axis)


@_numpys("row_stack")
def vstack(tup: Sequence[Any]) -> Any:
    return ops.concatenate([FUNCTIONS["atleast_2d"](a) for a in tup])


@_numpys()
def hstack(tup: Sequence[Any]) -> Any:
    parts = [FUNCTIONS["atleast_1d"](a) for a in tup]
    return ops.concatenate(parts, min(1, parts[0].ndim - 1))


@_numpys()
def dstack(tup: Sequence[Any]) -> Any:
    return ops.concatenate([FUNCTIONS["atleast_3d"](a) for a in tup], 2)


@_numpys()
def column_stack(tup: Sequence[Any]) -> Any:
    columns = [_tensor(a) for a in tup]
    return ops.concatenate([a if a.ndim > 1 else ops.reshape(a, -1, 1) for a in columns], 1)


@_numpys()
def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    return concatenate([arr, values], axis)


@_numpys()
def array_split(ary: Any, indices_or_sections: Sizes, axis: int = 0) -> Any:
    """Into parts that share no element."""
    ary = _tensor(ary)
    length = ary.shape[normalise_axis(axis, ary.ndim)]
    # NumPy says where the parts end, of the positions themselves
    parts = np.array_split(np.arange(length), indices_or_sections)
    if sum(map(len, parts)) != length:
        raise ShapeError(f"split at {indices_or_sections}: parts that overlap are not here")
    return list(ops.split(ary, [len(part) for part in parts], axis))


@_numpys()
def split(ary: Any, indices_or_sections: Sizes, axis: int = 0) -> Any:
    ary = _tensor(ary)
    length = ary.shape[normalise_axis(axis, ary.ndim)]
    if np.ndim(indices_or_sections) == 0 and length % indices_or_sections:
        raise ShapeError(f"axis {axis} of size {length} has no {indices_or_sections} equal parts")
    return array_split(ary, indices_or_sections, axis)


@_numpys()
def vsplit(ary: Any, indices_or_sections: Sizes) -> Any:
    return split(ary, indices_or_sections, 0)


@_numpys()
def hsplit(ary: Any, indices_or_sections: Sizes) -> Any:
    return split(ary, indices_or_sections, min(1, _tensor(ary).ndim - 1))


@_numpys()
def dsplit(ary: Any, indices_or_sections: Sizes) -> Any:
    return split(ary, indices_or_sections, 2)


@_numpys()
def unstack(x: Any, *, axis: int = 0) -> Any:
    x = _tensor(x)
    return tuple(ops.squeeze(part, axis) for part in ops.split(x, 1, axis))


@_numpys()
def pad(array: Any, pad_width: Any, *, constant_values: float = 0) -> Any:
    """With one constant on all sides."""
    return ops.pad(array, pad_width, constant_values)


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
    "vecdot": _vecdot,
}
