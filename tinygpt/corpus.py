"""The text, cut into windows: what goes in, and what should come out.

    ids        T h e _ c a t _ s a t
    x          T h e _ c                 y[t] = x[t + 1]: each position's target is the token after it,
    y            h e _ c a               so a window of T tokens holds T questions

N windows, each T = context tokens long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.errors import InputError

Ids = np.ndarray[Any, np.dtype[np.int64]]
IGNORED = -1  # a target that counts for nothing: what lies after the end of a text, or was counted before


class CorpusError(InputError):
    """A text too short to cut a window from."""


def story() -> str:
    """The little text that comes with the package: 149 characters, 22 different ones."""
    return resources.files("tinygpt").joinpath("story.txt").read_text(encoding="utf-8")


def read_text(path: str) -> str:
    """The text of a UTF-8 file; line ends of Windows become plain ones, and a byte order mark at the start is dropped.

    Raises InputError for a file that is missing, a folder, empty, or not UTF-8 (with the place of the first wrong byte).
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"no file is named {path!r}\ngive the path of a text file, or leave --text out for the story") from None
    except IsADirectoryError:
        raise InputError(f"{path!r} is a folder\ngive the path of a text file in it") from None
    except OSError as error:
        what = "is a folder" if Path(path).is_dir() else f"cannot be read: {error.strerror or error}"  # Windows refuses folders as unreadable
        raise InputError(f"{path!r} {what}\ngive the path of a text file that you may read") from None
    except ValueError as error:  # a path that no file can have
        raise InputError(f"{path!r} cannot be a file: {error}\ngive the path of a text file") from None
    try:
        text = content.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        place = content[error.start]
        raise InputError(f"{path!r} is not UTF-8: byte 0x{place:02x} at offset {error.start:,}\nsave it as UTF-8: the `save as` of most editors can") from None
    if not text:
        raise InputError(f"{path!r} is empty\ngive a file with some text in it")
    return text


def opening(text: str, words: int = 5) -> str:
    """The first words of a text, as they stand there: "The cat sat on the" of the story."""
    found = re.match(rf"\s*(\S+\s+){{0,{words - 1}}}\S+", text)
    return (found.group() if found else text)[:80]


class Windows:
    """The windows of a text, cut when asked for: a text of a million tokens has a million windows of 64, too many to keep.

    w[rows] gives x, y: (len(rows), context), with x[i] = ids[s : s + context], y[i] = ids[s + 1 : s + context + 1], s = rows[i] * stride.
    """

    def __init__(self, ids: Sequence[int] | Ids, context: int, stride: int = 1):
        self.tokens, self.context = np.asarray(ids, dtype=np.int64), context
        last = len(self.tokens) - context - 1  # where the last window starts
        if context < 1 or stride < 1:
            raise CorpusError(f"windows of context {context} at stride {stride}: both are at least 1")
        if last < 0:
            raise CorpusError(
                f"{len(self.tokens)} tokens are too few for a context of {context}: a window is that many and the token after; "
                + (f"use a longer text, or a context of at most {len(self.tokens) - 1}" if len(self.tokens) > 1 else "use a longer text")
            )
        self.starts = np.append(np.arange(0, last, stride), last)

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

    def __init__(self, ids: Sequence[int] | Ids, context: int):
        if len(ids) < 2:
            raise CorpusError("a text of one token leaves nothing to predict\ngive a longer text")
        context = min(context, len(ids) - 1)
        super().__init__(ids, context, context)
        self.counted = np.append(0, self.starts[:-1] + context)  # targets before the window's own

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        x, y = super().__getitem__(rows)
        places = self.starts[rows][:, None] + np.arange(self.context)
        return x, np.where(places >= self.counted[rows][:, None], y, IGNORED)


def windows(ids: Sequence[int] | Ids, context: int, stride: int = 1) -> tuple[Ids, Ids]:
    """x[i] = ids[s_i : s_i + context],   y[i] = ids[s_i + 1 : s_i + context + 1],   s_i = i * stride.

    x, y: (N, context). Where the last window would not reach the end, one more is added that does: it overlaps the one before
    by more than the others do, and no token is lost. Raises CorpusError when there are fewer than context + 1 ids.
    """
    return Windows(ids, context, stride)[:]


def floor(ids: Sequence[int] | Ids, context: int) -> float:
    """The loss, in nats, that no model can go below on these windows: the entropy of the next token given all before it in its window.

        - mean over windows i and positions t of   ln( n(x[i, :t+1], y[i, t]) / n(x[i, :t+1]) )

    n counts over all windows of stride 1. 0.063 for the story at context 32: the first few tokens of a window do not yet tell where
    in the story it lies.
    """
    tokens = np.asarray(ids, dtype=np.int64)
    size = int(tokens.max(initial=0)) + 1
    starts = Windows(tokens, context).starts
    count, prefix, total = len(starts), np.zeros_like(starts), 0.0  # windows with the same x[:t] have the same prefix
    for t in range(context):
        _, prefix, counts = np.unique(prefix * size + tokens[starts + t], return_inverse=True, return_counts=True)
        shared = counts[prefix] > 1  # a prefix that is met once leaves nothing open, nor do longer ones
        starts, prefix = starts[shared], prefix[shared]
        pairs, pair_counts = np.unique(prefix * size + tokens[starts + t + 1], return_counts=True)
        total -= float(np.sum(pair_counts * np.log(pair_counts / counts[pairs // size])))
    return total / (count * context)
