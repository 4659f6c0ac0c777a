"""The graph: what an op leaves behind for reverse mode. autograd.py walks back over it.

While an op runs forward, a `Node` remembers its parents and its `backward`. Nodes point to nodes, never to tensors: an array lives only
as long as the user, or a `backward` that needs it, names it. A leaf's node is its `Accumulator`, which holds the `.grad`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from tensor.devices import Array
from tensor.dtypes import DType
from tensor.errors import GradientError
from tensor.layout import Shape
from tensor.storage import Line, Storage

if TYPE_CHECKING:
    from tensor.results import Exported

# What an op hands back beside its result: one function that returns a gradient for each positional input, or a tuple with one
# function for each, of which the engine keeps (and so lets hold memory) only those whose input wants a gradient.
Backward: TypeAlias = "Callable[..., tuple[Array | None, ...]] | tuple[Callable[[Array], Array] | None, ...] | None"

_order = itertools.count()  # nodes in the order of their making; the walk goes against it
_by_order = attrgetter("order")
_hook_keys = itertools.count()  # never used twice: a remover called again must not remove another hook


# -- nodes -------------------------------------------------------------------------------------------------------------


# An array that a backward holds, with its storage and the version that had when it was taken. A bare tuple: one is made for each.
Saved: TypeAlias = "tuple[Storage | Exported, int, Array]"


class Node:
    """One recorded op: where it was called, what it came from, and how gradients go back through it."""

    __slots__ = ("__weakref__", "backward", "dtype", "hooks", "op", "order", "outputs", "parents", "place", "saved", "shape")

    def __init__(self, op: str, parents: tuple[Any, ...], backward: Any, saved: tuple[Saved, ...], shape: Shape, dtype: DType, place: Any):
        self.op = op
        self.parents = parents  # a Node, Output or Accumulator for each input; None where no gradient is wanted
        self.backward = backward  # None once freed
        self.saved = saved
        self.shape = shape
        self.dtype = dtype
        self.place = place  # the user's line, as (code, instruction)
        self.order = next(_order)
        self.outputs = 1
        self.hooks: dict[int, Callable[[Any], Any]] | None = None

    @property
    def line(self) -> Line:
        """Where in the user's code the op was called."""
        return Line(*self.place)

    def gradients(self, *dys: Array | None, allowed: set[Any] | None = None, places: bool = False) -> Sequence[Array | None]:
        """Call the rule with the gradient of each output: a gradient for each input, None where none is wanted (or in `allowed`).

        places: a rule that takes a keyword `into` is offered the memory where the gradients of leaves belong, a `Room` or None for each.
        """
        backward, parents = self.backward, self.parents
        if type(backward) is tuple:
            return [
                None
                if rule is None or (allowed is not None and parent not in allowed)
                else rule(*dys, into=room_of(parent, parents))
                if places and type(parent) is Accumulator and takes_room(rule)
                else rule(*dys)
                for rule, parent in zip(backward, parents, strict=True)
            ]
        if places and takes_room(backward):
            gradients = backward(*dys, into=[room_of(parent, parents) for parent in parents])
        else:
            gradients = backward(*dys)
        if type(gradients) is not tuple or len(gradients) != len(self.parents):
            raise GradientError(f"backward of `{self.op}` must return a tuple of {len(self.parents)} gradients, one for each input; got {gradients!r:.80}")
        return gradients

    def fills_rooms(self) -> bool:
        """Whether a rule writes gradients of leaves straight where they belong."""
        rules = self.backward if type(self.backward) is tuple else (self.backward,)
        return any(type(parent) is Accumulator and parent.place is not None for parent in self.parents) and any(r and takes_room(r) for r in rules)

    def kept(self) -> dict[str, Any]:
        """What is held for backward: the names that the closures mention, with their values."""
        if hasattr(self.backward, "kept"):  # of a checkpoint
            return self.backward.kept()  # type: ignore[no-any-return]
        functions = self.backward if isinstance(self.backward, tuple) else (self.backward,)
        return {
            name: cell.cell_contents
            for function in functions
            if function is not None
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        }

    def free(self) -> None:
        self.backward, self.saved, self.parents = None, (), ()

    def __repr__(self) -> str:
        return f"Node({self.op}, {self.shape}, {self.dtype}, {self.line})"


class Output:
    """Output `index` of an op that returns several tensors: passes its gradient to that place of the op's node."""

    __slots__ = ("__weakref__", "dtype", "hooks", "index", "order", "parents", "shape")

    def __init__(self, node: Node, index: int, shape: Shape, dtype: DType):
        self.parents: tuple[Any, ...] = (node,)
        self.index, self.shape, self.dtype = index, shape, dtype
        self.order = next(_order)
        self.hooks: dict[int, Callable[[Any], Any]] | None = None

    @property
    def op(self) -> str:
        return str(self.parents[0].op)

    def __repr__(self) -> str:
        return f"Output({self.index} of {self.parents[0]!r})"


