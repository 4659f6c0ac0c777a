"""Reverse mode: the tape, and the walk back over it.

While an op runs forward, a `Node` remembers its parents and its `backward`; the walk visits the nodes in the reverse of the order
in which they were made, so each has all its contributions before it passes them on:

    dL/dx  =  sum over every use of x   of   dL/dy * dy/dx

Nodes point to nodes, never to tensors: an array lives only as long as the user, or a `backward` that needs it, names it. A leaf's
node is its `Accumulator`, which holds the `.grad`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from tensor.devices import Array, address, as_array, move
from tensor.dtypes import DType
from tensor.errors import DTypeError, GradientError, GraphError, MutationError, ShapeError
from tensor.layout import Layout, Shape
from tensor.mode import MODE
from tensor.storage import Line, Storage

if TYPE_CHECKING:
    from tensor.core import Tensor
    from tensor.record import Exported

# What an op hands back beside its result: one function that returns a gradient for each positional input, or a tuple with one
# function for each, of which the engine keeps (and so lets hold memory) only those whose input wants a gradient.
Backward: TypeAlias = "Callable[..., tuple[Array | None, ...]] | tuple[Callable[[Array], Array] | None, ...] | None"

_order = itertools.count()  # nodes in the order of their making; the walk goes against it
_by_order = attrgetter("order")


# -- the tape ---------------------------------------------------------------------------------------------------------


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

    def kept(self) -> dict[str, Any]:
        """What is held for backward: the names that the closures mention, with their values."""
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
            np.add(buffer, dx, out=buffer)
            self.gradient.bump()
        elif self.place is not None:
            self.place.array[...] = dx
            self.gradient = self.place
            self.gradient.bump()
        else:
            self.gradient = Tensor.from_array(dx if fresh else dx.copy())

    def received(self) -> None:
        """A rule has written (or added) its gradient into the place."""
        self.gradient = self.place
        self.place.bump()

    def __repr__(self) -> str:
        return f"Accumulator({self.shape}, {self.dtype})"


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


# -- the walk back ----------------------------------------------------------------------------------------------------


def reachable(roots: Iterable[Any]) -> list[Any]:
    """Every node behind the roots, in the order of their making. Iterative: 50,000 ops deep must not meet the recursion limit."""
    seen = set(roots)
    stack = list(seen)
    while stack:
        for parent in stack.pop().parents:
            if parent is not None and parent not in seen:
                seen.add(parent)
                stack.append(parent)
    return sorted(seen, key=_by_order)


def walk(seeds: Sequence[tuple[Any, Array]], wanted: Collection[Any] | None, retain_graph: bool) -> dict[Any, tuple[Array, bool]]:
    """Carry the seeds (node, gradient) back through the graph.

    wanted None: deposit into every leaf. Otherwise return {node: (gradient, fresh)} of those nodes, walk (and free) only what leads to
    them, and deposit nothing. Raises GraphError for a freed graph and MutationError when an array that an op kept was written since,
    both before anything is deposited.
    """
    nodes = passed = reachable(node for node, _ in seeds)
    allowed = None if wanted is None else set(wanted)
    if allowed is not None:
        passed, oldest = [], min((node.order for node in wanted or ()), default=0)
        for node in nodes:  # parents come first; a freed node has forgotten them, so any older node may lie behind it
            if any(parent in allowed for parent in node.parents) or (node.order > oldest and type(node) is Node and node.backward is None):
                allowed.add(node)
                passed.append(node)
        nodes = [node for node in nodes if node in allowed]
    _check_usable(passed)

    ends = allowed.difference(passed) if allowed is not None else ()
    anomaly = MODE.get().anomaly
    found: dict[Any, tuple[Array, bool]] = {}
    table: dict[Any, Any] = {}  # node -> its gradient so far; popped when its turn comes, so that memory is freed as the walk goes
    fresh: set[Any] = set()  # nodes whose entry is an array that nobody else holds: may be added to in place
    late: list[tuple[Any, Array]] = []  # deposits put off until no anomaly can stop the walk any more
    for node, dy in seeds:
        _add(table, fresh, node, dy, True)
    while nodes:
        node = nodes.pop()
        dy = table.pop(node, None)
        if dy is None:
            continue
        if node.hooks:
            dy = _run_hooks(node, dy)
        if wanted is not None and node in wanted:
            found[node] = dy, node in fresh and not node.hooks
            if node in ends:
                continue
        if type(node) is Accumulator:
            if anomaly:
                late.append((node, dy))
            else:
                node.deposit(dy, node in fresh and not node.hooks)
            continue
        if type(node) is Output:
            parent = node.parents[0]
            table.setdefault(parent, [None] * parent.outputs)[node.index] = dy
            continue
        _step(node, dy, table, fresh, allowed, anomaly)
        if not retain_graph:
            node.free()
    for node, dy in late:
        node.deposit(dy, False)
    return found


def _step(node: Node, dy: Any, table: dict[Any, Any], fresh: set[Any], allowed: set[Any] | None, anomaly: bool) -> None:
    """One op backward: call its rule, check what it returns, hand the gradients to the parents."""
    _check_usable((node,))  # once more: a hook may have written since the walk began, or a deposit, where an op kept a `.grad`
    upstream = dy if type(dy) is list else (dy,)  # a list: one for each output
    gradients = node.gradients(*upstream, allowed=allowed, places=allowed is None and not anomaly)
    for position, (parent, dx) in enumerate(zip(node.parents, gradients, strict=True)):
        if parent is None or dx is None or (allowed is not None and parent not in allowed):
            continue
        if type(parent) is Accumulator and parent.place is not None and dx is parent.place.array:
            parent.received()
            continue
        if type(dx) is not np.ndarray:
            dx = as_array(dx)
        if dx.shape != parent.shape or dx.dtype != parent.dtype:
            raise GradientError(
                f"backward of `{node.op}` ({node.line}) returned a gradient {dx.shape} {dx.dtype} for input {position}, which is {parent.shape} {parent.dtype}"
            )
        if anomaly and not np.isfinite(dx).all():
            raise GradientError(f"non-finite gradient from backward of {describe(node)}, input {position} of shape {parent.shape}\n{behind(node)}")
        alone = _is_alone(dx, node, upstream, gradients)
        if type(parent) is Accumulator and allowed is None and not parent.hooks and not anomaly:
            parent.deposit(dx, alone)
        else:
            _add(table, fresh, parent, dx, alone)


def _is_alone(dx: Array, node: Node, upstream: Sequence[Any], gradients: Sequence[Any]) -> bool:
    """Whether an array is ours alone: owns its memory, is not the upstream gradient or a kept array, and no other input has it or a view of it."""
    if dx.base is not None:
        return False
    for g in upstream:
        if g is dx:
            return False
    for _, _, array in node.saved:
        if array is dx:
            return False
    if len(gradients) == 1:
        return True
    holders = 0
    for g in gradients:
        if g is dx or (g is not None and getattr(g, "base", None) is dx):
            holders += 1
    return holders <= 1


def _add(table: dict[Any, Any], fresh: set[Any], node: Any, dx: Array, alone: bool) -> None:
    """Sum dx into the table. Never in place unless the entry is our own: dx may be a parent's, a view, or read-only."""
    have = table.get(node)
    if have is None:
        table[node] = dx
        if alone:
            fresh.add(node)
    elif node in fresh:
        np.add(have, dx, out=have)
    else:
        table[node] = as_array(np.add(have, dx))
        fresh.add(node)


