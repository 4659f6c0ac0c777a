"""Reverse mode: the backward pass over the graph (graph.py), in a few lines at autograd/plain.py.

    dL/dx  =  sum over every use of x   of   dL/dy * dy/dx

The pass visits the newest node first, so a node has its whole gradient before it passes any on.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from time import perf_counter
from typing import Any

import numpy as np

from tensor.autograd.recompute import Recomputed
from tensor.base import Accumulator, TensorBase
from tensor.errors import DTypeError, GradientError, GraphError, MutationError, ShapeError, brief
from tensor.graph import Node, Output, behind, describe, reachable
from tensor.memory.devices import Array, address, as_array, move
from tensor.memory.layout import Layout
from tensor.memory.storage import Exported, Storage
from tensor.mode import MODE

# -- the backward pass


def backward_pass(
    seeds: Sequence[tuple[Any, Array]], wanted: Collection[Any] | None, retain_graph: bool
) -> dict[Any, tuple[Array, bool]]:
    """Carry the seeds (node, gradient) back through the graph.

    wanted None: accumulate into every leaf. Otherwise return {node: (gradient, fresh)} of those
    nodes, visit (and free) only what leads to them, and accumulate nothing. Raises GraphError for a
    freed graph and MutationError when an array that an op kept was written since, both before any
    `.grad` changes.
    """
    nodes = visited = reachable(node for node, _ in seeds)
    leading = None  # the wanted nodes and all that lead to them; None for all nodes
    if wanted is not None:
        leading, visited = _leading_to(wanted, nodes)
        nodes = [node for node in nodes if node in leading]
    _check_usable(visited)

    ends = leading.difference(visited) if leading is not None else ()
    mode = MODE.get()
    anomaly = mode.anomaly
    recorder = mode.tape.backward_pass(nodes, leading) if mode.tape is not None else None
    found: dict[Any, tuple[Array, bool]] = {}
    # node -> its gradient so far; popped when its turn comes, so that its memory is freed
    table: dict[Any, Any] = {}
    # nodes whose entry is an array that nobody else holds: may be added to in place
    fresh: set[Any] = set()
    # what leaves get once no anomaly can end the pass any more
    late: list[tuple[Any, Array]] = []
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
                node.accumulate(dy, node in fresh and not node.hooks)
            continue
        if type(node) is Output:
            parent = node.parents[0]
            table.setdefault(parent, [None] * parent.outputs)[node.index] = dy
            continue
        if type(node.backward) is Recomputed:
            again = _again(node, dy, table, fresh, leading)
            if recorder is not None:
                recorder.expect(again)
            nodes += again
        else:
            _step(node, dy, table, fresh, leading, anomaly, recorder)
        if not retain_graph:
            node.free()
    for node, dy in late:
        node.accumulate(dy, False)
    return found


def _leading_to(wanted: Collection[Any], nodes: Sequence[Any]) -> tuple[set[Any], list[Any]]:
    """(the wanted nodes and all that lead to them, those that lead to them)."""
    leading, visited, oldest = set(wanted), [], min((node.order for node in wanted), default=0)
    # parents come first; a freed node has forgotten them, so any older node may lie behind it
    for node in nodes:
        is_freed = type(node) is Node and node.backward is None
        if any(parent in leading for parent in node.parents) or (is_freed and node.order > oldest):
            leading.add(node)
            visited.append(node)
    return leading, visited


def _step(
    node: Node,
    dy: Any,
    table: dict[Any, Any],
    fresh: set[Any],
    leading: set[Any] | None,
    anomaly: bool,
    recorder: Any,
) -> None:
    """One op backward: call the function, check the gradients, pass them to the parents."""
    # once more: a hook may have written since the pass began, or an accumulation into a `.grad`
    # that an op kept
    _check_usable((node,))
    upstream = dy if type(dy) is list else (dy,)  # a list: one for each output
    direct = leading is None and not anomaly  # gradients go straight into the leaves
    start = perf_counter() if recorder is not None else 0.0
    if recorder is not None and recorder.values and direct and node.writes_buffers():
        # a buffer holds the sum so far, and the recording shows this op's gradient alone
        recorder.backward(node, upstream, node.gradients(*upstream), start)
        gradients = node.gradients(*upstream, in_buffers=True)
    else:
        gradients = node.gradients(*upstream, wanted=leading, in_buffers=direct)
        if recorder is not None:
            recorder.backward(node, upstream, gradients, start)
    for position, (parent, dx) in enumerate(zip(node.parents, gradients, strict=True)):
        if parent is None or dx is None or (leading is not None and parent not in leading):
            continue
        if parent.buffer is not None and dx is parent.buffer.array:
            parent.written()
            continue
        if type(dx) is not np.ndarray:
            dx = as_array(dx)
        if dx.shape != parent.shape or dx.dtype != parent.dtype:
            raise GradientError(
                f"backward of `{node.op}` ({node.line}) returned a gradient {dx.shape} {dx.dtype} "
                f"for input {position}, which is {parent.shape} {parent.dtype}"
            )
        if anomaly and not np.isfinite(dx).all():
            raise GradientError(
                f"non-finite gradient from backward of {describe(node)}, "
                f"input {position} of shape {parent.shape}\n{behind(node)}"
            )
        alone = _is_alone(dx, node, upstream, gradients)
        if direct and type(parent) is Accumulator and not parent.hooks:
            parent.accumulate(dx, alone)
        else:
            _add(table, fresh, parent, dx, alone)


def _again(
    node: Node, dy: Any, table: dict[Any, Any], fresh: set[Any], leading: set[Any] | None
) -> list[Any]:
    """A checkpoint: run its function again, and give what that recorded the gradients of its
    outputs. Returns the nodes to visit next, the first one last.
    """
    _check_usable((node,))
    recomputed: Recomputed = node.backward
    roots, nodes = recomputed.again(node)
    for root, part in zip(roots, [dy] if type(dy) is not list else dy, strict=True):
        if part is not None:
            _add(table, fresh, root, part, node in fresh and not node.hooks)
    if leading is None:
        return nodes
    for new in nodes:
        if any(parent in leading for parent in new.parents):
            leading.add(new)
    return [new for new in nodes if new in leading]


def _is_alone(dx: Array, node: Node, upstream: Sequence[Any], gradients: Sequence[Any]) -> bool:
    """Whether nobody else holds an array: it owns its memory, is neither the upstream gradient nor
    kept, and no other input gets it or a view of it.
    """
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
    """Sum dx into the table; in place only where the entry is our own: dx may be a parent's, a
    view, or read-only.
    """
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
    """Raise when part of the graph is gone, or an array that it kept was written."""
    for node in nodes:
        if type(node) is not Node:
            continue
        if node.backward is None:
            raise GraphError(
                f"backward through `{node.op}` ({node.line}) a second time: "
                "its graph was freed by the first. Compute the forward pass anew, "
                "or give the first backward retain_graph=True"
            )
        for storage, version, array in node.saved:
            if storage.version != version and (
                line := storage.written_since(version, region_of(array, storage))
            ):
                raise MutationError(
                    f"an array {array.shape} saved by `{node.op}` at {node.line} was written "
                    f"at {line} before backward used it. Write to a .clone(), or after backward"
                )


def region_of(array: Array, storage: Storage | Exported) -> Layout:
    """Where in a storage an array that views it lies."""
    itemsize = array.dtype.itemsize
    strides = tuple(s // itemsize for s in array.strides)
    return Layout(array.shape, strides, (address(array) - address(storage.flat)) // itemsize)


def _run_hooks(node: Any, dy: Array) -> Array:
    """Show a copy of a complete gradient to the hooks of its tensor, in the order they were added;
    each may return a replacement, also copied.
    """
    for hook in list(node.hooks.values()):
        result = hook(TensorBase.from_array(dy.copy()))
        if result is None:
            continue
        dy = (result.array if isinstance(result, TensorBase) else as_array(result)).copy()
        if dy.shape != node.shape or dy.dtype != node.dtype:
            raise GradientError(
                f"hook on `{node.op}` returned {dy.shape} {dy.dtype} "
                f"for a gradient {node.shape} {node.dtype}"
            )
    return dy


# -- what users call


def backward(y: TensorBase, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add dL/dx into `.grad` of every leaf x behind y, where dL/dy = gradient (1 for a scalar y).

    Raises GraphError when nothing was recorded, the graph is freed, or y is no scalar and no
    gradient is given; MutationError when memory that backward needs was written since.
    """
    backward_pass([(_node_of(y, "backward()"), upstream(y, gradient))], None, retain_graph)


