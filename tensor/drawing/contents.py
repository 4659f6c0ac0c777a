"""What is in the picture, before anything has a place: boxes with their rows, and the values that go from box to box."""

from __future__ import annotations

import inspect
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from tensor.core import Tensor
from tensor.devices import to_host
from tensor.drawing.fold import Part, call_name, parts
from tensor.dtypes import float32
from tensor.errors import GraphError
from tensor.graph import Accumulator, Node, Output, describe, reachable
from tensor.op import OPS

MOST_ROWS = 8  # leaves listed one by one in a box of several ops
MOST_INPUTS = 40  # inputs listed one by one in the box of an op
MOST_SHARED = 60  # boxes of leaves that several boxes use
MOST_OPS = 8  # kinds of ops named in a box of several

# A row of a box is a kind and its columns. Kinds: "title", "soft" (what is said about the box), "leaf", "constant", "result".
Row = tuple[str, tuple[str, ...]]


@dataclass(eq=False)
class Box:
    """One box. `nodes`: the ops, or else the leaves, that it stands for."""

    kind: str  # "op", "call", "repeat" or "leaf"
    nodes: tuple[Any, ...]
    rows: list[Row]
    tooltip: str
    frame: int = -1  # number of the frame that it stands in
    leaves: list[Accumulator] = field(default_factory=list)


class Edge(NamedTuple):
    """`times` inputs of one box are one value that another made."""

    source: Box
    target: Box
    value: Any  # Node, Output or Accumulator
    times: int
    label: str


class Frame(NamedTuple):
    """A call of a function whose ops are boxes of their own."""

    name: str
    module: str


@dataclass
class Contents:
    """Boxes in an order in which no arrow points backwards."""

    boxes: list[Box]
    edges: list[Edge]
    frames: dict[int, Frame]
    title: str
    facts: str
    gradients: bool  # whether a leaf has one


def contents(y: Tensor, model: Any = None, collapse: bool | None = None) -> Contents:
    """Everything behind y. Raises GraphError where there is no graph, or backward has freed part of it."""
    nodes = _ops_behind(y)
    names = _names(model)
    made = parts(nodes, collapse)
    users = _users(made)
    frames = _frames(made, users, names)
    shared = {leaf: places for leaf, places in users.items() if len(places) > 1}
    gradients = any(leaf.gradient is not None for leaf in users)

    maker = _Maker(names, users, shared, gradients)
    boxes = maker.shared_boxes()
    owner: dict[Any, Box] = {leaf: box for box in boxes for leaf in box.nodes}
    for number, part in enumerate(made):
        box = maker.box(part, number, frames.get(part.call))
        box.frame = part.call if part.call in frames else -1
        owner.update(dict.fromkeys(part.nodes, box))
        boxes.append(box)
    boxes[-1].rows.append(("result", (_result(y),)))
    edges = _edges(nodes, owner)
    title = f"How this result of `{shortened(nodes[-1].op)}` was computed"
    count = sum(leaf_size(leaf) for leaf in users)
    facts = f"{_many(len(nodes), 'op')}, {_many(len(users), 'leaf')} (parameters) with {_many(count, 'number')}" + (
        f", in {_many(len(boxes), 'box')}" if len(made) < len(nodes) else ""
    )
    return Contents(boxes, edges, frames, title, facts, gradients)


def _ops_behind(y: Any) -> list[Node]:
    """The ops that led to y, in the order they ran."""
    if not isinstance(y, Tensor):
        raise TypeError(f"draw: y must be a tensor, such as a loss, not {type(y).__name__}")
    if y.is_leaf:
        if y.requires_grad:
            raise GraphError(f"draw: {y.describe()}, which no op made, so there is nothing to draw: draw a result computed from it")
        raise GraphError(f"draw: {y.describe()}, is in no graph: compute it from a leaf with requires_grad=True, outside no_grad()")
    nodes = [node for node in reachable([y.node]) if type(node) is Node]
    for node in nodes:
        if node.backward is None:
            raise GraphError(
                f"draw: backward has freed the graph behind `{node.op}` ({node.line}). Draw before backward, or call backward(retain_graph=True): "
                "then the gradients are drawn too"
            )
    return nodes


