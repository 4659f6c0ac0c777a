"""What hypothesis draws tensors from: shapes, memory layouts, indices, and chains of views with
their two oracles.

    shapes()                    (2, 0, 3): up to 4 axes, empty and size-1 ones among them
    layouts                     a name of the seven memory layouts
    broadcastable(n)            n shapes that broadcast, and what they broadcast to
    basic_keys(shape)           integers, slices of any step, None, `...`
    advanced_keys(shape)        the same mixed with integer arrays, and boolean masks of one or more
    axes
    view_steps(shape)           one view of a tensor of that shape, legal by shape (strides may
    still forbid `view`)

A view knows how the engine, PyTorch and NumPy make it, so that a test draws a chain and runs it on
all three.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tensor import Tensor
from tensor.autograd.backward import backward_pass
from tensor.gradient_cases import LAYOUTS
from tensor.memory.devices import Array, move, to_host
from tensor.memory.layout import Shape
from tensor.memory.storage import Storage

layouts = st.sampled_from(list(LAYOUTS))


def shapes(
    min_dims: int = 0, max_dims: int = 4, min_side: int = 0, max_side: int = 4
) -> st.SearchStrategy[Shape]:
    """Shapes in which 0 and 1 are as likely as any other size."""
    return hnp.array_shapes(
        min_dims=min_dims, max_dims=max_dims, min_side=min_side, max_side=max_side
    )


def broadcastable(
    count: int, max_dims: int = 4, max_side: int = 3
) -> st.SearchStrategy[hnp.BroadcastableShapes]:
    """`.input_shapes` that broadcast together, and their `.result_shape`; axes may be missing, 1 or
    0.
    """
    return hnp.mutually_broadcastable_shapes(
        num_shapes=count, min_dims=0, max_dims=max_dims, min_side=0, max_side=max_side
    )


def numbered(shape: Shape) -> Array:
    """1, 2, 3, ... in row-major order, as float64: each element says which one it is."""
    return np.arange(1.0, math.prod(shape) + 1).reshape(shape)


def placed(array: Array, device: str, requires_grad: bool = False) -> Tensor:
    """A tensor with the values and the very strides of a NumPy array, on any device; on the CPU it
    shares the memory.
    """
    host = Tensor.from_array(array)
    x = (
        host
        if device == "cpu"
        else Tensor.over(Storage(move(host.storage.flat, device)), host.layout)
    )
    x.requires_grad = requires_grad
    return x


def gradients(ys: Sequence[Tensor], xs: Sequence[Tensor], dys: Sequence[Array]) -> list[Array]:
    """dL/dx for each x, where dL/dy arrives with the very strides of these arrays: `grad` would
    copy them first.
    """
    seeds = [(y.node, placed(dy, y.device).array) for y, dy in zip(ys, dys, strict=True)]
    found = backward_pass(seeds, {x.node for x in xs}, False)
    return [to_host(found[x.node]) if x.node in found else np.zeros(x.shape) for x in xs]


# -- indices


def basic_keys(shape: Shape) -> st.SearchStrategy[Any]:
    """Keys that make views: a tuple, or one part alone."""
    return hnp.basic_indices(
        shape, max_dims=len(shape) + 2, allow_newaxis=True, allow_ellipsis=True
    )


@st.composite
def advanced_keys(draw: st.DrawFn, shape: Shape) -> Any:
    """Keys with at least one array: integer arrays (negative and repeated ones too), masks, and
    basic parts in between.
    """
    parts: list[Any] = []
    axis = 0
    stretch = draw(
        hnp.mutually_broadcastable_shapes(
            num_shapes=len(shape) + 1, min_dims=1, max_dims=2, max_side=3
        )
    ).input_shapes
    while axis < len(shape):
        size = shape[axis]
        kind = draw(st.sampled_from(["ints", "mask", "int", "slice", "new", "stop"]))
        if kind == "stop":
            break
        if kind == "new":
            parts.append(None)
            continue
        span = 1
        if kind == "ints":
            wanted = stretch[axis] if size else (0,)
            parts.append(
                draw(
                    hnp.arrays(np.int64, wanted, elements=st.integers(-size, max(size - 1, -size)))
                )
            )
        elif kind == "mask":
            span = draw(st.integers(1, len(shape) - axis))
            parts.append(draw(hnp.arrays(np.bool_, shape[axis : axis + span])))
        elif kind == "int" and size:
            parts.append(draw(st.integers(-size, size - 1)))
        else:
            parts.append(draw(st.slices(size)))
        axis += span
    if draw(st.booleans()):
        parts.append(Ellipsis)
    if not any(isinstance(part, np.ndarray) for part in parts):
        parts = [np.asarray(draw(st.booleans())), *parts]  # a mask of no axes
    return tuple(parts)


# -- views


class Step(NamedTuple):
    """One view: the method's name, its arguments, and of several results which."""

    name: str
    args: tuple[Any, ...]
    pick: int | None = None

    def on_tensor(self, x: Any) -> Any:
        """The view as the engine or PyTorch makes it: their methods have the same names and
        arguments.
        """
        # shapes as one tuple
        arguments = (
            (self.args,) if self.name in ("view", "reshape", "expand", "permute") else self.args
        )
        result = x[self.args[0]] if self.name == "index" else getattr(x, self.name)(*arguments)
        return result if self.pick is None else result[self.pick]

    def on_array(self, a: Array) -> Array:
        """The view as NumPy makes it. Raises ValueError for a view that would need a copy."""
        return (
            _NUMPY[self.name](a, *self.args)
            if self.pick is None
            else _NUMPY[self.name](a, *self.args)[self.pick]
        )

    @property
    def backwards(self) -> bool:
        """Whether it has a negative step, which PyTorch does not know."""
        return self.name == "index" and any(
            isinstance(part, slice) and (part.step or 1) < 0 for part in self.args[0]
        )