@brief
def grad(
    outputs: TensorBase | Sequence[TensorBase],
    inputs: TensorBase | Sequence[TensorBase],
    gradient: Any = None,
    *,
    retain_graph: bool = False,
) -> tuple[Any, ...]:
    """dL/dx for each x of inputs, as a tuple, touching no `.grad`; None for an x that the outputs
    do not depend on.

    `gradient`: dL/dy, one for each output (a single one for a single output). Inputs may be leaves
    or intermediates.
    """
    ys = (outputs,) if isinstance(outputs, TensorBase) else tuple(outputs)
    xs = (inputs,) if isinstance(inputs, TensorBase) else tuple(inputs)
    if gradient is None:
        given: Sequence[Any] = [None] * len(ys)
    else:
        given = (gradient,) if isinstance(outputs, TensorBase) else gradient
    seeds = [(_node_of(y, "grad()"), upstream(y, g)) for y, g in zip(ys, given, strict=True)]
    found = backward_pass(seeds, {_node_of(x, "grad()") for x in xs}, retain_graph)
    result: list[Any] = []
    for x in xs:
        dx, fresh = found.get(x.node, (None, False))
        found[x.node] = dx, False  # an x that is named twice gets a copy
        if dx is not None:
            dx = TensorBase.from_array(dx if fresh else dx.copy())
        result.append(dx)
    return tuple(result)


def _node_of(x: TensorBase, caller: str) -> Any:
    if x.node is None:
        raise GraphError(
            f"{caller}: {x.describe()}, is in no graph; "
            "make a leaf with requires_grad=True before computing, outside no_grad()"
        )
    return x.node


def upstream(y: TensorBase, gradient: Any) -> Array:
    """The gradient to start from, checked, as a new array on y's device: the given one may be a
    `.grad`, to which the pass adds. 1 for a scalar.
    """
    if gradient is None:
        if y.shape != ():
            raise GraphError(
                f"backward of a tensor of shape {y.shape} needs the upstream gradient dL/dy: "
                "pass one of that shape, or reduce to a scalar (.sum(), .mean())"
            )
        return np.ones_like(y.array)
    dy = gradient.array if isinstance(gradient, TensorBase) else as_array(gradient)
    if dy.shape != y.shape:
        raise ShapeError(f"the upstream gradient has shape {dy.shape}, the tensor {y.shape}")
    if dy.dtype != y.dtype:
        raise DTypeError(
            f"the upstream gradient is {dy.dtype}, the tensor {y.dtype}: "
            f"use gradient.astype('{y.dtype}')"
        )
    return move(dy, y.device).copy()
