"""One array by its name: `tinygpt step --plain --show 'blocks.0.attention.weights[0, 2]'`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from rich.cells import cell_len, set_cell_size

from tinygpt.generation.sampling import distribution
from tinygpt.inside.arrays import Floats, heat_map, number, plane, statistics
from tinygpt.inside.step.names import WIDEST, Names, array_of, frame, quoted, right
from tinygpt.inside.step.walk import Walk
from tinygpt.terminal import shown

LOGITS = "logits", "logits.linear"
LIKELIEST = 5  # next tokens that are shown for each position of the text


def show(walk: Walk, wanted: str, names: Names, width: int) -> Iterator[str]:
    """Name and shape, statistics, the contributions to a gradient, and the numbers of one plane
    where they fit, else a map.

    The tokens of the text stand beside an axis as long as the text. Logits are shown as the
    likeliest next tokens.   wanted: a name as in tensor/recording/find.py, with an index of the
    first axes in brackets.   Raises InputError with the nearest names.
    """
    array = array_of(walk.recording, wanted, "see the names: tinygpt step --plain")
    yield ""
    yield f"{shown(wanted)}: shape {array.shape}, {array.dtype}"
    yield f"{statistics(array)}"
    if wanted.endswith(".grad"):
        yield from arrivals(walk, wanted.removesuffix(".grad"))
    seen = plane(array)
    if seen.values.size <= 1:
        return
    if seen.text:
        yield f"of it {seen.text}:"
    yield ""
    down, across = names.of(wanted, array.shape)
    is_logits = wanted.partition("[")[0] in LOGITS and array.shape[-1] == names.vocabulary
    if is_logits and array.ndim > 1 and np.isfinite(seen.values).all():
        yield from likeliest(seen.values, down, names, width)
    else:
        yield from rows(seen.values, down, across, width)


def arrivals(walk: Walk, name: str) -> Iterator[str]:
    """Each contribution to a gradient in the order of arrival, with the norm of the sum so far."""
    for stop in walk.stops:
        for note in stop.contributions(name):
            number, _, norms = note.partition(", ")
            yield f"{number} from {stop.name} ({stop.op}): {norms}"


def likeliest(logits: Floats, heads: Sequence[str], names: Names, width: int) -> Iterator[str]:
    """For each position of the text the five likeliest next tokens, p = softmax(logits)."""
    heads = heads or [""] * len(logits)
    left = max(map(cell_len, heads))
    yield f"{'':>{left}}  likeliest next tokens, p = softmax of the row"
    for head, p in zip(heads, map(distribution, logits), strict=True):
        best = np.argsort(-p, kind="stable")[:LIKELIEST]
        tokens = "  ".join(f"{quoted(names.token(int(i)))} {p[i]:.3f}" for i in best)
        line = f"{right(head, left)}  {tokens}"
        yield set_cell_size(line, min(cell_len(line), width)).rstrip()


def rows(values: Floats, down: Sequence[str], across: Sequence[str], width: int) -> Iterator[str]:
    """A plane in numbers, or as a map where the numbers are too wide.   down, across: names of its
    rows and columns, if they have any.
    """
    heads = down or [""] * len(values)
    cells = [[number(round(value, 3)) for value in row] for row in values]
    if across:
        heads, cells = ["", *heads], [list(across), *cells]
    left = max(map(cell_len, heads))
    column = max(map(cell_len, chain(*cells))) + 1
    if left + column * values.shape[1] <= width:
        for head, line in zip(heads, cells, strict=True):
            yield right(head, left) + "".join(right(cell, column) for cell in line)
        return
    drawn = heat_map(values, len(values) if down else 32, (width - min(left, WIDEST) - 1) // 2)
    top, names = frame(drawn, down, across)
    yield drawn.legend
    if top:
        yield top.rstrip()
    yield from (f"{name}{line}" for name, line in zip(names, drawn.lines, strict=True))
