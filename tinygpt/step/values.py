"""What an array holds, in little room: statistics, one plane of it, and a small map of that.

A map has two characters for each cell, so that it reads without colour too: ░▒▓█ how large the value is against the largest of its plane,
with a minus before it where the value is negative, `·` for exactly 0, `NaN` and infinities in letters. Where the output's encoding has no
such characters, `:+%#` and a full stop stand for them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
SHADES = "░▒▓█"
ASCII = str.maketrans("░▒▓█·∞␣➤▾▸━─●…", ":+%#.I_>v>=-*~")
NOT_FINITE = 9  # the level of a cell that holds a NaN or an infinity


class Statistics(NamedTuple):
    """Of the finite elements, but for the counts."""

    size: int
    low: float
    high: float
    mean: float
    std: float
    zeros: int
    nans: int
    infinities: int

    def __str__(self) -> str:
        if self.size == 0:
            return "empty"
        parts = [f"{self.nans} NaN"] * bool(self.nans) + [f"{self.infinities} infinite"] * bool(self.infinities)
        if self.size == 1 and not parts:
            return f"value {number(self.low)}"
        if self.nans + self.infinities < self.size:
            parts += [f"min {number(self.low)}", f"max {number(self.high)}", f"mean {number(self.mean)}", f"std {number(self.std)}"]
            parts += [f"zeros {share(self.zeros, self.size)}"] * bool(self.zeros)
        return "  ".join(parts)


def statistics(array: Any) -> Statistics:
    """What is in an array."""
    values = np.asarray(array).astype(np.float64)
    finite = values[np.isfinite(values)]
    nans = int(np.isnan(values).sum())
    zeros = int((values == 0).sum())
    low, high, mean, std = (finite.min(), finite.max(), finite.mean(), finite.std()) if finite.size else (math.nan,) * 4
    return Statistics(values.size, float(low), float(high), float(mean), float(std), zeros, nans, values.size - finite.size - nans)


def is_finite(array: Any) -> bool:
    """Whether an array, if it holds floats at all, holds neither NaN nor infinity."""
    values = np.asarray(array)
    return values.dtype.kind in "iub" or bool(np.isfinite(values.astype(np.float64)).all())


def norm(array: Any) -> float:
    """sqrt of the sum of squares."""
    values = np.asarray(array).astype(np.float64)
    return float(np.sqrt((values * values).sum()))


def number(value: float) -> str:
    """0.0123, -1.5e-07, 42: four digits say enough."""
    if value == int(value) if math.isfinite(value) else False:
        return f"{int(value)}" if abs(value) < 1e6 else f"{value:.3e}"
    return f"{value:.4g}"


def share(count: int, size: int) -> str:
    """0 %, 43 %; less than one in a hundred, but some: <1 %."""
    percent = 100 * count / size
    return "<1 %" if 0 < percent < 1 else f"{percent:.0f} %"


# -- what the output can write ------------------------------------------------------------------------------------------


def is_plain() -> bool:
    """Whether the output's encoding lacks one of the characters that maps and marks are made of."""
    encoding = getattr(sys.stdout, "encoding", None) or getattr(sys.__stdout__, "encoding", None)  # the full-screen program puts its own there
    try:
        "".join(map(chr, ASCII)).encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return True
    return False


def written(text: str) -> str:
    """As the output's encoding can write it: another character for each that not every encoding has."""
    return text.translate(ASCII) if is_plain() else text


# -- one plane --------------------------------------------------------------------------------------------------------


class Plane(NamedTuple):
    """The last two axes of an array, at one place of all axes before them."""

    values: Floats  # (rows, columns)
    place: tuple[int, ...]  # on the leading axes
    places: int  # how many such places there are

    @property
    def text(self) -> str:
        """[0, 2, :, :]; nothing for an array that has no more than two axes."""
        return f"[{', '.join(map(str, self.place))}, :, :]" if self.place else ""


def plane(array: Any, which: int = 0) -> Plane:
    """The which-th plane, counted on and on: -1 is the last. A vector is one row."""
    values = np.asarray(array).astype(np.float64)
    leading = values.shape[:-2]
    count = math.prod(leading)
    if count == 0 or values.ndim <= 2:
        return Plane(values.reshape(-1, values.shape[-1]) if values.ndim and values.size else values.reshape(-1, 1), (), 1)
    place = tuple(int(i) for i in np.unravel_index(which % count, leading))
    return Plane(values[place], place, count)


class Map(NamedTuple):
    """A plane as rows of cells, each with its two characters and its level: -4 to 4, or NOT_FINITE."""

    rows: list[list[tuple[str, int]]]
    block: tuple[int, int]  # rows and columns of the plane that one cell stands for
    largest: float  # the value that has the darkest shade

    @property
    def lines(self) -> list[str]:
        """The characters alone."""
        return ["".join(text for text, _ in row).rstrip() for row in self.rows]

    @property
    def legend(self) -> str:
        """What a cell says."""
        rows, columns = self.block
        of = f"; a cell: the largest of {rows} x {columns}" if rows * columns > 1 else ""
        return f"█ = {number(self.largest)}{of}"


def heat_map(values: Floats, rows: int, columns: int) -> Map:
    """At most rows x columns cells; where that is too few, each shows the element of its block that is farthest from 0, or is not finite."""
    if values.size == 0:
        return Map([], (1, 1), 0.0)
    height, width = -(-values.shape[0] // max(rows, 1)), -(-values.shape[1] // max(columns, 1))
    down, across = -(-values.shape[0] // height), -(-values.shape[1] // width)
    padded = np.zeros((down * height, across * width))
    padded[: values.shape[0], : values.shape[1]] = values
    blocks = padded.reshape(down, height, across, width).swapaxes(1, 2).reshape(down, across, height * width)
    sizes = np.where(np.isnan(blocks), np.inf, np.abs(blocks))
    cells = np.take_along_axis(blocks, sizes.argmax(-1)[..., None], -1)[..., 0]
    finite = np.abs(cells[np.isfinite(cells)])
    largest = float(finite.max()) if finite.size else 0.0
    return Map([[_cell(float(value), largest) for value in row] for row in cells], (height, width), largest)


def _cell(value: float, largest: float) -> tuple[str, int]:
    if math.isnan(value):
        return "Na", NOT_FINITE
    if math.isinf(value):
        return ("+∞" if value > 0 else "-∞"), NOT_FINITE
    if value == 0:
        return " ·", 0
    level = min(4, int(4 * abs(value) / largest) + 1) if largest else 1
    shade = SHADES[level - 1]
    return (shade * 2, level) if value > 0 else ("-" + shade, -level)


def table(values: Floats) -> list[str]:
    """The numbers of a small plane, a line for each row."""
    cells = [[number(float(value)) for value in row] for row in values]
    width = max((len(cell) for row in cells for cell in row), default=0)
    return ["  ".join(cell.rjust(width) for cell in row) for row in cells]


def first(values: Sequence[float] | Floats, width: int) -> str:
    """As many numbers from the start as fit into that width, and whether there are more."""
    text = ""
    for i, value in enumerate(values):
        longer = f"{text}  {number(float(value))}" if text else number(float(value))
        if len(longer) + 3 * (i + 1 < len(values)) > width:
            return f"{text} .." if text else ""
        text = longer
    return text
