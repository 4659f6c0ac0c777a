"""Gradients are in memory of their own, whatever rules hand back and whatever users do with what
they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad
from tensor.errors import MutationError, ShapeError
from tensor.gradient_cases import CASES, Case
from tests.helpers.making import array, draw, leaf, private, values
from tests.helpers.sharing import assert_nothing_shared, saved_arrays

Array = Any


# -- gradients share memory with nothing


def test_bug_03_aliased_gradient_buffers(device: str) -> None:
    for late in (False, True):  # which use of x backward meets first
        x, y = leaf([1.0, 2.0], device), leaf([3.0, 4.0], device)
        early = None if late else (x * 10.0).sum()
        z = x + y
        total = (z * 1.0).sum()
        (total + (x * 10.0).sum() if early is None else early + total).backward()
        assert values(x.grad) == [11, 11]
        assert values(y.grad) == [1, 1]
        assert_nothing_shared({"x.grad": x.grad, "y.grad": y.grad}, {"x": x, "y": y, "z": z})


@pytest.mark.parametrize(
    "program",
    [
        lambda x, y: x + y,
        lambda x, y: (x + y) + (x - y),
        lambda x, y: x.clone() + y.T.T,
        lambda x, y: x.view(-1).view(2, 2) + y.unsqueeze(0).squeeze(0),
        lambda x, y: x.contiguous() + y.to("float64"),
        lambda x, y: (x.expand(1, 2, 2) + y)[0],
        lambda x, y: tensor.concatenate([x, y])[1:3],
        lambda x, y: sum(x.split(1) + y.split(1))[0] + x,
        lambda x, y: tensor.where([[True, False]], x, y),
        lambda x, y: tensor.maximum(x, y),
        lambda x, y: tensor.linear(x, y, y[0]),
    ],
)
def test_bug_03_gradients_that_pass_through(
    program: Callable[[Tensor, Tensor], Tensor], device: str
) -> None:
    """Where a rule hands its upstream gradient on as it is, or a view of it, what arrives must
    still be each leaf's own.
    """
    x, y = leaf(draw(2, 2), device), leaf(draw(2, 2, seed=1), device)
    apart = [leaf(draw(2, 2), device), leaf(draw(2, 2, seed=1), device)]
    out = program(x, y)
    dy = Tensor(draw(*out.shape, seed=2), device=device)
    saved = saved_arrays(out)
    program(*apart).backward(dy)
    out.backward(dy, retain_graph=True)
    once = [values(x.grad), values(y.grad)]
    others = {"x": x, "y": y, "out": out, "upstream": dy, **saved}
    assert_nothing_shared({"x.grad": x.grad, "y.grad": y.grad}, others)
    (x * 10.0).sum().backward()  # adds into x.grad, and must not be felt anywhere else
    assert values(y.grad) == once[1]
    assert values(dy) == draw(*out.shape, seed=2).tolist()
    np.testing.assert_allclose(array(x.grad), np.array(once[0]) + 10, rtol=1e-14)
    assert once == [values(apart[0].grad), values(apart[1].grad)]


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.op}-{i}") for i, case in enumerate(CASES)]
)
def test_bug_03_whatever_the_op(case: Case, device: str) -> None:
    """Three passes over one graph, each leaf with two consumers: 3 times the gradient, and none in
    shared memory.
    """
    leaves = [leaf(x, device) for x in case.inputs(0)]
    out = case.call(*leaves)
    outs = list(out) if isinstance(out, tuple) else [out]
    loss = sum(((y * y).sum() for y in outs), sum((x * x * 0.5).sum() for x in leaves))
    assert isinstance(loss, Tensor)
    kept = saved_arrays(loss)
    before = {name: Tensor.from_array(array).numpy().copy() for name, array in kept.items()}
    loss.backward(retain_graph=True)
    once = [x.grad.clone().numpy() for x in leaves]
    for passes in (2, 3):
        loss.backward(retain_graph=True)
        for x, dx in zip(leaves, once, strict=True):
            np.testing.assert_allclose(array(x.grad), passes * dx, rtol=1e-12, atol=1e-13)
    tensors = {f"tensor {i}": t for i, t in enumerate([*leaves, *outs])}
    assert_nothing_shared(
        {f"gradient {i}": x.grad for i, x in enumerate(leaves)}, {**tensors, **kept}
    )
    assert_nothing_shared(
        {f"grad() {i}": dx for i, dx in enumerate(grad(loss, [*leaves, *outs], retain_graph=True))},
        {**tensors, **kept},
    )
    for name, held in kept.items():
        np.testing.assert_array_equal(
            Tensor.from_array(held).numpy(), before[name], err_msg=f"backward wrote to {name}"
        )


@private
def careless(a: Array, b: Array, *, way: str) -> Any:
    """a + b, handing back gradients in all the ways that tempt an engine to add in place where it
    must not.
    """
    ones = np.ones_like(a)  # kept, and handed out each time

    def backward(dy: Array) -> tuple[Array, Array]:
        own = dy.copy()
        read_only = np.broadcast_to(own[:1], own.shape)
        ways = {
            "upstream to both": (dy, dy),
            "one array to both": (own, own),
            "an array and a view of it": (own, own[...]),
            "a view and its array": (own[::1], own),
            "parts of one array": tuple(np.stack([dy, dy])),
            "an input": (a * 0 + dy, b),
            "an array it keeps": (ones, ones),
            "a read-only one": (read_only, read_only),
        }
        return ways[way]

    return a + b, backward


@pytest.mark.parametrize(
    "way",
    [
        "upstream to both",
        "one array to both",
        "an array and a view of it",
        "a view and its array",
        "parts of one array",
        "an input",
        "an array it keeps",
        "a read-only one",
    ],
)
def test_bug_03_careless_rules(way: str, device: str) -> None:
    x, y = leaf([1.0, 1.0], device), leaf([1.0, 1.0], device)
    h, k = x * 1.0, y * 1.0
    out = careless(h, k, way=way) + careless(k, h, way=way)
    loss = out.sum() + (x * 3.0).sum() + (h * 4.0).sum()
    for passes in (1, 2, 3):
        loss.backward(retain_graph=True)
        assert values(x.grad) == [9.0 * passes] * 2
        assert values(y.grad) == [2.0 * passes] * 2
    direct = careless(x, y, way=way).sum()
    x.grad = y.grad = None
    for passes in (1, 2, 3):
        direct.backward(retain_graph=True)
        assert values(x.grad) == [passes] * 2
        assert values(y.grad) == [passes] * 2
    assert_nothing_shared(
        {"x.grad": x.grad, "y.grad": y.grad}, {"x": x, "y": y, **saved_arrays(direct, loss)}
    )
    assert values(x) == [1, 1]


# -- upstream gradients and .grad in the hands of users


def test_the_upstream_gradient_stays_the_users(device: str) -> None:
    x, y = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    dy = np.array([1.0, 1.0])
    (x + y).backward(dy)
    x.backward(dy)
    dy[...] = np.nan  # reused by its owner
    assert values(x.grad) == [2, 2]
    assert values(y.grad) == [1, 1]
    (x + y).backward(np.broadcast_to(np.array(1.0), (2,)))  # read-only
    (x + y).backward(np.ones(4)[::-2])
    assert values(y.grad) == [3, 3]


def test_a_leaf_as_its_own_upstream(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    (x + x).backward(x)
    x.backward(x)
    assert values(x.grad) == [3, 6]
    assert values(x) == [1, 2]
    assert_nothing_shared({"x.grad": x.grad}, {"x": x})


def test_a_gradient_as_upstream_of_its_own_accumulation(device: str) -> None:
    """x.grad grows while the walk still reads what was passed in: g + g + g is 3g, not 4g."""
    x, w = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    x.grad = Tensor(np.array([1.0, 1.0]), device=device)
    (x + x + w).backward(x.grad)
    assert values(x.grad) == [3, 3]
    assert values(w.grad) == [1, 1]


def test_grad_is_one_buffer_that_accumulates(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    (x * 2.0).sum().backward()
    held = x.grad
    assert held is not None
    copy = held.clone()
    (x * 3.0).sum().backward()
    assert x.grad is held
    assert values(held) == [5, 5]
    assert values(copy) == [2, 2]
    x.grad = None
    (x * 7.0).sum().backward()
    assert values(held) == [5, 5]  # what was handed out is not reused


def test_grad_written_in_place_by_the_user(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    (x * 2.0).sum().backward()
    held = x.grad
    x.grad *= 0.5
    x.grad += 10.0
    assert x.grad is held
    x.grad[0] = 0.0
    (x * 3.0).sum().backward()
    assert values(x.grad) == [3, 14]


def test_grad_set_by_the_user(device: str) -> None:
    """What is given is copied: two leaves given one tensor, or its own data, must not grow into
    each other.
    """
    x, y = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    given = Tensor(np.array([1.0, 1.0]), device=device)
    x.grad = y.grad = given
    (x * 2.0 + y * 3.0).sum().backward()
    assert (values(x.grad), values(y.grad), values(given)) == ([3, 3], [4, 4], [1, 1])
    for odd in (x, x.detach(), Tensor(np.array([5.0]), device=device).expand(2), y.grad):
        x.grad = odd
        was = values(odd)
        (x * 2.0).sum().backward()
        assert values(x.grad) == [w + 2 for w in was]
        assert values(odd) == was
        assert x.grad.node is None
    for wrong in (Tensor(np.ones(3)), Tensor(np.ones((2, 1))), Tensor(np.ones(2, np.float32))):
        with pytest.raises(ShapeError, match=r"\.grad of a tensor \(2,\) float64 cannot be"):
            x.grad = wrong


def test_a_gradient_in_a_graph(device: str) -> None:
    """A saved .grad that backward itself adds to would change the slopes half way: that is a write
    like any other.
    """
    x, w = leaf([1.0, 2.0], device), leaf([1.0, 1.0], device)
    x.grad = Tensor(np.array([10.0, 10.0]), device=device)
    (w * x.grad).sum().backward()
    assert values(w.grad) == [10, 10]
    y = (w * x.grad * x).sum()
    with pytest.raises(
        MutationError,
        match=r"saved by `multiply` at test_aliasing\.py:\d+ .* "
        r"was written at test_aliasing\.py:\d+",
    ):
        y.backward()
    w.grad = None
    y = (w * x.grad.clone() * x).sum()
    slope = np.array(values(x.grad))
    y.backward()
    assert values(w.grad) == (slope * np.array([1.0, 2.0])).tolist()


def test_results_of_grad_are_the_users(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    h = x + 0.0
    y = (h * h).sum() + h.sum()
    for dx, dh in (grad(y, [x, h], retain_graph=True) for _ in range(3)):
        assert values(dx) == values(dh) == [3, 5]
        dx[...] = np.nan
        dh *= np.nan
    assert values(x) == [1, 2]