def _check_usable(nodes: Iterable[Any]) -> None:
    """Raise before anything is deposited when part of the graph is gone, or an array it kept has been written."""
    for node in nodes:
        if type(node) is not Node:
            continue
        if node.backward is None:
            raise GraphError(
                f"backward through `{node.op}` ({node.line}) a second time: its graph was freed by the first. Give the first one retain_graph=True"
            )
        for storage, version, array in node.saved:
            if storage.version != version and (line := storage.written_since(version, region_of(array, storage))):
                raise MutationError(
                    f"an array {array.shape} saved by `{node.op}` at {node.line} was written at {line} before backward used it. "
                    "Write to a .clone(), or after backward"
                )


def region_of(array: Array, storage: Storage | Exported) -> Layout:
    """Where in a storage an array that views it lies."""
    itemsize = array.dtype.itemsize
    return Layout(array.shape, tuple(s // itemsize for s in array.strides), (address(array) - address(storage.flat)) // itemsize)


def _run_hooks(node: Any, dy: Array) -> Array:
    """Show a copy of a finished gradient to the hooks of its tensor, in the order they came; each may return a replacement, also copied."""
    from tensor.core import Tensor

    for hook in list(node.hooks.values()):
        result = hook(Tensor.from_array(dy.copy()))
        if result is not None:
            dy = result.array.copy() if isinstance(result, Tensor) else as_array(result).copy()
            if dy.shape != node.shape or dy.dtype != node.dtype:
                raise GradientError(f"hook on `{node.op}` returned {dy.shape} {dy.dtype} for a gradient {node.shape} {node.dtype}")
    return dy


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


# -- what users call --------------------------------------------------------------------------------------------------


def backward(y: Tensor, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add dL/dx into `.grad` of every leaf x behind y, where dL/dy = gradient (1 for a scalar y).

    Raises GraphError when nothing was recorded, the graph is freed, or y is no scalar and no gradient is given; MutationError when
    memory that backward needs was written since.
    """
    walk([(_node_of(y, "backward()"), upstream(y, gradient))], None, retain_graph)


def grad(
    outputs: Tensor | Sequence[Tensor], inputs: Tensor | Sequence[Tensor], gradient: Any = None, *, retain_graph: bool = False
) -> tuple[Tensor | None, ...]:
    """dL/dx for each x of inputs, as a tuple, touching no `.grad`; None for an x that the outputs do not depend on.

    `gradient`: dL/dy, one for each output (a single one for a single output). Inputs may be leaves or intermediates.
    """
    from tensor.core import Tensor

    ys = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
    xs = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    given = (gradient,) if isinstance(outputs, Tensor) or gradient is None else tuple(gradient)
    seeds = [(_node_of(y, "grad()"), upstream(y, g)) for y, g in zip(ys, given * len(ys) if gradient is None else given, strict=True)]
    found = walk(seeds, {_node_of(x, "grad()") for x in xs}, retain_graph)
    result: list[Tensor | None] = []
    handed: set[Any] = set()
    for x in xs:
        dx, fresh = found.get(x.node, (None, False))
        result.append(None if dx is None else Tensor.from_array(dx if fresh and x.node not in handed else dx.copy()))
        handed.add(x.node)
    return tuple(result)


def _node_of(x: Tensor, caller: str) -> Any:
    if x.node is None:
        raise GraphError(f"{caller}: {x.describe()} is in no graph; make a leaf with requires_grad=True before computing, outside no_grad()")
    return x.node


def upstream(y: Tensor, gradient: Any) -> Array:
    """The gradient to start from, checked, as a new array on y's device: the given one may be a `.grad`, into which the walk adds. Ones for a scalar."""
    from tensor.core import Tensor

    if gradient is None:
        if y.shape != ():
            raise GraphError(
                f"backward of a tensor of shape {y.shape} needs the upstream gradient dL/dy: pass one of that shape, or reduce to a scalar (.sum(), .mean())"
            )
        return np.ones_like(y.array)
    dy = gradient.array if isinstance(gradient, Tensor) else as_array(gradient)
    if dy.shape != y.shape:
        raise ShapeError(f"the upstream gradient has shape {dy.shape}, the tensor {y.shape}")
    if dy.dtype != y.dtype:
        raise DTypeError(f"the upstream gradient is {dy.dtype}, the tensor {y.dtype}: use gradient.astype('{y.dtype}')")
    return move(dy, y.device).copy()
