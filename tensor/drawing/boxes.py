"""What a picture consists of: boxes with rows, arrows between boxes, frames around boxes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tensor.base import Accumulator
from tensor.dtypes import float32
from tensor.graph import Output, describe, op_of
from tensor.recording.report import visible

MOST_LINES = 12  # ops that a tooltip describes

# A row of a box is a kind and the texts of its columns.
# The kinds: "title", "soft" (a remark), "leaf", "constant", "result".
Row = tuple[str, tuple[str, ...]]


@dataclass(eq=False)
class Box:
    """One box: a part of the ops, or leaves that several parts use."""

    kind: str  # "op", "call", "repeat" or "leaf"
    name: str
    nodes: Sequence[Any]
    call: int
    leaves: list[Accumulator] = field(default_factory=list)  # that no other box has
    rows: list[Row] = field(default_factory=list)
    frame: Frame | None = None
    wires: list[Wire] = field(default_factory=list)  # that leave the box
    row: int = 0  # the layout sets this and all below
    x: float = 0.0  # of the middle
    y: float = 0.0  # of the top
    width: float = 0.0
    height: float = 0.0

    @property
    def tooltip(self) -> str:
        """The ops, with the lines that called them."""
        if self.kind == "leaf":
            return "a leaf that several boxes use"
        lines = [visible(describe(node)) for node in self.nodes[:MOST_LINES]]
        if len(self.nodes) > MOST_LINES:
            lines.append(f"and {len(self.nodes) - MOST_LINES:,} more")
        return "\n".join(lines)


@dataclass(eq=False)
class Wire:
    """A value on its way from its box to others. The layout sets where."""

    source: Box
    value: Any  # Node, Output or Accumulator
    targets: Counter[Box] = field(default_factory=Counter)  # how many inputs of a box it is
    leaves: float = 0.0  # x at the source
    right: float = 0.0  # x of the lane past the rows between
    enters: dict[Box, float] = field(default_factory=dict)  # x at a target

    @property
    def near(self) -> list[Box]:
        """The targets in the next row."""
        return [box for box in self.targets if box.row == self.source.row + 1]

    @property
    def label(self) -> str:
        """Which value leaves the box, and its shape, where the box does not say so."""
        box, value, node = self.source, self.value, op_of(self.value)
        if box.kind == "leaf":
            return shape_of(value) if len(box.nodes) > 1 else ""
        last = box.nodes[-1]
        words = [f"output {value.index}"] if type(value) is Output else []
        if node is not last or not (words or len(box.wires) == 1):
            words.insert(0, shortened(node.op))
        if shape_of(value) != shape_of(last):
            words.append(shape_of(value))
        return " ".join(words)


@dataclass(eq=False)
class Frame:
    """A call whose ops have boxes of their own; `module` holds their leaves."""

    name: str
    module: str
    boxes: list[Box]
    text: tuple[float, float] = (0.0, 0.0)  # its width and height
    left: float = 0.0
    right: float = 0.0
    top: float = 0.0
    bottom: float = 0.0


class Contents(NamedTuple):
    """Boxes in an order in which no arrow points back, and all else that is drawn."""

    boxes: list[Box]
    wires: list[Wire]
    frames: list[Frame]
    title: str
    facts: str


def shape_of(value: Any) -> str:
    """(2, 3), and the dtype where it is not float32."""
    return str(tuple(value.shape)) + ("" if value.dtype == float32 else f" {value.dtype}")


def shortened(text: str) -> str:
    """At most 44 letters; the middle is left out."""
    text = visible(text.replace("\n", " "))
    return text if len(text) <= 44 else f"{text[:21]}…{text[-22:]}"
