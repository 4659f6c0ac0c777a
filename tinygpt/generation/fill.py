"""Filling in: the likeliest token for each [MASK] of a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from tensor import no_grad
from tensor.nn import evaluating
from tinygpt.errors import InputError
from tinygpt.generation.sampling import REPAIR
from tinygpt.ids import CLS, MASK, MASK_TOKENS
from tinygpt.tokenizers import Tokenizer

SIGN = MASK_TOKENS[MASK]


class Filled(NamedTuple):
    """A hidden token that is filled in."""

    position: int  # among the tokens of the text, from 0
    token: int
    p: np.ndarray[Any, np.dtype[np.float64]]  # of each token, (V,)


def masked_ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text, MASK for each [MASK] in it."""
    first, *others = (tokenizer.encode(part) for part in text.split(SIGN))
    ids = list(first)
    for part in others:
        ids += [MASK, *part]
    return ids


def fill(model: Any, ids: Sequence[int]) -> Iterator[Filled]:
    """Fill in each MASK of the ids (T,) of a text, T + 1 at most `model.context`.

    The surest one is first: of all MASKs the one whose likeliest token has the highest probability.
    The others then see this token. So the letters of a word fit together. No special token is
    filled in. Raises InputError where logits are not finite.
    """
    known = np.array([CLS, *ids])
    while (hidden := np.flatnonzero(known == MASK)).size:
        with no_grad(), evaluating():
            logits = model(known).to("cpu", dtype="float64")[0][hidden].numpy()
        if not np.isfinite(logits).all():
            raise InputError(
                f"the model's logits are not finite numbers: its weights are broken\n{REPAIR}"
            )
        logits = np.where(np.arange(logits.shape[1]) < len(MASK_TOKENS), -np.inf, logits)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        surest = int(p.max(axis=1).argmax())
        position, token = int(hidden[surest]), int(p[surest].argmax())
        known[position] = token
        yield Filled(position - 1, token, p[surest])
