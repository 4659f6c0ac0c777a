"""What the places on an axis are called, and which array of the walk a name means."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len, set_cell_size

from tensor.layout import Shape
from tensor.tape import Tape
from tensor.tape.find import nearest
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.step.values import Floats, Map

PLACES = re.compile(r"(.+?)\[([\d,\s-]*)\]$")
PARAMETER = re.compile(r"(^|\.)d?(weight|bias|gain)(\.grad)?$")  # has no axis that is as long as the text
SQUARE = re.compile(r"(^|\.)d?(weights|scores)$")  # text by text, whatever else is as long as the text
WIDEST = 10  # columns of a row's name, at most


# -- names of places ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Names:
    """The tokens of the text that is walked, and of the vocabulary."""

    tokens: tuple[str, ...] = ()
    vocabulary: int = 0
    token: Callable[[int], str] = str  # of the vocabulary, by its id
    sizes: frozenset[int] = frozenset()  # of the model's other axes: one as long as the text may be one of these

    def of(self, name: str, shape: Shape) -> tuple[list[str], list[str]]:
        """What rows and columns of an array are called, by its name and shape: an axis as long as the text by its tokens, a table's rows by theirs."""
        name, count = name.partition("[")[0], len(self.tokens)
        if len(shape) < 2 or not count:
            return [], []
        if name.removesuffix(".grad") == "token_embedding.weight" and shape[0] == self.vocabulary:
            return [quoted(self.token(i)) for i in range(self.vocabulary)], []
        if PARAMETER.search(name):
            return [], []
        tokens = [quoted(token) for token in self.tokens]
        across = len(shape) != 3 and (shape[-2] == 1 or count not in self.sizes)  # (B, T, C) has no column for a token
        return tokens * (shape[-2] == count), tokens * (shape[-1] == count and (across or bool(SQUARE.search(name))))


NAMELESS = Names()


def quoted(token: str) -> str:
    """A token between quotes, safe to show; a line end as \\n."""
    return f"'{shown(token)}'"


def frame(drawn: Map, rows: Sequence[str], columns: Sequence[str]) -> tuple[str, list[str]]:
    """What stands above a map, and left of each of its lines; nothing where a cell stands for several places.

    Above a cell, which is two characters wide, is the beginning of its token, with ␣ for a space.
    """
    rows = rows if drawn.block[0] == 1 else []
    width = min(max(map(cell_len, rows), default=-1), WIDEST) + 1
    lefts = [" " * max(width - 1 - cell_len(row), 0) + set_cell_size(row, min(cell_len(row), width - 1)) + " " for row in rows] or [""] * len(drawn.rows)
    top = "".join(set_cell_size(column[1:-1].replace(" ", "␣"), 2) for column in columns if drawn.block[1] == 1)
    return (" " * width + top if top else ""), lefts


# -- arrays by name -----------------------------------------------------------------------------------------------------


def array_of(tape: Tape, wanted: str, hint: str = "") -> Floats:
    """The array of that name (tensor/tape/find.py), at the place on its first axes in brackets if there is one.

    Raises InputError with the nearest names, and the hint in a line below.
    """
    try:
        return tape[wanted]
    except KeyError:
        parts = PLACES.match(wanted)
        if parts is None:
            raise _missing(tape, wanted, hint) from None
    try:
        array = tape[parts[1]]
    except KeyError:
        raise _missing(tape, parts[1], hint) from None
    try:
        place: Floats = np.asarray(array[tuple(int(part) for part in parts[2].split(",") if part.strip())])
    except (IndexError, ValueError) as error:
        raise InputError(f"{shown(wanted)}: {error}\n{shown(parts[1])} has shape {array.shape}") from None
    return place


def _missing(tape: Tape, name: str, hint: str) -> InputError:
    """What is near a name that nothing has."""
    what = f"nothing in this walk is named {name!r}; near it: {', '.join(nearest(tape, name))}"
    if tape.implementation == "as run":
        hint = "it was walked as run, where fused ops make fewer arrays: leave out --as-run"
    return InputError(f"{what}\n{hint}".rstrip())
