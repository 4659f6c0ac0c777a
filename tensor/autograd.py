"""Reverse mode: the walk back over the graph (graph.py). It visits the nodes in the reverse of the order in which they were made, so each
has all its contributions before it passes them on:

    dL/dx  =  sum over every use of x   of   dL/dy * dy/dx
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tensor.devices import Array, address, as_array, move
from tensor.errors import DTypeError, GradientError, GraphError, MutationError, ShapeError
from tensor.graph import Accumulator, Node, Output, behind, describe, reachable
from tensor.layout import Layout
from tensor.mode import MODE
from tensor.recompute import Recomputed
from tensor.storage import Storage

if TYPE_CHECKING:
    from tensor.core import Tensor
    from tensor.results import Exported


# -- the walk ---------------------------------------------------------------------------------------------------------


def walk(seeds: Sequence[tuple[Any, Array]], wanted: Collection[Any] | None, retain_graph: bool) -> dict[Any, tuple[Array, bool]]:
    """Carry the seeds (node, gradient) back through the graph.

    wanted None: deposit into every leaf. Otherwise return {node: (gradient, fresh)} of those nodes, walk (and free) only what leads to
    them, and deposit nothing. Raises GraphError for a freed graph and MutationError when an array that an op kept was written since,
    both before anything is deposited.
    """
    nodes = passed = reachable(node for node, _ in seeds)
    allowed = None
    if wanted is not None:
        allowed, passed = _leading_to(wanted, nodes)
        nodes = [node for node in nodes if node in allowed]
    _check_usable(passed)

    ends = allowed.difference(passed) if allowed is not None else ()
    mode = MODE.get()
    anomaly = mode.anomaly
    tape = mode.tape.walk(nodes, allowed) if mode.tape is not None else None
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
        if type(node.backward) is Recomputed:
            again = _again(node, dy, table, fresh, allowed)
            if tape is not None:
                tape.expect(again)
            nodes += again
        else:
            _step(node, dy, table, fresh, allowed, anomaly, tape)
        if not retain_graph:
            node.free()
    for node, dy in late:
        node.deposit(dy, False)
    return found


def _leading_to(wanted: Collection[Any], nodes: Sequence[Any]) -> tuple[set[Any], list[Any]]:
    """(the wanted nodes and all that lead to them, those that lead to them): the walk goes through the second."""
    allowed, passed, oldest = set(wanted), [], min((node.order for node in wanted), default=0)
    for node in nodes:  # parents come first; a freed node has forgotten them, so any older node may lie behind it
        if any(parent in allowed for parent in node.parents) or (node.order > oldest and type(node) is Node and node.backward is None):
            allowed.add(node)
            passed.append(node)
    return allowed, passed


def _step(node: Node, dy: Any, table: dict[Any, Any], fresh: set[Any], allowed: set[Any] | None, anomaly: bool, tape: Any) -> None:
    """One op backward: call its rule, check what it returns, hand the gradients to the parents."""
    _check_usable((node,))  # once more: a hook may have written since the walk began, or a deposit, where an op kept a `.grad`
    upstream = dy if type(dy) is list else (dy,)  # a list: one for each output
    start = perf_counter() if tape is not None else 0.0
    places = allowed is None and not anomaly
    apart = tape is not None and tape.values and places and node.fills_rooms()  # by a call of its own: in a room is the sum so far, not one contribution
    if apart:
        tape.backward(node, upstream, node.gradients(*upstream, allowed=allowed), start)
    gradients = node.gradients(*upstream, allowed=allowed, places=places)
    if tape is not None and not apart:
        tape.backward(node, upstream, gradients, start)
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


def _again(node: Node, dy: Any, table: dict[Any, Any], fresh: set[Any], allowed: set[Any] | None) -> list[Any]:
    """A checkpoint: run its function again, and hand the gradients of its outputs to what that recorded. The nodes to walk next, the first one last."""
    _check_usable((node,))
    rule: Recomputed = node.backward
    roots, nodes = rule.again(node)
    for root, part in zip(roots, [dy] if type(dy) is not list else dy, strict=True):
        if part is not None:
            _add(table, fresh, root, part, node in fresh and not node.hooks)
    if allowed is None:
        return nodes
    for new in nodes:
        if any(parent in allowed for parent in new.parents):
            allowed.add(new)
    return [new for new in nodes if new in allowed]


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
                f"backward through `{node.op}` ({node.line}) a second time: its graph was freed by the first. "
                "Compute the forward pass anew, or give the first backward retain_graph=True"
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
        raise GraphError(f"{caller}: {x.describe()}, is in no graph; make a leaf with requires_grad=True before computing, outside no_grad()")
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
