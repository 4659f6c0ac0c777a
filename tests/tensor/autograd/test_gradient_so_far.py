"""A backward function with the keyword `plus` gets the gradient that its first input has so far. It
returns that gradient with its own added: residual_layer_norm does so on a GPU in one pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.kernels import KERNELS, Kernel
from tensor.memory.devices import Array
from tensor.ops.op import OPS

GIVEN: list[Array | None] = []  # each `plus`


def residual_norm(x: Array, y: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> Any:
    """A stand-in for a kernel, by the references."""
    s = x + y
    n, norm_backward = OPS["layer_norm"].reference(s, gain, bias, eps=eps)

    def backward(
        dn: Array, *, out: Any = (None,) * 3, add: Any = (False,) * 3, plus: Array | None = None
    ) -> tuple[Array, Array, Array]:
        GIVEN.append(plus)
        dx, dgain, dbias = norm_backward(dn)
        return dx if plus is None else plus + dx, dgain, dbias

    return [
        ("add", (0, 1), s, (lambda ds: ds, lambda ds: ds)),
        ("layer_norm", (4, 2, 3), n, backward),
    ]


@pytest.fixture
def planted(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    place = "cuda" if device.startswith("cuda") else "cpu"
    monkeypatch.setattr(kernels, "_DISABLED", False)
    GIVEN.clear()
    KERNELS["residual_layer_norm"].insert(0, Kernel(place, residual_norm, lambda *_, **__: None))
    yield
    del KERNELS["residual_layer_norm"][0]


def leaves(device: str) -> list[Tensor]:
    rng = np.random.default_rng(0)
    shapes = [(3, 5), (3, 5), (5,), (5,)]
    return [
        Tensor(rng.standard_normal(shape), device=device, requires_grad=True) for shape in shapes
    ]


def close(a: Tensor | None, b: Tensor | None) -> None:
    assert a is not None
    assert b is not None
    np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-12, atol=1e-12)


def two_layers(xs: list[Tensor], told: list[Tensor]) -> Tensor:
    """x goes round the norm in a residual stream, twice."""
    x, y, gain, bias = xs
    s, n = tensor.residual_layer_norm(x, y, gain, bias)
    s.register_hook(told.append)
    s2, n2 = tensor.residual_layer_norm(s, n.tanh(), gain, bias)
    return (s2 * n2).sum() + (s2 * s2).sum()


@pytest.mark.usefixtures("planted")
def test_the_sum_is_that_of_the_composition(device: str) -> None:
    xs, told = leaves(device), list[Tensor]()
    two_layers(xs, told).backward()
    assert [plus is not None for plus in GIVEN] == [True, True]
    others, expected = leaves(device), list[Tensor]()
    with kernels.off():
        two_layers(others, expected).backward()
    for x, other in zip(xs, others, strict=True):
        close(x.grad, other.grad)
    close(told[0], expected[0])  # once, with all parts


@pytest.mark.usefixtures("planted")
def test_no_gradient_so_far(device: str) -> None:
    """Only the norm is used, or x is a leaf, to which gradients are accumulated."""
    xs = leaves(device)
    _, n = tensor.residual_layer_norm(*xs)
    for _ in range(2):
        (n * n).sum().backward(retain_graph=True)
    assert GIVEN == [None, None]
    (ds,) = tensor.grad((n * n).sum(), xs[1])
    assert xs[0].grad is not None
    close(xs[0].grad, 2 * ds)


@pytest.mark.usefixtures("planted")
def test_of_an_input_that_is_a_seed_too(device: str) -> None:
    """`grad` of two outputs of which one is the input of the other's op."""
    xs = leaves(device)
    with kernels.off():
        expected = tensor.grad(tensor.residual_layer_norm(*xs), xs, [xs[0], xs[1]])
        (alone,) = tensor.grad(tensor.residual_layer_norm(*xs), xs[2:3], [xs[0], xs[1]])
    found = tensor.grad(tensor.residual_layer_norm(*xs), xs, [xs[0], xs[1]])
    for a, b in zip(found, expected, strict=True):
        close(a, b)
    found = tensor.grad(tensor.residual_layer_norm(*xs), xs[2:3], [xs[0], xs[1]])
    close(found[0], alone)


@pytest.mark.usefixtures("planted")
def test_a_recording_shows_the_gradient_of_the_op_alone(device: str) -> None:
    xs = leaves(device)
    with tensor.record() as recording:
        s, n = tensor.residual_layer_norm(*xs)
        (s * 3.0 + n * n).sum().backward()
    del recording
    assert GIVEN == [None]
    with kernels.off():
        others = leaves(device)
        s, n = tensor.residual_layer_norm(*others)
        (s * 3.0 + n * n).sum().backward()
    close(xs[0].grad, others[0].grad)
