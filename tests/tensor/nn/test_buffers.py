"""Buffers: tensors of a module that do not learn, in its state, its files and its copies."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn, optim
from tensor.errors import ArgumentError, StateError


class Normed(nn.Module):
    """x - mean, with a running mean."""

    def __init__(self) -> None:
        self.linear = nn.Linear(2, 2)
        self.register_buffer("mean", tensor.zeros(2))
        self.register_buffer("count", Tensor(0))
        self.register_buffer("mask", tensor.ones(2), persistent=False)
        self.register_buffer("none", None)
        self.plain = tensor.ones(3)

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.5 * self.mean + 0.5 * x.mean(0)
        self.count += 1
        return self.linear(x - self.mean)


class Outer(nn.Module):
    """Two of them, one under two names."""

    def __init__(self) -> None:
        self.parts = {"a": Normed(), "b": [Normed()]}
        self.again = self.parts["a"]


NAMES = ["parts.a.mean", "parts.a.count", "parts.b.0.mean", "parts.b.0.count"]


def test_a_state_has_the_buffers(tmp_path: Path, device: str) -> None:
    model: Any = Outer().to(device)
    x = Tensor([[2.0, 4.0]], device=device)
    model.again(x)
    assert [name for name, _ in model.named_buffers()] == NAMES
    assert next(model.named_buffers("outer"))[0] == f"outer.{NAMES[0]}"
    assert len(list(model.buffers())) == 4
    assert list(model.state_dict())[-4:] == NAMES
    assert np.shares_memory(model.state_dict()["parts.a.mean"].array, model.again.mean.array)
    assert not {id(b) for b in model.buffers()} & {id(p) for p in model.parameters()}
    model.save(tmp_path / "model.safetensors")
    other: Any = Outer().to(device)
    other.load(tmp_path / "model.safetensors")
    others = [other, copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    for taken in others:
        assert taken.again.mean.tolist() == [1, 2]
        assert (taken.again.count.item(), taken.again.count.dtype) == (1, np.int64)
        taken.again(x)
        assert taken.again.mean.tolist() == [1.5, 3]
        assert [name for name, _ in taken.named_buffers()] == NAMES
    assert model.again.mean.tolist() == [1, 2]
    with pytest.raises(StateError, match=r"missing: parts\.a\.mean, parts\.a\.count"):
        other.load_state_dict(dict(model.named_parameters()))


def test_a_buffer_moves_and_does_not_learn(device: str) -> None:
    model: Any = Normed().to("float64", device)
    assert {x.dtype for x in (model.mean, model.mask, model.plain)} == {tensor.float64}
    assert model.count.dtype == np.int64
    optimizer = optim.AdamW(model, lr=0.1)
    x = tensor.ones(1, 2, dtype="float64", device=device)
    loss = (model(x) ** 2).sum()
    loss.backward()
    optimizer.step()
    assert model.mean.tolist() == [0.5, 0.5]
    assert model.none is None
    y = (model.mean * x.detach()).sum() + model.linear(x).sum()
    model.load_state_dict({**model.state_dict(), "mean": [3.0, 4.0]})  # its graph is alive
    assert model.mean.tolist() == [3, 4]
    assert y.requires_grad


def test_what_is_no_buffer_is_refused() -> None:
    model: Any = Normed()
    for name, value, words in (
        ("mean", np.ones(2), "'mean' holds a Tensor or None, not a ndarray: write Tensor"),
        ("other", 3.0, "'other' holds a Tensor or None, not a float"),
        ("other", nn.Parameter([1.0]), "not a Parameter: .* what learns is a plain attribute"),
        ("training", tensor.ones(1), "'training' is an attribute already"),
        ("forward", tensor.ones(1), "'forward' is an attribute already"),
        ("a.b", tensor.ones(1), "'a.b' cannot be the name of an attribute"),
    ):
        with pytest.raises(ArgumentError, match=words) as error:
            model.register_buffer(name, value)
        assert [entry.name for entry in error.traceback][1:] == ["register_buffer"]
    with pytest.raises(TypeError, match="'mean' holds a Tensor or None, not a float"):
        model.mean = 0.5
    model.register_buffer("mean", tensor.ones(2))
    assert [name for name, _ in model.named_buffers()] == ["mean", "count"]
    model.mean = None
    assert "mean" not in model.state_dict()
    del model.count
    assert not list(model.buffers())
