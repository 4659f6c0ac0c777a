"""The text, cut into windows of inputs and targets.

    ids        T h e _ c a t _ s a t
    x          T h e _ c                 the target of each position is the token after it,
    y            h e _ c a               y[t] = x[t + 1], so T tokens give T predictions

N windows, each T = context tokens long.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from tinygpt.errors import InputError
from tinygpt.ids import IGNORED, Ids


class CorpusError(InputError):
    """A text too short to cut a window from."""


class Examples(Protocol):
    """What a model learns from: examples[rows] gives the inputs x and the targets y of these."""

    @property
    def context(self) -> int:
        """The number of targets of an example, at most."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> tuple[Any, Ids]: ...


class MappedIds:
    """Ids in a file: ids[positions], of any shape, are read, as int64; ids[a:b] stays in the file.

    Raises InputError for an id that is not below `size`: only a damaged file holds one.
    """

    def __init__(self, array: np.ndarray[Any, Any], size: int, path: str, first: int = 0):
        # first: the position in the file of the first id
        self.array, self.size, self.path, self.first = array, size, path, first

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, positions: Any) -> Any:
        if isinstance(positions, slice):
            start, stop, _ = positions.indices(len(self))
            return MappedIds(self.array[start:stop], self.size, self.path, self.first + start)
        ids = self.array[positions].astype(np.int64)
        wrong = ids >= self.size
        if wrong.any():
            position, number = self.first + int(positions[wrong][0]), int(ids[wrong][0])
            raise InputError(
                f"{self.path} is damaged: token {number:,} at position {position:,} is not one of "
                f"the {self.size:,} that its tokenizer knows\n"
                "restore it from a copy, or make it again: tinygpt tokenize"
            )
        return ids

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """All of them in memory: for a small file."""
        return self[np.arange(len(self))].astype(dtype or np.int64)


