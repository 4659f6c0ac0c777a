"""Adapters of low rank: what they compute, what learns, and the one model that they make with the
model beside them.   Tests: model/adapters.py
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor
from tensor.kernels import off
from tensor.optim import Optimizer
from tensor.random import Generator
from tests.tinygpt.model.test_heads import made
from tinygpt import GPT, GPTConfig
from tinygpt.config import FinetuneConfig
from tinygpt.ids import Ids
from tinygpt.model.adapters import LoRA, adapt, draw, merged
from tinygpt.model.freezing import learning
from tinygpt.model.prepared import parted, plain_weights
from tinygpt.training.planning import counted
from tinygpt.training.step import optimizer_of, update

V, T, C, LAYERS = 11, 8, 16, 2
NEW = (2, 3)  # first, number


def batch(seed: int) -> Ids:
    ids: Ids = np.random.default_rng(seed).integers(0, V, (4, T))
    return ids


def plain_gpt(dtype: str = "float32", **choices: Any) -> GPT:
    return GPT(GPTConfig(V, T, C, 2, LAYERS, **choices), generator=Generator(0), dtype=dtype)


def adapted(
    dtype: str = "float32", choices: dict[str, Any] | None = None, **config: Any
) -> tuple[GPT, Optimizer]:
    model = plain_gpt(dtype, **(choices or {}))
    training = FinetuneConfig(lora=3, lr=0.05, weight_decay=0.5, dtype=dtype, **config)
    adapt(model, training, NEW)
    draw(model, Generator(1))
    return model, optimizer_of(model, training)


def train(model: GPT, optimizer: Optimizer, steps: int = 3) -> None:
    for seed in range(steps):
        update(model, optimizer, batch(seed), batch(seed + 9), clip=0.1)


def values(model: GPT) -> dict[str, Any]:
    return {name: x.numpy().copy() for name, x in model.state_dict().items()}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_first_the_model_computes_what_it_did(dtype: str) -> None:
    model, _ = adapted(dtype)
    np.testing.assert_allclose(
        model(batch(0)).numpy(), plain_gpt(dtype)(batch(0)).numpy(), rtol=0, atol=1e-6
    )


CHOICES: list[dict[str, Any]] = [
    {},
    {"activation": "relu", "bias": False, "norm": "post"},
    {"activation": "gelu_erf", "tied": False, "positions": "sinusoidal"},
]


@pytest.mark.parametrize("choices", CHOICES)
@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-6), ("float64", 1e-14)])
def test_merged_adapters_give_the_same_logits(
    choices: dict[str, Any], dtype: str, most: float
) -> None:
    model, optimizer = adapted(dtype, choices)
    train(model, optimizer)
    plain = merged(model)
    assert plain.state_dict().keys() == plain_gpt(dtype, **choices).state_dict().keys()
    logits = model(batch(0)).numpy()
    assert np.abs(logits - plain_gpt(dtype, **choices)(batch(0)).numpy()).max() > 1e-2
    np.testing.assert_allclose(plain(batch(0)).numpy(), logits, rtol=0, atol=most)
    # with a cache, which reads the weights by a way of its own
    cached = model(batch(0), model.new_cache(4)).numpy()
    np.testing.assert_allclose(cached, logits, rtol=0, atol=10 * most)
    assert merged(plain) is plain


def test_gradients_are_those_through_the_merged_matrix() -> None:
    """W' = W + s A B:   dA = s dW' B^T   dB = s A^T dW'"""
    model, optimizer = adapted("float64")
    train(model, optimizer)
    plain = merged(model)
    for each in (model, plain):
        each.zero_grad()
        each.loss(batch(0), batch(1)).backward()
    matrices = dict(plain.named_modules())
    for name, layer in model.named_modules():
        if isinstance(layer, LoRA):
            dw = matrices[name].weight.grad.numpy()
            da = layer.scale * dw @ layer.B.numpy().T
            db = layer.scale * layer.A.numpy().T @ dw
            np.testing.assert_allclose(layer.A.grad.numpy(), da, rtol=1e-9, atol=1e-15)
            np.testing.assert_allclose(layer.B.grad.numpy(), db, rtol=1e-9, atol=1e-15)
    table = plain.token_embedding.weight.grad.numpy()
    np.testing.assert_allclose(model.token_embedding.new.grad.numpy(), table[2:5], rtol=1e-9)


