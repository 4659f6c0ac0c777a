"""The contents as shapes with positions."""

from __future__ import annotations

import textwrap
from itertools import chain

from tensor.drawing.boxes import Box, Contents, Frame
from tensor.drawing.layout import arrange, label_width
from tensor.drawing.shapes import FILL, Curve, Mark, Rect, Scene, Shape, Text, width_of

MARGIN = 24.0
PAD = 12.0  # inside a box, left and right
LINE = 19.0  # height of a row
GAP = 16.0  # between columns
SHEET = 4.0  # by how much the second sheet of a call stands out
SAMPLE = 36.0  # in the legend, from a sample to its text
STYLES = {  # of the columns in a row of each kind
    "title": ("name", "soft"),
    "soft": ("soft",),
    "leaf": ("plain", "soft", "gradient"),
    "constant": ("soft", "soft"),
    "result": ("name",),
}
LEGEND = {
    "op": "an op, and the shape of what it makes: (4, 32) is 4 rows of 32 numbers, () is one",
    "call": "a call of a function, with all ops that ran in it",
    "repeat": "the same boxes again, not drawn once more",
    "frame": "the ops of one call of a function",
    "leaf": "a leaf (parameter): its shape; after backward, the length (norm) of its gradient",
    "constant": "an input marked constant takes no gradient: data, or a plain number",
    "arrow": "a value on its way to an op that uses it; its gradient comes back against the arrow",
}


def scene(contents: Contents) -> Scene:
    """The whole picture: frames, arrows and boxes, and the legend above."""
    for box in contents.boxes:
        _measure(box)
    for frame in contents.frames:
        widths = [width_of(text, style) for text, style in _lines(frame)]
        frame.text = max(widths) + 3 * PAD, LINE * len(widths)
    curves = arrange(contents)
    arrows: list[Shape] = [*curves]
    for wire in contents.wires:
        for box, times in wire.targets.items():
            if times > 1:
                arrows.append(Text("label", wire.enters[box] + 7.0, box.y - 8.0, f"×{times:,}"))
    marks = [_frame(frame) for frame in contents.frames]
    marks += [Mark("", arrows), *map(_box, contents.boxes)]
    return _page(contents, marks)


def _page(contents: Contents, marks: list[Mark]) -> Scene:
    """Add the legend above, and a margin."""
    xs, bottoms = [], []
    for shape in chain.from_iterable(mark.shapes for mark in marks):
        if isinstance(shape, Rect):
            xs += [shape.x, shape.x + shape.width]
            bottoms.append(shape.y + shape.height)
        if isinstance(shape, Curve):
            xs += [stroke[0] for stroke in shape.strokes]
    lines = _legend(contents)
    widths = [SAMPLE + width_of(text, style) for _, text, style in lines]
    width = max(max(xs) - min(xs), *widths)
    left, top = (min(xs) + max(xs) - width) / 2, -LINE * len(lines) - 24.0
    shapes: list[Shape] = []
    for i, (kind, text, style) in enumerate(lines):
        y = top + LINE * i
        shapes += _sample(kind, left, y + 2.0)
        shapes.append(Text(style, left + SAMPLE * (style == "soft"), y + 13.0, text))
    return Scene(
        left - MARGIN,
        top - MARGIN,
        width + 2 * MARGIN,
        max(bottoms) - top + 2 * MARGIN,
        contents.title,
        f"{contents.facts}. Values flow from top to bottom, gradients from bottom to top.",
        [*marks, Mark("", shapes)],
    )


def _legend(contents: Contents) -> list[tuple[str, str, str]]:
    """The lines above the picture: the kind of thing that a line explains, its text, its style."""
    found = {"op", "arrow", "frame" if contents.frames else ""}
    for box in contents.boxes:
        found |= {box.kind, *(kind for kind, _ in box.rows)}
    lines = [("", contents.title, "heading"), ("", contents.facts, "plain"), ("", "", "soft")]
    return lines + [(kind, text, "soft") for kind, text in LEGEND.items() if kind in found]