def _names(model: Any) -> dict[Any, str]:
    """The leaf of each parameter -> the parameter's name."""
    if model is None:
        return {}
    if not hasattr(model, "named_parameters"):
        raise TypeError(f"draw: model= gives the parameters their names, so it must have named_parameters(), as nn.Module has; {type(model).__name__} has not")
    return {parameter.node: name for name, parameter in model.named_parameters() if type(parameter.node) is Accumulator}


def _users(made: Sequence[Part]) -> dict[Accumulator, dict[int, list[tuple[Node, int]]]]:
    """leaf -> the parts that use it -> where: the op and the position of the input."""
    users: dict[Accumulator, dict[int, list[tuple[Node, int]]]] = {}
    for number, part in enumerate(made):
        for node in part.nodes:
            for position, parent in enumerate(node.parents):
                if type(parent) is Accumulator:
                    users.setdefault(parent, {}).setdefault(number, []).append((node, position))
    return users


def _frames(made: Sequence[Part], users: dict[Accumulator, dict[int, Any]], names: dict[Any, str]) -> dict[int, Frame]:
    """Calls of which several boxes are drawn, by number; none where all is one call."""
    sizes = Counter(part.call for part in made)
    if len(sizes) == 1 or any(part.rounds for part in made):
        return {}
    frames: dict[int, Frame] = {}
    members: dict[int, list[str]] = {}
    for leaf, places in users.items():
        if len(places) == 1 and leaf in names:
            members.setdefault(made[next(iter(places))].call, []).append(names[leaf])
    for part in made:
        if sizes[part.call] > 1 and part.call not in frames:
            frames[part.call] = Frame(shortened(call_name(part.nodes[0])), visible(common(members.get(part.call, []))))
    return frames


def common(names: Sequence[str]) -> str:
    """blocks.0.attention, of blocks.0.attention.qkv.weight and blocks.0.attention.projection.bias"""
    split = [name.split(".")[:-1] for name in names]
    same = 0
    while split and all(len(parts) > same and parts[same] == split[0][same] for parts in split):
        same += 1
    return ".".join(split[0][:same]) if split else ""


def _edges(nodes: Sequence[Node], owner: dict[Any, Box]) -> list[Edge]:
    """One for each (value, box that uses it); values that stay inside a box are not seen."""
    counts: Counter[tuple[Any, Box]] = Counter()
    for node in nodes:
        for parent in node.parents:
            if parent is None or (type(parent) is Accumulator and parent not in owner):
                continue
            maker = parent.parents[0] if type(parent) is Output else parent
            if owner[maker] is not owner[node]:
                counts[parent, owner[node]] += 1
    edges = []
    for (value, target), count in counts.items():
        source = owner[value.parents[0] if type(value) is Output else value]
        edges.append(Edge(source, target, value, count, _label(source, value)))
    return _told_apart(edges)


def _told_apart(edges: list[Edge]) -> list[Edge]:
    """Where several values leave a box and one is labelled, all are."""
    values: dict[Box, set[Any]] = {edge.source: set() for edge in edges if edge.label}
    for edge in edges:
        if edge.source in values:
            values[edge.source].add(edge.value)
    several = {box for box, made in values.items() if len(made) > 1}
    return [edge._replace(label=shortened(edge.value.op)) if edge.source in several and not edge.label else edge for edge in edges]


def _label(source: Box, value: Any) -> str:
    """What the arrow says: which output it is, or of which op; and the shape where the box does not say so."""
    if source.kind == "leaf":
        return "" if len(source.nodes) == 1 else shape_of(value)
    last = source.nodes[-1]
    node = value.parents[0] if type(value) is Output else value
    said = value.shape == last.shape and value.dtype == last.dtype
    which = f"output {value.index}" if type(value) is Output else ""
    if node is not last:
        which = f"{node.op} {which}".strip()
    return " ".join(filter(None, (shortened(which), "" if said else shape_of(value))))


# -- the rows of a box ----------------------------------------------------------------------------------------------------


