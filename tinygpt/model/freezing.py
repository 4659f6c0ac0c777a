"""Freezing: parts of a model that do not learn.

    embeddings    the tables of tokens and positions, and with the first a tied head
    blocks        all blocks; blocks:2 the first two

A frozen parameter has no gradient, so no optimiser moves it: no mean, no weight decay.
"""

from __future__ import annotations

import re

from tensor import nn
from tensor.nn.module import role_of
from tinygpt.errors import InputError

BLOCK = re.compile(r"(?:.*\.)?blocks\.(\d+)\.")


def freeze(model: nn.Module, parts: str) -> None:
    """Freeze these parts, with commas between. Raises InputError for more blocks than there are."""
    named = dict(model.named_parameters())
    # of each parameter in a block, the number of the block
    numbers = {name: int(found[1]) for name in named if (found := BLOCK.match(name))}
    blocks = 1 + max(numbers.values())
    for part in parts.split(","):
        kind, _, first = part.partition(":")
        count = int(first or blocks)
        if count > blocks:
            raise InputError(
                f"--freeze {part}: the model has fewer blocks\nfreeze at most blocks:{blocks}"
            )
        frozen = [name for name, number in numbers.items() if number < count]
        if kind == "embeddings":
            frozen = [name for name, parameter in named.items() if role_of(parameter) == "table"]
        for name in frozen:
            named[name].requires_grad = False


def learning(model: nn.Module) -> tuple[int, int]:
    """(the parameters that learn, all parameters)"""
    sizes = [(parameter.size, parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, learns in sizes if learns), sum(size for size, _ in sizes)
