"""What a step takes where two replies, or a rollout, stand behind each window of the data.

reward      two replies of each pair
DPO         the same, and forward once more through the reference
PPO         a rollout, which the policy writes and the reference, the reward model and the value
            head read; then updates on parts of the rollout
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any, TypeGuard

from tinygpt.config import (
    AlignConfig,
    GPTClassifierConfig,
    ModelConfig,
    PreferencesConfig,
    TrainConfig,
)
from tinygpt.model.aligned import Aligned
from tinygpt.model.gpt import GPT
from tinygpt.model.sizes import parameter_count
from tinygpt.training.rollouts import roll_out

FORWARD = 1 / 3  # of the work of a step is its forward pass
READERS = 4  # forward passes of a rollout: it is written, and read three times
COPIES = 3  # float64 arrays of the logits of one reply
NONE = -1  # a token that ends no reply


def by_ppo(config: TrainConfig) -> TypeGuard[AlignConfig]:
    """Whether a step begins with a rollout."""
    return isinstance(config, AlignConfig) and config.method == "ppo"


def passed(config: TrainConfig) -> Any:
    """The configuration of a training whose batch is what goes through the model at a time."""
    if by_ppo(config):
        return replace(config, batch=-(-config.batch // config.minibatches), minibatches=1)
    if isinstance(config, PreferencesConfig):
        return replace(config, batch=2 * config.batch)
    return config


def row_count(config: TrainConfig) -> int:
    """The number of rows of tokens in a step."""
    pairs = isinstance(config, PreferencesConfig) and not by_ppo(config)
    return config.batch * config.accumulation * (2 if pairs else 1)


def work(config: TrainConfig) -> float:
    """The work of a step, where that of its rows forward and backward, once, is 1."""
    if not isinstance(config, AlignConfig):
        return 1.0
    return config.epochs + READERS * FORWARD if config.method == "ppo" else 1 + FORWARD


def beside(
    model: ModelConfig, config: TrainConfig, reward: GPTClassifierConfig | None
) -> tuple[int, int, int]:
    """The parameters of the reference, of the reward model, and of the value head."""
    if not isinstance(config, AlignConfig):
        return 0, 0, 0
    judge = 0 if reward is None else parameter_count(reward)
    return parameter_count(model), judge, model.width + 1 if by_ppo(config) else 0


def rollout_bytes(model: ModelConfig, config: TrainConfig) -> int:
    """Of the cache of keys and values, and of the logits that the tokens are drawn from."""
    if not by_ppo(config):
        return 0
    cache = 2 * 4 * model.layers * model.context * model.width  # of a reply, as its logits
    logits = min(config.length, model.context) * model.vocabulary
    return config.batch * (cache + 4 * logits) + COPIES * 8 * logits


def rollout_seconds(model: Any, config: AlignConfig, rows: int) -> float:
    """Seconds of a rollout of so many replies, each as long as possible, with zero weights."""
    judge = GPTClassifierConfig(**vars(model), labels=("reward",))
    policy = GPT(model, dtype=config.dtype, device=config.device, draw=False)
    aligned, length = Aligned(policy, judge), min(config.length, model.context - 1)
    prompts = [[0] * (model.context - length)] * rows
    start = time.perf_counter()
    roll_out(aligned, prompts, NONE, length, seed=0, first=0)
    return time.perf_counter() - start
