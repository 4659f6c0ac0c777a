"""Reading by position: x[key], gather, embedding; and putting tensors side by side. What is read
twice gets both gradients.
"""

from __future__ import annotations

import operator
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tensor.base import TensorBase
from tensor.errors import DTypeError, IndexingError, ShapeError, brief
from tensor.memory.devices import Array, add_at, device_of, is_cuda, move, zeros_like
from tensor.memory.layout import Shape, broadcast_shape, normalise_axis
from tensor.ops.inputs import LOOK_FIRST, as_operands, one_device
from tensor.ops.op import Ids, compute_op, copy_op
from tensor.ops.views import index, unsqueeze

Key: TypeAlias = tuple[Any, ...]  # of ints, slices, None, `...` and arrays


def split_key(key: Any) -> tuple[bool, Key]:
    """(basic, key as a tuple): basic keys make views, keys with arrays make copies."""
    parts = []
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, TensorBase):
            part = part.array
        elif isinstance(part, (list, tuple, range, bool)) or (
            hasattr(part, "__array__") and not hasattr(part, "strides")
        ):
            part = np.asarray(part)
            # an empty list is no list of floats
            part = part if part.size else part.astype(bool if part.dtype == bool else np.intp)
        if hasattr(part, "dtype"):
            if part.dtype.kind not in "iub":
                raise IndexingError(f"an index must hold integers or bools, not {part.dtype}")
            if part.ndim == 0 and part.dtype != bool:
                part = int(part)
        elif not (
            part is None
            or part is Ellipsis
            or isinstance(part, slice)
            or hasattr(part, "__index__")
        ):
            raise IndexingError(
                "an index is an integer, a slice, None, `...` or an array of integers or bools, "
                f"not {part!r}"
            )
        parts.append(part)
    return not any(hasattr(part, "dtype") for part in parts), tuple(parts)


def on_device(key: Key, shape: Shape, device: str) -> tuple[Key, Shape]:
    """(key with its arrays on the device, shape of x[key]), checked as NumPy would. Raises
    IndexError.

    CuPy wraps what is out of range. So NumPy indexes an array of that shape that takes no memory;
    arrays that are on the GPU already are stood for by zeros, since looking at their values would
    stop the stream: there only shapes are checked.
    """
    probe = tuple(np.zeros(part.shape, part.dtype) if is_cuda(part) else part for part in key)
    try:
        result = np.broadcast_to(np.uint8(0), shape)[probe].shape
    except IndexError as error:
        raise IndexingError(str(error)) from None
    return tuple(_part_on(device, part) for part in key), result


def _part_on(device: str, part: Any) -> Any:
    """One part of a key, as CuPy takes it: its arrays on the device, the step of a slice no larger
    than a C integer.
    """
    if isinstance(part, np.ndarray):
        return move(part, device)
    if isinstance(part, slice) and part.step is not None:
        step = min(max(-sys.maxsize, part.step), sys.maxsize)
        return slice(part.start, part.stop, step)
    return part


def write(target: Array, key: Key, value: Any) -> None:
    """target[key] = value. Raises IndexError for an index out of range and ShapeError for values
    that do not fit the key, on any device.
    """
    if is_cuda(target):
        key, shape = on_device(key, target.shape, device_of(target))
        value = value if is_cuda(value) else move(np.asarray(value), device_of(target))
        value = value.reshape(fitting(value.shape, shape))
    try:
        target[key] = value
    except IndexError as error:
        raise IndexingError(str(error)) from None
    except (TypeError, ValueError):
        # raises, naming the axis
        shape = fitting(np.shape(value), on_device(key, target.shape, "cpu")[1])
        if shape == np.shape(value):
            raise
        target[key] = np.reshape(value, shape)


def fitting(values: Shape, target: Shape, drop_ones: bool = True) -> Shape:
    """The shape of values that are written to a target: axes of size 1 in front go where the
    target has fewer axes. Raises ShapeError unless the shape broadcasts to that of the target.
    """
    while drop_ones and len(values) > len(target) and values[0] == 1:
        values = values[1:]
    if broadcast_shape(values, target) != target:
        raise ShapeError(f"values of shape {values} do not broadcast to {target}")
    return values


