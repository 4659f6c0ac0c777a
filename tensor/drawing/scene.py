"""The picture as shapes with places: what every writer draws, in the same geometry."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from tensor.drawing.contents import Box, Contents, Edge, Row
from tensor.drawing.layers import Item, Wire, arrange

MARGIN = 24.0
PAD = 10.0  # inside a box, left and right
LINE = 19.0  # height of a row
GAP = 18.0  # between columns
BAR = 4.0  # the bar that marks a leaf
SHEET = 4.0  # by how much the second sheet of a call stands out
WRITING = {"name": 14.0, "heading": 18.0, "plain": 12.5, "soft": 12.5, "gradient": 12.5, "call": 13.0, "label": 12.0, "foot": 12.0}  # size of each kind of text
BOLD = ("name", "heading", "call")
FIRST = {"title": "name", "leaf": "plain", "constant": "soft", "soft": "soft", "result": "name"}  # how a row's first column is written
ORDINARY, NARROW, WIDE = 0.64, frozenset("ijltfrI.,:;'|!()[]{} `\""), frozenset("mwMWGOQ@%—…×")


class Rect(NamedTuple):
    style: str
    x: float
    y: float
    width: float
    height: float


class Text(NamedTuple):
    style: str
    x: float
    y: float  # of the line that letters stand on
    text: str
    anchor: str = "start"


class Curve(NamedTuple):
    """An arrow: strokes from (x, y) to (x, y), upright at both ends, and the points of its heads."""

    strokes: tuple[tuple[float, float, float, float], ...]
    tips: tuple[tuple[float, float], ...]


class Mark(NamedTuple):
    """Shapes that belong together, and what is said of them when one points there."""

    kind: str
    tooltip: str
    shapes: list[Rect | Text]


class Scene(NamedTuple):
    width: float
    height: float
    title: str
    description: str
    marks: list[Mark]  # frames, then boxes, then labels
    curves: list[Curve]  # drawn between the frames and the boxes
    frames: int  # how many of the marks are frames


def width_of(text: str, style: str) -> float:
    """About how wide a text is, rather too much: every font must fit."""
    size = WRITING[style] * (1.1 if style in BOLD else 1.0)
    return size * sum(0.4 if c in NARROW else 0.98 if c in WIDE else 1.02 if unicodedata.east_asian_width(c) in "WF" else ORDINARY for c in text)


# -- boxes ------------------------------------------------------------------------------------------------------------------


class _Form:
    """How large a box is, and its shapes once its place is known."""

    def __init__(self, box: Box, labels: Iterable[str] = ()):
        self.box = box
        self.columns = [0.0, 0.0, 0.0]  # of leaves and constants
        for kind, texts in box.rows:
            if kind in ("leaf", "constant"):
                for i, text in enumerate(texts):
                    self.columns[i] = max(self.columns[i], width_of(text, _style(kind, i)) + GAP * (i > 0 and text != ""))
        rooms = [_room(label) + PAD for label in labels]  # the names of its outputs, above the arrows that leave there
        foot = max(sum(rooms), 3 * max(rooms)) if len(rooms) > 1 else sum(rooms)  # one in the middle, one beside it
        self.width = max(110.0, foot, *(self._row_width(row) for row in box.rows)) + 2 * PAD
        self.height = LINE * (len(box.rows) + (foot > 0)) + 10.0

    def _row_width(self, row: Row) -> float:
        kind, texts = row
        if kind in ("leaf", "constant"):
            return BAR + sum(self.columns)
        return sum(width_of(text, _style(kind, i)) for i, text in enumerate(texts)) + GAP * (len(texts) - 1)

    def mark(self, x: float, y: float) -> Mark:
        """The box with its left upper corner at x, y."""
        box, shapes = self.box, list[Rect | Text]()
        if box.kind in ("call", "repeat"):
            shapes.append(Rect("sheet", x + SHEET, y + SHEET, self.width, self.height))
        shapes.append(Rect("result" if box.rows[-1][0] == "result" else box.kind, x, y, self.width, self.height))
        top = y + 5.0
        for kind, texts in box.rows:
            shapes += self._row(kind, texts, x, top)
            top += LINE
        return Mark(box.kind, box.tooltip, shapes)

    def _row(self, kind: str, texts: Sequence[str], x: float, top: float) -> list[Rect | Text]:
        base, left, right = top + 14.0, x + PAD, x + self.width - PAD
        if kind not in ("leaf", "constant"):
            found: list[Rect | Text] = [Text(_style(kind, 0), left, base, texts[0])]
            return found + [Text(_style(kind, 1), right, base, text, "end") for text in texts[1:] if text]
        shapes: list[Rect | Text] = []
        if kind == "leaf":
            shapes += [Rect("band", x + 5.0, top, self.width - 10.0, LINE - 1.0), Rect("bar", x + 5.0, top, BAR, LINE - 1.0)]
        at = left + BAR
        for i, text in enumerate(texts):
            if i == 2:
                shapes.append(Text(_style(kind, i), right, base, text, "end"))
            else:
                shapes.append(Text(_style(kind, i), at + GAP * (i > 0), base, text))
            at += self.columns[i]
        return [shape for shape in shapes if isinstance(shape, Rect) or shape.text]


def _style(kind: str, column: int) -> str:
    return "gradient" if kind == "leaf" and column == 2 else "soft" if column else FIRST[kind]


# -- all of it --------------------------------------------------------------------------------------------------------------


class _Frame:
    """A call whose boxes are drawn: what it is called stands in a column on the left, where no arrow passes."""

    def __init__(self, contents: Contents, number: int, forms: dict[Box, _Form]):
        call = contents.frames[number]
        self.boxes = [box for box in contents.boxes if box.frame == number]
        self.items = {box: Item(forms[box].width, forms[box].height) for box in self.boxes}
        self.words = [("call", line) for line in wrapped(call.name, 22)] + [("soft", line) for line in wrapped(call.module, 24)]
        self.column = max(width_of(text, style) for style, text in self.words) + 2 * PAD
        inside = set(self.boxes)
        entries: dict[Any, Item] = {}
        exits: dict[Any, Item] = {}
        wires: dict[Any, Wire] = {}
        for edge in contents.edges:
            if edge.target in inside:
                if edge.source not in inside and edge.value not in wires:
                    entries[edge.value] = Item(0.0, 0.0, end="top")
                source = self.items[edge.source] if edge.source in inside else entries[edge.value]
                wire = wires.setdefault(edge.value, Wire(edge.value, source, [], _room(edge.label) if edge.source in inside else 0.0))
                wire.targets.append(self.items[edge.target])
            elif edge.source in inside and edge.value not in exits:
                exits[edge.value] = Item(0.0, 0.0, end="bottom")
        for edge in contents.edges:
            if edge.source in inside and edge.value in exits and exits[edge.value] not in (wire := _wire(wires, edge, self.items[edge.source])).targets:
                wire.targets.append(exits[edge.value])
        latest = max(entries, key=lambda value: value.order, default=None)
        for value, end in entries.items():
            end.aside = value is not latest  # what was made last comes straight in, what is used first goes straight out
        for end in list(exits.values())[1:]:
            end.aside = True
        self.wires = list(wires.values())
        width, height = arrange([*entries.values(), *self.items.values(), *exits.values()], self.wires, LINE * len(self.words) + 14.0)
        left = self.column
        self.top = 0.0 if entries else LINE
        self.item = Item(
            left + width + 2 * PAD,
            self.top + height + (0.0 if exits else LINE),
            {value: left + PAD + item.x for value, item in entries.items()},
            {value: left + PAD + item.x for value, item in exits.items()},
        )

    def mark(self) -> Mark:
        x, y = self.item.x, self.item.y
        shapes: list[Rect | Text] = [Rect("frame", x, y, self.item.width, self.item.height)]
        shapes += [Text(style, x + PAD, y + 20.0 + LINE * i, text) for i, (style, text) in enumerate(self.words)]
        return Mark("frame", " ".join(text for _, text in self.words), shapes)

    def move(self) -> None:
        """Bring what is inside to where the frame is."""
        dx, dy = self.item.x + self.column + PAD, self.item.y + self.top
        for item in self.items.values():
            item.x, item.y = item.x + dx, item.y + dy
        for wire in self.wires:
            wire.strokes = [(a + dx, b + dy, c + dx, d + dy) for a, b, c, d in wire.strokes]
            wire.tips = [(a + dx, b + dy, item) for a, b, item in wire.tips]
            wire.start = wire.start[0] + dx, wire.start[1] + dy


def _wire(wires: dict[Any, Wire], edge: Edge, source: Item) -> Wire:
    return wires.setdefault(edge.value, Wire(edge.value, source, [], _room(edge.label)))


def _room(label: str) -> float:
    return width_of(label, "label") if label else 0.0


def scene(contents: Contents) -> Scene:
    """Boxes into frames, frames and boxes into layers, and the legend above."""
    labels: dict[Box, dict[Any, str]] = {}
    for edge in contents.edges:
        if edge.label:
            labels.setdefault(edge.source, {})[edge.value] = edge.label
    forms = {box: _Form(box, labels.get(box, {}).values()) for box in contents.boxes}
    frames = {number: _Frame(contents, number, forms) for number in contents.frames}
    items: dict[Any, Item] = {}
    for box in contents.boxes:
        if box.frame in frames:
            items[box] = frames[box.frame].item
        else:
            items[box] = Item(forms[box].width, forms[box].height)
    wires: dict[Any, Wire] = {}
    for edge in contents.edges:
        source, target = items[edge.source], items[edge.target]
        if source is not target:
            wire = _wire(wires, edge, source)
            if target not in wire.targets:
                wire.targets.append(target)
    width, height = arrange(list(dict.fromkeys(items.values())), list(wires.values()))
    for frame in frames.values():
        frame.move()
        items.update(frame.items)
    legend, legend_width, legend_height = _legend(contents)
    whole = max(width, legend_width) + 2 * MARGIN
    dx, dy = (whole - width) / 2, MARGIN + legend_height
    every = [*wires.values(), *(wire for frame in frames.values() for wire in frame.wires)]
    marks = [_moved(frame.mark(), dx, dy) for frame in frames.values()]
    marks += [forms[box].mark(items[box].x + dx, items[box].y + dy) for box in contents.boxes]
    by_item = {item: box for box, item in items.items() if isinstance(box, Box) and item.entries is None}
    marks.append(Mark("labels", "", [_moved_shape(text, dx, dy) for text in _labels(contents, every, items, by_item)]))
    marks.append(Mark("legend", "", legend))
    curves = [_curve(wire, by_item, dx, dy) for wire in every]
    description = f"{contents.facts}. Values flow from top to bottom, gradients from bottom to top."
    return Scene(whole, dy + height + MARGIN, contents.title, description, marks, curves, len(frames))


def _curve(wire: Wire, boxes: dict[Item, Box], dx: float, dy: float) -> Curve:
    strokes = tuple((a + dx, b + dy, c + dx, d + dy) for a, b, c, d in wire.strokes if (a, b) != (c, d))
    return Curve(strokes, tuple((x + dx, y + dy) for x, y, item in wire.tips if item in boxes))


def _labels(contents: Contents, wires: Sequence[Wire], items: dict[Any, Item], boxes: dict[Item, Box]) -> list[Text]:
    """What stands beside the arrows: where one leaves its box, and where one arrives that counts several times."""
    labels, found = {edge.value: edge.label for edge in contents.edges}, dict[Any, Text]()
    counts = {(edge.value, edge.target): edge.times for edge in contents.edges}
    texts = []
    for wire in wires:
        if wire.source in boxes and labels[wire.value] and wire.value not in found:
            x, y = wire.start
            found[wire.value] = Text("foot", x, y - 6.0, labels[wire.value], "middle")
        for x, y, item in wire.tips:
            if item in boxes and (count := counts.get((wire.value, boxes[item]), 1)) > 1:
                texts.append(Text("label", x + 7.0, y - 8.0, f"×{count:,}"))
    return [*found.values(), *texts]


def _moved(mark: Mark, dx: float, dy: float) -> Mark:
    return Mark(mark.kind, mark.tooltip, [_moved_shape(shape, dx, dy) for shape in mark.shapes])


def _moved_shape(shape: Rect | Text, dx: float, dy: float) -> Rect | Text:
    return shape._replace(x=shape.x + dx, y=shape.y + dy)


def wrapped(text: str, most: int) -> list[str]:
    """Lines of at most so many characters, broken after a dot where that is possible."""
    lines = []
    while len(text) > most:
        cut = text.rfind(".", 1, most) + 1 or most
        lines.append(text[:cut])
        text = text[cut:]
    return [*lines, text] if text else lines


def _legend(contents: Contents) -> tuple[list[Rect | Text], float, float]:
    """Title, facts, and a line for each kind of thing that is drawn; with their width and height."""
    kinds = {kind for box in contents.boxes for kind, _ in box.rows} | {box.kind for box in contents.boxes}
    lines = [("op", "an op, and the shape of what it makes: (4, 32) is 4 rows of 32 numbers, () is one")]
    if "call" in kinds:
        lines.append(("call", "a call of a function, with all ops that ran in it"))
    if "repeat" in kinds:
        lines.append(("repeat", "the same boxes again, not drawn once more"))
    if contents.frames:
        lines.append(("frame", "the ops of one call of a function"))
    if "leaf" in kinds:
        lines.append(("leaf", "a leaf (parameter): its shape" + (", and the length (norm) of its gradient" if contents.gradients else "")))
    if "constant" in kinds:
        lines.append(("constant", "an input marked constant takes no gradient: data, or a plain number"))
    lines.append(("arrow", "a value on its way to an op that uses it; its gradient comes back against the arrow"))
    shapes: list[Rect | Text] = [
        Text("heading", MARGIN, MARGIN + 16.0, contents.title),
        Text("plain", MARGIN, MARGIN + 38.0, contents.facts),
    ]
    y = MARGIN + 36.0 + LINE
    for kind, text in lines:
        shapes += _sample(kind, MARGIN, y)
        shapes.append(Text("soft", MARGIN + 36.0, y + 13.0, text))
        y += LINE
    width = max(shape.x + width_of(shape.text, shape.style) - MARGIN for shape in shapes if isinstance(shape, Text))
    return shapes, width, y - MARGIN + 20.0


def _sample(kind: str, x: float, y: float) -> list[Rect | Text]:
    if kind == "constant":
        return []
    if kind == "arrow":
        return [Text("plain", x + 9.0, y + 13.0, "↓")]
    if kind == "leaf":
        return [Rect("band", x, y + 2.0, 26.0, 13.0), Rect("bar", x, y + 2.0, BAR, 13.0)]
    sheet: list[Rect | Text] = [Rect("sheet", x + 3.0, y + 5.0, 24.0, 12.0)] if kind in ("call", "repeat") else []
    return [*sheet, Rect(kind, x, y + 2.0, 24.0, 12.0)]
