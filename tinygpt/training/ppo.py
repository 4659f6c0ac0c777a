"""PPO: each step is a rollout, and several updates on its replies.

    for record in ppo(model, preferences, config, optimizer):
        print(record.step, record.numbers["reward"])

A step is a function of its number, the weights, the optimiser's state and the price of KL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from tensor.optim import Optimizer
from tensor.random import Generator, Key
from tinygpt.config import AlignConfig
from tinygpt.data.preferences import Preferences
from tinygpt.data.replies import true_score
from tinygpt.ids import IGNORED, Ids
from tinygpt.model.aligned import Aligned
from tinygpt.training.objectives.ppo import (
    PPOLoss,
    Replies,
    advantages_of,
    token_rewards,
    whitened,
)
from tinygpt.training.order import rows_of
from tinygpt.training.reading import Moment, Reading
from tinygpt.training.rollouts import Rollout, roll_out
from tinygpt.training.step import StepRecord, learning_rate, update

GAIN, MOST = 0.1, 0.2  # of the steering of the price of KL: Ziegler et al. 2019, section 2.2


class AlignRecord(StepRecord):
    """The numbers of one step of PPO. `numbers` are of the rollout, before the updates."""

    def __init__(self, numbers: dict[str, float], price: float, *step: Any):
        super().__init__(*step)
        self.numbers = numbers
        self.price = price  # of a nat of KL, in the next step

    @property
    def carried(self) -> dict[str, Any]:
        """The price of a nat of KL in the next step."""
        return {"price": self.price}

    @property
    def said(self) -> list[str]:
        """The rollout in numbers."""
        numbers = self.numbers
        return [
            f"reward {numbers['reward']:z.2f}",
            f"KL {numbers['kl']:z.2f}",
            f"entropy {numbers['entropy']:z.2f}",
            f"clipped {numbers['clipped']:.0%}",
            f"length {numbers['length']:.1f}",
        ]

    def as_dict(self) -> dict[str, Any]:
        return super().as_dict() | self.numbers


def ppo(
    model: Aligned,
    prompts: Preferences,
    config: AlignConfig,
    optimizer: Optimizer,
    first: int = 0,
    price: float | None = None,
) -> Iterator[AlignRecord]:
    """Take the steps `first` to `config.steps` (from 0); yield a record after each. price: of a nat
    of KL, by default that of the first step.
    """
    price = config.beta if price is None else price
    model.recompute = config.recompute
    model.train()
    for step in range(first, config.steps):
        start = Moment(model.device)
        optimizer.lr = learning_rate(step, config)
        rows, rollout = rolled_out(model, prompts, config, step)
        replies = learned_from(rollout, config, price)
        numbers = numbers_of(rollout) | {"kl_price": price}
        if config.true_score:
            numbers["true_score"] = true_scores(rollout, prompts, rows).mean()
        objective = PPOLoss(config.clip_range, config.value_weight)
        losses, norms = [], []
        for x, key in minibatches(replies, config, step):
            clip = config.clip or math.inf
            loss, norm = update(model, optimizer, x, x.targets, clip, 1, key, objective)
            losses.append(float(loss))
            norms.append(float(norm))
        numbers["clipped"] = float(np.mean(objective.clipped))
        numbers["value_loss"] = float(np.mean(objective.value_losses))
        price = steered(price, numbers["kl"], config.kl_target)
        # a step is skipped where each of its updates was
        norm = max(filter(math.isfinite, norms), default=math.inf)
        reading = Reading(start, float(np.mean(losses)), norm)
        tokens = int(np.count_nonzero(rollout.targets != IGNORED))
        yield AlignRecord(numbers, price, step + 1, optimizer.lr, tokens, reading)


def rolled_out(
    model: Aligned, prompts: Preferences, config: AlignConfig, step: int
) -> tuple[Ids, Rollout]:
    """The numbers of the prompts of a step (from 0), and a reply to each."""
    rows = rows_of(step, config, len(prompts))
    asked, drawn = [prompts.prompts[i] for i in rows], step * config.batch
    return rows, roll_out(model, asked, prompts.end, config.length, config.seed, drawn)


def learned_from(rollout: Rollout, config: AlignConfig, price: float) -> Replies:
    """The replies with their advantages and returns."""
    targets = rollout.targets
    rewards = token_rewards(rollout.scores, rollout.log_p, rollout.log_q, targets, price)
    found = advantages_of(rewards, rollout.values, targets, config.gamma, config.gae)
    returns = found + rollout.values
    return Replies(rollout.ids, targets, rollout.log_p, whitened(found, targets), returns)


def minibatches(replies: Replies, config: AlignConfig, step: int) -> Iterator[tuple[Replies, Key]]:
    """What each update of a step learns from, and its key."""
    for number, part in enumerate(parts_of(len(replies), config, step)):
        yield replies[part], Key(config.seed, step * config.updates + number)


def parts_of(count: int, config: AlignConfig, step: int) -> Iterator[Ids]:
    """The replies of each update of a step: in each epoch all, in another order."""
    draws = Generator(config.seed + (1 << 35))
    for epoch in range(config.epochs):
        draws.draws = (step * config.epochs + epoch) << 32
        yield from np.array_split(draws.permutation(count), config.minibatches)


def steered(price: float, kl: float, target: float | None) -> float:
    """The price of KL for the next step: higher where KL was above its target, by at most GAIN MOST
    of itself; the same without a target.      Ziegler et al. 2019, section 2.2
    """
    if target is None:
        return price
    return price * (1 + GAIN * float(np.clip(kl / target - 1, -MOST, MOST)))


def numbers_of(rollout: Rollout) -> dict[str, float]:
    """What is noted of a rollout: means over the replies, but the entropy is over the tokens."""
    counts = rollout.targets != IGNORED
    return {
        "reward": float(rollout.scores.mean()),
        "kl": rollout.kl,
        "entropy": float(rollout.entropy[counts].mean()),
        "length": float(counts.sum(axis=1).mean()),
        "gap": rollout.gap,
    }


def true_scores(rollout: Rollout, prompts: Preferences, rows: Ids) -> Any:
    """What the rule says of each reply.   (N,)"""
    scores = []
    for row, reply in zip(rows.tolist(), rollout.replies, strict=True):
        answer = prompts.pairs[row].answer
        whole = reply[-1:] == [prompts.end]
        text = prompts.tokenizer.decode(reply[:-1] if whole else reply)
        scores.append(true_score(text, answer or "") if whole else 0.0)
    return np.array(scores)
