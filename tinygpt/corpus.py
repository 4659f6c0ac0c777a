"""The text, cut into windows: what goes in, and what should come out.

    ids        T h e _ c a t _ s a t
    x          T h e _ c                 y[t] = x[t + 1]: each position's target is the token after it,
    y            h e _ c a               so a window of T tokens holds T questions

N windows, each T = context tokens long.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Any, BinaryIO, TypeAlias, overload

import numpy as np

from tinygpt.errors import InputError
from tinygpt.files import brief, open_regular, reason

Ids: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
PART = 1 << 18  # bytes of a file that are read at a time
IGNORED = -1  # a target that counts for nothing: what lies after the end of a text, or was counted before


class CorpusError(InputError):
    """A text too short to cut a window from."""


def story() -> str:
    """The little text that comes with the package: 149 characters, 22 different ones."""
    return resources.files("tinygpt").joinpath("story.txt").read_text(encoding="utf-8")


def read_text(path: str) -> str:
    """The text of a UTF-8 file, all of it; what `read_parts` says."""
    return "".join(read_parts(path))


def read_parts(path: str, size: int = PART, progress: Callable[[int], None] | None = None) -> Iterator[str]:
    """The text of a UTF-8 file, a part at a time; line ends of Windows become plain ones, and a byte order mark at the start is dropped.

    size: bytes to read for a part; the parts together are the same text whatever it is.
    `progress` is told the bytes of each. Raises InputError for a file that is missing, a folder,
    no regular file, empty, or not UTF-8 (with the place of the first wrong byte).
    """
    empty, name = True, f"'{brief(path)}'"
    try:
        with open_regular(path) as file:
            for part in _decoded(file, name, size, progress):
                empty = False
                yield part
    except InputError:  # is a ValueError too
        raise
    except FileNotFoundError:
        raise InputError(f"no file is named {name}\ngive the path of a text file, or of a folder of them") from None
    except (OSError, ValueError) as error:  # a ValueError: a path that no file can have
        advice = "give the path of a text file that you may read; save what another program writes to a file first"
        raise InputError(f"{name} cannot be read: {reason(error)}\n{advice}") from None
    if empty:
        raise InputError(f"{name} is empty\ngive a file with some text in it")


def _decoded(file: BinaryIO, name: str, size: int, progress: Callable[[int], None] | None) -> Iterator[str]:
    """What lies across the border of two reads waits for the next one: part of a character, and the first half of a line end."""
    offset, rest, half = 0, b"", ""
    while True:
        read = file.read(size)
        data = rest + read
        try:
            text, used = codecs.utf_8_decode(data, "strict", not read)
        except UnicodeDecodeError as error:
            wrong = f"byte 0x{data[error.start]:02x} at offset {offset + error.start:,}"
            raise InputError(f"{name} is not UTF-8: {wrong}\nsave it as UTF-8: the `save as` of most editors can") from None
        text = half + (text if offset else text.removeprefix("\ufeff"))
        rest, offset, half = data[used:], offset + used, "\r" if read and text.endswith("\r") else ""
        text = (text[:-1] if half else text).replace("\r\n", "\n")
        if progress:
            progress(len(read))
        if text:
            yield text
        if not read:
            return


def opening(text: str, words: int = 5) -> str:
    """The first words of a text, as they stand there: "The cat sat on the" of the story."""
    found = re.match(rf"\s*(\S+\s+){{0,{words - 1}}}\S+", text)
    return (found.group() if found else text)[:80]


class MappedIds:
    """Ids in a file, of which only those asked for are read: ids[places], of any shape, as int64; ids[a:b] stays in the file.

    Raises InputError for what is no id of the `size` there are: only a damaged file holds one.
    """

    def __init__(self, array: np.ndarray[Any, Any], size: int, path: str, first: int = 0):
        self.array, self.size, self.path, self.first = array, size, path, first  # first: the place in the file of the first one

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, places: slice) -> MappedIds: ...
    @overload
    def __getitem__(self, places: Ids) -> Ids: ...
    def __getitem__(self, places: slice | Ids) -> MappedIds | Ids:
        if isinstance(places, slice):
            start, stop, _ = places.indices(len(self))
            return MappedIds(self.array[start:stop], self.size, self.path, self.first + start)
        ids: Ids = self.array[places].astype(np.int64)
        wrong = ids >= self.size
        if wrong.any():
            place, number = self.first + int(places[wrong][0]), int(ids[wrong][0])
            known = f"token {number:,} at place {place:,} is not one of the {self.size:,} that its tokenizer knows"
            raise InputError(f"{self.path} is damaged: {known}\nrestore it from a copy, or make it again: tinygpt tokenize")
        return ids

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """All of them in memory: for a small file."""
        return self[np.arange(len(self))].astype(dtype or np.int64)


class Evenly:
    """0, stride, 2 stride, ..., and last: what an array of them would give, without holding any."""

    def __init__(self, last: int, stride: int):
        self.last, self.stride = last, stride

    def __len__(self) -> int:
        return -(-self.last // self.stride) + 1

    def __getitem__(self, rows: Any) -> Ids:
        count = len(self)
        rows = np.arange(*rows.indices(count)) if isinstance(rows, slice) else np.asarray(rows)
        if rows.dtype == bool:
            rows = np.flatnonzero(rows)
        if rows.size and not -count <= rows.min() <= rows.max() < count:
            raise IndexError(f"windows {rows.min()} to {rows.max()} of {count}")
        starts: Ids = np.minimum(np.where(rows < 0, rows + count, rows) * self.stride, self.last)
        return starts


class Windows:
    """The windows of a text, cut when asked for: a text of a million tokens has a million windows of 64, too many to keep.

    w[rows] gives x, y: (len(rows), context), with x[i] = ids[s : s + context], y[i] = ids[s + 1 : s + context + 1], s = rows[i] * stride.
    """

    tokens: Ids | MappedIds
    starts: Evenly | Ids  # where each window starts

    def __init__(self, ids: Sequence[int] | Ids | MappedIds, context: int, stride: int = 1):
        self.tokens, self.context = ids if isinstance(ids, MappedIds) else np.asarray(ids, dtype=np.int64), context
        last = len(self.tokens) - context - 1  # where the last window starts
        if context < 1 or stride < 1:
            raise CorpusError(f"windows of context {context} at stride {stride}: both are at least 1")
        if last < 0:
            raise CorpusError(
                f"{len(self.tokens)} tokens are too few for a context of {context}: a window is that many and the token after; "
                + (f"use a longer text, or a context of at most {len(self.tokens) - 1}" if len(self.tokens) > 1 else "use a longer text")
            )
        self.starts = Evenly(last, stride)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        places = self.starts[rows][:, None] + np.arange(self.context)  # (N, T)
        return self.tokens[places], self.tokens[places + 1]


class SideBySide(Windows):
    """The windows of a text one after the other, in which each token but the first is a target once.

    Where the last window reaches back over the one before it, so as to end with the text, what was counted there is -1, and counts for
    nothing. A text shorter than the context is one shorter window.
    """

    def __init__(self, ids: Sequence[int] | Ids | MappedIds, context: int):
        if len(ids) < 2:
            raise CorpusError("a text of one token leaves nothing to predict\ngive a longer text")
        context = min(context, len(ids) - 1)
        super().__init__(ids, context, context)

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        x, y = super().__getitem__(rows)
        starts = self.starts[rows][:, None]
        counted = -(-starts // self.context) * self.context  # targets before the window's own: up to the next multiple of the context
        return x, np.where(starts + np.arange(self.context) >= counted, y, IGNORED)


def windows(ids: Sequence[int] | Ids, context: int, stride: int = 1) -> tuple[Ids, Ids]:
    """x[i] = ids[s_i : s_i + context],   y[i] = ids[s_i + 1 : s_i + context + 1],   s_i = i * stride.

    x, y: (N, context). Where the last window would not reach the end, one more is added that does: it overlaps the one before
    by more than the others do, and no token is lost. Raises CorpusError when there are fewer than context + 1 ids.
    """
    return Windows(ids, context, stride)[:]


def floor(ids: Sequence[int] | Ids | MappedIds, context: int) -> float:
    """The loss, in nats, that no model can go below on these windows: the entropy of the next token given all before it in its window.

        - mean over windows i and positions t of   ln( n(x[i, :t+1], y[i, t]) / n(x[i, :t+1]) )

    n counts over all windows of stride 1. 0.063 for the story at context 32: the first few tokens of a window do not yet tell where
    in the story it lies.
    """
    tokens = np.asarray(ids, dtype=np.int64)
    size = int(tokens.max(initial=0)) + 1
    starts = Windows(tokens, context).starts[:]
    count, prefix, total = len(starts), np.zeros_like(starts), 0.0  # windows with the same x[:t] have the same prefix
    for t in range(context):
        _, prefix, counts = np.unique(prefix * size + tokens[starts + t], return_inverse=True, return_counts=True)
        shared = counts[prefix] > 1  # a prefix that is met once leaves nothing open, nor do longer ones
        starts, prefix = starts[shared], prefix[shared]
        pairs, pair_counts = np.unique(prefix * size + tokens[starts + t + 1], return_counts=True)
        total -= float(np.sum(pair_counts * np.log(pair_counts / counts[pairs // size])))
    return total / (count * context)
