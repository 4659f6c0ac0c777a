"""Names of the positions on an axis, and the array that a name means."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rich.cells import cell_len, set_cell_size

from tensor.memory.layout import Shape
from tensor.recording import Recording
from tinygpt.errors import InputError
from tinygpt.inside.arrays import Floats, Map
from tinygpt.terminal import shown

INDEXED = re.compile(r"(.+?)\[([\d,\s-]*)\]$")
# has no axis that is as long as the text
PARAMETER = re.compile(r"(^|\.)d?(weight|bias|gain)(\.grad)?$")
# text by text, even where another axis of the model is as long as the text
SQUARE = re.compile(r"(^|\.)d?(weights|scores)$")
WIDEST = 10  # columns of a row's name, at most


@dataclass(frozen=True)
class Names:
    """The tokens of the text, and those of the vocabulary. Of an encoder-decoder, the text is the
    target, and there is a source.
    """

    tokens: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    vocabulary: int = 0
    token: Callable[[int], str] = str  # of the vocabulary, by its id
    # of the model's other axes: an axis as long as the text may be one of these
    sizes: frozenset[int] = frozenset()

    def of(self, name: str, shape: Shape) -> tuple[list[str], list[str]]:
        """Names of an array's rows and columns: an axis as long as the text or the source has the
        tokens of it, the rows of the token table have the vocabulary's.
        """
        name = name.partition("[")[0]
        if len(shape) < 2 or not self.tokens:
            return [], []
        if name.removesuffix(".grad") == "token_embedding.weight" and shape[0] == self.vocabulary:
            return [quoted(self.token(i)) for i in range(self.vocabulary)], []
        if PARAMETER.search(name):
            return [], []
        rows, columns = self._texts(name, shape)
        # (B, T, C) has no column for a token
        across = len(shape) != 3 and (shape[-2] == 1 or len(columns) not in self.sizes)
        if not across and not SQUARE.search(name):
            columns = ()
        return list(map(quoted, rows)), list(map(quoted, columns))

    def _texts(self, name: str, shape: Shape) -> Iterator[tuple[str, ...]]:
        """The text along the rows and the text along the columns, each empty where there is none,
        or where nobody can tell which of two that are equally long.
        """
        crossed = "cross_attention" in name
        of_name = [self.source if name.startswith("encoder") else self.tokens] * 2
        if crossed and SQUARE.search(name):
            of_name = [self.tokens, self.source]
        known = (not crossed and not name.startswith("embed")) or SQUARE.search(name)
        for size, text in zip(shape[-2:], of_name, strict=True):
            fitting = [other for other in (self.tokens, self.source) if len(other) == size]
            if len(fitting) == 2:
                fitting = [text] if known else []
            yield next(iter(fitting), ())


def quoted(token: str) -> str:
    """A token between quotes, safe to show; a line end as \\n."""
    return f"'{shown(token)}'"


def right(text: str, width: int) -> str:
    """A text at the right of a column. A text that is wider is cut."""
    return " " * (width - cell_len(text)) + set_cell_size(text, min(cell_len(text), width))


def frame(drawn: Map, rows: Sequence[str], columns: Sequence[str]) -> tuple[str, list[str]]:
    """The line above a map, and the text left of each of its lines. Both are empty where a cell
    shows several positions.

    Above a cell, which is two characters wide, stands the beginning of its token, with ␣ for a
    space.
    """
    rows = rows if drawn.block[0] == 1 else []
    columns = columns if drawn.block[1] == 1 else []
    width = min(max(map(cell_len, rows), default=-1), WIDEST) + 1
    lefts = [right(row, width - 1) + " " for row in rows] or [""] * len(drawn.rows)
    top = "".join(set_cell_size(column[1:-1].replace(" ", "␣"), 2) for column in columns)
    return (" " * width + top if top else ""), lefts


def array_of(recording: Recording, wanted: str, hint: str = "") -> Floats:
    """The array of that name (tensor/recording/find.py), or a part of it, at the index in brackets.

    Raises InputError with the nearest names, and the hint in a line below.
    """
    for name, index in [(wanted, ""), *INDEXED.findall(wanted)]:
        try:
            array = recording[name]
            return np.asarray(array[tuple(map(int, filter(str.strip, index.split(","))))])
        except KeyError as error:
            problem = error.args[0]
        except (IndexError, ValueError) as error:
            size = f"{shown(name)} has shape {array.shape}"
            raise InputError(f"{shown(wanted)}: {error}\n{size}") from None
    if recording.implementation == "as run":
        hint = "it was walked as run, where fused ops make fewer arrays: leave out --as-run"
    raise InputError(f"{problem}\n{hint}".rstrip())