class Windows:
    """The windows of a text, cut when they are asked for: a million windows are too many to keep.

    w[rows] gives x, y: (len(rows), context), with s = rows[i] * stride and
    x[i] = ids[s : s + context], y[i] = ids[s + 1 : s + context + 1].
    """

    tokens: Ids | MappedIds

    def __init__(self, ids: Sequence[int] | Ids | MappedIds, context: int, stride: int = 1):
        self.tokens = ids if isinstance(ids, MappedIds) else np.asarray(ids, dtype=np.int64)
        self.context, self.stride = context, stride
        self.last = last = len(self.tokens) - context - 1  # where the last window starts
        if context < 1 or stride < 1:
            raise CorpusError(
                f"windows of context {context} at stride {stride}: both are at least 1"
            )
        if last < 0:
            count = len(self.tokens)
            shorter = f", or a context of at most {count - 1}" if count > 1 else ""
            raise CorpusError(f"{_too_few(count, context)}\nuse a longer text{shorter}")

    def __len__(self) -> int:
        return -(-self.last // self.stride) + 1

    def starts(self, rows: Any) -> Ids:
        """Where these windows start: row * stride, and the last where the text ends.   (N,)"""
        count = len(self)
        rows = np.arange(*rows.indices(count)) if isinstance(rows, slice) else np.asarray(rows)
        if rows.size and not 0 <= rows.min() <= rows.max() < count:
            raise IndexError(f"windows {rows.min()} to {rows.max()} of {count}")
        starts: Ids = np.minimum(rows * self.stride, self.last)
        return starts

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        texts = self._texts(rows)  # each token is looked up once
        return texts[:, :-1].copy(), texts[:, 1:].copy()

    def texts(self, rows: Any) -> Ids:
        """All tokens of these windows, inputs and last target.   (N, context + 1)"""
        return self._texts(rows)

    def _texts(self, rows: Any) -> Ids:
        texts: Ids = self.tokens[self.starts(rows)[:, None] + np.arange(self.context + 1)]
        return texts


class SideBySide(Windows):
    """The windows of a text, one after the other. Each token but the first is a target once.

    The last window ends with the text and may overlap the one before. Targets that were in the one
    before are -1, and count for nothing. A text shorter than the context is one shorter window.
    """

    def __init__(self, ids: Sequence[int] | Ids | MappedIds, context: int):
        if len(ids) < 2:
            raise CorpusError("a text of one token leaves nothing to predict\ngive a longer text")
        context = min(context, len(ids) - 1)
        super().__init__(ids, context, context)

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        x, y = super().__getitem__(rows)
        starts = self.starts(rows)[:, None]
        # the window's own targets begin at the next multiple of the context
        counted = -(-starts // self.context) * self.context
        return x, np.where(starts + np.arange(self.context) >= counted, y, IGNORED)


def windows(ids: Sequence[int] | Ids, context: int, stride: int = 1) -> tuple[Ids, Ids]:
    """x[i] = ids[s : s + context],   y[i] = ids[s + 1 : s + context + 1],   s = i * stride.
    x, y: (N, context)

    Where the last window would not reach the end, one more is added that ends with the text, so no
    token is lost. Raises CorpusError for fewer than context + 1 ids.
    """
    return Windows(ids, context, stride)[:]


def kept_back(tokens: int, share: float, context: int = 1) -> int:
    """How many of the tokens, the last ones, are kept back to measure on: this share of them.

    Raises CorpusError where a share keeps back fewer than two, of which the first has no target, or
    leaves too few to learn from for one window. The error names changes that help.
    """
    kept = int(tokens * share)
    if _divides(tokens, share, context):
        return kept
    learned = tokens - kept
    if tokens <= context:
        problem = _too_few(tokens, context)
    elif kept < 2:
        problem = (
            f"validation {share:g} of {tokens:,} tokens keeps {kept} back to measure on, and 2 are "
            "the least"
        )
    else:
        problem = _left_too_few(tokens, kept, context)
    larger = math.ceil(2000 / tokens) / 1000  # a share that keeps back two, in three digits
    changes = {
        f"a --context of at most {learned - 1}": (share, learned - 1),
        f"--validation {larger:g}": (larger, context),
        "--validation 0, which keeps none back": (0.0, context),
    }
    both = {f"--context {tokens - 1} with --validation 0": (0.0, tokens - 1)}
    helps = _helpful(tokens, changes) or _helpful(tokens, both)
    raise CorpusError(f"{problem}\nuse {' or '.join(['a longer text', *helps])}")


def check_length(tokens: int, learned: int, context: int) -> None:
    """Raise CorpusError where so many tokens to learn from are too few for one window."""
    if learned <= context:
        kept = tokens - learned
        problem = _left_too_few(tokens, kept, context) if kept else _too_few(tokens, context)
        shorter = f" or a --context of at most {learned - 1}" if learned > 1 else ""
        raise CorpusError(f"{problem}\nuse a longer text{shorter}")


def _divides(tokens: int, share: float, context: int) -> bool:
    """Whether this share of the tokens can be measured on, and the others hold a window."""
    kept = int(tokens * share)
    return 1 <= context < tokens - kept and (kept >= 2 or share == 0) and share < 1


def _helpful(tokens: int, changes: dict[str, tuple[float, int]]) -> list[str]:
    """The first two of these changes, {change: (share, context)}, with which the text divides."""
    return [change for change, choice in changes.items() if _divides(tokens, *choice)][:2]


def _too_few(tokens: int, context: int) -> str:
    count = "1 token is" if tokens == 1 else f"{tokens:,} tokens are"
    return f"{count} too few for a context of {context}: a window is that many and the token after"


def _left_too_few(tokens: int, kept: int, context: int) -> str:
    return (
        f"{tokens:,} tokens less the {kept:,} kept back to measure on leave {tokens - kept:,}: too "
        f"few for a context of {context}, where a window has {context + 1}"
    )


def floor(ids: Sequence[int] | Ids | MappedIds, context: int) -> float:
    """The lower bound of the loss on these windows, in nats: the entropy of the next token given
    all tokens before it in its window.

        - mean over windows i and positions t of   ln( n(x[i, :t+1], y[i, t]) / n(x[i, :t+1]) )

    n counts over all windows of stride 1. The bound is 0.063 for the story at context 32: the first
    few tokens of a window may stand at several positions of the story.
    """
    tokens = np.asarray(ids, dtype=np.int64)
    size = int(tokens.max(initial=0)) + 1
    starts = np.arange(len(Windows(tokens, context)))
    # windows with the same x[:t] have the same prefix
    count, prefix, total = len(starts), np.zeros_like(starts), 0.0
    for t in range(context):
        _, prefix, counts = np.unique(
            prefix * size + tokens[starts + t], return_inverse=True, return_counts=True
        )
        # a prefix that occurs once has one next token, and so have all longer ones
        shared = counts[prefix] > 1
        starts, prefix = starts[shared], prefix[shared]
        pairs, pair_counts = np.unique(prefix * size + tokens[starts + t + 1], return_counts=True)
        total -= float(np.sum(pair_counts * np.log(pair_counts / counts[pairs // size])))
    return total / (count * context)
