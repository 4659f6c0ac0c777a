"""A small policy with all that stands beside it, whose weights all count."""

from __future__ import annotations

from typing import Any

from tensor import Generator, Tensor
from tensor.nn import Module
from tinygpt import GPT
from tinygpt.config import GPTClassifierConfig, GPTConfig
from tinygpt.model.aligned import Aligned

VOCABULARY, CONTEXT, END = 9, 12, 2
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
