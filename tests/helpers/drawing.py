"""A model to draw, and what holds of every drawing: all of the graph is there, nothing overlaps."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn
from tensor.base import Accumulator
from tensor.drawing import draw
from tensor.drawing.boxes import Box, Contents, Wire
from tensor.drawing.contents import contents
from tensor.drawing.scene import scene
from tensor.drawing.shapes import TEXT, Curve, Mark, Rect, Scene, Text, width_of
from tensor.graph import Node, Output, reachable

Collapse = bool | None
both = pytest.mark.parametrize("collapse", [True, False])


def leaf(*shape: int, device: str = "cpu", dtype: str = "float32") -> Tensor:
    return tensor.ones(*shape, device=device, dtype=dtype, requires_grad=True)


class Layer(nn.Module):
    def __init__(self, width: int):
        self.norm, self.inner, self.outer = (
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.Linear(2 * width, width),
        )

    def __call__(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(self.norm(x)).relu())


class Model(nn.Module):
    """Residual layers between a table that is used twice."""

    def __init__(self, layers: int = 3, width: int = 4):
        self.table = nn.Embedding(5, width)
        self.layers = [Layer(width) for _ in range(layers)]

    def stream(self, ids: Any) -> Tensor:
        x = self.table(ids)
        for layer in self.layers:
            x = x + layer(x)
        return x

    def __call__(self, ids: Any) -> Tensor:
        return self.stream(ids) @ self.table.weight.T

    def loss(self) -> Tensor:
        return tensor.cross_entropy(
            self([[0, 1, 2]]), Tensor([[1, 2, 3]], device=self.table.weight.device)
        )


def model_on(device: str, layers: int = 3) -> Model:
    return Model(layers).to(device=device)


def check_complete(y: Tensor, found: Contents) -> None:
    """Each op is in one box, each leaf in one, and each input from another box is an arrow."""
    nodes = reachable([y.node])
    ops = [node for node in nodes if type(node) is Node]
    drawn = [node for box in found.boxes if box.kind != "leaf" for node in box.nodes]
    assert drawn == ops
    owner: dict[Any, Box] = {node: box for box in found.boxes for node in box.nodes}
    rows: Counter[Any] = Counter(leaf for box in found.boxes for leaf in box.leaves)
    assert rows == Counter(node for node in nodes if type(node) is Accumulator)

    expected: Counter[tuple[Box, Box, Any]] = Counter()
    for node in ops:
        for parent in node.parents:
            source = owner.get(parent.parents[0] if type(parent) is Output else parent)
            if source is not None and source is not owner[node]:
                expected[source, owner[node], parent] += 1
            elif type(parent) is Accumulator:
                assert parent in owner[node].leaves
    assert {(w.source, box, w.value): n for w, box, n in arrows(found)} == expected
    places = {box: i for i, box in enumerate(found.boxes)}
    assert all(places[wire.source] < places[box] for wire, box, _ in arrows(found))


def arrows(found: Contents) -> list[tuple[Wire, Box, int]]:
    """(wire, target, how many of its inputs) for every arrow."""
    return [(wire, box, times) for wire in found.wires for box, times in wire.targets.items()]


def check_near(points: list[tuple[float, float]], others: list[tuple[float, float]]) -> None:
    """Each point is one of the others, but for rounding."""
    if points:
        assert (
            np.abs(np.array(points)[:, None] - np.array(others)[None]).max(-1).min(-1) < 1e-6
        ).all()


def meet(a: Rect, b: Rect) -> bool:
    return (
        a.x < b.x + b.width
        and b.x < a.x + a.width
        and a.y < b.y + b.height
        and b.y < a.y + a.height
    )


def holds(a: Rect, b: Rect) -> bool:
    return (
        a.x < b.x
        and b.x + b.width < a.x + a.width
        and a.y < b.y
        and b.y + b.height < a.y + a.height
    )


def outlines(picture: Scene) -> tuple[list[tuple[Mark, Rect]], list[tuple[Mark, Rect]]]:
    """Each frame and each box, with its rectangle. (The last mark is the legend.)"""
    frames, boxes = [], []
    for mark in picture.marks[:-1]:
        found = [shape for shape in mark.shapes if isinstance(shape, Rect)]
        rects = [rect for rect in found if rect.style not in ("band", "bar")]
        if rects:
            (frames if rects[-1].style == "frame" else boxes).append((mark, rects[-1]))
    return frames, boxes


def curves_of(picture: Scene) -> list[Curve]:
    return [shape for mark in picture.marks for shape in mark.shapes if isinstance(shape, Curve)]


def area(text: Text) -> Rect:
    """Where a text is, at most."""
    width, size = width_of(text.text, text.style), TEXT[text.style].size
    left = {"start": 0.0, "middle": width / 2, "end": width}[text.anchor]
    return Rect("", text.x - left, text.y - 0.8 * size, width, size)


def check_texts(picture: Scene) -> None:
    """A text in a frame or box is inside it, and no two texts overlap."""
    frames, boxes = outlines(picture)
    for mark, rect in frames + boxes:
        texts = [area(shape) for shape in mark.shapes if isinstance(shape, Text) and shape.text]
        assert all(holds(rect, text) for text in texts)
        assert not any(meet(a, b) for a, b in combinations(texts, 2))
    titles = [area(shape) for mark, _ in frames for shape in mark.shapes if isinstance(shape, Text)]
    assert not any(meet(title, rect) for title in titles for _, rect in boxes)


def check_apart(found: Contents) -> None:
    """No two boxes overlap or leave the page, no arrow passes through one or has a gap, and frames
    hold their own boxes only.
    """
    picture = scene(found)
    frames, boxes = ([rect for _, rect in marks] for marks in outlines(picture))
    assert len(boxes) == len(found.boxes)
    assert not any(meet(a, b) for a, b in [*combinations(boxes, 2), *combinations(frames, 2)])
    page = Rect("page", *picture[:4])
    assert all(holds(page, a) for a in boxes + frames)
    for rect, frame in zip(frames, found.frames, strict=True):
        for a, box in zip(boxes, found.boxes, strict=True):
            assert holds(rect, a) if box.frame is frame else not meet(rect, a)
    check_texts(picture)

    strokes = [stroke for curve in curves_of(picture) for stroke in curve.strokes]
    for x, y, to, bottom in strokes:
        assert y <= bottom + 1e-6
        passed = Rect("", min(x, to), y + 1e-6, abs(to - x), bottom - y - 2e-6)
        assert not any(meet(a, passed) for a in boxes)
    tips = [tip for curve in curves_of(picture) for tip in curve.tips]
    assert len(tips) == len(arrows(found))  # an arrowhead for each
    assert all(any(a.x < x < a.x + a.width and abs(y - a.y) < 1e-6 for a in boxes) for x, y in tips)
    starts, ends = [stroke[:2] for stroke in strokes], [stroke[2:] for stroke in strokes]
    edges = []
    for x, y in starts:
        edges += [
            (x, y) for a in boxes if a.x < x < a.x + a.width and abs(a.y + a.height - y) < 1e-6
        ]
    check_near(starts, ends + edges)
    check_near(ends, starts + tips)


def check(y: Tensor, collapse: Collapse, model: Any = None) -> Contents:
    found = contents(y, model, collapse)
    check_complete(y, found)
    check_apart(found)
    ElementTree.fromstring(draw(y, model=model, collapse=collapse).svg)
    return found
