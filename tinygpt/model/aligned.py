"""A policy that is being aligned, with what its training needs beside it.

    policy       the GPT that learns to write better replies
    value        PPO: a linear layer on the policy's hidden state, the return that it expects
    reference    the policy as it was at first: it stays
    reward       PPO: the reward model, which scores a reply: it stays

All but the policy is for its training alone.
"""

from __future__ import annotations

from typing import Any

from tensor import nn
from tinygpt.config import GPTClassifierConfig, GPTConfig
from tinygpt.model.gpt import GPT
from tinygpt.model.heads import GPTClassifier


class Aligned(nn.Module):
    """The policy, and what stands beside it. The value head starts at 0."""

    def __init__(self, policy: GPT, reward: GPTClassifierConfig | None = None):
        options: Any = {"dtype": policy.token_embedding.weight.dtype, "device": policy.device}
        self.policy = policy
        self.reference = GPT(policy.config, draw=False, **options).requires_grad_(False)
        self.value = self.reward = None
        if reward is not None:
            with nn.undrawn():
                self.value = nn.Linear(policy.config.width, 1, role="head").to(**options)
            self.reward = GPTClassifier(reward, draw=False, **options).requires_grad_(False)

    @property
    def config(self) -> GPTConfig:
        """The shape of the policy."""
        return self.policy.config

    @property
    def device(self) -> str:
        """Where the parameters are."""
        return self.policy.device

    def loss(self, ids: Any, targets: Any, reduction: str = "mean") -> Any:
        """That of the policy."""
        return self.policy.loss(ids, targets, reduction)