class _Maker:
    """Makes boxes: it knows the names of leaves, and which of them have boxes of their own."""

    def __init__(self, names: dict[Any, str], users: dict[Accumulator, dict[int, Any]], shared: dict[Accumulator, Any], gradients: bool):
        self.names, self.users, self.shared, self.gradients = names, users, shared, gradients
        self.used_by: dict[int, list[Accumulator]] = {}
        for leaf, places in users.items():
            if leaf not in shared:
                self.used_by.setdefault(next(iter(places)), []).append(leaf)

    def box(self, part: Part, number: int, frame: Frame | None) -> Box:
        """The box of a part."""
        leaves = self.used_by.get(number, [])
        if len(part.nodes) == 1 and not part.rounds:
            node = part.nodes[0]
            rows: list[Row] = [("title", (shortened(node.op), _made(node)))]
            rows += self._inputs(node, frame.module if frame else "")
            return Box("op", part.nodes, rows, visible(describe(node)), leaves=leaves)
        module = common([self.names[leaf] for leaf in leaves if leaf in self.names])
        last = part.nodes[-1]
        if part.rounds:
            what = f"the {part.of} boxes above, {part.rounds:,} more times" if part.of > 1 else f"the box above, {part.rounds:,} more times"
            rows = [("title", (what, _made(last)))]
            if spans := _spans(self.names[leaf] for leaf in leaves if leaf in self.names):
                rows.append(("soft", (spans,)))
        else:
            rows = [("title", (shortened(part.name), _made(last)))]
            rows += [("soft", (shortened(module),))] if module else []
        rows += [("soft", (line,)) for line in _listed(part.nodes)]
        rows += self._several(leaves, module)
        return Box("repeat" if part.rounds else "call", part.nodes, rows, _tooltip(part.nodes), leaves=leaves)

    def shared_boxes(self) -> list[Box]:
        """A box for each leaf that several boxes use; leaves that the same ones use share theirs."""
        together: dict[Any, list[Accumulator]] = {}
        for leaf, places in self.shared.items():
            together.setdefault(tuple(places), []).append(leaf)
        if len(together) > MOST_SHARED:
            together = {(): list(self.shared)}
        boxes = []
        for leaves in together.values():
            if len(leaves) == 1:
                rows: list[Row] = [("leaf", (shortened(self._name(leaves[0])), *self._facts(leaves[0])))]
            else:
                rows = self._several(leaves, "")
            boxes.append(Box("leaf", tuple(leaves), [*rows, ("soft", ("used in several places",))], "a leaf that several boxes use", leaves=leaves))
        return boxes

    def _inputs(self, node: Node, module: str) -> list[Row]:
        """A row for each input of an op that no other box made."""
        rows: list[Row] = []
        for position, parent in enumerate(node.parents):
            name, needed = input_name(node.op, position)
            if parent is None and needed:
                rows.append(("constant", (visible(name), "constant")))
            elif type(parent) is Accumulator and parent not in self.shared and parent not in node.parents[:position]:
                full, times = self.names.get(parent, name), node.parents.count(parent)
                rows.append(("leaf", (_within(full, module) + (f" ×{times}" if times > 1 else ""), *self._facts(parent))))
        if len(rows) > MOST_INPUTS:
            rows[MOST_INPUTS:] = [("soft", (f"and {_many(len(rows) - MOST_INPUTS, 'more input')}",))]
        return rows

    def _several(self, leaves: Sequence[Accumulator], module: str) -> list[Row]:
        """A row for each leaf, or one for all where they are many."""
        if len(leaves) <= MOST_ROWS:
            return [("leaf", (_within(self._name(leaf), module), *self._facts(leaf))) for leaf in leaves]
        norms = [norm(leaf) for leaf in leaves if leaf.gradient is not None]
        total = f"gradient {np.hypot.reduce(norms):.3g}" if norms else self._missing()
        return [("leaf", (f"{len(leaves):,} leaves", f"{_many(sum(map(leaf_size, leaves)), 'number')}", total))]

    def _name(self, leaf: Accumulator) -> str:
        """A parameter's name; of a leaf that has none, the op and the input that it is."""
        if leaf in self.names:
            return self.names[leaf]
        node, position = next(iter(self.users[leaf].values()))[0]
        return f"{input_name(node.op, position)[0]} of {node.op}"

    def _facts(self, leaf: Accumulator) -> tuple[str, str]:
        """Shape, and the norm of the gradient."""
        return shape_of(leaf), self._missing() if leaf.gradient is None else f"gradient {norm(leaf):.3g}"

    def _missing(self) -> str:
        return "no gradient" if self.gradients else ""


