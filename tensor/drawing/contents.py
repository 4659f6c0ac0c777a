"""The contents of the picture of a graph: its boxes, arrows and frames, and all that they say."""

from __future__ import annotations

import math
import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

import numpy as np

from tensor.base import Accumulator
from tensor.drawing.boxes import Box, Contents, Frame, Row, Wire, shape_of, shortened
from tensor.drawing.fold import call_name, parts
from tensor.errors import GraphError
from tensor.graph import Node, op_of, reachable
from tensor.memory.devices import to_host
from tensor.recording.entries import input_of
from tensor.recording.report import visible
from tensor.tensor import Tensor

MOST_ROWS = 8  # leaves that a box of several ops lists one by one
MOST_INPUTS = 40  # inputs that the box of an op lists one by one
MOST_SHARED = 60  # boxes of leaves that several boxes use
MOST_OPS = 8  # kinds of ops that a box of several ops names


def contents(y: Tensor, model: Any = None, collapse: bool | None = None) -> Contents:
    """Everything behind y. Raises GraphError where no graph is, or backward has freed a part."""
    nodes = _ops_behind(y)
    boxes = parts(nodes, collapse)
    owner: dict[Any, Box] = {node: box for box in boxes for node in box.nodes}
    leaves = _Leaves(nodes, owner, _names(model))
    frames = _frames(boxes, leaves)
    boxes = sorted([*leaves.shared, *boxes], key=lambda box: box.call)
    for box in boxes:
        box.rows += _rows(box, leaves)
    result = f"the result: {float(y.item()):.5g}" if y.size == 1 else "the result"
    boxes[-1].rows.append(("result", (result,)))
    title = f"How this result of `{shortened(nodes[-1].op)}` was computed"
    facts = f"{many(len(nodes), 'op')}, {many(len(leaves.inputs), 'leaf')} (parameters)"
    facts += f" with {_size(leaves.inputs)}"
    if len(boxes) - len(leaves.shared) < len(nodes):
        facts += f", in {many(len(boxes), 'box')}"
    return Contents(boxes, _wires(nodes, owner), frames, title, facts)


def _ops_behind(y: Any) -> list[Node]:
    """The ops that led to y, in the order they ran."""
    if not isinstance(y, Tensor):
        raise TypeError(f"draw: y must be a tensor, such as a loss, not {type(y).__name__}")
    if y.is_leaf:
        why = "is in no graph: compute it from a leaf with requires_grad=True, outside no_grad()"
        if y.requires_grad:
            why = "which no op made, so there is nothing to draw: draw a result computed from it"
        raise GraphError(f"draw: {y.describe()}, {why}")
    nodes = [node for node in reachable([y.node]) if type(node) is Node]
    for node in nodes:
        if node.backward is None:
            raise GraphError(
                f"draw: backward has freed the graph behind `{node.op}` ({node.line}). "
                "Draw before backward, or call backward(retain_graph=True): "
                "then the gradients are drawn too"
            )
    return nodes


def _names(model: Any) -> dict[Any, str]:
    """The name of each parameter, by its leaf."""
    if model is None:
        return {}
    if not hasattr(model, "named_parameters"):
        raise TypeError(
            "draw: model= gives the parameters their names, so it must have named_parameters(), "
            f"as nn.Module has; {type(model).__name__} has not"
        )
    named = model.named_parameters()
    return {leaf.node: name for name, leaf in named if type(leaf.node) is Accumulator}


# -- arrows ---------------------------------------------------------------------------------------


def _wires(nodes: Sequence[Node], owner: dict[Any, Box]) -> list[Wire]:
    """An arrow from each value to the other boxes that use the value."""
    wires: dict[Any, Wire] = {}
    for node in nodes:
        for value in node.parents:
            source = owner.get(op_of(value))  # a leaf inside a box has no owner
            if source is None or source is owner[node]:
                continue
            if value not in wires:
                wires[value] = Wire(source, value)
                source.wires.append(wires[value])
            wires[value].targets[owner[node]] += 1
    return list(wires.values())


# -- leaves, boxes, frames ------------------------------------------------------------------------


