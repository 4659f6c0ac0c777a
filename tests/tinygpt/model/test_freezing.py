"""Parts that do not learn.   Tests: model/freezing.py"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor.optim import Optimizer
from tensor.random import Generator
from tinygpt import GPT, GPTConfig, TrainConfig
from tinygpt.errors import InputError
from tinygpt.ids import Ids
from tinygpt.model.freezing import freeze, learning
from tinygpt.training.step import optimizer_of, update

SHAPE = GPTConfig(11, 8, 8, 2, 3)
TABLES = {"token_embedding.weight", "position_embedding"}


def batch(seed: int) -> Ids:
    ids: Ids = np.random.default_rng(seed).integers(0, 11, (4, 8))
    return ids


def frozen_gpt(parts: str, **more: Any) -> tuple[GPT, Optimizer]:
    model = GPT(SHAPE, generator=Generator(0), dtype=more.get("dtype", "float32"))
    freeze(model, parts)
    return model, optimizer_of(model, TrainConfig(lr=0.1, weight_decay=0.5, **more))


def values(model: GPT) -> dict[str, Any]:
    return {name: x.numpy().copy() for name, x in model.state_dict().items()}


@pytest.mark.parametrize("parts", ["embeddings", "blocks", "blocks:2", "embeddings,blocks:1"])
@pytest.mark.parametrize("more", [{}, {"optimizer": "muon"}, {"dtype": "bfloat16"}])
def test_what_is_frozen_does_not_move_by_a_bit(parts: str, more: dict[str, str]) -> None:
    """With weight decay and clipping; all else moves."""
    model, optimizer = frozen_gpt(parts, **more)
    before = values(model)
    for seed in range(3):
        update(model, optimizer, batch(seed), batch(seed + 9), clip=0.1, accumulation=2)
    numbers = {"blocks": 3, "blocks:2": 2, "embeddings,blocks:1": 1}.get(parts, 0)
    expected = {name for name in before if name[:8] in [f"blocks.{i}" for i in range(numbers)]}
    expected |= TABLES if "embeddings" in parts else set()
    same = {name for name, x in values(model).items() if x.tobytes() == before[name].tobytes()}
    assert same == expected
    assert set(optimizer.counts) == set(before) - expected
    sizes = {name: x.size for name, x in before.items()}
    learn = sum(size for name, size in sizes.items() if name not in expected)
    assert learning(model) == (learn, sum(sizes.values()))


def test_the_others_get_the_gradients_that_they_had() -> None:
    whole, part = GPT(SHAPE, generator=Generator(0)), frozen_gpt("embeddings,blocks:2")[0]
    for model in (whole, part):
        model.loss(batch(0), batch(1)).backward()
    gradients = {name: x.grad for name, x in whole.named_parameters()}
    for name, parameter in part.named_parameters():
        if parameter.requires_grad:
            np.testing.assert_array_equal(parameter.grad.numpy(), gradients[name].numpy())
        else:
            assert parameter.grad is None


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(InputError, match="at most blocks:3"):
        frozen_gpt("blocks:4")
