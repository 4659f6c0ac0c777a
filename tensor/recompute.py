"""Activation checkpointing: of a stretch of the graph only the start is kept, and backward computes it again.      Chen et al. 2016

    y = checkpoint(block, x)        the y and the gradients of y = block(x), for less memory and more time

Forward throws away what the ops of `block` would keep for backward. When the walk back comes here, `block(x)` is recorded anew, on the
very nodes that it hung on at first, and the walk goes on through that: each gradient takes the way, and comes in the order, that it would
have taken. So the gradients are the same bit for bit, where ops give the same bits when they run again (on the CPU they do).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Any

import tensor.core as core
from tensor import random
from tensor.errors import GraphError
from tensor.graph import Node, Output, Saved, next_order, reachable
from tensor.mode import MODE, Switch
from tensor.results import keep
from tensor.storage import user_place


def checkpoint(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """function(*inputs, **options), a tensor or a tuple of them, for the memory of its inputs and the time of a second run in backward.

    The function must do the same when it runs again. Random layers do: they get the keys, or the draws of the default generator, of the
    first time. What else it uses, parameters or tensors from around it, need not be handed in: all of it has its gradient. But nothing
    that it reads may be written before backward (MutationError), and it may not come to depend on other tensors (GraphError).
    """
    mode = MODE.get()
    if not mode.recording:
        return function(*inputs, **options)
    rule = Recomputed(function, inputs, options, copy_context(), random.default.state())
    since = next_order()
    reads = Reads(since)
    reads.note(*inputs, *options.values())
    with Switch(reads=reads.note):
        result = function(*inputs, **options)
    ys = result if type(result) is tuple else (result,)
    for y in ys:
        if not isinstance(y, core.Tensor):
            raise TypeError(f"checkpoint: the function must return a tensor or a tuple of tensors, not {type(y).__name__}")
    if mode.reads is not None:  # a checkpoint in a checkpoint
        mode.reads(*reads.tensors.values())
    _, parents = _parted([y.node for y in ys if y.node is not None], since)
    if not parents:
        return result

    shown = next(y for y in ys if y.node is not None)
    node = Node("checkpoint", parents, rule, tuple(reads.saved), shown.shape, shown.dtype, user_place(1))
    outs = tuple(y.detach() if y.node is not None else y for y in ys)  # the same memory, and none of the nodes
    if type(result) is not tuple:
        outs[0].node = node
        return outs[0]
    node.outputs = len(outs)
    for index, (out, y) in enumerate(zip(outs, ys, strict=True)):
        if y.node is not None:
            out.node = Output(node, index, out.shape, out.dtype)
    return outs


@dataclass(frozen=True, slots=True)
class Recomputed:
    """In the place of a node's rule: what to run again, and how things stood when it ran first."""

    function: Callable[..., Any]
    inputs: tuple[Any, ...]
    options: dict[str, Any]
    context: Context  # the key of random layers, and the mode
    draws: dict[str, int]  # the state of the default generator

    def again(self, node: Node) -> tuple[list[Any], list[Any]]:
        """Run it, recorded: the node of each output, and all new nodes in the order of their making."""
        since = next_order()
        result = self.context.copy().run(self._run, MODE.get().tape)  # a copy: two threads may walk through one graph
        roots = [y.node for y in (result if type(result) is tuple else (result,))]
        nodes, parents = _parted([root for root in roots if root is not None], since)
        if len(roots) != node.outputs or not set(parents) <= set(node.parents):
            raise GraphError(f"the function of the checkpoint at {node.line} did something else when it ran again: it must depend on its inputs alone")
        return roots, nodes

    def _run(self, tape: Any) -> Any:
        stream = random.Generator()
        stream.load_state(self.draws)
        with Switch(tape=tape, stream=stream):  # the recording of the first run may have ended
            return self.function(*self.inputs, **self.options)

    def kept(self) -> dict[str, Any]:
        """What is held for backward."""
        return {"function": self.function, "inputs": self.inputs, "options": self.options}


class Reads:
    """The tensors from outside that a function reads, each with its version when it was first read."""

    def __init__(self, since: int):
        self.since = since
        self.tensors: dict[int, Any] = {}
        self.saved: list[Saved] = []

    def note(self, *values: Any) -> None:
        """Of an op's inputs and options, note the tensors that the function did not compute."""
        for x in values:
            if isinstance(x, core.Tensor) and (x.node is None or x.node.order < self.since) and id(x) not in self.tensors:
                self.tensors[id(x)] = x
                self.saved.append(keep(x, x.array))


def _parted(roots: Iterable[Any], since: int) -> tuple[list[Any], tuple[Any, ...]]:
    """(the nodes behind the roots that were made since then, and the older ones on which they hang)."""
    found = dict.fromkeys(roots)
    nodes = reachable((root for root in found if root.order >= since), since)
    older = [root for root in found if root.order < since]
    return nodes, tuple(dict.fromkeys([*older, *(parent for node in nodes for parent in node.parents if parent is not None and parent.order < since)]))
