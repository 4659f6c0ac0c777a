"""Masked tokens: a text in which some tokens are hidden, and the tokens that were there.

    text             T     o  m      _  w  a  s
    x          [CLS] T     o  [MASK] _  w  k  s       of the targets 80 % are hidden, 10 % replaced
    y          -1    -1    -1 m      _  -1 a  -1      by a random token, 10 % left as they are

The targets are 15 % of the tokens. A model that had only [MASK] to fill in would learn nothing
about the other tokens.      Devlin et al. 2018, section 3.1
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.random import Key, random_bits, threshold_of
from tinygpt.data.windows import CorpusError, Windows
from tinygpt.ids import CLS, IGNORED, MASK, MASK_TOKENS, PAD, Ids

TARGETS = 0.15  # share of the tokens
HIDDEN, REPLACED = 0.8, 0.1  # shares of the targets
MASKS = 1024  # times that a window comes in an epoch, each time with other targets
DRAWS = 0xFFFFFFFE  # in the place of a module's number: apart from the keys of layers


def inner_context(context: int) -> int:
    """The context of windows that fit a model of this context: it reads [CLS] and the tokens of a
    window, which are one more than its context. Raises CorpusError where too little is left.
    """
    if context < 3:
        raise CorpusError(
            f"a context of {context} holds [CLS] and {context - 1} tokens, too few to fill one in "
            "by the others\nuse a --context of at least 3"
        )
    return context - 2


class Masked:
    """Windows of a text with masked tokens. m[rows] gives x, y: (len(rows), T), T <= context.

    Row r is window r % N with the targets of draw r // N, where N is the number of windows. So the
    targets of a row depend on (seed, r) alone, and an epoch has each window `masks` times.
    """

    def __init__(self, windows: Windows, vocabulary: int, seed: int, masks: int = 1):
        self.windows, self.vocabulary, self.seed, self.masks = windows, vocabulary, seed, masks
        self.context = 1 + windows.texts(np.arange(1)).shape[1]

    def __len__(self) -> int:
        return len(self.windows) * self.masks

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        draws, numbers = np.divmod(np.asarray(rows), len(self.windows))
        texts = self.windows.texts(numbers)
        lengths = np.count_nonzero(texts != IGNORED, axis=1)
        shape = len(texts), 1 + lengths.max()
        x, y = np.full(shape, PAD), np.full(shape, IGNORED)
        x[:, 0] = CLS
        for row, length in enumerate(lengths):
            key = Key(self.seed, int(draws[row]), DRAWS, int(numbers[row]))
            ids = texts[row, :length] + len(MASK_TOKENS)
            x[row, 1 : 1 + length], y[row, 1 : 1 + length] = masked(ids, self.vocabulary, key)
        return x, y


def masked(ids: Ids, vocabulary: int, key: Key) -> tuple[Ids, Ids]:
    """x, y: (T,) of the ids (T,) of a text; 15 % of them, at least one, are targets.

    The random tokens are from the vocabulary, without its special tokens.
    """
    order, kind, other = random_bits(1, 3 * len(ids), key).reshape(3, len(ids))
    targets = np.argsort(order, kind="stable")[: max(1, round(TARGETS * len(ids)))]
    x, y, first = ids.copy(), np.full(len(ids), IGNORED), len(MASK_TOKENS)
    y[targets] = ids[targets]
    hidden = targets[kind[targets] < threshold_of(HIDDEN)]
    changed = targets[kind[targets] < threshold_of(HIDDEN + REPLACED)]
    x[changed] = first + (other[changed].astype(np.uint64) * (vocabulary - first) >> 32)
    x[hidden] = MASK
    return x, y
