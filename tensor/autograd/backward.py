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
) -> dict[Any, Array]:
    """Carry the seeds (node, gradient) back through the graph.

    wanted None: accumulate into every leaf. Otherwise return {node: gradient} of those nodes,
    visit (and free) only what leads to them, and accumulate nothing. Raises GraphError for a
    freed graph and MutationError when an array that an op kept was written since, both before any
    `.grad` changes.
    """
    nodes = visited = reachable(node for node, _ in seeds)
    leading = None
    if wanted is not None:
        leading, visited = _leading_to(wanted, nodes)
        nodes = [node for node in nodes if node in leading]
    _check_usable(visited)
    ends = leading.difference(visited) if leading is not None else ()
    this = _Pass(nodes, leading)
    for node, dy in seeds:
        this.add(node, dy, True)
    try:
        return this.visit(nodes, wanted, ends, retain_graph)
    except Exception as error:
        for left in _left_behind(direct=wanted is None, kept=retain_graph):
            error.add_note(left)
        raise


def _left_behind(direct: bool, kept: bool) -> list[str]:
    """What a backward pass leaves that ended early, and what to do before the next one."""
    left = []
    if direct:
        left.append("backward ended early, and some .grad may have a part: call zero_grad()")
    if not kept:
        left.append("backward ended early, and the graph is partly freed: run forward again")
    return left


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


class _Pass:
    """The gradients so far, and how they go from a node to its parents.

    leading: the nodes that lead to the wanted ones; None where all leaves are wanted.
    """

    __slots__ = ("anomaly", "leading", "recorder", "total")

    def __init__(self, nodes: list[Any], leading: set[Any] | None):
        mode = MODE.get()
        self.leading, self.anomaly = leading, mode.anomaly
        self.recorder: Any = None if mode.tape is None else mode.tape.backward_pass(nodes, leading)
        # node -> (its gradient so far, whether nobody else holds that array). An entry goes when
        # the turn of its node comes, so that the memory is freed.
        self.total: dict[Any, tuple[Any, bool]] = {}

    def visit(
        self,
        nodes: list[Any],
        wanted: Collection[Any] | None,
        ends: Collection[Any],
        retain_graph: bool,
    ) -> dict[Any, Array]:
        """Visit the nodes, the last one first: {node: gradient} of those wanted. `ends` lead no
        further.
        """
        total = self.total
        found: dict[Any, Array] = {}
        while nodes:
            node = nodes.pop()
            dy, fresh = total.pop(node, (None, False))
            if dy is None:
                continue
            if node.hooks:
                dy = _run_hooks(node, dy)
            if wanted is not None and node in wanted:
                found[node] = dy
                if node in ends:
                    continue
            if type(node) is Node:
                nodes += self.step(node, dy)
                if not retain_graph:
                    node.free()
            elif type(node) is Output:
                parent = node.parents[0]
                total.setdefault(parent, ([None] * parent.outputs, False))[0][node.index] = dy
            else:
                node.accumulate(dy, fresh)
        return found

    def step(self, node: Node, dy: Any) -> Sequence[Any]:
        """One op backward: call its functions, check the gradients, pass them to the parents.
        Returns further nodes to visit, the first one last.
        """
        # once more: a hook may have written since the pass began, or an accumulation into a `.grad`
        # that an op kept
        stale = node.backward is None
        for storage, version, _ in node.saved:
            stale = stale or storage.version != version
        if stale:
            _check_usable((node,))
        upstream = dy if type(dy) is list else (dy,)  # a list: one for each output
        if type(node.backward) is Recomputed:
            return self._again(node, upstream)
        leading = self.leading
        direct = leading is None  # gradients go straight into the leaves
        if self.recorder is None:
            gradients = node.gradients(
                *upstream, wanted=leading, in_buffers=direct, sums=self.total
            )
        else:
            gradients = self._recorded(node, upstream, direct)
        for position, (parent, dx) in enumerate(zip(node.parents, gradients, strict=True)):
            if parent is None or dx is None or (leading is not None and parent not in leading):
                continue
            buffer = parent.buffer
            if buffer is not None and dx is buffer._array:
                parent.written()
                continue
            if type(dx) is not np.ndarray:
                dx = as_array(dx)
            if dx.shape != parent.shape or dx.dtype != parent.dtype:
                raise GradientError(
                    f"backward of `{node.op}` ({node.line}) returned a gradient {dx.shape} "
                    f"{dx.dtype} for input {position}, which is {parent.shape} {parent.dtype}"
                )
            if self.anomaly and not np.isfinite(dx).all():
                raise GradientError(
                    f"non-finite gradient from backward of {describe(node)}, "
                    f"input {position} of shape {parent.shape}{behind(node)}"
                )
            alone = _is_alone(dx, node, upstream, gradients)
            if direct and type(parent) is Accumulator and not parent.hooks:
                parent.accumulate(dx, alone)
            else:
                self.add(parent, dx, alone)
        return ()

    def _recorded(self, node: Node, upstream: Sequence[Any], direct: bool) -> Sequence[Any]:
        """The gradients of the inputs, also told to the recording."""
        start = perf_counter()
        # a buffer holds the sum so far, and the recording shows this op's gradient alone
        twice = self.recorder.values and direct and node.writes_buffers()
        gradients = node.gradients(
            *upstream,
            wanted=self.leading,
            in_buffers=direct and not twice,
            sums=None if self.recorder.values else self.total,
        )
        self.recorder.backward(node, upstream, gradients, start)
        return node.gradients(*upstream, in_buffers=True) if twice else gradients

    def _again(self, node: Node, upstream: Sequence[Any]) -> list[Any]:
        """A checkpoint: run its function again, and give the new nodes of its outputs their
        gradients.
        """
        roots, nodes = node.backward.again(node)
        for root, dy in zip(roots, upstream, strict=True):
            if dy is not None:
                self.add(root, dy, False)
        if self.leading is not None:
            self.leading, nodes = _leading_to(self.leading, nodes)
        if self.recorder is not None:
            self.recorder.expect(nodes)
        return nodes

    def add(self, node: Any, dx: Array, alone: bool) -> None:
        """Add dx to the gradient of a node: in place where nobody else holds the sum so far, or
        dx. Any other array may be a parent's, a view, or read-only.
        """
        entry = self.total.get(node)
        if entry is None:
            self.total[node] = dx, alone
        elif entry[1]:
            np.add(entry[0], dx, out=entry[0])
        elif alone:
            self.total[node] = np.add(entry[0], dx, out=dx), True
        else:
            self.total[node] = as_array(np.add(entry[0], dx)), True


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
        result = hook(TensorBase.holding(dy.copy()))
        if result is None:
            continue
        dy = TensorBase.wrap(result).array.copy()
        if dy.shape != node.shape or dy.dtype != node.dtype:
            raise GradientError(
                f"hook on `{node.op}` returned {dy.shape} {dy.dtype} "
                f"for a gradient {node.shape} {node.dtype}"
            )
    return dy


