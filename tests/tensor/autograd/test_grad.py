"""`grad()`: of what, with how much work, and what rules may not return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, no_grad
from tensor.errors import GradientError, GraphError
from tests.helpers.making import close, draw, leaf, private, values
from tests.helpers.sharing import assert_nothing_shared

Array = Any


CALLS: list[str] = []


@private
def counted(a: Array, b: Array, *, label: str = "") -> Any:
    """a + b, writing down which rule ran."""

    def rule(name: str) -> Callable[[Array], Array]:
        def dx(dy: Array) -> Array:
            CALLS.append(name)
            return dy

        return dx

    return a + b, (rule(f"{label}a"), rule(f"{label}b"))


@private
def counted_together(a: Array, b: Array, *, label: str = "") -> Any:
    """a + b, with one rule for both."""

    def backward(dy: Array) -> tuple[Array, Array]:
        CALLS.append(label)
        return dy, dy

    return a + b, backward


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


# -- the function grad


def test_grad_touches_no_grad(device: str) -> None:
    x, w = leaf(draw(3), device), leaf(draw(3, seed=1), device)
    h = x * w
    y = h.exp().sum()
    dx, dh, dw = grad(y, [x, h, w], retain_graph=True)
    e = np.exp(draw(3) * draw(3, seed=1))
    close(dh, e)
    close(dx, e * draw(3, seed=1))
    close(dw, e * draw(3))
    assert x.grad is None
    assert w.grad is None
    assert isinstance(grad(y, x, retain_graph=True), tuple)
    y.backward()
    close(x.grad, e * draw(3, seed=1))


def test_grad_of_several_outputs_and_duplicates(device: str) -> None:
    x = leaf(draw(3), device)
    y, z = x * 2.0, (x * x).sum()
    dy = draw(3, seed=1)
    close(grad([y, z], x, [dy, None], retain_graph=True)[0], 2 * dy + 2 * draw(3))
    close(grad([y, y], x, [dy, dy], retain_graph=True)[0], 4 * dy)
    first, second, third = grad(z, [x, x, x], retain_graph=True)
    for d in (first, second, third):
        close(d, 2 * draw(3))
    assert_nothing_shared({"first": first, "second": second, "third": third}, {"x": x})
    assert grad(z, [], retain_graph=True) == ()
    with pytest.raises(ValueError, match="argument"):
        grad([y, z], x, [dy])
    itself, again = grad(y, [y, y], dy)  # an output as its own input
    close(itself, dy)
    close(again, dy)
    assert_nothing_shared({"itself": itself, "again": again}, {"upstream": dy})
    assert values(grad(x, x, dy)[0]) == values(dy)


def test_grad_of_an_input_behind_another_input(device: str) -> None:
    x = leaf(draw(3), device)
    h = x * 2.0
    k = h * h
    dx, dh, dk = grad((k * 3.0).sum(), [x, h, k])
    close(dk, [3, 3, 3])
    close(dh, 12 * draw(3))
    close(dx, 24 * draw(3))
    assert_nothing_shared({"dx": dx, "dh": dh, "dk": dk}, {"x": x, "h": h, "k": k})


def test_grad_does_only_the_work_that_is_needed(device: str) -> None:
    x, w, v = (leaf(draw(2, seed=i), device) for i in range(3))
    behind = counted(x, w, label="behind ")
    h = counted_together(behind, x, label="h ")
    side = counted(v, v, label="side ")
    y = counted(h, side, label="y ")
    z = counted_together(y, w, label="z ")
    grad(z, h, np.ones(2), retain_graph=True)
    assert CALLS == ["z ", "y a"]  # not h's own rule, nor what lies behind or beside it
    CALLS.clear()
    grad(z, w, np.ones(2), retain_graph=True)
    assert CALLS == ["z ", "y a", "h ", "behind b"]
    CALLS.clear()
    grad(z, [z], np.ones(2), retain_graph=True)
    assert CALLS == []
    CALLS.clear()
    grad(z, v, np.ones(2))
    assert CALLS == ["z ", "y b", "side a", "side b"]


def test_grad_frees_only_what_it_walked(device: str) -> None:
    """So that a backward may be continued by hand from an intermediate."""
    x = leaf(draw(3), device)
    h = x * x
    y = (h * 3.0).sum()
    (dh,) = grad(y, h)
    with pytest.raises(GraphError, match="a second time"):
        grad(y, h)
    h.backward(dh)
    close(x.grad, 6 * draw(3))
    for inputs in (x, [h, x]):  # never a silent None: x may lie behind what is gone
        with pytest.raises(GraphError, match="a second time"):
            grad((h * 5.0 + x).sum(), inputs)
    with pytest.raises(GraphError, match="a second time"):
        h.backward(dh)
    close(grad((h * 5.0).sum(), h)[0], [5, 5, 5])  # what lies behind h is gone, and not needed


def test_what_is_in_no_graph_says_so(device: str) -> None:
    x = leaf(draw(3), device)
    constant = Tensor(draw(3), device=device)
    with no_grad():
        unrecorded = x * 2.0
    for y in (constant, unrecorded, x.detach(), constant.sum()):
        with pytest.raises(
            GraphError, match=r"is in no graph; make a leaf with requires_grad=True.*no_grad"
        ):
            y.backward()
    with pytest.raises(GraphError, match="accumulates no gradient"):
        constant.grad = Tensor(draw(3), device=device)
    with pytest.raises(GraphError, match="accumulates no gradient"):
        (x * 2.0).grad = Tensor(draw(3), device=device)
    with pytest.warns(UserWarning, match=r"keeps no .grad of results: call .retain_grad\(\)") as w:
        assert (x * 2.0).grad is None
    assert str(w[0].message).startswith("this tensor is a result of `multiply` at test_grad.py:")


def test_a_result_keeps_its_gradient_when_asked(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    h = x * 3.0
    first, second = h.split(1)
    for y in (h, h, first, x):  # twice is once; a leaf keeps its own anyway
        y.retain_grad()
    assert h.grad is None
    for times in (1, 2):
        (first * h).sum().backward(retain_graph=True)
        assert h.grad is not None
        assert h.grad.tolist() == [times * 12, times * 3]
    assert first.grad is not None
    assert first.grad.tolist() == [18]
    with pytest.raises(GraphError, match="no gradient will come"):
        Tensor([1.0], device=device).retain_grad()
    assert second.requires_grad


def test_a_kept_gradient_is_the_one_after_all_hooks(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    h = x * 3.0
    h.retain_grad()
    h.register_hook(lambda g: g * 2.0)
    h.sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [2, 2]
    close(x.grad, [6, 6])


def test_a_leaf_that_was_frozen_after_forward_gets_nothing(device: str) -> None:
    """As in PyTorch: also where its gradient has begun, and again once it is thawed."""
    x = leaf([1.0, 2.0], device)
    y = (x * 3.0).sum()
    y.backward(retain_graph=True)
    begun = x.grad
    x.requires_grad = False
    y.backward(retain_graph=True)
    close(begun, [3, 3])
    x.requires_grad = True
    y.backward()
    close(x.grad, [6, 6])


def test_any_tensor_may_forget_its_gradient(device: str) -> None:
    """`for p in parameters: p.grad = None` meets frozen ones too."""
    x = leaf([1.0, 2.0], device)
    h = x * 3.0
    h.retain_grad()
    h.sum().backward(retain_graph=True)
    for y in (x, h, x.detach(), x * 2.0):
        y.grad = None
    assert x.grad is None
    assert h.grad is None
    h.sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [1, 1]


def test_a_leaf_may_be_the_output(device: str) -> None:
    x = leaf(3.0, device)
    x.backward()
    x.backward()
    close(x.grad, 2)


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            lambda dy: dy[None],
            r"backward of `wrong` \(test_grad\.py:\d+ .*\) returned a gradient "
            r"\(1, 2\) float64 for input 0, which is \(2,\) float64",
        ),
        (lambda dy: dy.astype("float32"), "float32 for input 0, which is .* float64"),
        (lambda dy: dy.sum(), r"returned a gradient \(\) float64"),
    ],
)
def test_a_rule_that_returns_the_wrong_thing_is_named(rule: Any, message: str, device: str) -> None:
    def wrong(x: Array) -> Any:
        return x * 1.0, (rule,)

    op = private(wrong)
    x = leaf([1.0, 2.0], device)
    with pytest.raises(GradientError, match=message):
        op(x).sum().backward()
    assert x.grad is None


def test_a_rule_for_all_inputs_returns_a_gradient_for_each(device: str) -> None:
    def wrong(a: Array, b: Array) -> Any:
        return a + b, lambda dy: (dy,)

    op = private(wrong)
    with pytest.raises(
        GradientError, match="backward of `wrong` must return a tuple of 2 gradients"
    ):
        op(leaf([1.0], device), leaf([1.0], device)).sum().backward()


# -- work that nobody wants


def test_bug_13_frozen_inputs_cost_no_work(device: str) -> None:
    x, frozen = leaf([2.0, 3.0], device), Tensor(np.array([5.0, 7.0]), device=device)
    h = counted(x, frozen, label="first ")
    (counted(frozen, h, label="second ") + counted(frozen, frozen, label="never ")).sum().backward()
    assert CALLS == ["second b", "first a"]
    close(x.grad, [1, 1])
    for y in (
        x * frozen,
        frozen * x,
        x @ frozen,
        frozen / x,
        tensor.where([True, False], x, frozen),
    ):
        rules = y.node.backward
        assert sum(rule is not None for rule in rules) == 1
        assert [rule is not None for rule in rules] == [
            parent is not None for parent in y.node.parents
        ]
    kept = (x * frozen).node.kept()
    # x itself is kept for nobody
    assert [value is frozen.array for value in kept.values()] == [True]
    assert not (frozen * 2.0).storage.saved
    assert (frozen @ frozen).node is None
