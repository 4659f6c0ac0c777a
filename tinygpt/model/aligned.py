"""A policy that is being aligned, with what its training needs beside it.

    policy       the GPT that learns to write better replies
    value        PPO: a linear layer on the policy's hidden state, the return that it expects
    reference    the policy as it was at first: it stays
    reward       PPO: the reward model, which scores a reply: it stays

Scores are known up to a constant, and their size follows from how long the reward model learned.
PPO's are (score - mean) / spread, where the reference's replies have mean 0 and spread 1.
Ziegler et al. 2019, section 2.1

All but the policy is for its training alone.
"""

from __future__ import annotations

from typing import Any

import tensor
from tensor import Tensor, nn
from tinygpt.config import GPTClassifierConfig, GPTConfig
from tinygpt.model.gpt import GPT
from tinygpt.model.heads import GPTClassifier


class Aligned(nn.Module):
    """The policy, and what stands beside it. The reference is a copy of the policy as it is now.
    The value head starts at 0. The reward model is 0 until its weights are loaded.
    """

    mean: Tensor  # ()
    spread: Tensor  # ()

    def __init__(self, policy: GPT, reward: GPTClassifierConfig | None = None):
        options: Any = {"dtype": policy.token_embedding.weight.dtype, "device": policy.device}
        self.policy = policy
        self.reference = GPT(policy.config, draw=False, **options).requires_grad_(False)
        self.reference.load_state_dict(policy.state_dict())
        self.value = self.reward = None
        if reward is not None:
            with nn.undrawn():
                self.value = nn.Linear(policy.config.width, 1, role="head").to(**options)
            self.reward = GPTClassifier(reward, draw=False, **options).requires_grad_(False)
        # of the scores that the reward model gives the reference's replies
        self.register_buffer("mean", tensor.zeros(()))
        self.register_buffer("spread", tensor.ones(()))

    @property
    def config(self) -> GPTConfig:
        """The shape of the policy."""
        return self.policy.config

    @property
    def device(self) -> str:
        """Where the parameters are."""
        return self.policy.device

    @property
    def recompute(self) -> bool:
        """Whether backward computes the activations of the policy's blocks again."""
        return self.policy.recompute

    @recompute.setter
    def recompute(self, chosen: bool) -> None:
        self.policy.recompute = chosen

    def __call__(self, objective: Any, x: Any, y: Any, reduction: str) -> Tensor:
        """The loss of an objective. In a recording of the call, the names of all parts begin
        here.
        """
        loss: Tensor = objective(self, x, y, reduction)
        return loss

    def loss(self, ids: Any, targets: Any, reduction: str = "mean") -> Any:
        """That of the policy."""
        return self.policy.loss(ids, targets, reduction)
