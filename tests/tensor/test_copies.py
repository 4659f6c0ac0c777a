"""copy and pickle: a copy has memory of its own, and one truth about it."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, no_grad, optim
from tensor.errors import GraphError, MutationError
from tensor.nn import Linear, Module
from tensor.optim import AdamW, Muon, Optimizer


def pickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


COPIES = pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
DATA = tensor.randn(8, 3)


class Tied(Module):
    """A layer that stands in two places."""

    def __init__(self) -> None:
        self.first = Linear(3, 3)
        self.again = self.first
        self.last = Linear(3, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return self.last(self.again(self.first(x)))


def step(model: Module, optimizer: Optimizer) -> float:
    optimizer.zero_grad()
    loss = (model(DATA) * model(DATA)).mean()
    loss.backward()
    optimizer.step()
    return loss.item()


@COPIES
def test_a_copy_has_one_memory(copied: Callable[[Tensor], Tensor]) -> None:
    """Its elements, its views and its array agree after a write, and the original stays."""
    x = Tensor(np.arange(12.0).reshape(3, 4))
    view = x.T[1:]  # now x has both an array and a storage
    for original in (x, view):
        before = original.numpy().copy()
        y = copied(original)
        y[1] = 50.0
        assert np.array_equal(y[1].numpy(), y.numpy()[1])
        assert np.array_equal(y.T.numpy(), y.numpy().T)
        assert (y[1].numpy() == 50.0).all()
        assert np.array_equal(original.numpy(), before)
        assert (y.shape, y.strides, y.offset) == (original.shape, original.strides, original.offset)


@COPIES
@pytest.mark.parametrize("kind", [optim.SGD, AdamW, Muon])
def test_a_copy_of_a_model_and_its_optimiser_goes_on_as_the_original(
    copied: Callable[[Any], Any], kind: Callable[..., Optimizer]
) -> None:
    tensor.manual_seed(7)
    model = Tied()
    optimizer = kind(model, lr=0.02)
    step(model, optimizer)
    other, its = copied((model, optimizer))
    assert other.first is other.again
    assert other.first.weight.role == model.first.weight.role
    losses = [step(model, optimizer) for _ in range(3)]
    assert [step(other, its) for _ in range(3)] == losses
    assert len(set(losses)) == 3


@COPIES
def test_a_copy_of_a_model_learns_with_a_new_optimiser(copied: Callable[[Any], Any]) -> None:
    tensor.manual_seed(7)
    model = Tied()
    step(model, optim.SGD(model, lr=0.02))
    other = copied(model)
    with no_grad():
        other.last.weight[0] = 5.0
    assert other.last.weight[0].tolist() == other.last.weight.tolist()[0] == [5.0]
    optimizer = optim.SGD(other, lr=0.001)
    losses = [step(other, optimizer) for _ in range(3)]
    assert losses[0] > losses[1] > losses[2]
    assert model.last.weight.tolist()[0] != [5.0]


def test_a_shallow_copy_shares_the_memory_and_the_count_of_writes() -> None:
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    other = copy.copy(x)
    y = (x * x).sum()
    with no_grad():
        other[0] = 100.0
    assert x.tolist() == [100.0, 2.0, 3.0]
    with pytest.raises(MutationError):
        y.backward()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, pickled])
def test_a_result_is_not_copied_without_its_graph(copied: Callable[[Tensor], Tensor]) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GraphError, match=r"copy of a result .*clone.*detach"):
        copied(x * 2.0)


@COPIES
def test_a_gradient_is_copied_and_then_lives_alone(copied: Callable[[Tensor], Tensor]) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    (x * x).sum().backward()
    y = copied(x)
    (y * y).sum().backward()
    assert y.grad is not None
    assert x.grad is not None
    assert y.grad.tolist() == [4.0, 8.0]
    assert x.grad.tolist() == [2.0, 4.0]
