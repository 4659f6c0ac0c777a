"""The shapes of a picture, and their styles. svg.py and png.py draw the same shapes."""

from __future__ import annotations

import unicodedata
from typing import NamedTuple

Colours = tuple[str, str]  # on a light page, and on a dark one

PAGE: Colours = ("#ffffff", "#14171c")
EDGE: Colours = ("#6b7480", "#8a94a1")
ARROW: Colours = ("#4a525c", "#a3adb9")
DARK: Colours = ("#16191d", "#f0f3f7")
SOFT: Colours = ("#57606a", "#aab4c0")
WHITE: Colours = ("#ffffff", "#232830")
YELLOW: Colours = ("#fff9ea", "#2e2a20")


class Pen(NamedTuple):
    """How a text is written."""

    colours: Colours
    size: float = 12.5
    weight: str = "normal"


class Fill(NamedTuple):
    """How a rectangle is drawn."""

    colours: Colours
    line: float = 1.2  # the width of the edge
    dashes: tuple[float, ...] = ()
    radius: float = 6.0


TEXT = {
    "heading": Pen(DARK, 18.0, "bold"),
    "name": Pen(DARK, 14.0, "bold"),
    "plain": Pen(("#24292f", "#dde3ea")),
    "soft": Pen(SOFT),
    "label": Pen(SOFT, 12.0),  # on the page, so with a rim that hides the arrows behind
    "gradient": Pen(("#8f3a00", "#ffb27d")),
}
FILL = {
    "frame": Fill(("#f5f6f8", "#1a1e24"), dashes=(5, 4)),
    "op": Fill(WHITE),
    "call": Fill(YELLOW),
    "repeat": Fill(YELLOW, dashes=(2, 3)),
    "leaf": Fill(WHITE),
    "result": Fill(WHITE, line=2.5),
    "band": Fill(("#e8f0fe", "#22334d"), line=0.0, radius=2.0),
    "bar": Fill(("#2f6fd0", "#6ea8fe"), line=0.0, radius=1.0),
}
NARROW = frozenset("ijltfrI.,:;'|!()[]{} `\"")
WIDE = frozenset("mwMWGOQ@%—…×")


class Rect(NamedTuple):
    """A rectangle; x, y is its left upper corner."""

    style: str
    x: float
    y: float
    width: float
    height: float


class Text(NamedTuple):
    """One line of text; y is the line that the letters stand on."""

    style: str
    x: float
    y: float
    text: str
    anchor: str = "start"  # "middle", "end": the part of the text that is at x


class Curve(NamedTuple):
    """Arrows of one value: strokes from (x, y) to (x, y), upright at both ends, and their tips."""

    strokes: list[tuple[float, float, float, float]]
    tips: list[tuple[float, float]]


Shape = Rect | Text | Curve


class Mark(NamedTuple):
    """Shapes that belong together, and the text that a reader sees who points at one."""

    tooltip: str
    shapes: list[Shape]


class Scene(NamedTuple):
    """A whole picture: the page, and marks on it, each drawn over those before."""

    x: float
    y: float
    width: float
    height: float
    title: str
    description: str
    marks: list[Mark]


def width_of(text: str, style: str) -> float:
    """The width of a text, rather too large than too small: every font must fit."""
    pen = TEXT[style]
    return pen.size * (1.1 if pen.weight == "bold" else 1.0) * sum(map(_letter, text))


def _letter(c: str) -> float:
    if c in NARROW:
        return 0.4
    if c in WIDE:
        return 0.98
    return 1.02 if unicodedata.east_asian_width(c) in "WF" else 0.64


def bezier(x: float, y: float, to: float, bottom: float) -> list[tuple[float, float]]:
    """The four points of a stroke as a cubic curve."""
    middle = (y + bottom) / 2
    return [(x, y), (x, middle), (to, middle), (to, bottom)]
