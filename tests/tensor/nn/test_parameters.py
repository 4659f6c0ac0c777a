"""Parameters that are frozen, moved or replaced keep what is theirs, or say what they lose."""

from __future__ import annotations

from typing import Any

import pytest

import tensor
from tensor import Tensor, no_grad, optim
from tensor.nn import Linear, Parameter
from tensor.optim import clip_gradients

ONES = tensor.ones(1, 2)


def doubled(told: list[Any]) -> Any:
    def hook(gradient: Tensor) -> Tensor:
        told.append(gradient.tolist())
        return gradient * 2.0

    return hook


def test_off_and_on_again_keeps_hooks_and_gradient() -> None:
    told: list[Any] = []
    x = Tensor([1.0, 2.0], requires_grad=True)
    x.register_hook(doubled(told))
    (x * x).sum().backward()
    x.requires_grad = False
    assert not (x * x).requires_grad
    assert x.grad is not None
    assert x.grad.tolist() == [4.0, 8.0]
    x.requires_grad = True
    (x * x).sum().backward()
    assert told == [[2.0, 4.0]] * 2
    assert x.grad.tolist() == [8.0, 16.0]
    x.requires_grad = False
    x.grad = None
    x.requires_grad = True
    assert x.grad is None


@pytest.mark.parametrize("packed", [True, False])
def test_a_frozen_parameter_stands_still_whatever_its_gradient(packed: bool) -> None:
    """No step moves it, no norm counts it, and zero_grad forgets its gradient."""
    layer = Linear(2, 2)
    optimizer = optim.AdamW(layer, weight_decay=0.1)
    layer(ONES).sum().backward()
    layer.weight.requires_grad = False
    before = layer.weight.numpy().copy()
    parameters: Any = layer if packed else list(layer.parameters())
    assert clip_gradients(parameters, 10.0) == pytest.approx(2**0.5)  # of the bias alone
    optimizer.step()
    assert (layer.weight.numpy() == before).all()
    layer.zero_grad()
    layer.weight.requires_grad = True
    layer(ONES).sum().backward()
    assert layer.weight.grad is not None
    assert (layer.weight.grad.numpy() == 1).all()
    optimizer.step()
    assert (layer.weight.numpy() != before).all()


@pytest.mark.parametrize("packed", [True, False])
def test_to_keeps_hooks_and_freezing(packed: bool) -> None:
    told: list[Any] = []
    layer = Linear(2, 1)
    layer.weight.register_hook(doubled(told))
    assert layer.bias is not None
    layer.bias.register_hook(doubled(told))
    layer.bias.requires_grad = False
    if packed:
        layer.pack()
    layer(ONES).sum().backward()
    layer.to(dtype="float64")
    assert layer.weight.grad is None
    layer(ONES).sum().backward()
    assert told == [[[1.0], [1.0]]] * 2
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == tensor.float64
    assert layer.weight.grad.tolist() == [[2.0], [2.0]]
    layer.bias.requires_grad = True
    layer(ONES).sum().backward()
    assert [1.0] in told


def test_to_what_it_is_changes_nothing() -> None:
    """An optimiser that was made before goes on."""
    layer = Linear(2, 1)
    optimizer = optim.SGD(layer)
    layer(ONES).sum().backward()
    weights = layer.weight.array
    layer.to(dtype="float32", device="cpu")
    assert layer.weight.array is weights
    assert layer.weight.grad is not None
    optimizer.step()


@pytest.mark.parametrize("made", [lambda w: w * 0.5, lambda w: w.numpy(), lambda w: w.detach()])
def test_what_does_not_learn_takes_no_parameters_place(made: Any) -> None:
    layer = Linear(2, 2)
    weight = layer.weight
    with no_grad(), pytest.raises(TypeError, match=r"`weight` of this Linear is a Parameter.*\[.*"):
        layer.weight = made(layer.weight)
    assert layer.weight is weight
    assert len(list(layer.parameters())) == 2
    with no_grad():
        layer.weight *= 0.5  # writes in place
        layer.weight = Parameter(made(layer.weight))
    assert layer.weight is not weight
    layer.bias = None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