def _signature(op: str) -> tuple[inspect.Parameter, ...]:
    reference = getattr(OPS.get(op), "reference", None)
    return tuple(inspect.signature(reference).parameters.values()) if reference else ()


def input_name(op: str, position: int) -> tuple[str, bool]:
    """What the op calls an input, and whether it must be there."""
    parameters = _signature(op)
    if not parameters:
        return f"input {position}", True
    last = min(position, len(parameters) - 1)
    while last and parameters[last].kind is inspect.Parameter.KEYWORD_ONLY:
        last -= 1
    parameter = parameters[last]
    if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
        return f"{parameter.name}[{position - last}]", True
    return parameter.name, parameter.default is parameter.empty


def leaf_size(leaf: Accumulator) -> int:
    """How many numbers a leaf holds."""
    return int(np.prod(leaf.shape, dtype=np.int64))


def norm(leaf: Accumulator) -> float:
    """The Euclidean norm of a leaf's gradient; computed in parts of the largest number, whose square may be none that there is."""
    gradient = np.abs(to_host(leaf.gradient.array).astype(np.float64))
    largest = float(gradient.max(initial=0.0))
    if largest == 0.0 or not math.isfinite(largest):
        return largest
    return largest * math.sqrt(np.square(gradient / largest).sum())


def _result(y: Tensor) -> str:
    """What the last box says: this is what was drawn."""
    return f"the result: {float(y.item()):.5g}" if y.size == 1 else "the result"


def shape_of(value: Any) -> str:
    """(2, 3), and the dtype where it is not float32."""
    return str(tuple(value.shape)) + ("" if value.dtype == float32 else f" {value.dtype}")


def _made(node: Node) -> str:
    return (f"{node.outputs} × " if node.outputs > 1 else "") + shape_of(node)


def _listed(nodes: Sequence[Node]) -> list[str]:
    """12 ops: linear ×2, split, view ×4, ...   in lines"""
    counts = Counter(node.op for node in nodes)
    words = [shortened(op) + (f" ×{n:,}" if n > 1 else "") for op, n in counts.items()]
    if len(words) > MOST_OPS:
        words[MOST_OPS:] = [f"{len(words) - MOST_OPS} other kinds"]
    lines: list[str] = []
    line = f"{_many(len(nodes), 'op')}:"
    for word in [word + "," for word in words[:-1]] + words[-1:]:
        if len(line) + len(word) > 48:
            lines.append(line)
            line = word
        else:
            line += " " + word
    return [*lines, line]


def _tooltip(nodes: Sequence[Node]) -> str:
    """The ops of a box, the first ones with their lines."""
    lines = [describe(node) for node in nodes[:12]]
    return "\n".join(visible(line) for line in [*lines, *([f"and {len(nodes) - 12:,} more"] if len(nodes) > 12 else [])])


def _spans(names: Iterable[str]) -> str:
    """blocks.1 to blocks.11, of the names of parameters below these."""
    stems = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    return shortened(f"{stems[0]} to {stems[-1]}" if len(stems) > 1 else "".join(stems))


def _within(name: str, module: str) -> str:
    """A parameter's name inside a box or frame of its module."""
    return shortened(name.removeprefix(module + ".") if module else name)


def _many(count: int, word: str) -> str:
    """1 op, 1,000 ops"""
    plural = {"box": "boxes", "leaf": "leaves"}.get(word, word + "s")
    return f"{count:,} {word if count == 1 else plural}"


def visible(text: str) -> str:
    """Text with what cannot be seen, or turns the direction of writing, escaped; lines stay."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, most: int = 44) -> str:
    """At most so many characters, the middle left out."""
    text = visible(text).replace("\n", " ")
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[-(most // 2) :]}"
