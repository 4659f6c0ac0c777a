"""Views: the same memory under another layout. A reference maps a layout to a layout, and its
backward function maps the gradient back.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np

from tensor.autograd.broadcast import sum_to
from tensor.base import TensorBase
from tensor.dtypes import FLOATS, DTypeLike, as_dtype
from tensor.errors import DTypeError, ShapeError, ViewError, brief
from tensor.memory.devices import Array, device_of, move, zeros_like
from tensor.memory.layout import Layout, Shape, Sizes, normalise_axis
from tensor.ops.op import copy_op, view_op


def _sizes(shape: tuple[Any, ...]) -> Shape:
    """x.view(2, 3) and x.view((2, 3)) alike, as a tuple of ints."""
    if len(shape) == 1 and isinstance(shape[0], (tuple, list)):
        shape = tuple(shape[0])
    return tuple(operator.index(n) for n in shape)


def _reshaped(shape: Shape) -> Any:
    """Backward of a view with other axes: the gradient in the old shape."""
    return lambda dy: dy.reshape(shape)


@view_op
def view(x: Layout, *shape: Sizes, itemsize: int = 0) -> Any:
    """The same elements in the same order as another shape; never a copy. One size may be -1.

    Raises ViewError when no strides can express it, naming the axes that clash and both fixes.
    """
    return x.view(_sizes(shape), itemsize), _reshaped(x.shape)


@brief
def reshape(x: Any, *shape: Sizes) -> Any:
    """A view where strides allow one, else a copy in row-major order and a view of that."""
    x = TensorBase.wrap(x)
    try:
        return view(x, *shape)
    except ViewError:
        return view(clone(x), *shape)


@brief
def flatten(x: Any, start: int = 0, end: int = -1) -> Any:
    """Axes start to end (included) joined into one: (B, T, H, D).flatten(2, 3) -> (B, T, H*D)."""
    x = TensorBase.wrap(x)
    if x.ndim == 0:
        return reshape(x, 1)
    first, last = normalise_axis(start, x.ndim), normalise_axis(end, x.ndim)
    if last < first:
        raise ShapeError(
            f"flatten from axis {start} to {end} of shape {x.shape}: the end comes before the start"
        )
    joined = math.prod(x.shape[first : last + 1])
    return reshape(x, *x.shape[:first], joined, *x.shape[last + 1 :])


@view_op
def permute(x: Layout, *order: Sizes) -> Any:
    """y[i_order[0], i_order[1], ...] = x[i_0, i_1, ...]: (2, 3, 4).permute(2, 0, 1) -> (4, 2, 3)"""
    axes = tuple(normalise_axis(axis, len(x.shape)) for axis in _sizes(order))
    return x.permute(axes), lambda dy: dy.transpose(np.argsort(axes).tolist())


@view_op
def transpose(x: Layout, i: int, j: int) -> Any:
    """Axes i and j swapped."""
    return x.transpose(i, j), lambda dy: dy.swapaxes(i, j)


@view_op
def expand(x: Layout, *shape: Sizes) -> Any:
    """Axes of size 1, and new ones in front, repeated without a copy (stride 0); -1 keeps. Backward
    sums over the repeats.
    """
    return x.expand(_sizes(shape)), sum_to(x.shape)


@view_op
def squeeze(x: Layout, axis: Sizes | None = None) -> Any:
    """Without axes of size 1: all, or those of `axis`. Raises ShapeError for a longer one."""
    return x.squeeze(axis), _reshaped(x.shape)


@view_op
def unsqueeze(x: Layout, axis: int) -> Any:
    """A new axis of size 1 at `axis` of the result."""
    return x.unsqueeze(axis), _reshaped(x.shape)


@view_op
def index(x: Layout, *, key: tuple[Any, ...]) -> Any:
    """y = x[key] for integers, slices, None and `...`: a view. Backward: zeros, and dy at [key]"""
    shape = x.shape

    def backward(dy: Array) -> Array:
        dx = zeros_like(dy, shape)
        dx[key] = dy
        return dx

    return x.index(key), backward


@view_op
def split(x: Layout, size: Sizes, axis: int = 0) -> Any:
    """Pieces of `size` along an axis, the last one shorter; or pieces of the sizes listed. All
    views, one node: backward joins.
    """
    axis = normalise_axis(axis, len(x.shape))
    length = x.shape[axis]
    if isinstance(size, (tuple, list)):
        sizes = list(map(operator.index, size))
    elif size < 1:
        raise ShapeError(f"split into pieces of {size}: at least 1")
    else:
        sizes = [min(size, length - start) for start in range(0, length, size)] or [0]
    if sum(sizes) != length or min(sizes, default=0) < 0:
        raise ShapeError(
            f"split sizes {sizes} sum to {sum(sizes)}, axis {axis} of {x.shape} has {length}"
        )
    ends = np.cumsum(sizes).tolist()
    pieces = tuple(x.slice(axis, end - n, end) for n, end in zip(sizes, ends, strict=True))

    def backward(*dys: Array | None) -> Array:
        like = next(dy for dy in dys if dy is not None)
        parts = zip(dys, pieces, strict=True)
        return np.concatenate(
            [zeros_like(like, p.shape) if dy is None else dy for dy, p in parts], axis
        )

    return pieces, backward


@brief
def chunk(x: Any, n: int, axis: int = 0) -> Any:
    """At most n pieces of equal size along an axis, the last one shorter; an empty axis gives n
    empty pieces, as in PyTorch.
    """
    x = TensorBase.wrap(x)
    if n < 1:
        raise ShapeError(f"chunk into {n} pieces: at least 1")
    length = x.shape[normalise_axis(axis, x.ndim)]
    return split(x, -(-length // n) if length else [0] * n, axis)


# -- copies: the values move, unchanged


@copy_op
def clone(x: Array) -> Any:
    """A copy in row-major order, in the graph."""
    return x.copy(), (lambda dy: dy,)


@brief
def contiguous(x: Any) -> Any:
    """x itself when it is row-major and gapless, else a copy that is."""
    x = TensorBase.wrap(x)
    return x if x.is_contiguous() else clone(x)


@copy_op
def cast(x: Array, dtype: Any) -> Any:
    """The values in another dtype, rounded to nearest. Between floats the gradient is cast back; to
    integers or bool there is none.
    """
    before, after = x.dtype, as_dtype(dtype)
    return x.astype(after), (lambda dy: dy.astype(before),) if after in FLOATS else None


@copy_op
def transfer(x: Array, device: str) -> Any:
    """The values on another device; the gradient travels back."""
    before = device_of(x)
    return move(x, device), (lambda dy: move(dy, before),)


def targets_of(
    targets: tuple[Any, ...], dtype: DTypeLike | None, device: str | None
) -> tuple[DTypeLike | None, str | None]:
    """(dtype, device), where `targets` are any of the two without their names: to("cuda")."""
    for target in targets:
        if isinstance(target, str) and (target == "cpu" or target.startswith("cuda")):
            device = target
            continue
        try:
            dtype = as_dtype(target)
        except DTypeError as error:
            raise DTypeError(f"{error}; devices are 'cpu', 'cuda' and 'cuda:N'") from None
    return dtype, device


@brief
def to(x: Any, *targets: Any, dtype: DTypeLike | None = None, device: str | None = None) -> Any:
    """x.to("float32"), x.to("cuda"), x.to(dtype=..., device=...): x itself where nothing changes"""
    if targets:
        dtype, device = targets_of(targets, dtype, device)
    x = TensorBase.wrap(x)
    here = (None, x.device, x.device.partition(":")[0])  # "cuda" is any GPU
    if device not in here:
        x = transfer(x, device=device)
    return cast(x, dtype=dtype) if dtype is not None and as_dtype(dtype) != x.dtype else x
