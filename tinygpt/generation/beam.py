"""Beam search: the likeliest texts, found by following several at once.
Sutskever et al. 2014, section 3.2; Wu et al. 2016, section 7

    width 2, end token $, with the probability of each text

    a   0.5    goes on              a a   0.20   goes on
    b   0.4    goes on              a b   0.15
    $   0.1                         a $   0.15
                                    b a   0.02
                                    b b   0.02
                                    b $   0.36   has ended

Greedy decoding goes on with `a` alone, and never finds `b $`.

Shapes:   B prompts   K hypotheses of each, the width   V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygpt.errors import InputError
from tinygpt.generation.generate import Decoder, next_logits, prompt_tokens, room
from tinygpt.generation.sampling import BROKEN, Floats
from tinygpt.ids import Ids


class Hypothesis(NamedTuple):
    """A text after a prompt."""

    tokens: list[int]  # the last one is the end token, if the text has ended with it
    log_p: float  # ln p(tokens | prompt), in nats
    score: float  # log_p / penalty(number of tokens)


def penalty(count: Any, alpha: float) -> Any:
    """((5 + count) / 6)^alpha. Longer texts have a lower ln p: divided by the penalty, they compare
    with short ones.   Wu et al. 2016, eq. 14
    """
    return ((5 + count) / 6) ** alpha


def beam_search(
    model: Decoder,
    prompts: Sequence[Any],
    width: int,
    length: int,
    end: int | Sequence[int] = (),
    *,
    best: int = 1,
    alpha: float = 0.6,
) -> list[list[Hypothesis]]:
    """For each prompt, (T,) ids of its own length, the `best` texts found, the best score first.

    Of all continuations of a prompt's hypotheses, V each, the `width` likeliest go on. A text ends
    with the token `end`, or one of these, after `length` tokens, or where the model stops
    (Decoder.slides). A prompt is done when no hypothesis can reach the score of the texts that have
    ended: ln p only falls.

    The hypothesis of greedy decoding always goes on. So width 1 is greedy decoding, and a larger
    width never gives a lower score than greedy decoding.   alpha: of the penalty; 0: the score is
    ln p. Raises InputError where `width` or `best` is not 1 or more.
    """
    if min(width, best) < 1:
        raise InputError(f"width {width}, best {best}: a search follows and finds at least 1 text")
    texts = [prompt_tokens(model, ids) for ids in prompts]
    rows = [text for text in texts for _ in range(width)]
    cache = model.new_cache(len(rows))
    found: list[list[Hypothesis]] = [[] for _ in texts]
    most = np.array([room(model, text, length) for text in texts])  # (B,)
    log_p = np.full((len(texts), width), -np.inf)  # of dead hypotheses -inf
    log_p[:, 0] = 0
    greedy = np.ones(len(texts), bool)  # where hypothesis 0 is that of greedy decoding
    for count in range(1, length + 1):
        alive = np.flatnonzero(log_p > -np.inf)
        if alive.size == 0:
            break
        logits = next_logits(model, cache, rows, alive.tolist())
        origin, token, log_p = _continued(log_p, logits, alive, greedy)
        cache.reorder(origin.ravel())
        written = zip(origin.ravel().tolist(), token.ravel().tolist(), strict=True)
        rows = [[*rows[row], new] for row, new in written]
        ends = np.isin(token, end) | np.equal(most, count)[:, None]
        for b, k in np.argwhere(ends & (log_p > -np.inf)).tolist():
            p = float(log_p[b, k])
            ended = Hypothesis(rows[b * width + k][-count:], p, p / penalty(count, alpha))
            found[b] = sorted([*found[b], ended], key=lambda text: -text.score)[:best]
        log_p[ends] = -np.inf
        greedy &= ~ends[:, 0]
        least = [each[-1].score if len(each) == best else -np.inf for each in found]
        log_p[log_p.max(1) / penalty(most, alpha) <= least] = -np.inf
    return [texts or [Hypothesis([], 0.0, 0.0)] for texts in found]  # of length 0


def _continued(log_p: Floats, logits: Any, alive: Ids, greedy: Any) -> tuple[Ids, Ids, Floats]:
    """The K likeliest continuations for each prompt: the row that each continues, its new token,
    and its ln p, (B, K) each.

    alive: the rows that the logits are of.   greedy: (B,), where the likeliest continuation of
    hypothesis 0 comes first
    """
    (B, K), V = log_p.shape, logits.shape[-1]
    x = np.asarray(logits, dtype=np.float64)
    largest = x.max(-1, keepdims=True)
    if not np.isfinite(largest).all():
        raise InputError(BROKEN)
    x = x - largest
    each = np.full((B * K, V), -np.inf)
    each[alive] = log_p.ravel()[alive, None] + x - np.log(np.exp(x).sum(-1, keepdims=True))
    total = each.reshape(B, K * V)
    rank = total.copy()
    rank[greedy, total[greedy, :V].argmax(-1)] = np.inf
    kept = np.argpartition(-rank, K - 1, axis=-1)[:, :K]
    order = np.argsort(-np.take_along_axis(rank, kept, -1), axis=-1, kind="stable")
    kept = np.take_along_axis(kept, order, -1)  # (B, K)
    chosen = np.take_along_axis(total, kept, -1)
    # a hypothesis that continues nothing is dead, and keeps its row
    parent = np.where(chosen > -np.inf, kept // V, np.arange(K))
    return np.arange(B)[:, None] * K + parent, kept % V, chosen
