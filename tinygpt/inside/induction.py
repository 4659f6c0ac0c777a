"""Induction heads: heads of attention that copy what came before.      Olsson et al. 2022

    text            h q z m e k h        now the token h is there, as it was at the beginning
    looks at          ^                  the token after the earlier h, which is the likely next

Such a head needs a head in an earlier layer that tells each token which token is before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensor
from tensor.nn import evaluating
from tinygpt.ids import Ids


def induction_scores(model: Any, ids: Ids, asked: Any) -> tuple[Any, float]:
    """The score of each head, (layers, H), and that of equal weights.

        score = mean over the tokens t that are asked of   sum over s of w[t, s + 1],

    where s are the places before t with the same token as t.   ids, asked: (B, T)
    """
    with tensor.no_grad(), evaluating(), tensor.record(implementation="reference") as recording:
        model(ids)
    looked_at = after_earlier(ids)
    weights = [recording[f"blocks.{i}.attention.weights"] for i in range(model.config.layers)]
    scores = [(np.asarray(w) * looked_at[:, None]).sum(axis=-1) for w in weights]  # (B, H, T)
    equal = looked_at.sum(axis=-1) / np.arange(1, ids.shape[1] + 1)
    means = [score.swapaxes(1, 2)[asked].mean(axis=0) for score in scores]
    return np.array(means), float(equal[asked].mean())


def after_earlier(ids: Ids) -> Any:
    """Bools [b, t, s]: whether s is a place up to t, after an earlier token that is the same as
    token t.   ids: (B, T)   (B, T, T)
    """
    same = ids[:, :, None] == ids[:, None, :]
    after = np.zeros_like(same)
    after[:, :, 1:] = same[:, :, :-1]
    return after & np.tri(ids.shape[1], dtype=bool)