class Accumulator:
    """The node of a leaf: sums what arrives into `.grad`, a buffer that nobody else holds.

    `place`, once parameters are packed, is this leaf's stretch of the flat gradient storage: the first gradient of a step
    overwrites it, further ones are added.
    """

    __slots__ = ("__weakref__", "dtype", "gradient", "hooks", "order", "place", "shape")
    parents: tuple[Any, ...] = ()
    op = "leaf"

    def __init__(self, shape: Shape, dtype: DType):
        self.shape, self.dtype = shape, dtype
        self.order = next(_order)
        self.gradient: Any = None  # a Tensor
        self.place: Any = None  # a Tensor
        self.hooks: dict[int, Callable[[Any], Any]] | None = None

    def deposit(self, dx: Array, fresh: bool) -> None:
        """Add dx. `fresh`: nobody else holds that array, so it may become the buffer itself."""
        from tensor.core import Tensor

        if self.gradient is not None:
            buffer = self.gradient.array
            self.gradient.bump()  # first: an interrupt must leave no write uncounted
            np.add(buffer, dx, out=buffer)
        elif self.place is not None:
            self.place.bump()
            self.place.array[...] = dx
            self.gradient = self.place
        else:
            self.gradient = Tensor.from_array(dx if fresh else dx.copy())

    def received(self) -> None:
        """A rule has written (or added) its gradient into the place."""
        self.gradient = self.place
        self.place.bump()

    def __repr__(self) -> str:
        return f"Accumulator({self.shape}, {self.dtype})"


def add_hook(node: Any, hook: Callable[[Any], Any]) -> Callable[[], None]:
    """Call `hook` with the node's gradient when it is complete; returns the remover."""
    hooks = node.hooks
    if hooks is None:
        hooks = node.hooks = {}
    key = next(_hook_keys)
    hooks[key] = hook
    return lambda: hooks.pop(key, None) and None


# -- rooms ------------------------------------------------------------------------------------------------------------


class Room(NamedTuple):
    """Memory where a gradient belongs, offered to a rule that can write there itself: to overwrite, or to add to."""

    array: Array
    add: bool


def takes_room(rule: Callable[..., Any]) -> bool:
    """Whether a rule has the keyword `into`."""
    code = rule.__code__
    return code.co_kwonlyargcount > 0 and "into" in code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]


def room_of(node: Any, inputs: Sequence[Any]) -> Room | None:
    """The room of a leaf that was packed, is one input of the op only, and has no hook that asks to see what arrives; else None."""
    if type(node) is not Accumulator or node.place is None or node.hooks or (node.gradient is not None and node.gradient is not node.place):
        return None
    if inputs.count(node) > 1 or node.place.storage.saved:  # or an op has kept a `.grad`, which its rule may read while it writes here
        return None
    return Room(node.place.array, node.gradient is not None)


def new_or_room(room: Room | None, shape: Shape, dtype: DType) -> Array:
    """Memory to overwrite with a gradient: the room, unless it must be added to."""
    return np.empty(shape, dtype) if room is None or room.add else room.array


# -- looking at it ----------------------------------------------------------------------------------------------------


def reachable(roots: Iterable[Any], since: int = 0) -> list[Any]:
    """Every node behind the roots that was made at `since` or later, in the order of their making.

    Iterative: 50,000 ops deep must not meet the recursion limit.
    """
    seen = set(roots)
    stack = list(seen)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in seen and parent.order >= since:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_by_order)


def next_order() -> int:
    """A number between those of all nodes so far and those of all to come."""
    return next(_order)


def freed(node: Any) -> bool:
    """Whether backward has been through the node, so that nothing needs its values any more."""
    return (node.parents[0] if type(node) is Output else node).backward is None


def describe(node: Any) -> str:
    """`multiply` at model.py:31 `y = x * w`, (2, 3) <- (2, 3), (2, 3)"""
    if type(node) is Output:
        node = node.parents[0]
    inputs = ", ".join("constant" if parent is None else str(parent.shape) for parent in node.parents)
    return f"`{node.op}` at {node.line}, {node.shape} <- {inputs}"


def behind(node: Any, count: int = 5) -> str:
    """The ops that led here, the nearest first."""
    nodes = [n for n in reachable(p for p in node.parents if p is not None) if type(n) is Node][-count:]
    return "behind it: " + ("\n           ".join(describe(n) for n in reversed(nodes)) or "leaves only")
