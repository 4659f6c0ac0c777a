"""An array in little space: statistics, one plane of the array, a small map of the plane.

A map has two characters for each cell, so that a map without colour can be read too. ░▒▓█ show how
large a value is beside the largest of its plane, a minus stands before a negative value, `·` is
exactly 0, and NaN and infinities are letters. Where the output's encoding lacks these characters,
`:+%#` and a full stop replace them.
"""

from __future__ import annotations

import math
import sys
import textwrap
from collections.abc import Sequence
from functools import partial
from itertools import chain, repeat
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tensor import Tensor
from tensor.recording import Value, entries

Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
SHADES = "░▒▓█"
ASCII = str.maketrans("░▒▓█·∞␣➤▾▸━─●…├└│", ":+%#.I_>v>=-*~|`|")
NOT_FINITE = 9  # the level of a cell that holds a NaN or an infinity
NEAR_ZERO = 0.01  # of the largest number: a smaller number hardly counts beside it


class Statistics(NamedTuple):
    """What the finite elements are like, and how many elements there are of each kind."""

    size: int
    smallest: float
    largest: float
    mean: float
    std: float
    norm: float
    near_zero: float  # share of the finite elements
    zeros: int
    nans: int
    infinities: int

    @property
    def not_finite(self) -> int:
        """NaN and infinite elements."""
        return self.nans + self.infinities

    @property
    def broken(self) -> list[str]:
        """3 NaN, 1 infinite; empty where all elements are finite."""
        counts = ("NaN", self.nans), ("infinite", self.infinities)
        return [f"{count} {kind}" for kind, count in counts if count]

    def __str__(self) -> str:
        if self.size == 0:
            return "empty"
        if self.not_finite == self.size:
            return "  ".join(self.broken)
        if self.size == 1:
            return f"value {number(self.smallest)}"
        said = f"min {number(self.smallest)}  max {number(self.largest)}"
        parts = [*self.broken, f"{said}  mean {number(self.mean)}  std {number(self.std)}"]
        if self.zeros:
            parts.append(f"zeros {share(self.zeros, self.size)}")
        return "  ".join(parts)


def floats(array: Any) -> Floats:
    """A copy in float64."""
    return np.asarray(array).astype(np.float64)


def statistics(array: Any) -> Statistics:
    """Count and measure the elements of an array."""
    values = floats(array)
    finite = values[np.isfinite(values)]
    zeros, nans = int((values == 0).sum()), int(np.isnan(values).sum())
    counts = zeros, nans, values.size - finite.size - nans
    if not finite.size:
        return Statistics(values.size, *(math.nan,) * 6, *counts)
    low, high, sizes = float(finite.min()), float(finite.max()), np.abs(finite)
    near_zero = float((sizes <= NEAR_ZERO * sizes.max()).mean())
    moments = float(finite.mean()), float(finite.std()), norm(finite)
    return Statistics(values.size, low, high, *moments, near_zero, *counts)


def is_finite(array: Any) -> bool:
    """Whether an array holds neither NaN nor infinity."""
    return bool(np.isfinite(floats(array)).all())


def norm(array: Any) -> float:
    """sqrt of the sum of squares."""
    return float(np.linalg.norm(floats(array)))


def number(value: float) -> str:
    """0.0123, -1.5e-07, 42: at most four digits of a fraction."""
    if not float(value).is_integer():
        return f"{value:.4g}"
    return f"{int(value)}" if abs(value) < 1e6 else f"{value:.3e}"


def term(value: float) -> str:
    """0.0123, (-1.5000): a number behind an operator."""
    text = f"{value:z.4f}"
    return f"({text})" if text.startswith("-") else text


def share(count: int, size: int) -> str:
    """0 %, 43 %; `<1 %` for some elements, but less than one in a hundred."""
    percent = 100 * count / size
    return "<1 %" if 0 < percent < 1 else f"{percent:.0f} %"


def value_of(name: str, array: Any, source: str = "") -> Value:
    """The Value of a NumPy array that no op recorded."""
    array = np.asarray(array)
    return entries.value_of(Tensor.from_array(array), name, source, array)


# -- the characters that the output has


