"""Activation checkpointing: of a stretch of the graph only the start is kept, and backward computes
the rest again.      Chen et al. 2016

    y = checkpoint(block, x)    the y and the gradients of block(x), for less memory and more time

Forward throws away what the ops of `block` would keep for backward. When the backward pass comes to
the checkpoint, the engine records `block(x)` again, on the same nodes as at first, and the pass
goes on through the new nodes. Each gradient takes the way that it would have taken, in the same
order. So the gradients are the same bit for bit where ops give the same bits again (on the CPU they
do).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

from tensor import random
from tensor.autograd.forward import keep
from tensor.base import TensorBase
from tensor.errors import GraphError
from tensor.graph import Node, Saved, next_order, reachable
from tensor.memory.storage import user_place
from tensor.mode import MODE, Switch


def checkpoint(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """function(*inputs, **options), a tensor or a tuple of them, for the memory of its inputs and
    the time of a second run in backward.

    The function must do the same when it runs again. Random layers do: they get the keys, or the
    draws of the default generator, of the first time. Parameters and tensors from around the
    function have their gradients too. Nothing that the function reads may be written before
    backward (MutationError), and the second run may use no other tensors (GraphError).
    """
    mode = MODE.get()
    if not mode.recording:
        return function(*inputs, **options)
    run = Recomputed(function, inputs, options, copy_context(), random.default.state())
    since = next_order()
    # the tensors from outside that the function reads, by id, and what to note of each
    read: dict[int, tuple[Any, Saved]] = {}

    def note(*values: Any) -> None:
        for x in values:
            outside = isinstance(x, TensorBase) and (x.node is None or x.node.order < since)
            if outside and id(x) not in read:
                read[id(x)] = x, keep(x, x.array)

    note(*inputs, *options.values())
    with Switch(reads=note):
        result = function(*inputs, **options)
    ys = result if type(result) is tuple else (result,)
    for y in ys:
        if not isinstance(y, TensorBase):
            raise TypeError(
                "checkpoint: the function must return a tensor or a tuple of tensors, "
                f"not {type(y).__name__}"
            )
    if mode.reads is not None:  # a checkpoint in a checkpoint
        mode.reads(*(x for x, _ in read.values()))
    _, parents = _parted([y.node for y in ys if y.node is not None], since)
    if not parents:
        return result

    shown = next(y for y in ys if y.node is not None)
    saved = tuple(saved for _, saved in read.values())
    node = Node("checkpoint", parents, run, saved, shown.shape, shown.dtype, user_place(1))
    # the same memory, and none of the nodes
    outs = tuple(y.detach() if y.node is not None else y for y in ys)
    if type(result) is not tuple:
        outs[0].node = node
        return outs[0]
    node.give_outputs([out if out is not y else None for out, y in zip(outs, ys, strict=True)])
    return outs


@dataclass(frozen=True, slots=True)
class Recomputed:
    """The backward of a checkpoint: what to run again, and the state of the first run."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    context: Context  # the key of random layers, and the mode
    draws: dict[str, int]  # the state of the default generator

    def again(self, node: Node) -> tuple[list[Any], list[Any]]:
        """Run the function again, recorded: the node of each output, and all new nodes in the order
        of their making.
        """
        since = next_order()
        # a copy: two threads may go back through one graph
        result = self.context.copy().run(self._run, MODE.get().tape)
        roots = [y.node for y in (result if type(result) is tuple else (result,))]
        nodes, parents = _parted([root for root in roots if root is not None], since)
        if len(roots) != node.outputs or set(parents) != set(node.parents):
            raise GraphError(
                f"the function of the checkpoint at {node.line} did something else "
                "when it ran again: it must depend on its inputs alone"
            )
        return roots, nodes

    def _run(self, tape: Any) -> Any:
        stream = random.Generator()
        stream.load_state(self.draws)
        with Switch(tape=tape, stream=stream):  # the recording of the first run may have ended
            return self.function(*self.inputs, **self.options)

    def kept(self) -> dict[str, Any]:
        """What is kept for backward."""
        return {"function": self.function, "inputs": self.inputs, "options": self.options}


def _parted(roots: Iterable[Any], since: int) -> tuple[list[Any], tuple[Any, ...]]:
    """(the nodes behind the roots that were made since then, the older nodes that these use)."""
    found = dict.fromkeys(roots)
    nodes = reachable((root for root in found if root.order >= since), since)
    older = [root for root in found if root.order < since]
    for node in nodes:
        older += [p for p in node.parents if p is not None and p.order < since]
    return nodes, tuple(dict.fromkeys(older))
