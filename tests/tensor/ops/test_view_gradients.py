"""What comes back through views: broadcasts summed, permutations inverted, and every op the same
however its inputs lie in memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, grad
from tensor.gradient_cases import CASES, LAYOUTS, WITHOUT_GRADIENT, Case
from tensor.memory.devices import Array
from tensor.memory.layout import Shape
from tensor.ops.op import OPS
from tests.helpers.strategies import broadcastable, gradients, numbered, placed

# -- broadcasts


def gathered(gradient: Array, shape: Shape) -> Array:
    """What an input gets that was repeated: the sum over the places of each of its elements, found
    by their numbers.
    """
    number = np.broadcast_to(numbered(shape), gradient.shape).ravel().astype(int) - 1
    return np.bincount(number, weights=gradient.ravel(), minlength=int(np.prod(shape))).reshape(
        shape
    )


BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{
        name: getattr(tensor, name)
        for name in ("add", "subtract", "multiply", "divide", "power", "maximum", "minimum")
    },
    "where": lambda a, b: tensor.where(a > b, a, b),
    "masked_fill": lambda a, b: tensor.masked_fill(a, a > b, b),
    "matmul": lambda a, b: (a.unsqueeze(-1).unsqueeze(-1) @ b.unsqueeze(-1).unsqueeze(-1)).squeeze(
        (-1, -2)
    ),
}


@pytest.mark.parametrize("name", BINARY)
@given(drawn=broadcastable(2), seed=st.integers(0, 1000))
def test_bug_15_gradients_of_broadcasts_are_summed_over_every_repeat(
    name: str, device: str, drawn: Any, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    for shapes_of_inputs in (drawn.input_shapes, drawn.input_shapes[::-1]):
        values = [rng.uniform(0.5, 2, shape) for shape in shapes_of_inputs]
        dy = rng.standard_normal(drawn.result_shape)
        small = [placed(v, device, requires_grad=True) for v in values]
        full = [
            placed(np.broadcast_to(v, drawn.result_shape).copy(), device, requires_grad=True)
            for v in values
        ]
        y = BINARY[name](*small)
        assert y.shape == drawn.result_shape
        for x, dx, dfull in zip(
            small,
            grad(y, small, placed(dy, device)),
            grad(BINARY[name](*full), full, placed(dy, device)),
            strict=True,
        ):
            np.testing.assert_allclose(
                dx.numpy(), gathered(dfull.numpy(), x.shape), rtol=1e-12, atol=1e-12
            )  # type: ignore[union-attr]


@pytest.mark.parametrize("shape", [(1, 3), (1, 1), (3, 1), (1,), (2, 1, 3), ()])
@pytest.mark.parametrize("name", [name for name in BINARY if name != "matmul"])
def test_bug_16_equal_shapes_are_not_summed(name: str, shape: Shape, device: str) -> None:
    """An axis of size 1 was repeated only if the result is longer there: else the gradient comes
    straight from the op, as without that axis.
    """
    rng = np.random.default_rng(0)
    values = [rng.uniform(0.5, 2, shape) for _ in range(2)]
    dy = rng.standard_normal(shape)
    a, b = (placed(v, device, requires_grad=True) for v in values)
    y = BINARY[name](a, b)
    parents = [parent for parent in y.node.parents if parent is not None]
    assert parents == [a.node, b.node]  # with no node in between that sums
    flat = [placed(v.reshape(-1), device, requires_grad=True) for v in values]
    wanted = grad(BINARY[name](*flat), flat, placed(dy.reshape(-1), device))
    for dx, dflat in zip(grad(y, (a, b), placed(dy, device)), wanted, strict=True):
        assert dx is not None
        assert dflat is not None
        assert dx.shape == shape
        np.testing.assert_array_equal(dx.numpy().reshape(-1), dflat.numpy())


ORDERS = [order for ndim in range(5) for order in itertools.permutations(range(ndim))]


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_bug_17_permutations_come_back_inverted(order: Shape, device: str) -> None:
    """All orders of up to 4 axes, each axis also counted from the end; equal sizes, where a wrong
    inverse changes no shape, and distinct ones.
    """
    ndim = len(order)
    for shape, signs in itertools.product(
        [(2,) * ndim, (2, 3, 4, 5)[:ndim]], itertools.product((0, -ndim), repeat=ndim)
    ):
        named = tuple(axis + sign for axis, sign in zip(order, signs, strict=True))
        x = placed(numbered(shape), device, requires_grad=True)
        y = x.permute(named)
        np.testing.assert_array_equal(y.numpy(), np.transpose(x.numpy(), order))
        (dx,) = grad(y, x, y.detach())  # the gradient of each element is its own number
        np.testing.assert_array_equal(dx.numpy(), x.numpy())  # type: ignore[union-attr]


AXIS_OPS: dict[str, Callable[[Tensor, int], Any]] = {
    **{
        name: (lambda x, axis, name=name: getattr(x, name)(axis=axis))
        for name in (
            "sum",
            "mean",
            "var",
            "std",
            "max",
            "min",
            "logsumexp",
            "softmax",
            "log_softmax",
        )
    },
    "squeeze": lambda x, axis: x.sum(axis, keepdims=True).squeeze(axis),
    "cumsum": lambda x, axis: tensor.cumsum(x, axis=axis),
    "transpose": lambda x, axis: x.transpose(axis, 1),
    "transpose back": lambda x, axis: x.transpose(0, axis),
    "split": lambda x, axis: x.split(1, axis)[-1],
    "chunk": lambda x, axis: x.chunk(2, axis)[0],
    "concatenate": lambda x, axis: tensor.concatenate([x, x * 2], axis),
    "gather": lambda x, axis: tensor.gather(x, np.zeros((1, 1, 1), dtype=np.int64), axis=axis),
}


@pytest.mark.parametrize("name", AXIS_OPS)
def test_bug_17_an_axis_counted_from_the_end_is_that_axis(name: str, device: str) -> None:
    rng = np.random.default_rng(0)
    for axis in range(3):
        values = rng.standard_normal((3, 3, 3))
        pairs = []
        for named in (axis, axis - 3):
            x = placed(values, device, requires_grad=True)
            y = AXIS_OPS[name](x, named)
            pairs.append(
                (
                    y.numpy(),
                    grad(y, x, placed(np.random.default_rng(1).standard_normal(y.shape), device))[
                        0
                    ].numpy(),
                )
            )  # type: ignore[union-attr]
        for first, second in zip(*pairs, strict=True):
            np.testing.assert_array_equal(first, second)


def test_bug_17_new_axes_counted_from_the_end(device: str) -> None:
    x = placed(numbered((2, 3)), device, requires_grad=True)
    for axis in range(-3, 3):
        y = x.unsqueeze(axis)
        assert y.shape == np.expand_dims(x.numpy(), axis).shape
        assert tensor.stack([x, x], axis).shape == np.stack([x.numpy()] * 2, axis).shape
        both = tensor.stack([x, x * 2], axis)
        (of_both,) = grad(both, x, tensor.stack([x, x], axis).detach())
        (of_y,) = grad(y, x, y.detach())
        assert of_both is not None
        assert of_y is not None
        np.testing.assert_array_equal(of_both.numpy(), 3 * x.numpy())
        np.testing.assert_array_equal(of_y.numpy(), x.numpy())


# -- every op, in seven ways through memory

BY_OP: dict[str, list[Case]] = {}
for _case in CASES:
    BY_OP.setdefault(_case.op, []).append(_case)


def outcome(
    call: Callable[..., Any], arrays: list[Array], arrange: Callable[[Array], Array], device: str
) -> list[Array]:
    """Values and gradients of a call, its upstream gradients arranged in memory like its inputs."""
    leaves = [placed(array, device, requires_grad=True) for array in arrays]
    outputs = call(*leaves)
    ys = outputs if isinstance(outputs, tuple) else (outputs,)
    rng = np.random.default_rng(5)
    dys = [arrange(rng.standard_normal(y.shape)) for y in ys]
    return [y.numpy() for y in ys] + gradients(ys, leaves, dys)


@pytest.mark.parametrize("name", sorted(BY_OP))
def test_bug_18_the_way_through_memory_changes_nothing(name: str, device: str) -> None:
    for case in BY_OP[name]:
        for layout, arrange in LAYOUTS.items():
            if layout == "expanded" and not case.repeats:
                continue
            arrays = [arrange(array) for array in case.inputs(3)]
            found = outcome(case.call, arrays, arrange, device)
            wanted = outcome(
                case.call,
                [a.copy() for a in arrays],
                lambda dy, arrange=arrange: arrange(dy).copy(),
                device,
            )
            assert len(found) == len(wanted)
            for a, b in zip(found, wanted, strict=True):
                np.testing.assert_allclose(
                    a,
                    b,
                    rtol=1e-11,
                    atol=1e-11 * np.abs(b[np.isfinite(b)]).max(initial=0),
                    err_msg=layout,
                )


NO_GRADIENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    **{
        name: OPS[name]
        for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
    },
    **{
        name: (lambda a, b, name=name: OPS[name](a > 0, b > 0))
        for name in ("bitwise_and", "bitwise_or", "bitwise_xor")
    },
    **{
        name: (lambda a, b, name=name: OPS[name](a, axis=1))
        for name in ("argmax", "argmin", "any", "all")
    },
    "invert": lambda a, b: ~(a > 0),
    "step": lambda a, b: a.step(),
    "one_hot": lambda a, b: tensor.one_hot((a > 0).to("int64"), count=2),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", sorted(NO_GRADIENT))
def test_bug_18_nor_without_gradients(name: str, layout: str, device: str) -> None:
    arrays = [
        LAYOUTS[layout](values)
        for values in np.random.default_rng(0).integers(-2, 3, (2, 3, 4)).astype(float)
    ]
    found, wanted = (
        NO_GRADIENT[name](*(placed(a, device) for a in given))
        for given in (arrays, [a.copy() for a in arrays])
    )
    np.testing.assert_array_equal(found.numpy(), wanted.numpy())


def test_bug_18_leaves_no_op_out() -> None:
    assert set(OPS) == set(BY_OP) | set(NO_GRADIENT)
    assert set(NO_GRADIENT) == WITHOUT_GRADIENT
