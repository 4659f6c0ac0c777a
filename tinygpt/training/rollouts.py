"""Rollouts: the policy writes a reply to each of some prompts, and the reward model scores them.

The replies are drawn as the policy says, at temperature 1. So the log-probabilities of the sampler,
which reads token after token into a cache, are those of the policy that training goes through.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tensor import Tensor, no_grad
from tensor.nn import evaluating
from tinygpt.config import SampleConfig
from tinygpt.data.preferences import after_prompts
from tinygpt.errors import InputError
from tinygpt.generation.generate import steps
from tinygpt.generation.sampling import draws
from tinygpt.ids import IGNORED, Ids
from tinygpt.model.aligned import Aligned
from tinygpt.model.gpt import GPT
from tinygpt.training.objectives.ppo import Floats, token_log_p
from tinygpt.training.objectives.preferences import scores_of

STANDARD = 1 << 30  # the number of the first reply by which scores are standardised


@dataclass(frozen=True)
class Rollout:
    """Replies, and what the models say of each of their tokens: (N, T), at the token before."""

    replies: list[list[int]]  # with the end, where there is one
    ids: Ids  # (N, T): prompts and replies
    targets: Ids  # (N, T): the tokens of the replies
    log_p: Floats  # (N, T): the sampler's
    entropy: Floats  # (N, T): of what each token was drawn from, in nats
    log_q: Floats  # (N, T): the reference's
    passed: Floats  # (N, T): the policy's in a training pass, which are to be `log_p`
    values: Floats  # (N, T)
    scores: Floats  # (N,): of the reward model, as `judged`; zeros without one

    @property
    def kl(self) -> float:
        """KL(policy, reference) in nats a reply: the mean of ln p(reply) - ln q(reply)."""
        return float((self.log_p - self.log_q).sum(axis=1).mean())

    @property
    def gap(self) -> float:
        """How far the sampler's log-probabilities are from those of training, at most."""
        return float(np.abs(self.log_p - self.passed).max())


def roll_out(
    model: Aligned,
    prompts: Sequence[Sequence[int]],
    end: int,
    length: int,
    seed: int,
    first: int,
) -> Rollout:
    """A reply of at most `length` tokens to each prompt, (T,) ids of its own length; also the last
    token of a reply fits the context, for the reward model reads it. Prompt i draws as number
    first + i of this seed.
    """
    with no_grad(), evaluating():
        replies, logits = written(model.policy, prompts, end, length, seed, first)
        ids, targets = after_prompts(list(zip(prompts, replies, strict=True)))
        places = targets != IGNORED
        said = map(told, logits, replies)
        log_p, entropies = (np.concatenate(each) for each in zip(*said, strict=True))  # (M,)

        def placed(numbers: Any) -> Floats:
            whole = np.zeros(targets.shape)
            whole[places] = numbers
            return whole

        log_q = -model.reference.loss(ids, targets, reduction="none").to("cpu").numpy()
        scores, values, passed = np.zeros(len(ids)), np.zeros(len(log_p)), log_p
        if model.reward is not None:
            scores = judged(scores_of(model.reward, ids, targets), replies, end)
            scores = (scores - float(model.mean)) / float(model.spread)
            passed, values = (x.to("cpu").numpy() for x in token_log_p(model, ids, targets))
    return Rollout(
        replies,
        ids,
        targets,
        placed(log_p),
        placed(entropies),
        np.where(places, log_q, 0.0),
        placed(passed),
        placed(values),
        scores,
    )


def standardise(model: Aligned, prompts: Sequence[Sequence[int]], end: int, length: int) -> None:
    """Set the mean and the spread of the scores to those of the policy's replies to these prompts,
    before the policy learns. Raises InputError where a score is not finite.
    """
    scores = roll_out(model, prompts, end, length, seed=0, first=STANDARD).scores
    if not np.isfinite(scores).all():
        raise InputError(
            "the reward model's scores are not finite numbers: its weights are broken, or beyond "
            "float16\ntrain another one with a lower --lr, or align in --dtype float32"
        )
    with no_grad():
        model.mean[...] = float(scores.mean())
        model.spread[...] = float(scores.std()) or 1.0


def written(
    policy: GPT, prompts: Sequence[Sequence[int]], end: int, length: int, seed: int, first: int
) -> tuple[list[list[int]], list[Any]]:
    """The ids that the policy writes after each prompt, with the token `end` that a reply stops at,
    and the logits that each was drawn from: (V,) for each token of each prompt.
    """
    config = SampleConfig(length=length)
    generators = [draws(seed, first + i) for i in range(len(prompts))]
    replies: list[list[int]] = [[] for _ in prompts]
    logits: list[list[Any]] = [[] for _ in prompts]
    ended: set[int] = set()
    for i, step in steps(policy, prompts, config, generators, ended, with_logits=True):
        replies[i].append(step.token)
        logits[i].append(step.logits)
        if step.token == end or len(prompts[i]) + len(replies[i]) == policy.context:
            ended.add(i)
    return replies, logits


def told(logits: Sequence[Any], reply: Sequence[int]) -> tuple[Floats, Floats]:
    """ln p of the tokens of a reply, and the entropy of what each was drawn from.   logits: (V,) of
    each token   both: (tokens,)
    """
    log_p = log_softmax(np.array(logits, dtype=np.float64))  # (tokens, V)
    return log_p[np.arange(len(reply)), reply], -(np.exp(log_p) * log_p).sum(axis=1)


def judged(scores: Tensor, replies: Sequence[Sequence[int]], end: int) -> Floats:
    """The scores on the host in float64, where a reply that was cut off has the lowest of all: the
    reward model has seen whole replies alone, so its score of a part says nothing.   (N,)
    Ziegler et al. 2019 give such replies a fixed low score
    """
    found: Floats = scores.to("cpu").numpy().astype(np.float64)
    whole = np.array([reply[-1] == end for reply in replies])
    return np.where(whole, found, found.min())


def log_softmax(logits: Floats) -> Floats:
    """ln softmax over the last axis, in float64."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found