@brief
def getitem(x: Any, key: Any) -> Any:
    """x[key] as in NumPy: a view for integers, slices, None and `...`; a copy where a bool mask or
    integer array is among them.
    """
    basic, parts = split_key(key)
    if basic:
        return index(x, key=parts)
    original = key if isinstance(key, tuple) else (key,)
    arrays: list[Any] = [
        TensorBase.wrap(given if isinstance(given, TensorBase) else part)
        for given, part in zip(original, parts, strict=True)
        if hasattr(part, "dtype")
    ]
    if x.device != "cpu":
        parts, _ = on_device(parts, x.shape, x.device)  # raises what NumPy would
        arrays = [a.to(x.device) for a in arrays]
    pattern = tuple("array" if hasattr(part, "dtype") else part for part in parts)
    return take(x, *arrays, pattern=pattern)


@compute_op
def take(x: Array, *indices: Ids, pattern: Key) -> Any:
    """y = x[key], where `pattern` is the key and "array" stands for each index array in turn;
    dx[key] += dy, repeats adding up.
    """
    arrays = iter(indices)
    key = tuple(next(arrays) if part == "array" else part for part in pattern)
    shape = x.shape
    try:
        y = x[key]
    except IndexError as error:
        raise IndexingError(str(error)) from None
    return y, (lambda dy: _added(dy, shape, key), *(None for _ in indices))


def _added(dy: Array, shape: Shape, key: Any) -> Array:
    """dx of y = x[key]: zeros, and each element of dy added where it was read."""
    dx = zeros_like(dy, shape)
    add_at(dx, key, dy)
    return dx


@compute_op
def gather(x: Array, indices: Ids, axis: int = -1) -> Any:
    """y[..., i, ...] = x[..., indices[..., i, ...], ...] along one axis, NumPy's take_along_axis;
    the gradients of repeated indices add up.
    """
    axis, shape = normalise_axis(axis, x.ndim), x.shape
    if indices.ndim != x.ndim:
        raise ShapeError(
            f"gather from {shape} with indices {indices.shape}: "
            "as many axes as the tensor are needed"
        )
    check_range("`gather` got index", indices, shape[axis], -shape[axis])
    # all positions along the other axes, so that indices of size 1 there broadcast
    positions = list(np.ix_(*(np.arange(n, like=indices) for n in shape)))
    positions[axis] = indices
    key = tuple(positions)
    return x[key], (lambda dy: _added(dy, shape, key), None)


@compute_op
def embedding(ids: Ids, weight: Array) -> Any:
    """y = weight[ids]: row `id` of the table for each id;   dweight[id] = the sum of dy over all
    positions of that id.

    ids: (...) integers   weight: (V, C)   y: (..., C).   Raises IndexError for an id outside [0,
    V), DTypeError for ids that are no integers, ShapeError for a weight that is no matrix.
    """
    if ids.dtype.kind not in "iu":
        raise DTypeError(f"embedding ids must be integers, not {ids.dtype}")
    if weight.ndim != 2:
        raise ShapeError(
            f"embedding takes rows of a matrix (V, C), and weight is {weight.shape}: "
            "weight[ids] takes the elements of other shapes"
        )
    shape = weight.shape
    check_range("`embedding` got index", ids, shape[0])

    def dweight(dy: Array) -> Array:
        rows = dy.reshape(ids.size, shape[1])
        if is_cuda(dy):
            return _added(rows, shape, ids.ravel())
        dweight = zeros_like(dy, shape)
        if rows.size:
            # equal ids side by side, so that each run is one sum
            order = np.argsort(ids, axis=None, kind="stable")
            run = ids.ravel()[order]
            starts = np.flatnonzero(np.concatenate([[True], run[1:] != run[:-1]]))
            dweight[run[starts]] = np.add.reduceat(rows[order], starts, axis=0)
        return dweight

    return weight[ids], (None, dweight)


def check_range(what: str, ids: Array, size: int, low: int = 0) -> None:
    """Raise IndexError for an id out of range. On a GPU looking would stop the stream: there the
    caller validates.
    """
    if is_cuda(ids) or ids.size == 0:
        return
    smallest, largest = int(ids.min()), int(ids.max())
    if smallest < low or largest >= size:
        raise IndexingError(
            f"{what} {largest if largest >= size else smallest}, outside {low} to {size - 1}"
        )


