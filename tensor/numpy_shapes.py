"""NumPy's functions that change the shape of a tensor, join tensors, or split one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensor import ops
from tensor.base import TensorBase
from tensor.errors import OptionError, ShapeError
from tensor.memory.layout import Sizes, normalise_axes, normalise_axis
from tensor.numpy_functions import FUNCTIONS, numpys

# -- shapes


@numpys()
def reshape(a: Any, shape: Sizes) -> Any:
    """The same elements, in row-major order, as another shape; one size may be -1. A view where
    strides allow one, else a copy.
    """
    return ops.reshape(a, shape)


@numpys()
def ravel(a: Any) -> Any:
    """All axes joined into one, in row-major order: a view where strides allow one, else a copy."""
    return ops.flatten(a)


@numpys("permute_dims")
def transpose(a: Any, axes: Sizes | None = None) -> Any:
    """The axes in the order `axes`, by default reversed: (2, 3, 4) -> (4, 3, 2)."""
    return TensorBase.wrap(a).T if axes is None else ops.permute(a, axes)


@numpys()
def matrix_transpose(x: Any) -> Any:
    """(..., M, N) -> (..., N, M). Raises ShapeError for fewer than two axes."""
    return TensorBase.wrap(x).mT


@numpys()
def swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    """Axes axis1 and axis2 swapped."""
    return ops.transpose(a, axis1, axis2)


@numpys()
def moveaxis(a: Any, source: Sizes, destination: Sizes) -> Any:
    """Axes `source` moved to `destination` of the result; the other axes keep their order."""
    a = TensorBase.wrap(a)
    # where the axes of a lie in the result: NumPy knows
    order = np.moveaxis(np.empty(range(1, a.ndim + 1)), source, destination).shape
    return ops.permute(a, [size - 1 for size in order])


@numpys()
def expand_dims(a: Any, axis: int) -> Any:
    """A new axis of size 1 at `axis` of the result. One axis only: a tuple is refused."""
    return ops.unsqueeze(a, axis)


@numpys()
def squeeze(a: Any, axis: Sizes | None = None) -> Any:
    """Without axes of size 1: all, or those of `axis`. Raises ShapeError for other sizes."""
    return ops.squeeze(a, axis)


@numpys()
def broadcast_to(array: Any, shape: Sizes) -> Any:
    """Axes of size 1, and new ones in front, repeated without a copy. Backward sums over the
    repeats.
    """
    return ops.expand(array, shape)


def _at_least(count: int) -> None:
    """np.atleast_1d, 2d, 3d: axes of size 1 in front; the third comes last."""
    name = f"atleast_{count}d"

    def padded(*arys: Any) -> Any:
        shaped = [ops.reshape(a, getattr(np, name)(TensorBase.wrap(a).numpy()).shape) for a in arys]
        return shaped[0] if len(shaped) == 1 else tuple(shaped)

    padded.__name__ = padded.__qualname__ = name
    padded.__doc__ = _at_least.__doc__
    numpys()(padded)


for _count in (1, 2, 3):
    _at_least(_count)


@numpys()
def copy(a: Any) -> Any:
    """A copy in row-major order, in the graph."""
    return ops.clone(a)


@numpys()
def flip(m: Any, axis: Sizes | None = None) -> Any:
    """Each axis of `axis` reversed: one axis, several (a tuple) or all (None). A view."""
    m = TensorBase.wrap(m)
    turned = normalise_axes(axis, m.ndim)
    return m[tuple(slice(None, None, -1 if a in turned else 1) for a in range(m.ndim))]


@numpys()
def flipud(m: Any) -> Any:
    """The first axis reversed: rows from bottom to top."""
    return flip(m, 0)


@numpys()
def fliplr(m: Any) -> Any:
    """The second axis reversed: columns from right to left. Raises ShapeError without one."""
    return flip(m, 1)


# -- several tensors


@numpys("concat")
def concatenate(arrays: Sequence[Any], axis: int | None = 0) -> Any:
    """The arrays one after the other along `axis`; None flattens each array first. Raises
    ShapeError unless the other axes agree.
    """
    if axis is None:
        arrays, axis = [ops.flatten(a) for a in arrays], 0
    return ops.concatenate(arrays, axis)


@numpys()
def stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    """The arrays side by side along a new axis. Raises ShapeError unless the shapes are equal."""
    return ops.stack(arrays, axis)


@numpys("row_stack")
def vstack(tup: Sequence[Any]) -> Any:
    """The arrays one after the other along the first axis, a vector (N,) as a row (1, N)."""
    return ops.concatenate([FUNCTIONS["atleast_2d"](a) for a in tup])


@numpys()
def hstack(tup: Sequence[Any]) -> Any:
    """The arrays one after the other along the second axis; vectors along their only axis."""
    parts = [FUNCTIONS["atleast_1d"](a) for a in tup]
    return ops.concatenate(parts, min(1, parts[0].ndim - 1))


@numpys()
def dstack(tup: Sequence[Any]) -> Any:
    """The arrays one after the other along the third axis, a vector (N,) as (1, N, 1) and a matrix
    (M, N) as (M, N, 1).
    """
    return ops.concatenate([FUNCTIONS["atleast_3d"](a) for a in tup], 2)


@numpys()
def column_stack(tup: Sequence[Any]) -> Any:
    """The arrays one after the other along the second axis, a vector (N,) as a column (N, 1)."""
    columns = [TensorBase.wrap(a) for a in tup]
    return ops.concatenate([a if a.ndim > 1 else ops.reshape(a, -1, 1) for a in columns], 1)


@numpys()
def append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """arr and then values along `axis`; None flattens both first."""
    return concatenate([arr, values], axis)


@numpys()
def array_split(ary: Any, indices_or_sections: Sizes, axis: int = 0) -> Any:
    """Into parts that share no element."""
    ary = TensorBase.wrap(ary)
    length = ary.shape[normalise_axis(axis, ary.ndim)]
    # NumPy says where the parts end, of the positions themselves
    parts = np.array_split(np.arange(length), indices_or_sections)
    if sum(map(len, parts)) != length:
        raise ShapeError(f"split at {indices_or_sections}: parts that overlap are not here")
    return list(ops.split(ary, [len(part) for part in parts], axis))


@numpys()
def split(ary: Any, indices_or_sections: Sizes, axis: int = 0) -> Any:
    """A list of n equal parts of an axis, or a list of the parts between positions: [1, 3] gives
    the parts [:1], [1:3] and [3:].

    Raises ShapeError if the size does not divide by n, and for parts that overlap.
    """
    ary = TensorBase.wrap(ary)
    length = ary.shape[normalise_axis(axis, ary.ndim)]
    if np.ndim(indices_or_sections) == 0 and length % indices_or_sections:
        raise ShapeError(f"axis {axis} of size {length} has no {indices_or_sections} equal parts")
    return array_split(ary, indices_or_sections, axis)


@numpys()
def vsplit(ary: Any, indices_or_sections: Sizes) -> Any:
    """`split` along the first axis. Raises ShapeError for fewer than two axes."""
    ary = TensorBase.wrap(ary)
    if ary.ndim < 2:
        raise ShapeError(f"np.vsplit of shape {ary.shape}: two axes are needed; use np.split")
    return split(ary, indices_or_sections, 0)


@numpys()
def hsplit(ary: Any, indices_or_sections: Sizes) -> Any:
    """`split` along the second axis, or along the only axis of a vector."""
    return split(ary, indices_or_sections, min(1, TensorBase.wrap(ary).ndim - 1))


@numpys()
def dsplit(ary: Any, indices_or_sections: Sizes) -> Any:
    """`split` along the third axis. Raises ShapeError for fewer than three axes."""
    return split(ary, indices_or_sections, 2)


@numpys()
def unstack(x: Any, *, axis: int = 0) -> Any:
    """A tuple of the parts along `axis`, without that axis: (2, 3) -> (3,), (3,)."""
    x = TensorBase.wrap(x)
    length = x.shape[normalise_axis(axis, x.ndim)]
    return tuple(ops.squeeze(part, axis) for part in ops.split(x, [1] * length, axis))


@numpys()
def pad(array: Any, pad_width: Any, mode: Any = "constant", *, constant_values: float = 0) -> Any:
    """With one constant on all sides: the other modes are missing."""
    if mode != "constant":
        instead = "Join the parts with np.concatenate"
        raise OptionError(f"np.pad with mode={mode!r}: only 'constant' is here. {instead}")
    return ops.pad(array, pad_width, constant_values)
