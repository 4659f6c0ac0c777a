"""The losses of pairs of replies: of a reward model, and of DPO. Both are those of Bradley and
Terry's model, in which a reply has a score r, and

    p(a is better than b) = e^r(a) / (e^r(a) + e^r(b)) = sigmoid(r(a) - r(b))

Bradley and Terry 1952.

So -ln p is the cross-entropy of two classes whose logits are the scores.

Shapes:   B pairs   N replies   T time (tokens)   C width (channels)
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import tensor
from tensor import Tensor
from tinygpt.data.preferences import Compared
from tinygpt.ids import IGNORED, Ids
from tinygpt.model.aligned import Aligned
from tinygpt.model.gpt import GPT
from tinygpt.model.heads import GPTClassifier
from tinygpt.model.transformer import widened


def reward_loss(model: GPTClassifier, x: Compared, y: Ids, reduction: str) -> Tensor:
    """-ln sigmoid(r(better) - r(worse)) in nats; r is the score that the model gives a reply.
    Ouyang et al. 2022, equation 1
    """
    return _better(compared_scores(model, x), y, reduction)


def dpo_loss(beta: float) -> Callable[[Aligned, Compared, Ids, str], Tensor]:
    """-ln sigmoid(r(better) - r(worse)) in nats, where r = beta (ln p(reply) - ln q(reply)); p is
    the policy, q the reference.

    Of all policies, p is the one with the largest E[r] - beta KL(p, q). So p itself says of which
    score r it is the best policy, and no reward model is needed.      Rafailov et al. 2023,
    equation 7
    """

    def loss(model: Aligned, x: Compared, y: Ids, reduction: str) -> Tensor:
        ids, targets = _side_by_side(x)
        with tensor.no_grad():
            log_q = reply_log_p(model.reference, ids, targets)
        scores = beta * (reply_log_p(model.policy, ids, targets) - log_q)  # (2 B,)
        return _better(scores.reshape(len(x), 2), y, reduction)

    return loss


def _side_by_side(x: Compared) -> tuple[Ids, Ids]:
    """ids, targets: (2 B, T), each better reply before the worse one."""
    time = x.ids.shape[-1]
    return x.ids.reshape(-1, time), x.targets.reshape(-1, time)


def _better(scores: Tensor, y: Ids, reduction: str) -> Tensor:
    """-ln p(the reply y is better).   scores: (B, 2)   y: (B,)"""
    return tensor.cross_entropy(scores, Tensor(y, device=scores.device), reduction=reduction)


def compared_scores(model: GPTClassifier, x: Compared) -> Tensor:
    """The scores of both replies of each pair.   (B, 2)"""
    return scores_of(model, *_side_by_side(x)).reshape(len(x), 2)


def scores_of(model: GPTClassifier, ids: Ids, targets: Ids) -> Tensor:
    """The score of each reply, at its last token.   ids, targets: (N, T)   scores: (N,)"""
    h = model.hidden(ids)[np.arange(len(ids)), ends_of(targets)]  # (N, C)
    return widened(model.logits(h)).reshape(-1)


def ends_of(targets: Ids) -> Ids:
    """The place of the last token of each reply, which is the last target.   (N, T) -> (N,)"""
    time = targets.shape[1]
    return time - np.argmax(targets[:, ::-1] != IGNORED, axis=1)


def reply_log_p(model: GPT, ids: Ids, targets: Ids) -> Tensor:
    """ln p(reply | prompt), the sum over its tokens.   ids, targets: (N, T)   ln p: (N,)"""
    return -model.loss(ids, targets, reduction="none").sum(-1)