# -- what users call


def backward(y: TensorBase, gradient: Any = None, retain_graph: bool = False) -> None:
    """Add dL/dx into `.grad` of every leaf x behind y, where dL/dy = gradient (1 for one element).

    Raises GraphError when nothing was recorded, the graph is freed, or y has several elements and
    no gradient is given; MutationError when memory that backward needs was written since.
    """
    seeds = [(_node_of(y, "backward()"), upstream(y, gradient))]
    leaves = None
    if MODE.get().anomaly:  # no `.grad` changes before the pass has ended without an anomaly
        leaves = {node for node in reachable([y.node]) if type(node) is Accumulator}
    for leaf, dx in backward_pass(seeds, leaves, retain_graph).items():
        leaf.accumulate(dx, False)


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
    if isinstance(outputs, TensorBase):
        outputs, gradient = [outputs], [gradient]
    xs = [inputs] if isinstance(inputs, TensorBase) else inputs
    given = [None] * len(outputs) if gradient is None else gradient
    seeds = [(_node_of(y, "grad()"), upstream(y, g)) for y, g in zip(outputs, given, strict=True)]
    found = backward_pass(seeds, {_node_of(x, "grad()") for x in xs}, retain_graph)
    gradients = [found.get(x.node) for x in xs]
    return tuple(None if dx is None else TensorBase.holding(dx.copy()) for dx in gradients)


def _node_of(x: TensorBase, caller: str) -> Any:
    if x.node is None:
        raise GraphError(
            f"{caller}: {x.describe()}, is in no graph; "
            "make a leaf with requires_grad=True before computing, outside no_grad()"
        )
    return x.node


def upstream(y: TensorBase, gradient: Any) -> Array:
    """The gradient to start from, checked, as a new array on y's device: the given one may be a
    `.grad`, to which the pass adds. 1 for a tensor of one element.
    """
    if gradient is None:
        if y.size != 1:
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
    if not type(dy) is type(y.array) is np.ndarray:
        dy = move(dy, y.device)
    return dy.copy()