def is_plain() -> bool:
    """Whether the output's encoding lacks a character of maps and marks."""
    # the full-screen program replaces sys.stdout with a stream that has no encoding
    encoding = getattr(sys.stdout, "encoding", None) or getattr(sys.__stdout__, "encoding", None)
    try:
        "".join(map(chr, ASCII)).encode(encoding or "utf-8")
    except UnicodeEncodeError:
        return True
    return False


def written(text: str) -> str:
    """A text in characters that the output's encoding has."""
    return text.translate(ASCII) if is_plain() else text


# -- one plane


class Plane(NamedTuple):
    """The last two axes of an array, at one index of all axes before them."""

    values: Floats  # (rows, columns)
    position: tuple[int, ...]  # on the leading axes
    planes: int  # the number of such planes

    @property
    def text(self) -> str:
        """[0, 2, :, :]; nothing for an array with at most two axes."""
        return f"[{', '.join(map(str, self.position))}, :, :]" if self.position else ""


def plane(array: Any, which: int = 0) -> Plane:
    """The plane of that number, modulo their count: -1 is the last. A vector is one row."""
    values = floats(array)
    if not values.size:
        return Plane(np.empty((0, 1)), (), 1)
    values = np.atleast_2d(values)
    leading = values.shape[:-2]
    count = math.prod(leading)
    index = tuple(map(int, np.unravel_index(which % count, leading)))
    return Plane(values[index], index, count)


class Map(NamedTuple):
    """A plane as rows of cells. A cell has two characters and a level: -4 to 4, or NOT_FINITE."""

    rows: list[list[tuple[str, int]]]
    block: tuple[int, int]  # rows and columns of the plane in one cell
    largest: float  # the value with the darkest shade

    @property
    def lines(self) -> list[str]:
        """The characters alone."""
        return ["".join(map(itemgetter(0), row)) for row in self.rows]

    @property
    def legend(self) -> str:
        """What a cell says."""
        rows, columns = self.block
        of = f"; a cell: the largest of {rows} x {columns}" if rows * columns > 1 else ""
        return f"█ = {number(self.largest)}{of}"


def heat_map(values: Floats, rows: int, columns: int) -> Map:
    """At most rows x columns cells. A cell of several elements shows the one that is not finite, or
    else the one farthest from 0.
    """
    if values.size == 0:
        return Map([], (1, 1), 0.0)
    height, width = -(-values.shape[0] // max(rows, 1)), -(-values.shape[1] // max(columns, 1))
    down, across = np.arange(0, values.shape[0], height), np.arange(0, values.shape[1], width)
    low = np.minimum.reduceat(np.minimum.reduceat(values, down, 0), across, 1)
    high = np.maximum.reduceat(np.maximum.reduceat(values, down, 0), across, 1)
    cells = np.where(-low > high, low, high)
    largest = float(np.abs(cells[np.isfinite(cells)]).max(initial=0))
    cell = partial(_cell, largest)
    return Map([list(map(cell, row)) for row in cells], (height, width), largest)


def _cell(largest: float, value: float) -> tuple[str, int]:
    if math.isnan(value):
        return "Na", NOT_FINITE
    if math.isinf(value):
        return ("+∞" if value > 0 else "-∞"), NOT_FINITE
    if value == 0:
        return " ·", 0
    level = min(4, int(4 * abs(value) / largest) + 1)
    shade = SHADES[level - 1]
    return (shade * 2, level) if value > 0 else ("-" + shade, -level)


def table(values: Floats) -> list[str]:
    """The numbers of a small plane, a line for each row."""
    cells = [list(map(number, row)) for row in values]
    width = max(map(len, chain(*cells)), default=0)
    return ["  ".join(map(str.rjust, row, repeat(width))) for row in cells]


def first(values: Sequence[float] | Floats, width: int) -> str:
    """As many numbers from the start as fit into that width, then `..` if more follow."""
    width = max(width, 14)  # the longest number, and the placeholder
    text = "  ".join(map(number, values[:width]))  # no more than these can fit
    return textwrap.wrap(text, width, max_lines=1, placeholder=" ..", break_on_hyphens=False)[0]