class _Leaves:
    """The leaves of the graph. Each belongs to the box that uses it, or to one of `shared`."""

    def __init__(self, nodes: Sequence[Node], owner: dict[Any, Box], names: dict[Any, str]):
        self.names = names
        self.inputs: dict[Accumulator, str] = {}  # each leaf, and which input it is first
        users: dict[Accumulator, dict[Box, None]] = {}
        for node in nodes:
            for position, leaf in enumerate(node.parents):
                if type(leaf) is Accumulator:
                    name, _ = input_of(node.op, position)
                    self.inputs.setdefault(leaf, f"{name} of {node.op}")
                    users.setdefault(leaf, {})[owner[node]] = None
        self.gradients = any(leaf.gradient is not None for leaf in users)
        groups: dict[tuple[Box, ...], list[Accumulator]] = {}
        for leaf, boxes in users.items():
            groups.setdefault(tuple(boxes), []).append(leaf)
        self.shared: list[Box] = []
        for (first, *others), leaves in groups.items():
            if others:
                self.shared.append(Box("leaf", "", leaves, first.call, leaves))
            else:
                first.leaves = leaves
        if len(self.shared) > MOST_SHARED:
            leaves = [leaf for box in self.shared for leaf in box.leaves]
            self.shared = [Box("leaf", "", leaves, 0, leaves)]
        owner.update((leaf, box) for box in self.shared for leaf in box.leaves)

    def named(self, leaves: Iterable[Accumulator]) -> list[str]:
        """The names of those that are parameters of the model."""
        return [self.names[leaf] for leaf in leaves if leaf in self.names]

    def rows(self, leaves: Sequence[Accumulator], module: str) -> list[Row]:
        """A row for each leaf, or one row for all where they are many."""
        if len(leaves) <= MOST_ROWS:
            return [self.row(leaf, self.inputs[leaf], module) for leaf in leaves]
        return [("leaf", (many(len(leaves), "leaf"), _size(leaves), self._gradient(leaves)))]

    def row(self, leaf: Accumulator, otherwise: str, module: str, times: int = 1) -> Row:
        """Name (or `otherwise`), shape, and the norm of the gradient."""
        name = shortened(self.names.get(leaf, otherwise).removeprefix(f"{module}."))
        return "leaf", (name + _times(times), shape_of(leaf), self._gradient([leaf]))

    def _gradient(self, leaves: Sequence[Accumulator]) -> str:
        found = [leaf.gradient.array for leaf in leaves if leaf.gradient is not None]
        # hypot squares no number, which may be too large or too small for that
        norms = [np.hypot.reduce(to_host(x).astype(np.float64), axis=None) for x in found]
        if norms:
            return f"gradient {np.hypot.reduce(norms):.3g}"
        return "no gradient" if self.gradients else ""


def _frames(boxes: Sequence[Box], leaves: _Leaves) -> list[Frame]:
    """The frames around the boxes of one call, where there are several calls."""
    frames = []
    for _, group in groupby(boxes, key=lambda box: box.call):
        members = list(group)
        if 1 < len(members) < len(boxes):
            module = common(leaves.named(leaf for box in members for leaf in box.leaves))
            name = shortened(call_name(members[0].nodes[0]))
            frames.append(Frame(name, visible(module), members))
            for box in members:
                box.frame = frames[-1]
    return frames


def _rows(box: Box, leaves: _Leaves) -> list[Row]:
    """What is written in a box."""
    if box.kind == "leaf":
        return [*leaves.rows(box.leaves, ""), ("soft", ("used in several places",))]
    last = box.nodes[-1]
    outputs = f"{last.outputs} × " if last.outputs > 1 else ""
    title: Row = "title", (shortened(box.name), outputs + shape_of(last))
    if box.kind == "op":
        return [title, *_inputs(box, leaves)]
    names = leaves.named(box.leaves)
    module = common(names)
    lines = [_span(names) if box.kind == "repeat" else module, *_listed(box.nodes)]
    remarks: list[Row] = [("soft", (shortened(line),)) for line in lines if line]
    return [title, *remarks, *leaves.rows(box.leaves, module)]


def _inputs(box: Box, leaves: _Leaves) -> list[Row]:
    """A row for each input of an op that no other box made."""
    (node,) = box.nodes
    module = box.frame.module if box.frame else ""
    rows: list[Row] = []
    for position, parent in enumerate(node.parents):
        name, needed = input_of(node.op, position)
        if parent is None and needed:
            rows.append(("constant", (name, "constant")))
        elif parent in box.leaves and parent not in node.parents[:position]:
            rows.append(leaves.row(parent, name, module, node.parents.count(parent)))
    if len(rows) > MOST_INPUTS:
        more = many(len(rows) - MOST_INPUTS, "more input")
        rows[MOST_INPUTS:] = [("soft", (f"and {more}",))]
    return rows


# -- texts ----------------------------------------------------------------------------------------


def common(names: Sequence[str]) -> str:
    """The innermost module that holds all these parameters.

    blocks.0.attention for blocks.0.attention.qkv.weight and blocks.0.attention.projection.bias
    """
    modules = [name.split(".")[:-1] for name in names]
    return ".".join(os.path.commonprefix(modules))  # noqa: RUF071  of lists: module by module


def _size(leaves: Iterable[Accumulator]) -> str:
    """How many numbers the leaves hold."""
    return many(sum(math.prod(leaf.shape) for leaf in leaves), "number")


def _listed(nodes: Sequence[Node]) -> list[str]:
    """12 ops: linear ×2, split, view ×4, ...   in lines"""
    counts = Counter(node.op for node in nodes)
    words = [shortened(op) + _times(count) for op, count in counts.items()]
    if len(words) > MOST_OPS:
        words[MOST_OPS:] = [f"{len(words) - MOST_OPS} other kinds"]
    whole = ", ".join(words).replace(" ×", "\xa0×")  # a line does not end before the ×
    lines = textwrap.wrap(f"{many(len(nodes), 'op')}: {whole}", 44, break_long_words=False)
    return [line.replace("\xa0", " ") for line in lines]


def _span(names: Sequence[str]) -> str:
    """blocks.1 to blocks.11, of the names of parameters below these."""
    stems = [".".join(name.split(".")[:2]) for name in names]
    return " to ".join(dict.fromkeys(stems[:1] + stems[-1:]))


def _times(count: int) -> str:
    return f" ×{count:,}" if count > 1 else ""


def many(count: int, word: str) -> str:
    """1 op, 1,000 ops"""
    plural = {"box": "boxes", "leaf": "leaves"}.get(word, word + "s")
    return f"{count:,} {word if count == 1 else plural}"
