"""One array of the walk, by its name: `tinygpt step --plain --show 'blocks.0.attention.weights[0, 2]'`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np

from tensor.tape import Tape
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.step.values import Floats, heat_map, norm, number, plane, statistics

PLACES = re.compile(r"(.+?)\[([\d,\s-]*)\]$")


def show(tape: Tape, wanted: str, tokens: Sequence[str], width: int) -> Iterator[str]:
    """Name and shape, statistics, of a gradient where it comes from, and the numbers of one plane where they fit, else a map.

    An axis as long as the text has its tokens beside it.   wanted: a name as in tensor/tape/find.py, and behind it, in brackets, a place on the
    first axes.   Raises InputError with the nearest names.
    """
    array = found(tape, wanted)
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
    yield from rows(seen.values, tokens if array.ndim > 1 else (), width)


def arrivals(tape: Tape, name: str) -> Iterator[str]:
    """Where a gradient comes from: each contribution, in the order they arrived, and the norm of their sum so far."""
    parts = [(step, part) for step in tape.backwards for part in step.contributions if part.to == name]
    so_far = None
    for step, part in parts:
        so_far = part.value.array if so_far is None else so_far + part.value.array
        sums = f", the sum so far {number(norm(so_far))}" if part.number > 1 else ""
        yield f"{part.number} of {part.count} from {step.name} ({step.op}): norm {number(norm(part.value.array))}{sums}"


def found(tape: Tape, wanted: str) -> Floats:
    """The array of that name, at the place in brackets if there is one."""
    try:
        return tape[wanted]
    except KeyError as error:
        parts = PLACES.match(wanted)
        if parts is None:
            raise InputError(f"{error.args[0]}\nsee the names: tinygpt step --plain") from None
    try:
        array = tape[parts[1]]
    except KeyError as error:
        raise InputError(f"{error.args[0]}\nsee the names: tinygpt step --plain") from None
    try:
        place: Floats = array[tuple(int(part) for part in parts[2].split(",") if part.strip())]
    except (IndexError, ValueError) as error:
        raise InputError(f"{shown(wanted)}: {error}\n{shown(parts[1])} has shape {array.shape}") from None
    return place


def rows(values: Floats, tokens: Sequence[str], width: int) -> Iterator[str]:
    """A plane in numbers, or as a map where these are too wide."""
    down, across = (len(tokens) == n for n in values.shape)
    heads = [shown(repr(token)) for token in tokens] if down else [""] * len(values)
    left = max(map(len, heads))
    cells = [[number(round(float(value), 3)) if np.isfinite(value) else str(value) for value in row] for row in values]
    columns = [shown(repr(token)) for token in tokens] if across else []
    room = max(map(len, [cell for row in cells for cell in row] + columns)) + 1
    if left + room * values.shape[1] <= width:
        if columns:
            yield (" " * left + "".join(head.rjust(room) for head in columns)).rstrip()
        for head, row in zip(heads, cells, strict=True):
            yield head.rjust(left) + "".join(cell.rjust(room) for cell in row)
        return
    drawn = heat_map(values, len(values) if down else 32, (width - left - 1) // 2)
    yield drawn.legend
    for i, line in enumerate(drawn.lines):
        yield f"{heads[i] if down and drawn.block[0] == 1 else '':>{left}} {line}"