def _expand(a: Array, *shape: int) -> Array:
    new = len(shape) - a.ndim
    return np.broadcast_to(
        a, tuple(a.shape[axis - new] if n == -1 else n for axis, n in enumerate(shape))
    )


def _flatten(a: Array, start: int = 0, end: int = -1) -> Array:
    if a.ndim == 0:
        return a.reshape(1)
    start, end = start % a.ndim, end % a.ndim
    return a.reshape(*a.shape[:start], math.prod(a.shape[start : end + 1]), *a.shape[end + 1 :])


def _split(a: Array, size: Any, axis: int = 0) -> list[Array]:
    ends = np.cumsum(size)[:-1] if isinstance(size, list) else range(size, a.shape[axis], size)
    return np.split(a, list(ends), axis)


_NUMPY: dict[str, Any] = {
    "view": lambda a, *shape: np.reshape(a, shape, copy=False),
    "reshape": lambda a, *shape: np.reshape(a, shape),
    "flatten": _flatten,
    "permute": lambda a, *order: np.transpose(a, order),
    "transpose": np.swapaxes,
    "expand": _expand,
    "squeeze": np.squeeze,
    "unsqueeze": np.expand_dims,
    "split": _split,
    "chunk": lambda a, n, axis: (
        _split(a, -(-a.shape[axis] // n), axis) if a.shape[axis] else [a] * n
    ),
    # `...` makes a 0-d array of what would be a scalar
    "index": lambda a, key: a[key if Ellipsis in key else (*key, ...)],
    "contiguous": lambda a: a if a.flags.c_contiguous else a.copy(),
}


@st.composite
def view_steps(draw: st.DrawFn, shape: Shape) -> Step:
    """A view of a tensor of that shape."""
    ndim = len(shape)
    axis = st.integers(-ndim, ndim - 1)
    names = [
        "view",
        "view",
        "reshape",
        "expand",
        "unsqueeze",
        "index",
        "index",
        "flatten",
        "squeeze",
        "contiguous",
    ]
    name = draw(
        st.sampled_from(names + ["permute", "permute", "transpose", "split", "chunk"] * (ndim > 0))
    )
    if name in ("view", "reshape"):
        return Step(name, draw(same_size(shape)))
    if name == "expand":
        kept = [
            draw(st.sampled_from((-1, n))) if n != 1 else draw(st.sampled_from((-1, 0, 1, 2, 3)))
            for n in shape
        ]
        return Step(
            name,
            tuple(draw(st.lists(st.integers(0, 3), max_size=2)) + kept)
            if ndim
            else draw(shapes(max_dims=2)),
        )
    if name == "index":
        key = draw(basic_keys(shape))
        return Step(name, (key if isinstance(key, tuple) else (key,),))
    if name == "flatten":
        first = draw(st.integers(0, max(ndim - 1, 0)))
        last = draw(st.integers(first, max(ndim - 1, 0)))
        return Step(
            name,
            draw(st.sampled_from([(), (first, last), (first - ndim, last - ndim)])) if ndim else (),
        )
    if name == "squeeze":
        ones = tuple(i for i, n in enumerate(shape) if n == 1)
        return Step(name, draw(st.sampled_from([(), (ones,), *((i - ndim,) for i in ones)])))
    if name == "permute":
        order = draw(st.permutations(range(ndim)))
        return Step(name, tuple(a - ndim if draw(st.booleans()) else a for a in order))
    if name == "split":
        return draw(_splits(shape, draw(axis)))
    if name == "chunk":
        along, count = draw(axis), draw(st.integers(1, 5))
        size = -(-shape[along] // count)
        return Step(
            name,
            (count, along),
            draw(st.integers(0, -(-shape[along] // size) - 1 if size else count - 1)),
        )
    arguments = {
        "unsqueeze": (draw(st.integers(-ndim - 1, ndim)),),
        "contiguous": (),
        "transpose": (draw(axis), draw(axis)) if ndim else (),
    }
    return Step(name, arguments[name])


@st.composite
def _splits(draw: st.DrawFn, shape: Shape, axis: int) -> Step:
    """Pieces of one size, or of listed sizes."""
    if draw(st.booleans()):
        size = draw(st.integers(1, 4))
        return Step(
            "split", (size, axis), draw(st.integers(0, max(-(-shape[axis] // size) - 1, 0)))
        )
    ends = sorted(draw(st.lists(st.integers(0, shape[axis]), max_size=3)))
    sizes = np.diff([0, *ends, shape[axis]]).tolist()
    return Step("split", (sizes, axis), draw(st.integers(0, len(sizes) - 1)))


@st.composite
def same_size(draw: st.DrawFn, shape: Shape) -> Shape:
    """Another shape with as many elements, by joining and cutting axes at random; at times with one
    -1.
    """
    left, sizes = math.prod(shape), []
    if left == 0:
        sizes = draw(st.permutations([0, *draw(st.lists(st.integers(1, 3), max_size=3))]))
    while left > 1:
        n = draw(st.sampled_from([n for n in range(2, left + 1) if left % n == 0]))
        sizes.append(n)
        left //= n
    for _ in range(draw(st.integers(0, 2))):
        sizes.insert(draw(st.integers(0, len(sizes))), 1)
    if sizes and all(sizes) and draw(st.integers(0, 3)) == 0:
        sizes[draw(st.integers(0, len(sizes) - 1))] = -1
    return tuple(sizes)
