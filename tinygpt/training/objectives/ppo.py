"""Proximal policy optimisation: a policy learns from replies that it wrote itself.
Schulman et al. 2017; for language models Ziegler et al. 2019, Ouyang et al. 2022

A state is a prompt and the tokens so far, an action is the next token. With the log-probabilities
ln p of the policy and ln q of the reference, both of the tokens that were drawn:

    r_t = -beta (ln p_t - ln q_t), and at the last token + the reward model's score
    d_t = r_t + gamma V_t+1 - V_t               V_t: the return that the value head expects
    A_t = d_t + gamma lambda A_t+1              Schulman et al. 2016, equation 16
    R_t = A_t + V_t                             the return, which V learns

The mean of -(ln p_t - ln q_t) over drawn tokens is -KL(p, q). So a policy that maximises the
rewards maximises E[score] - beta KL.

Shapes:   N replies   T time (tokens)   M tokens of all replies   C width   V vocabulary
Whatever is (N, T) stands where a target stands: at the token before the one it is about.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np

import tensor
from tensor import Tensor
from tinygpt.ids import IGNORED, Ids
from tinygpt.model.aligned import Aligned
from tinygpt.model.transformer import widened

Floats: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"


def token_rewards(
    scores: Floats, log_p: Floats, log_q: Floats, targets: Ids, beta: float
) -> Floats:
    """r_t.   scores: (N,)   log_p, log_q, targets, r: (N, T)"""
    counts = targets != IGNORED
    rewards = np.where(counts, -beta * (log_p - log_q), 0.0)
    last = targets.shape[1] - 1 - np.argmax(counts[:, ::-1], axis=1)
    rewards[np.arange(len(scores)), last] += scores
    return rewards


def advantages_of(
    rewards: Floats, values: Floats, targets: Ids, gamma: float, lambda_: float
) -> Floats:
    """A_t, from the last token back to the first.   all (N, T)"""
    counts = targets != IGNORED
    values = np.where(counts, values, 0.0)  # after the end nothing comes
    advantages = np.zeros_like(rewards)
    next_value = next_advantage = np.zeros(len(rewards))
    for t in reversed(range(rewards.shape[1])):
        errors = rewards[:, t] + gamma * next_value - values[:, t]
        advantages[:, t] = np.where(counts[:, t], errors + gamma * lambda_ * next_advantage, 0.0)
        next_value, next_advantage = values[:, t], advantages[:, t]
    return advantages


def whitened(advantages: Floats, targets: Ids) -> Floats:
    """The advantages with mean 0 and standard deviation 1 over all tokens: so the size of the
    scores does not set the size of the steps.   (N, T)
    """
    counts = targets != IGNORED
    mean, spread = advantages[counts].mean(), advantages[counts].std()
    return np.where(counts, (advantages - mean) / (spread + 1e-8), 0.0)


@dataclass(frozen=True)
class Replies:
    """What an update learns from. r[rows] are some of the replies, as of an array."""

    ids: Ids  # (N, T): prompts and replies
    targets: Ids  # (N, T)
    log_p: Floats  # (N, T): when the replies were drawn
    advantages: Floats  # (N, T)
    returns: Floats  # (N, T)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Replies:
        return Replies(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def size(self) -> int:
        """The number of tokens, N T."""
        return self.ids.size


class PPOLoss:
    """The objective of PPO: with p_t = e^(ln p_t) now, and o_t when the replies were drawn,

        ratio_t = p_t / o_t
        loss = mean_t[ -min(ratio_t A_t, clip(ratio_t, 1 - e, 1 + e) A_t) + w (V_t - R_t)^2 / 2 ]

    A policy that has moved further than e in the direction of A_t has no gradient there: the
    replies say little about a policy that is far from the one that wrote them.      Schulman et al.
    2017, equations 7 and 9

    clipped: of each batch, the share of the tokens whose ratio is outside.
    """

    def __init__(self, clip_range: float, value_weight: float):
        self.clip_range, self.value_weight = clip_range, value_weight
        self.clipped: list[float] = []
        self.value_losses: list[float] = []

    def __call__(self, model: Aligned, x: Replies, y: Ids, reduction: str) -> Tensor:
        places = np.nonzero(y != IGNORED)
        log_p, values = token_log_p(model, x.ids, y)  # (M,)
        like: Any = {"dtype": log_p.dtype, "device": log_p.device}
        old, advantages, returns = (
            Tensor(numbers[places], **like) for numbers in (x.log_p, x.advantages, x.returns)
        )
        ratio = tensor.exp(log_p - old)
        near = tensor.clip(ratio, 1 - self.clip_range, 1 + self.clip_range)
        gains = tensor.minimum(ratio * advantages, near * advantages)
        errors = (values - returns) ** 2
        self._note(ratio, errors)
        loss = 0.5 * self.value_weight * errors - gains
        return loss.mean() if reduction == "mean" else loss.sum()

    def _note(self, ratio: Tensor, errors: Tensor) -> None:
        moved = np.abs(ratio.detach().to("cpu").numpy() - 1)
        self.clipped.append(float((moved > self.clip_range).mean()))
        self.value_losses.append(float(errors.detach().mean()) / 2)


def token_log_p(model: Aligned, ids: Ids, targets: Ids) -> tuple[Tensor, Tensor]:
    """ln p of the targets, and the values of the states that they were drawn in.   ids, targets:
    (N, T)   ln p, V: (M,)
    """
    assert model.value is not None
    places = np.nonzero(targets != IGNORED)
    h = model.policy.hidden(ids)[places]  # (M, C)
    logits = widened(model.policy.logits(h))  # (M, V)
    chosen = Tensor(targets[places], device=logits.device)
    log_p = -tensor.cross_entropy(logits, chosen, reduction="none")
    return log_p, widened(model.value(h)).reshape(-1)