def _look(what: str, ids: Any, size: int, low: int = 0) -> None:
    """The same of ids that are still on the host, where looking costs nothing: lists and NumPy
    arrays, before they go to a GPU.
    """
    if not isinstance(ids, TensorBase) and not is_cuda(ids):
        check_range(what, TensorBase.kind(ids).array, size, low)


def _look_at_gather(device: str, x: TensorBase, indices: Any, axis: int = -1) -> None:
    if device != "cpu":
        size = x.shape[normalise_axis(axis, x.ndim)]
        _look("`gather` got index", indices, size, -size)


def _look_at_embedding(device: str, ids: Any, weight: TensorBase, *_: Any, **__: Any) -> None:
    if device != "cpu":
        _look("`embedding` got index", ids, len(weight))


LOOK_FIRST["gather"] = _look_at_gather
LOOK_FIRST["embedding"] = LOOK_FIRST["positional_embedding"] = _look_at_embedding


@compute_op
def one_hot(ids: Ids, count: int | None = None) -> Any:
    """y[..., j] = 1 where j == ids, else 0, as float32; `count` classes (by default the largest id
    + 1). No gradient.
    """
    count = int(ids.max()) + 1 if count is None else count
    check_range("`one_hot` got index", ids, count)
    return (ids[..., None] == np.arange(count, like=ids)).astype(np.float32), None


@copy_op
def _concatenate(*arrays: Array, axis: int) -> Any:
    """y = the arrays one after the other along an axis;   each gradient is its stretch of dy."""
    ends = np.cumsum([array.shape[axis] for array in arrays])[:-1].tolist()
    return np.concatenate(arrays, axis), lambda dy: tuple(np.split(dy, ends, axis))


@brief
def concatenate(tensors: Sequence[Any], axis: int = 0) -> Any:
    """The tensors one after the other along an axis that exists. Raises ShapeError unless the other
    axes agree.
    """
    tensors = list(tensors)
    parts = as_operands(tensors, one_device("concatenate", tensors))
    if not parts:
        raise ShapeError("concatenate of no tensors")
    axis = normalise_axis(axis, parts[0].ndim)
    if len({(x.ndim, x.shape[:axis], x.shape[axis + 1 :]) for x in parts}) > 1:
        raise ShapeError(
            f"concatenate along axis {axis} of shapes {', '.join(str(x.shape) for x in parts)}: "
            "all other axes must agree"
        )
    return _concatenate(*parts, axis=axis)


@brief
def stack(tensors: Sequence[Any], axis: int = 0) -> Any:
    """The tensors side by side along a new axis. Raises ShapeError unless the shapes are equal."""
    tensors = list(tensors)
    parts = as_operands(tensors, one_device("stack", tensors))
    if len({x.shape for x in parts}) != 1:
        raise ShapeError(
            f"stack of shapes {', '.join(str(x.shape) for x in parts) or 'none'}: "
            "they must be equal"
        )
    axis = normalise_axis(axis, parts[0].ndim + 1)
    return concatenate([unsqueeze(x, axis) for x in parts], axis)


@copy_op
def pad(x: Array, width: Any, value: float = 0) -> Any:
    """x with `value` around it. width: one (before, after) for each axis, one pair or one int for
    all, as in NumPy.
    """
    before, after = _widths(width, x.ndim)
    ends = [start + n for start, n in zip(before, x.shape, strict=True)]
    y = zeros_like(x, tuple(map(operator.add, ends, after)))
    y[...] = value
    inside = tuple(map(slice, before, ends))
    y[inside] = x
    return y, (lambda dy: dy[inside],)


def _widths(width: Any, ndim: int) -> Any:
    """(before, after): the elements to add on each side of each axis."""
    try:
        pairs = np.broadcast_to(np.asarray(width), (ndim, 2))
    except ValueError:
        pairs = np.zeros((ndim, 2), float)
    if pairs.dtype.kind not in "iu":
        raise ShapeError(
            f"pad width {width!r} for {ndim} axes: an integer, a pair (before, after), "
            "or a pair for each axis"
        )
    if (pairs < 0).any():
        raise ShapeError(f"pad width {width}: at least 0; slice to shorten")
    return pairs.T.tolist()
