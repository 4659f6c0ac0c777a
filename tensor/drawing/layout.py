"""The positions: boxes in rows from top to bottom, arrows between the rows or beside them.

    1. rows      each box stands just above the first box that uses it; the rows of a frame hold
                 no other boxes
    2. columns   the boxes of a row are ordered by the middle of their neighbours above (or below),
                 and stand as near to those middles as their widths allow
    3. lanes     an arrow that passes a row goes down a lane on the right of the row

So no arrow can cross a box. After Sugiyama, Tagawa & Toda 1981, with lanes in place of dummy nodes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

from tensor.drawing.boxes import Box, Contents, Wire
from tensor.drawing.shapes import Curve, width_of

APART = 26.0  # between two boxes of a row
LANE = 18.0  # between a lane and its left neighbour
CHANNEL = 36.0  # between two rows, in a narrow picture
END = 18.0  # between the edge of a frame and the boxes inside
PORT = 26.0  # between two arrows at one side of a box
SWEEPS = 6  # over the rows, down and up in turn

Port = tuple[bool, float, Wire]


def arrange(contents: Contents) -> list[Curve]:
    """Set the position of every box and frame, whose sizes are set; the curve of each wire."""
    rows = _rows(contents.boxes)
    _set_columns(rows, contents.wires)
    _set_lanes(rows, contents)
    _set_ports(contents)
    middles = [box.x for box in contents.boxes]
    channel = CHANNEL + min(0.02 * (max(middles) - min(middles)), 40.0)
    tops, bottoms = _set_heights(rows, channel)
    return [_curve(wire, tops, bottoms) for wire in contents.wires]


def _rows(boxes: Sequence[Box]) -> list[list[Box]]:
    """Set the row of each box, from the last box up; the boxes of each row."""
    top = lowest = 0
    for _, group in groupby(reversed(boxes), key=lambda box: box.frame):
        for box in group:
            above = [target.row - 1 for wire in box.wires for target in wire.targets]
            box.row = min([lowest, *above])
            top = min(top, box.row)
        lowest = top - 1
    rows: list[list[Box]] = [[] for _ in range(top, 1)]
    for box in boxes:
        box.row -= top
        rows[box.row].append(box)
    return rows


def _set_columns(rows: Sequence[list[Box]], wires: Sequence[Wire]) -> None:
    """Set the x of each box, and order each row by x."""
    below: dict[Box, list[Box]] = defaultdict(list)
    above: dict[Box, list[Box]] = defaultdict(list)
    for wire in wires:
        for box in wire.near:
            below[wire.source].append(box)
            above[box].append(wire.source)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        neighbours = above if down else below
        for row in rows if down else reversed(rows):
            wishes = {}
            for box in row:
                wishes[box] = _mean([other.x for other in neighbours[box] or [box]])
            row.sort(key=wishes.__getitem__)
            _settle(row, wishes)


def _settle(row: Sequence[Box], wishes: dict[Box, float]) -> None:
    """Set x as near to the wishes, which rise, as the widths allow: least squares.

    Boxes that push each other form a block. A block stands at the mean of its members' wishes.
    (Pool adjacent violators, the algorithm of isotonic regression.)
    """
    gaps = ((left.width + right.width) / 2 + APART for left, right in pairwise(row))
    offsets = list(accumulate(gaps, initial=0.0))
    blocks: list[list[float]] = []  # where each member wishes the first box of the row to be
    for box, offset in zip(row, offsets, strict=True):
        block = [wishes[box] - offset]
        while blocks and _mean(blocks[-1]) > _mean(block):
            block = blocks.pop() + block
        blocks.append(block)
    starts = [_mean(block) for block in blocks for _ in block]
    for box, start, offset in zip(row, starts, offsets, strict=True):
        box.x = start + offset


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _right_edge(row: Sequence[Box]) -> float:
    return max(box.x + box.width / 2 for box in row)


def _set_lanes(rows: Sequence[list[Box]], contents: Contents) -> None:
    """Set the lanes and the sides of frames; on the right, the short ones are innermost."""
    right = list(map(_right_edge, rows))
    spans: list[tuple[Collection[int], Any]] = []  # the rows that a thing is in
    for frame in contents.frames:
        spans.append(({box.row for box in frame.boxes}, frame))
        frame.left = min(box.x - box.width / 2 for box in frame.boxes) - frame.text[0]
    for wire in contents.wires:
        last = max(box.row for box in wire.targets)
        spans.append((range(wire.source.row + 1, last), wire))
    for span, thing in sorted(spans, key=lambda pair: len(pair[0])):
        thing.right = max((right[row] for row in span), default=0.0) + LANE
        for row in span:
            right[row] = thing.right


def _set_ports(contents: Contents) -> None:
    """Set where wires leave boxes and enter them: in an order in which they do not cross there."""
    entering: dict[Box, list[Port]] = {box: [] for box in contents.boxes}
    for box in contents.boxes:
        leaving = []
        for wire in box.wires:
            near = [target.x for target in wire.near]
            leaving.append((not near, _mean(near or [wire.right]), wire))
        least = max((label_width(wire.label) for wire in box.wires), default=0.0)
        for x, wire in _spread(box, leaving, least):
            wire.leaves = x
            for target in wire.targets:
                far = target.row > box.row + 1
                entering[target].append((far, wire.right if far else x, wire))
    for box, ports in entering.items():
        for x, wire in _spread(box, ports):
            wire.enters[box] = x


def label_width(label: str) -> float:
    """The width that a label takes, with the space to the next."""
    return width_of(label, "soft") + 12.0 if label else 0.0


def _spread(box: Box, ports: list[Port], least: float = 0.0) -> Iterator[tuple[float, Wire]]:
    """An x for each wire at one side of a box: the straight ones around the middle, then lanes."""
    ports.sort(key=lambda port: port[:2])
    last = len(ports) - 1
    straight = [lane for lane, _, _ in ports].count(False)
    reach = box.width / 2 - max(12.0, least / 2)
    gap = min(max(PORT, least), 2 * reach / max(last, 1))
    start = box.x + min(-gap * max(straight - 1, 0) / 2, reach - gap * last)
    for i, (_, _, wire) in enumerate(ports):
        yield start + gap * i, wire


def _set_heights(rows: Sequence[list[Box]], channel: float) -> tuple[list[float], list[float]]:
    """Set the y of all boxes and frames; the top and the bottom of each row."""
    tops, bottoms = [], []
    y = 0.0
    for frame, group in groupby(rows, key=lambda row: row[0].frame):
        if frame:
            frame.top = y
            y += END
        for row in group:
            tops.append(y)
            for box in row:
                box.y = y
            bottoms.append(y + max(box.height for box in row))
            y = bottoms[-1] + channel
        if frame:
            bottoms[-1] = max(bottoms[-1], frame.top + END + frame.text[1])
            frame.bottom = bottoms[-1] + END
            y = frame.bottom + channel
    return tops, bottoms


def _curve(wire: Wire, tops: Sequence[float], bottoms: Sequence[float]) -> Curve:
    """To each target: down to the end of the row, then sideways, or first down the lane."""
    box, strokes = wire.source, []
    for target, x in wire.enters.items():
        points = [(wire.leaves, box.y + box.height), (wire.leaves, bottoms[box.row])]
        if target.row > box.row + 1:
            points += [(wire.right, tops[box.row + 1]), (wire.right, bottoms[target.row - 1])]
        points.append((x, target.y))
        strokes += [start + end for start, end in pairwise(points)]
    return Curve(strokes, [(x, target.y) for target, x in wire.enters.items()])