@pytest.mark.parametrize("more", [{}, {"optimizer": "muon"}, {"recompute": True}])
@pytest.mark.parametrize("tied", [True, False])
def test_all_but_the_adapters_stays_bit_for_bit(tied: bool, more: dict[str, Any]) -> None:
    """But the rows of new tokens, and a head of its own."""
    model, optimizer = adapted(choices={"tied": tied}, **more)
    model.recompute = "recompute" in more
    before, table = values(model), plain_weights(model)["token_embedding.weight"].numpy().copy()
    train(model, optimizer)
    after = values(model)
    moved = {name for name, x in after.items() if x.tobytes() != before[name].tobytes()}
    layers = ["attention.qkv", "attention.projection", "feed_forward.expand"]
    layers += ["feed_forward.projection"]
    names = [f"blocks.{i}.{layer}" for i in range(LAYERS) for layer in layers]
    expected = {f"{name}.{part}" for name in names for part in "AB"} | {"token_embedding.new"}
    expected |= set() if tied else {"head.weight"}
    assert moved == expected == set(optimizer.counts)
    staying, learned = parted(model)
    assert set(learned) == moved
    assert set(staying) == set(after) - moved
    rows = plain_weights(model)["token_embedding.weight"].numpy()
    assert [i for i in range(V) if rows[i].tobytes() != table[i].tobytes()] == [2, 3, 4]


def test_recomputed_blocks_give_the_same_gradients() -> None:
    one, other = adapted()[0].train(), adapted()[0].train()
    other.recompute = True
    for model in (one, other):
        model.loss(batch(0), batch(1)).backward()
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None) == (not a.requires_grad), name
        if a.grad is not None:
            np.testing.assert_array_equal(a.grad.numpy(), b.grad.numpy())


def test_kernels_and_references_agree() -> None:
    model, optimizer = adapted()
    train(model, optimizer)
    logits = model(batch(0)).numpy()
    with off():
        np.testing.assert_allclose(model(batch(0)).numpy(), logits, rtol=0, atol=1e-5)


def test_the_scale_is_alpha_by_rank() -> None:
    model, _ = adapted(lora_alpha=6.0)
    layer = model.blocks[0].attention.qkv
    assert layer.scale == 2
    x = Tensor(np.ones((1, C)), dtype="float32")
    with tensor.no_grad():
        layer.B[...] = Tensor(np.ones(layer.B.shape))
        added = (layer(x) - tensor.linear(x, layer.base, layer.bias)).numpy()
    np.testing.assert_allclose(added, np.full((1, 3 * C), 2 * layer.A.numpy().sum()), rtol=1e-5)
    assert np.abs(layer.A.numpy()).max() <= 1 / np.sqrt(C)


@pytest.mark.parametrize("more", [{}, {"optimizer": "muon"}])
def test_a_plan_counts_what_learns(more: dict[str, Any]) -> None:
    """But the rows of new tokens, and the padding of packing."""
    model, config = plain_gpt(), FinetuneConfig(lora=3, **more)
    adapt(model, config)
    learn, _ = learning(model)
    plan = counted(model.config, config)
    assert plan.gradients == 4 * learn
    assert plan.weights == 4 * sum(parameter.size for parameter in model.parameters())
    optimizer = optimizer_of(model, config)
    kinds = [len(optimizer.state_names_of(flat)) for flat in optimizer.flats]
    sizes = [sum(slot.stop - slot.start for slot in flat.slots) for flat in optimizer.flats]
    assert plan.moments == 4 * int(np.dot(kinds, sizes))


@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_the_head_of_a_classifier_learns_too(base: str) -> None:
    model: Any = made(base)
    training = FinetuneConfig(lora=2, lr=0.05)
    adapt(model, training)
    draw(model, Generator(1))
    optimizer, x, y = optimizer_of(model, training), batch(0), batch(1) % 3
    for _ in range(2):
        update(model, optimizer, x, y, clip=1.0)
    learned = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert {name.rpartition(".")[2] for name in learned} == {"A", "B", "weight"}
    assert "head.weight" in learned
    plain = merged(model.eval())
    assert not plain.training
    np.testing.assert_allclose(plain(x).numpy(), model(x).numpy(), rtol=0, atol=1e-12)
