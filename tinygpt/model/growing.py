"""A vocabulary that grows: the weights of a model, with rows for new tokens."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tensor import Generator, Tensor
from tensor.memory.devices import to_host
from tinygpt.model.transformer import SPREAD

# where the tokens are numbered: the parameter, and its axis of the vocabulary
TABLES = {"token_embedding.weight": 0, "head.weight": 1}


def with_new_tokens(
    weights: Mapping[str, Tensor], first: int, count: int, seed: int
) -> dict[str, Tensor]:
    """The weights for a vocabulary in which new tokens have the ids `first` to first + count - 1.
    The tokens from `first` on move up by `count`, and their weights with them.

    New rows are drawn as fresh ones are, from N(0, 0.02^2).
    """
    generator, grown = Generator(seed), dict(weights)
    for name, axis in TABLES.items():
        if count and name in weights:
            old = weights[name]
            before, after = np.split(to_host(old.array), [first], axis)
            shape = tuple(count if i == axis else n for i, n in enumerate(old.shape))
            rows = (generator.normal(shape) * SPREAD).astype(before.dtype)
            grown[name] = Tensor(np.concatenate([before, rows, after], axis), device=old.device)
    return grown
