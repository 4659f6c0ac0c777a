"""A small policy with all that stands beside it, whose weights all count; and what these models say
of replies, found reply by reply, without padding, in loops over Python's floats.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from tensor import Generator, Tensor, no_grad
from tensor.nn import Module, evaluating
from tinygpt import GPT
from tinygpt.config import GPTClassifierConfig, GPTConfig
from tinygpt.model.aligned import Aligned
from tinygpt.training.rollouts import Rollout, roll_out

VOCABULARY, CONTEXT, END, LENGTH = 9, 12, 2, 4
SHAPE: dict[str, Any] = {"width": 12, "heads": 3, "layers": 2}
# of unequal lengths; after the last one there is room for two tokens
PROMPTS = [[0, 4, 5, 6, 1], [0, 3, 1], [0, 5, 1], [0, 8, 8, 1], [0, *range(3, 9), 3, 4, 1]]


def draw(module: Module, seed: int, spread: float = 0.5) -> None:
    """Draw every parameter from N(0, spread^2)."""
    draws = Generator(seed)
    for _, x in module.named_parameters():
        values = Tensor(spread * draws.normal(x.shape))
        x.detach()[...] = values.to(dtype=x.dtype, device=x.device)


def made(dtype: str = "float64", seed: int = 0) -> Aligned:
    """The models of PPO, all different, with scores that are standardised."""
    policy = GPT(GPTConfig(VOCABULARY, CONTEXT, **SHAPE), dtype=dtype)
    model = Aligned(policy, GPTClassifierConfig(VOCABULARY, CONTEXT, **SHAPE, labels=("reward",)))
    parts: Any = (model.policy, model.reference, model.value, model.reward)
    for number, part in enumerate(parts):
        draw(part, 10 * seed + number)
    model.mean[...], model.spread[...] = 0.25, 1.5
    return model


def rolled(model: Aligned, seed: int = 2, prompts: Any = PROMPTS) -> Rollout:
    return roll_out(model, prompts, END, LENGTH, seed, first=0)


class Spoken(NamedTuple):
    """What the models say of the tokens of a reply, in its order."""

    log_p: list[float]
    log_q: list[float]
    entropy: list[float]
    values: list[float]
    score: float


def logarithms(logits: Any) -> list[float]:
    top = max(logits)
    total = math.log(math.fsum(math.exp(x - top) for x in logits)) + top
    return [x - total for x in logits]


def spoken(model: Any, prompt: list[int], reply: list[int]) -> Spoken:
    """Of one reply. The whole of it goes through each model, alone in its batch."""
    whole, first = [*prompt, *reply], len(prompt) - 1
    with no_grad(), evaluating():
        h = model.policy.hidden([whole]).numpy()[0]
        p, q = (each([whole]).numpy()[0].tolist() for each in (model.policy, model.reference))
        score = model.reward([whole]).numpy()[0, -1, 0]
    weight, bias = model.value.weight.numpy()[:, 0], float(model.value.bias.numpy()[0])
    found = Spoken([], [], [], [], (float(score) - 0.25) / 1.5)
    for place, token in enumerate(reply, first):
        logs = logarithms(p[place])
        found.log_p.append(logs[token])
        found.log_q.append(logarithms(q[place])[token])
        found.entropy.append(-math.fsum(math.exp(x) * x for x in logs))
        found.values.append(math.fsum(h[place] * weight) + bias)
    return found


def all_spoken(model: Aligned, rollout: Rollout) -> list[Spoken]:
    """With the score of a reply that was cut off: the lowest of all."""
    told = [spoken(model, *each) for each in zip(PROMPTS, rollout.replies, strict=True)]
    lowest = min(one.score for one in told)
    ended = [reply[-1] == END for reply in rollout.replies]
    return [
        one if whole else one._replace(score=lowest) for one, whole in zip(told, ended, strict=True)
    ]


def placed(rollout: Rollout, rows: list[list[float]]) -> Any:
    """At the token before the one it is about; 0 elsewhere."""
    whole = np.zeros(rollout.ids.shape)
    for i, row in enumerate(rows):
        start = len(PROMPTS[i]) - 1
        whole[i, start : start + len(row)] = row
    return whole
