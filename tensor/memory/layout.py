"""Strides from first principles: where an element lives, in integers only.

Element (i, j, ...) of a tensor lives in its flat storage at

    offset + i * strides[0] + j * strides[1] + ...            (all in elements, never bytes)

so a transpose swaps two strides, a slice moves the offset and multiplies a stride, an expand sets a
stride to 0, and none of them touches an element. Everything here is a tuple in and a tuple out: do
it by hand to check it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from tensor.errors import IndexingError, ShapeError, ViewError

Shape = tuple[int, ...]
Sizes: TypeAlias = Any  # an integer, or a tuple of integers


def contiguous_strides(shape: Shape) -> Shape:
    """Row-major strides: the last axis steps by 1, each other axis by the size of all axes behind.

    (2, 3, 4) -> (12, 4, 1)
    """
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def normalise_axis(axis: int, ndim: int) -> int:
    """The axis counted from the front: (-1, 3) -> 2. Raises ShapeError outside [-ndim, ndim)."""
    if not -ndim <= axis < ndim:
        raise ShapeError(
            f"axis {axis} is out of range for {ndim} axes: use {-ndim} to {ndim - 1}"
            if ndim
            else f"axis {axis}: a scalar has no axes"
        )
    return axis + ndim if axis < 0 else axis


def normalise_axes(axis: int | Sequence[int] | None, ndim: int) -> Shape:
    """One axis, several or None (all), as a tuple of distinct axes counted from the front."""
    if axis is None:
        return tuple(range(ndim))
    axes = tuple(normalise_axis(a, ndim) for a in (axis if isinstance(axis, Sequence) else (axis,)))
    if len(set(axes)) != len(axes):
        raise ShapeError(f"axis {axis} names an axis twice")
    return axes


def infer_shape(size: int, shape: Shape) -> Shape:
    """The shape with a size in place of its -1, so that it holds `size` elements.

    (12, (3, -1)) -> (3, 4)
    """
    known = math.prod(n for n in shape if n != -1)
    if any(n < -1 for n in shape) or shape.count(-1) > 1:
        raise ShapeError(f"shape {shape}: sizes are at least 0, and one of them may be -1")
    if -1 in shape:
        if known == 0 or size % known:
            raise ShapeError(f"{size} elements do not divide into shape {shape}")
        return tuple(size // known if n == -1 else n for n in shape)
    if known != size:
        raise ShapeError(f"{size} elements do not fit shape {shape}, which holds {known}")
    return shape


def broadcast_shape(*shapes: Shape) -> Shape:
    """The shape that all shapes expand to: aligned on the right, where an axis of size 1 stretches.

    (3, 1), (4,) -> (3, 4).   Raises ShapeError, which names the axis.
    """
    ndim = max(map(len, shapes), default=0)
    out = [1] * ndim
    for shape in shapes:
        for axis, n in enumerate(shape, start=ndim - len(shape)):
            if n == 1:
                continue
            if out[axis] not in (1, n):
                raise ShapeError(
                    f"shapes {' and '.join(map(str, shapes))} do not broadcast: "
                    f"{out[axis]} and {n} on axis {axis - ndim}, and neither is 1"
                )
            out[axis] = n
    return tuple(out)


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape, strides and offset. Three layouts on one storage:

    shape (2, 3), strides (3, 1)    row-major
    shape (3, 2), strides (1, 3)    the transpose
    shape (4, 3), strides (0, 1)    the first row, 4 times
    """

    shape: Shape
    strides: Shape
    offset: int = 0

    @classmethod
    def contiguous(cls, shape: Shape) -> Layout:
        """Row-major from the first element on."""
        return cls(shape, contiguous_strides(shape))

    @property
    def size(self) -> int:
        """The number of elements: the product of the shape, 1 for a scalar."""
        return math.prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Row-major and without gaps. The stride of an axis of size 1 does not matter. An empty
        tensor has no gaps.
        """
        return self.size == 0 or self.first_gap() is None

    def first_gap(self) -> int | None:
        """The last axis whose stride is not what row-major order needs, None when all are."""
        expected = 1
        for axis in reversed(range(len(self.shape))):
            if self.shape[axis] != 1:
                if self.strides[axis] != expected:
                    return axis
                expected *= self.shape[axis]
        return None

    def span(self) -> tuple[int, int]:
        """The range of storage elements in use: lowest, highest + 1. Empty: offset, offset."""
        if self.size == 0:
            return self.offset, self.offset
        steps = [(n - 1) * s for n, s in zip(self.shape, self.strides, strict=True)]
        low, high = sum(min(s, 0) for s in steps), sum(max(s, 0) for s in steps)
        return self.offset + low, self.offset + high + 1

    # -- views: a layout in, a layout out

    def permute(self, order: Shape) -> Layout:
        """Axes in a new order: shape (2, 3, 4), order (2, 0, 1) -> (4, 2, 3)."""
        axes = tuple(normalise_axis(axis, len(self.shape)) for axis in order)
        if sorted(axes) != list(range(len(self.shape))):
            raise ShapeError(
                f"permute{order} of shape {self.shape}: "
                f"name each of the {len(self.shape)} axes once"
            )
        return self._chosen(axes)

    def transpose(self, i: int, j: int) -> Layout:
        """Axes i and j swapped."""
        order = list(range(len(self.shape)))
        i, j = normalise_axis(i, len(order)), normalise_axis(j, len(order))
        order[i], order[j] = j, i
        return self.permute(tuple(order))

    def expand(self, shape: Shape) -> Layout:
        """Repeat axes of size 1, and new axes in front, by stride 0; -1 keeps a size.

        (3, 1) -> (2, 3, 4)
        """
        new = len(shape) - len(self.shape)
        if new < 0 or min(shape[:new], default=0) < 0 or min(shape, default=0) < -1:
            raise ShapeError(
                f"cannot expand {self.shape} to {shape}: "
                f"name at least {len(self.shape)} sizes, and -1 only for axes that exist"
            )
        sizes, strides = list(shape), [0] * new + list(self.strides)
        for axis, have in enumerate(self.shape, start=new):
            if shape[axis] in (-1, have):
                sizes[axis] = have
            elif have == 1:
                strides[axis] = 0
            else:
                raise ShapeError(
                    f"cannot expand {self.shape} to {shape}: "
                    f"axis {axis} has {have}, which is neither 1 nor {shape[axis]}"
                )
        return Layout(tuple(sizes), tuple(strides), self.offset)

    def slice(self, axis: int, start: int, stop: int, step: int = 1) -> Layout:
        """Elements start, start + step, ... before stop of one axis; bounds already clipped, as
        `slice.indices` gives them.
        """
        count, stride = len(range(start, stop, step)), self.strides[axis]
        return self._replaced(axis, 1, (count,), (stride * step,), start * stride if count else 0)

    def select(self, axis: int, index: int, whole: Layout | None = None) -> Layout:
        """One element of an axis, which disappears. Negative counts from the end. An error names
        the axis of `whole`, which has as many axes behind it.
        """
        size = self.shape[axis]
        if not -size <= index < size:
            axis += len((whole or self).shape) - len(self.shape)
            raise IndexingError(f"index {index} is out of range for axis {axis} of size {size}")
        return self._replaced(axis, 1, (), (), index % size * self.strides[axis])

    def unsqueeze(self, axis: int) -> Layout:
        """A new axis of size 1 at `axis` of the result."""
        axis = normalise_axis(axis, len(self.shape) + 1)
        # never used: size 1 does not move
        stride = self.shape[axis] * self.strides[axis] if axis < len(self.shape) else 1
        return self._replaced(axis, 0, (1,), (stride,))

    def squeeze(self, axis: int | Sequence[int] | None = None) -> Layout:
        """Without those axes, by default all of size 1. Raises ShapeError for an axis of another
        size, as NumPy does.
        """
        axes = normalise_axes(axis, len(self.shape))
        longer = [a for a in axes if self.shape[a] != 1]
        if axis is not None and longer:
            raise ShapeError(
                f"squeeze of axis {longer[0]} of shape {self.shape}: its size is "
                f"{self.shape[longer[0]]}, and only axes of size 1 go"
            )
        return self._chosen([a for a, n in enumerate(self.shape) if n != 1 or a not in axes])

    def index(self, key: tuple[object, ...]) -> Layout:
        """Basic indexing: integers, slices of any step, None (a new axis) and one `...`, left to
        right.
        """
        named = sum(part is not None and part is not Ellipsis for part in key)
        if named > len(self.shape):
            raise IndexingError(
                f"{named} indices for shape {self.shape}, which has {len(self.shape)} axes"
            )
        if sum(part is Ellipsis for part in key) > 1:
            raise IndexingError("an index may hold one `...`")
        layout, axis = self, 0
        for part in key:
            if part is None:
                layout, axis = layout.unsqueeze(axis), axis + 1
            elif part is Ellipsis:
                axis += len(self.shape) - named
            elif isinstance(part, slice):
                layout, axis = layout.slice(axis, *part.indices(layout.shape[axis])), axis + 1
            else:
                layout = layout.select(axis, part.__index__(), self)  # type: ignore[attr-defined]
        return layout

    def view(self, shape: Shape, itemsize: int = 0) -> Layout:
        """The same elements in the same order under another shape, without a copy; -1 is inferred.

        Neighbouring axes are one even run of memory when strides[i] == shape[i+1] * strides[i+1].
        New axes must cut up each such run exactly: no strides can express an axis that reaches
        across two runs. Raises ViewError with the two axes and, given `itemsize`, the bytes that a
        copy would cost.
        """
        shape = infer_shape(self.size, shape)
        if shape == self.shape:
            return self
        if self.size == 0:
            return Layout(shape, contiguous_strides(shape), self.offset)
        strides, new = [self.size] * len(shape), len(shape) - 1  # for axes of size 1 in front
        for first, size, stride in self.runs():
            filled = 1
            while new >= 0 and (filled < size or shape[new] == 1):
                strides[new] = filled * stride
                filled *= shape[new]
                new -= 1
            if filled != size:
                raise self._clash(first, shape, itemsize)
        return Layout(shape, tuple(strides), self.offset)

    def runs(self) -> list[tuple[int, int, int]]:
        """(first axis, elements, innermost stride) of each even run of memory, the last run first.
        An axis of size 1 belongs to no run.
        """
        runs: list[tuple[int, int, int]] = []
        for axis in reversed(range(len(self.shape))):
            if self.shape[axis] == 1:
                continue
            if runs and self.strides[axis] == runs[-1][1] * runs[-1][2]:
                runs[-1] = (axis, runs[-1][1] * self.shape[axis], runs[-1][2])
            else:
                runs.append((axis, self.shape[axis], self.strides[axis]))
        return runs

    def _clash(self, first: int, shape: Shape, itemsize: int) -> ViewError:
        """The error of a view that would reach from the run that starts at axis `first` into the
        axis before it.
        """
        before = max(axis for axis in range(first) if self.shape[axis] != 1)
        needed = self.shape[first] * self.strides[first]
        cost = f"{self.size * itemsize:,} bytes" if itemsize else f"{self.size:,} elements"
        sizes = ", ".join(map(str, shape))
        return ViewError(
            f"view of {self.shape}, strides {self.strides}, as {shape}: "
            f"axes {before} and {first} clash (axis {before} steps by "
            f"{self.strides[before]}, joining them needs {needed}). A copy costs {cost}: "
            f"use .reshape({sizes}) or .contiguous().view({sizes})"
        )

    def _chosen(self, axes: Sequence[int]) -> Layout:
        """Some axes, in that order."""
        shape = tuple(self.shape[axis] for axis in axes)
        strides = tuple(self.strides[axis] for axis in axes)
        return Layout(shape, strides, self.offset)

    def _replaced(
        self, axis: int, count: int, sizes: Shape, strides: Shape, start: int = 0
    ) -> Layout:
        """`count` axes from `axis` on are replaced; the offset moves by `start` elements."""
        end = axis + count
        return Layout(
            self.shape[:axis] + sizes + self.shape[end:],
            self.strides[:axis] + strides + self.strides[end:],
            self.offset + start,
        )

    # -- what shares memory

    @property
    def self_overlaps(self) -> bool:
        """Whether two indices may lead to one element. Never, if each axis steps past all elements
        that the axes of smaller strides reach.
        """
        reach = 0
        for stride, n in sorted(
            (abs(s), n) for s, n in zip(self.strides, self.shape, strict=True) if n > 1
        ):
            if stride <= reach:
                return self.size > 0
            reach += stride * (n - 1)
        return False

    def overlaps(self, other: Layout, budget: int = 10_000) -> bool:
        """Whether two layouts on one storage share an element. h[:, 0] and h[:, 1] alternate in
        memory, and share none.

        NumPy solves sum x_i * s_i + offset = sum y_j * t_j + other offset, 0 <= x_i < n_i, in whole
        numbers. After `budget` tries the answer is True.
        """
        try:
            mine, theirs = self._bytes(), other._bytes()
            return np.shares_memory(mine, theirs, max_work=budget)  # type: ignore[arg-type]
        except np.exceptions.TooHardError:
            return True

    def _bytes(self) -> np.ndarray[Any, Any]:
        """An array with a byte for each element of the layout. Its address is made up: nobody reads
        the bytes.
        """
        memory = {"shape": self.shape, "strides": self.strides, "data": (self.offset + 2**40, True)}
        interface = {"version": 3, "typestr": "|u1", **memory}
        return np.asarray(SimpleNamespace(__array_interface__=interface))
