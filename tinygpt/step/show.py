"""One array of the walk, by its name: `tinygpt step --plain --show 'blocks.0.attention.weights[0, 2]'`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from rich.cells import cell_len, set_cell_size

from tensor.tape import Tape
from tinygpt.console import shown
from tinygpt.step.names import WIDEST, Names, array_of, frame, quoted
from tinygpt.step.values import Floats, heat_map, norm, number, plane, statistics

LOGITS = "logits", "logits.linear"
LIKELIEST = 5  # next tokens that are shown for each place of the text


def show(tape: Tape, wanted: str, names: Names, width: int) -> Iterator[str]:
    """Name and shape, statistics, of a gradient where it comes from, and the numbers of one plane where they fit, else a map.

    An axis as long as the text has its tokens beside it; of logits the likeliest next tokens are shown.   wanted: a name as in
    tensor/tape/find.py, and behind it, in brackets, a place on the first axes.   Raises InputError with the nearest names.
    """
    array = array_of(tape, wanted, "see the names: tinygpt step --plain")
    yield ""
    yield f"{shown(wanted)}: shape {array.shape}, {array.dtype}"
    yield f"{statistics(array)}"
    yield from arrivals(tape, wanted.removesuffix(".grad")) if wanted.endswith(".grad") else ()
    seen = plane(array)
    if seen.values.size <= 1:
        return
    if seen.text:
        yield f"of it {seen.text}:"
    yield ""
    down, across = names.of(wanted, array.shape)
    if wanted.partition("[")[0] in LOGITS and array.ndim > 1 and array.shape[-1] == names.vocabulary and np.isfinite(seen.values).all():
        yield from likeliest(seen.values, down, names, width)
    else:
        yield from rows(seen.values, down, across, width)


def arrivals(tape: Tape, name: str) -> Iterator[str]:
    """Where a gradient comes from: each contribution, in the order they arrived, and the norm of their sum so far."""
    parts = [(step, part) for step in tape.backwards for part in step.contributions if part.to == name]
    so_far = None
    for step, part in parts:
        so_far = part.value.array if so_far is None else so_far + part.value.array
        sums = f", the sum so far {number(norm(so_far))}" if part.number > 1 else ""
        yield f"{part.number} of {part.count} from {step.name} ({step.op}): norm {number(norm(part.value.array))}{sums}"


def likeliest(logits: Floats, heads: Sequence[str], names: Names, width: int) -> Iterator[str]:
    """For each place of the text the five tokens that the model thinks likeliest to come next, p = softmax(logits)."""
    left = max(map(cell_len, heads), default=0)
    yield f"{'':>{left}}  likeliest next tokens, p = softmax of the row"
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    for head, row in zip(heads or [""] * len(logits), shifted / shifted.sum(-1, keepdims=True), strict=True):
        best = np.argsort(-row, kind="stable")[:LIKELIEST]
        line = f"{' ' * (left - cell_len(head))}{head}  " + "  ".join(f"{quoted(names.token(int(i)))} {row[i]:.3f}" for i in best)
        yield set_cell_size(line, min(cell_len(line), width)).rstrip()


def rows(values: Floats, down: Sequence[str], across: Sequence[str], width: int) -> Iterator[str]:
    """A plane in numbers, or as a map where these are too wide.   down, across: what its rows and columns are called, if anything."""
    heads = down or [""] * len(values)
    left = max(map(cell_len, heads))
    cells = [[number(round(float(value), 3)) if np.isfinite(value) else str(value) for value in row] for row in values]
    room = max(map(cell_len, [cell for row in cells for cell in row] + list(across))) + 1
    if left + room * values.shape[1] <= width:
        if across:
            yield " " * left + "".join(" " * (room - cell_len(head)) + head for head in across)
        for head, row in zip(heads, cells, strict=True):
            yield " " * (left - cell_len(head)) + head + "".join(cell.rjust(room) for cell in row)
        return
    drawn = heat_map(values, len(values) if down else 32, (width - min(left, WIDEST) - 1) // 2)
    top, lefts = frame(drawn, down, across)
    yield drawn.legend
    yield from [top.rstrip()] * bool(top)
    for i, line in enumerate(drawn.lines):
        yield f"{lefts[i]}{line}"
