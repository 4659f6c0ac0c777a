"""Token ids as arrays, and the target that counts for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

Ids: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

# a target that counts for nothing: what lies after the end of a text, or was counted before
IGNORED = -1

# the special tokens of pairs of a source and a target, by their ids
PAD, SOS, EOS = 0, 1, 2  # fills a row up; begins a target; ends a target
PAIR_TOKENS = "<pad>", "<sos>", "<eos>"

# the special tokens of masked texts: PAD; begins a text; ends a segment; hides a token
CLS, SEP, MASK = 1, 2, 3
MASK_TOKENS = "[PAD]", "[CLS]", "[SEP]", "[MASK]"

# the special tokens of a conversation: before a question, before its answer, after the answer
CHAT_TOKENS = USER, ASSISTANT, ANSWERED = "<|user|>", "<|assistant|>", "<|end|>"


def padded(rows: Sequence[Sequence[int]]) -> tuple[Ids, Ids]:
    """The rows as an array, with PAD after each, and their lengths.   (N, longest), (N,)"""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    ids = np.full((len(rows), lengths.max()), PAD, dtype=np.int64)
    ids[np.arange(ids.shape[1]) < lengths[:, None]] = [i for row in rows for i in row]
    return ids, lengths


@dataclass(frozen=True)
class SourceTarget:
    """The inputs of a batch. x[rows] are the inputs of some of its rows, as of an array."""

    source: Ids  # (B, S), with PAD after each source
    target: Ids  # (B, T), SOS and the target, with PAD after each

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, rows: Any) -> SourceTarget:
        return SourceTarget(self.source[rows], self.target[rows])

    @property
    def size(self) -> int:
        """The number of predictions, B T."""
        return self.target.size
