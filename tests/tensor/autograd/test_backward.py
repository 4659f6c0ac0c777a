"""Graphs: accumulation, order, a second backward, and which tensors get a gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad
from tensor.errors import DTypeError, GraphError, ShapeError
from tensor.gradient_cases import CASES, WITHOUT_GRADIENT, Case
from tests.helpers.making import array, close, draw, leaf, values
from tests.helpers.sharing import assert_nothing_shared

Array = Any


# -- accumulation and order


def test_bug_01_overwrite_instead_of_accumulate(device: str) -> None:
    a, dy, square = draw(3, 3), draw(3, 3, seed=1), draw(3, 3, seed=2)
    uses: dict[str, tuple[Callable[[Tensor], Tensor], Array]] = {
        "x + x": (lambda x: x + x, 2 * dy),
        "x * x": (lambda x: x * x, 2 * a * dy),
        "x - x": (lambda x: x - x, 0 * dy),
        "x / x": (lambda x: x / x, 0 * dy),
        "x @ x.T": (lambda x: x @ x.T, (dy + dy.T) @ a),
        "x @ x": (lambda x: x @ x, dy @ a.T + a.T @ dy),
        "x.T * x": (lambda x: x.T * x, (dy + dy.T) * a.T),
        "where(c, x, x)": (lambda x: tensor.where(square > 0, x, x), dy),
        "maximum(x, x)": (lambda x: tensor.maximum(x, x), dy),
        "concatenate": (
            lambda x: tensor.concatenate([x, x * 2.0])[:3] + tensor.stack([x, x])[1],
            2 * dy,
        ),
        "five ops": (
            lambda x: x * 2.0 + x.T.T * 3.0 + x[:] * 5.0 + x.exp() * 0.0 + x.sum() * 0.0,
            10 * dy,
        ),
        "views": (
            lambda x: x[0:3] + x.view(9).view(3, 3) + x.reshape(3, 3) + x.flatten().view(3, 3),
            4 * dy,
        ),
    }
    for name, (f, expected) in uses.items():
        x, y = leaf(a, device), leaf(a, device)
        f(x).backward(Tensor(dy, device=device))
        np.testing.assert_allclose(array(x.grad), expected, rtol=1e-9, atol=1e-12, err_msg=name)
        f(y * 1.0).backward(Tensor(dy, device=device))  # the same on an intermediate
        np.testing.assert_allclose(
            array(y.grad), expected, rtol=1e-9, atol=1e-12, err_msg=f"{name} on an intermediate"
        )


def test_bug_01_every_input_of_one_op_is_the_same_tensor(device: str) -> None:
    """What the gradient is when each input is its own leaf, summed."""
    gain = draw(4, seed=3)
    for op in (
        lambda q, k, v: tensor.attention(q, k, v, causal=True),
        lambda a, b, c: tensor.concatenate([a, b, c]),
        lambda a, b, c: a * b * c,
    ):
        x, dy = leaf(draw(4, 4), device), None
        apart = [leaf(draw(4, 4), device) for _ in range(3)]
        dy = draw(*op(*apart).shape, seed=1)
        op(*apart).backward(Tensor(dy, device=device))
        op(x, x, x).backward(Tensor(dy, device=device))
        close(x.grad, sum(array(part.grad) for part in apart))
    w, parts = leaf(gain, device), [leaf(gain, device) for _ in range(3)]
    tensor.layer_norm(w, w, w).backward(Tensor(gain[::-1].copy(), device=device))
    tensor.layer_norm(*parts).backward(Tensor(gain[::-1].copy(), device=device))
    close(w.grad, sum(array(part.grad) for part in parts))


def test_bug_02_propagating_before_all_contributions(device: str) -> None:
    x = leaf(1.0, device)
    y = 3.0 * x
    (2.0 * y + 5.0 * y).backward()
    close(x.grad, 21)
    for long in range(1, 6):  # one path of one op, one of many, either first
        for swap in (False, True):
            x = leaf([1.0, 2.0], device)
            y = z = 3.0 * x
            for _ in range(long):
                z = z * 2.0
            ((y + z) if swap else (z + y)).sum().backward()
            close(x.grad, [3 + 3 * 2**long] * 2)
    x = h = leaf(1.0, device)
    for k in range(20):  # a ladder of diamonds, each side of another length
        h = (h * 0.5).clone() + h * 0.5 + h if k % 2 else h + (h * 0.25).clone().clone() * 4.0
    h.backward()
    close(x.grad, 2.0**20)


def test_bug_04_read_only_broadcast_used_as_accumulator(device: str) -> None:
    a = draw(2, 3)
    uses: dict[str, tuple[Callable[[Tensor], Tensor], Any]] = {
        "(x + x).sum()": (lambda x: (x + x).sum(), 2),
        "((2x) + x).sum()": (lambda x: ((x * 2.0) + x).sum(), 3),
        "x.sum() + x.sum()": (lambda x: x.sum() + x.sum(), 2),
        "x.sum() + x.mean()": (lambda x: x.sum() + x.mean(), 1 + 1 / 6),
        "mean, then sum twice": (lambda x: x.mean() + x.sum() + x.sum(0).sum(), 2 + 1 / 6),
        "expanded twice": (lambda x: x.expand(4, 2, 3).sum() + x.expand(5, 2, 3).sum(), 9),
        "h.sum() + h.sum()": (lambda x: (x * 1.0).sum() + (x * 1.0).sum(), 2),
    }
    for name, (f, expected) in uses.items():
        x = leaf(a, device)
        f(x).backward()
        f(x).backward()  # into the same buffer
        f(x * 1.0).backward()
        np.testing.assert_allclose(
            array(x.grad), np.full((2, 3), 3.0 * expected), rtol=1e-12, err_msg=name
        )
        assert x.grad is not None
        assert not x.grad.layout.self_overlaps, (
            "a gradient is memory of its own, not one number seen many times"
        )
        x.grad += 1.0


def test_bug_05_stale_gradients_on_a_second_backward(device: str) -> None:
    x = leaf(draw(3), device)
    h = x * x
    y = (h * h + h).sum()
    expected = 4 * draw(3) ** 3 + 2 * draw(3)
    for passes in (1, 2, 3):
        y.backward(retain_graph=True)
        close(x.grad, passes * expected)
    x.grad = None
    y.backward()
    close(x.grad, expected)
    before = array(x.grad).copy()
    with pytest.raises(
        GraphError,
        match=r"`\w+` \(test_backward\.py:\d+ `.*`\) a second time: "
        r"its graph was freed by the first.*retain_graph=True",
    ):
        y.backward()
    np.testing.assert_array_equal(array(x.grad), before)
    with pytest.raises(GraphError, match="a second time"):
        (h * 2.0 + x).sum().backward()  # half of it new, half of it freed: nothing is deposited
    np.testing.assert_array_equal(array(x.grad), before)
    with pytest.raises(GraphError, match="a second time"):
        grad(y, x)


def test_a_new_forward_after_backward_adds_up(device: str) -> None:
    x = leaf([2.0, 3.0], device)
    for _ in range(3):
        (x * x).sum().backward()
    close(x.grad, [12, 18])
    held = x.grad
    x.grad = None
    (x * 5.0).sum().backward()
    close(x.grad, [5, 5])
    close(held, [12, 18])


# -- who gets a gradient


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.op}-{i}") for i, case in enumerate(CASES)]
)
def test_bug_08_op_drops_its_gradient(case: Case, device: str) -> None:
    leaves = [leaf(x, device) for x in case.inputs(0)]
    out = case.call(*leaves)
    outs = out if isinstance(out, tuple) else (out,)
    assert all(y.requires_grad and not y.is_leaf for y in outs)
    loss = sum(
        (y * Tensor(draw(*y.shape, seed=i), device=device)).sum() for i, y in enumerate(outs)
    )
    loss.backward()
    for x in leaves:
        assert x.grad is not None
        assert (x.grad.shape, x.grad.dtype, x.grad.device) == (x.shape, x.dtype, x.device)
        assert_nothing_shared({"gradient": x.grad}, {"data": x})


def test_bug_08_ops_without_gradient_do_not_crash(device: str) -> None:
    calls: dict[str, Callable[[Tensor], Any]] = {
        name: lambda x, name=name: getattr(tensor, name)(x, 0.5)
        for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    }
    calls |= {
        name: lambda x, name=name: getattr(tensor, name)(x > 0, x < 1)
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor")
    }
    calls |= {
        "invert": lambda x: ~(x > 0),
        "any": lambda x: (x > 0).any(0),
        "all": lambda x: (x > 0).all(),
        "argmax": lambda x: x.argmax(),
        "argmin": lambda x: x.argmin(0),
        "one_hot": lambda x: tensor.one_hot(x.argmax(1), count=3),
    }
    assert set(calls) | {"step"} == WITHOUT_GRADIENT
    for name, call in calls.items():
        x = leaf(draw(2, 3), device)
        y = call(x)
        assert not y.requires_grad, name
        with pytest.raises(GraphError, match="in no graph"):
            y.backward()
        (x * y.to("float64").sum()).sum().backward()  # a constant factor
        close(x.grad, np.full((2, 3), float(y.numpy().sum())))
    x = leaf(draw(2, 3), device)
    with pytest.raises(GraphError, match="`step` has no gradient"):
        x.step().sum().backward()


def test_bug_09_equal_leaves_merged(device: str) -> None:
    a = draw(2, 2)
    x, y, z = leaf(a, device), leaf(a, device), leaf(a, device)
    (x * 2.0 + y * 3.0).sum().backward()
    close(x.grad, np.full((2, 2), 2.0))
    close(y.grad, np.full((2, 2), 3.0))
    assert z.grad is None
    assert len({x, y, z}) == 3  # equal in value, three keys
    dx, dy, dz = grad((x * 2.0 + y * 3.0).sum(), [x, y, z])
    assert (values(dx), values(dy), dz) == ([[2, 2], [2, 2]], [[3, 3], [3, 3]], None)
    shared = Tensor(a, device=device).array
    # the very same memory, two leaves
    one, two = (Tensor.from_array(shared, requires_grad=True) for _ in range(2))
    (one * 2.0 + two * 3.0).sum().backward()
    close(one.grad, np.full((2, 2), 2.0))
    close(two.grad, np.full((2, 2), 3.0))


def test_bug_11_backward_of_a_non_scalar_guesses_ones(device: str) -> None:
    for shape in ((), (1,), (1, 1)):  # one element: dL/dy is 1
        x = leaf(draw(*shape), device)
        (x * 2.0).backward()
        assert x.grad is not None
        assert x.grad.tolist() == np.full(shape, 2.0).tolist()
    for shape in ((3,), (0,)):
        x = leaf(draw(*shape), device)
        with pytest.raises(GraphError, match=r"needs the upstream gradient dL/dy.*\.sum\(\)"):
            (x * 2.0).backward()
        with pytest.raises(GraphError, match="upstream"):
            grad(x * 2.0, x)
        assert x.grad is None
    x = leaf(draw(2, 3), device)
    y = x * 2.0
    # nothing is broadcast
    for wrong in (np.ones(3), np.ones((3, 2)), np.ones(()), np.ones((1, 3))):
        with pytest.raises(ShapeError, match="upstream gradient has shape"):
            y.backward(Tensor(wrong, device=device))
    with pytest.raises(DTypeError, match="upstream gradient is float32, the tensor float64"):
        y.backward(Tensor(np.ones((2, 3), np.float32), device=device))
    assert x.grad is None
    dy = draw(2, 3, seed=1)
    given, was = Tensor(dy, device=device), dy.copy()
    (x + 0.0).backward(given)  # the upstream gradient goes through unchanged
    y.backward(dy)  # an ndarray will do
    given[...] = 99.0
    dy[...] = 99.0
    close(x.grad, 3 * was)


def test_bug_12_requires_grad_on_integers(device: str) -> None:
    for dtype in ("int64", "int32", "uint8", "bool"):
        with pytest.raises(DTypeError, match="only floats have gradients"):
            Tensor([1, 0], dtype=dtype, device=device, requires_grad=True)
        with pytest.raises(DTypeError, match="only floats have gradients"):
            tensor.zeros(2, dtype=dtype, device=device, requires_grad=True)
        x = Tensor([1, 0], dtype=dtype, device=device)
        with pytest.raises(DTypeError, match="only floats have gradients"):
            x.requires_grad = True
        with pytest.raises(DTypeError, match="only floats have gradients"):
            Tensor.from_array(x.array, requires_grad=True)
        assert not x.requires_grad
        assert not leaf([1.0, 2.0], device).to(dtype).requires_grad
    for dtype in ("float64", "float32", "float16", "bfloat16"):
        x = Tensor([1, 2], dtype=dtype, device=device, requires_grad=True)
        (x * 2).sum().backward()
        assert x.grad is not None
        assert x.grad.dtype == x.dtype
        assert x.grad.tolist() == [2, 2]


def test_bug_13_detached_and_frozen_tensors(device: str) -> None:
    x, frozen = leaf([2.0, 3.0], device), Tensor(np.array([5.0, 7.0]), device=device)
    cut = x.detach()
    assert (cut.requires_grad, cut.is_leaf, x.is_leaf, (x * 1.0).is_leaf) == (
        False,
        True,
        True,
        False,
    )
    (x * cut * frozen).sum().backward()
    close(x.grad, [10, 21])  # x as a factor only, its detached self a constant
    assert frozen.grad is None
    assert cut.grad is None
    assert not (frozen * cut).requires_grad
    with pytest.raises(GraphError, match="a constant, is in no graph"):
        grad((x * frozen).sum(), frozen)
    again = cut.clone()
    again.requires_grad = True  # a leaf of its own
    (again * x).sum().backward()
    close(again.grad, [2, 3])
    with pytest.raises(GraphError, match="cannot be set"):
        (x * 2.0).requires_grad = False


def test_bug_14_unused_outputs(device: str) -> None:
    a = draw(7)
    x = leaf(a, device)
    first, unused, last = x.split(3)
    (first * 2.0).sum().backward(retain_graph=True)
    close(x.grad, [2, 2, 2, 0, 0, 0, 0])
    dx, dfirst, dunused, dlast = grad(
        (last * last * 5.0).sum(), [x, first, unused, last], retain_graph=True
    )
    close(dx, [0] * 6 + [10 * a[6]])
    close(dlast, [10 * a[6]])
    assert dfirst is None
    assert dunused is None
    y = leaf(a, device)
    assert grad((x * 2.0).sum(), [x, y])[1] is None  # not behind the output
    dy = grad((x * 2.0).sum() + (y * 0.0).sum(), y)[0]
    close(dy, np.zeros(7))  # behind it, with slope 0
    (x * 2.0).sum().backward()
    assert y.grad is None
    for pieces in (x.split(7), x.split(100), x.chunk(1)):  # one piece is still a list of pieces
        assert len(pieces) == 1
        dx = grad((pieces[0] * Tensor(a, device=device)).sum(), x)[0]
        close(dx, a)


def test_a_backward_that_ended_early_says_what_it_left(device: str) -> None:
    """A second try would add to the gradients of the first."""
    x, y = leaf([1.0, 2.0], device), leaf([3.0, 4.0], device)
    h = x * 2.0
    loss = (h * y).sum()

    def fails(gradient: Tensor) -> None:
        raise ZeroDivisionError

    remove = h.register_hook(fails)
    part, freed = "some .grad may have a part: call zero_grad()", "the graph is partly freed: run"
    for keep, notes in ((True, [part]), (False, [part, freed])):
        with pytest.raises(ZeroDivisionError) as raised:
            loss.backward(retain_graph=keep)
        assert [note in said for note, said in zip(notes, raised.value.__notes__, strict=True)]
    assert values(y.grad) == [4, 8]
    remove()
    with pytest.raises(GraphError, match="a second time") as again:
        loss.backward()
    assert not hasattr(again.value, "__notes__")  # raised before anything was done