def _sample(kind: str, x: float, y: float) -> list[Shape]:
    """The thing in small, for the legend."""
    if kind == "leaf":
        return _band(x, y, 26.0, 13.0)
    if kind == "arrow":
        return [Text("plain", x + 9.0, y + 11.0, "↓")]
    return _sheets(kind, kind, x, y, 24.0, 12.0) if kind in FILL else []


# -- boxes ----------------------------------------------------------------------------------------


def _measure(box: Box) -> None:
    """Set the size of a box."""
    widths = [110.0, sum(_columns(box))]
    widths += [width_of(texts[0], STYLES[kind][0]) for kind, texts in box.rows]
    labels = [label_width(wire.label) for wire in box.wires if wire.label]
    if labels:
        columns = max(len(labels), 3) if len(labels) > 1 else 1  # one in the middle, one beside it
        widths.append(columns * max(labels))
    box.width = max(widths) + 2 * PAD
    box.height = LINE * (len(box.rows) + bool(labels)) + 10.0


def _columns(box: Box) -> list[float]:
    """The widths of the columns, with the gaps before them; a row of one text has no columns."""
    widths = [0.0, 0.0, 0.0]
    for kind, texts in box.rows:
        for i, text in enumerate(texts):
            if text and len(texts) > 1:
                widths[i] = max(widths[i], width_of(text, STYLES[kind][i]) + GAP * (i > 0))
    return widths


def _box(box: Box) -> Mark:
    """The shapes of a box: in each row a text on the left, and the others on the right."""
    left, right = box.x - box.width / 2, box.x + box.width / 2
    look = "result" if box.rows[-1][0] == "result" else box.kind
    shapes = _sheets(box.kind, look, left, box.y, box.width, box.height)
    inner = right - PAD - _columns(box)[2]
    columns = (left + PAD, "start"), (inner, "end"), (right - PAD, "end")
    texts = []
    y = box.y + 5.0
    for kind, row in box.rows:
        if kind == "leaf":
            shapes += _band(left + 5.0, y, box.width - 10.0, LINE - 1.0)
        for text, style, (x, anchor) in zip(row, STYLES[kind], columns, strict=False):
            texts.append(Text(style, x, y + 14.0, text, anchor))
        y += LINE
    texts += [Text("soft", wire.leaves, y + 18.0, wire.label, "middle") for wire in box.wires]
    return Mark(box.tooltip, shapes + [text for text in texts if text.text])


def _sheets(kind: str, style: str, x: float, y: float, width: float, height: float) -> list[Shape]:
    """A rectangle; behind it another, for what stands for several ops."""
    sheets: list[Shape] = [Rect(style, x, y, width, height)]
    if kind in ("call", "repeat"):
        sheets.insert(0, Rect(kind, x + SHEET, y + SHEET, width, height))
    return sheets


def _band(x: float, y: float, width: float, height: float) -> list[Shape]:
    """The ground of a leaf."""
    return [Rect("band", x, y, width, height), Rect("bar", x, y, 4.0, height)]


# -- frames ---------------------------------------------------------------------------------------


def _lines(frame: Frame) -> list[tuple[str, str]]:
    """The lines of a frame's text, each with its style: a narrow column, broken after dots."""
    return [
        (line.replace(". ", "."), style)
        for text, style in ((frame.name, "name"), (frame.module, "soft"))
        for line in textwrap.wrap(text.replace(".", ". "), 24)
    ]


def _frame(frame: Frame) -> Mark:
    """The shapes of a frame: its text is in a column on the left, where no arrow passes."""
    width, height = frame.right - frame.left, frame.bottom - frame.top
    shapes: list[Shape] = [Rect("frame", frame.left, frame.top, width, height)]
    for i, (text, style) in enumerate(_lines(frame)):
        shapes.append(Text(style, frame.left + PAD, frame.top + 26.0 + LINE * i, text))
    return Mark(f"{frame.name} {frame.module}", shapes)
