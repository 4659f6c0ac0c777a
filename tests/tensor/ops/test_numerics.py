"""Where floating point and conventions go wrong: repeated indices, counts, constants, extremes,
points without a slope, 16 bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import nullcontext
from itertools import combinations
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.errors import DTypeError, GraphError, ShapeError
from tensor.gradcheck import gradcheck
from tensor.memory.devices import Array
from tensor.ops.elementwise import error_function

INF, NAN = math.inf, math.nan


def leaf(data: Any, device: str, dtype: str = "float64") -> Tensor:
    return Tensor(np.asarray(data), dtype=dtype, device=device, requires_grad=True)


def gradient(y: Tensor, x: Tensor, dy: Any = None) -> Array:
    """dy/dx in NumPy, of a scalar y or with an upstream gradient."""
    given = None if dy is None else Tensor(np.asarray(dy), dtype=y.dtype, device=y.device)
    (dx,) = tensor.grad(y, x, given, retain_graph=True)
    assert dx is not None
    return dx.numpy().astype(np.float64)


# -- repeated indices


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_bug_26_repeated_ids_add_up(dtype: str, device: str) -> None:
    ids = np.array([[1, 0, 1], [4, 1, 0]])
    weight, dy = (
        leaf(np.zeros((5, 3)), device, dtype),
        np.random.default_rng(0).integers(-8, 9, (2, 3, 3)),
    )
    # (2, 3, 5): the same look-up as a product, whose gradient is a product too
    one_hot = np.eye(5)[ids]
    assert np.array_equal(
        gradient(tensor.embedding(ids, weight), weight, dy), np.einsum("btv,btc->vc", one_hot, dy)
    )
    assert np.array_equal(gradient(weight[ids], weight, dy), np.einsum("btv,btc->vc", one_hot, dy))

    x = leaf(np.zeros(3), device, dtype)
    assert gradient(x[[1, 0, 1]], x, [1, 2, 4]).tolist() == [2, 5, 0]
    assert gradient(x[[2, 0, 1]], x, [1, 2, 4]).tolist() == [2, 4, 1]
    assert gradient(x[[-1, 2, 1]], x, [1, 2, 4]).tolist() == [0, 4, 3]
    assert gradient(x.gather([2, 2, 0, 2]), x, [1, 2, 4, 8]).tolist() == [4, 0, 11]


@pytest.mark.parametrize(("dtype", "exact"), [("float16", 3000), ("bfloat16", 3008)])
def test_bug_26_many_repeats_in_16_bits(dtype: str, exact: int, device: str) -> None:
    weight = leaf(np.zeros((2, 1)), device, dtype)
    ids = np.ones(3000, dtype=np.int64)
    assert gradient(tensor.embedding(ids, weight), weight, np.ones((3000, 1))).tolist() == [
        [0],
        [exact],
    ]
    assert gradient(weight[ids], weight, np.ones((3000, 1))).tolist() == [[0], [exact]]


# -- counts

AXES: list[Any] = [
    None,
    *range(-3, 3),
    *(pair for pair in combinations((-3, 1, -1), 2)),
    (0, 1, 2),
    (),
]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", AXES)
def test_bug_29_mean_divides_by_what_it_summed(axis: Any, keepdims: bool, device: str) -> None:
    values = np.random.default_rng(0).standard_normal((2, 3, 5))
    x = leaf(values, device)
    y = x.mean(axis, keepdims)
    exact = np.mean(values, axis=axis, keepdims=keepdims)
    assert y.shape == np.shape(exact)
    assert np.allclose(y.numpy(), exact, rtol=1e-14, atol=1e-15)
    # of each mean, the shares add up to 1
    assert np.isclose(gradient(y, x, np.ones(y.shape)).sum(), y.size, rtol=1e-13)


def test_empty_reductions(device: str) -> None:
    empty = leaf(np.zeros((2, 0)), device)
    assert empty.sum().item() == 0
    assert empty.sum(1).tolist() == [0, 0]
    assert empty.mean(0).shape == (0,)
    assert empty.softmax().shape == empty.log_softmax().shape == empty.cumsum().shape == (2, 0)
    for op in (tensor.softmax, tensor.log_softmax, tensor.cumsum):
        with pytest.raises(ShapeError, match="axis 2 is out of"):
            op(empty, axis=2)
    for name in ("mean", "var", "std", "max", "min", "logsumexp"):
        with pytest.raises(ShapeError, match=f"`{name}` over no elements"):
            getattr(empty, name)(axis=1)


# -- spread


@pytest.mark.parametrize("axis", [None, 1, (0, -1)])
@pytest.mark.parametrize("correction", [0, 1])
def test_bug_31_divisor_of_variance(correction: int, axis: Any, device: str) -> None:
    values = np.random.default_rng(0).standard_normal((3, 4, 2)) + 5
    x = Tensor(values, device=device)
    assert np.allclose(
        x.var(axis, correction=correction).numpy(), values.var(axis, ddof=correction), rtol=1e-14
    )
    assert np.allclose(
        x.std(axis, correction=correction).numpy(), values.std(axis, ddof=correction), rtol=1e-14
    )
    gradcheck(lambda x: x.std(axis, correction=correction), [x])


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_bug_31_constant_rows_have_no_spread(dtype: str, device: str) -> None:
    """0.1 + 0.1 + 0.1 is not 0.3: a mean that rounds would leave a spread of 1e-17, and a gradient
    of 1/3 for it.
    """
    x = leaf(np.full((2, 3), 0.1), device, dtype)
    for y in (x.std(1), x.var(1), x.std(correction=1), x.std((0, 1))):
        assert not y.numpy().any()
        assert not gradient(y, x, np.ones(y.shape)).any()


def test_bug_31_one_element(device: str) -> None:
    x = leaf([[3.0], [4.0]], device)
    assert x.std(1).tolist() == x.var(1).tolist() == [0, 0]
    assert gradient(x.std(1), x, [1, 1]).tolist() == [[0], [0]]
    for name in ("var", "std"):
        with pytest.raises(ShapeError, match="1 element with correction=1: needs more than 1"):
            getattr(x, name)(1, correction=1)


def test_variance_far_from_zero(device: str) -> None:
    values = 1e8 + np.random.default_rng(0).standard_normal(1000)
    # E[x^2] - E[x]^2 would have no digit right
    assert np.isclose(Tensor(values, device=device).var().item(), (values - 1e8).var(), rtol=1e-7)


# -- layer normalisation


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 5), (2, 2, 3, 5)])
def test_bug_32_layer_norm_backward(shape: tuple[int, ...], device: str) -> None:
    rng = np.random.default_rng(0)
    x, gain, bias = (leaf(rng.standard_normal(s), device) for s in (shape, (5,), (5,)))
    dy = rng.standard_normal(shape)
    y = tensor.layer_norm(x, gain, bias, eps=1e-14)
    normed = (y.numpy() - bias.numpy()) / gain.numpy()
    dx, dgain, dbias = gradient(y, x, dy), gradient(y, gain, dy), gradient(y, bias, dy)
    assert np.allclose(dx.sum(-1), 0, atol=1e-12)  # adding a constant to a row changes nothing,
    assert np.allclose((dx * normed).sum(-1), 0, atol=1e-11)  # nor does scaling its spread
    assert np.abs(dx).max() > 0.1
    assert np.allclose(
        dgain, np.einsum("nc,nc->c", dy.reshape(-1, 5), normed.reshape(-1, 5)), rtol=1e-11
    )
    assert np.allclose(dbias, np.einsum("nc->c", dy.reshape(-1, 5)), rtol=1e-13)
    gradcheck(tensor.layer_norm, [x, gain, bias])


def test_bug_32_epsilon_is_inside_the_root(device: str) -> None:
    x = leaf([[1.0, -1.0]], device)  # mean 0, variance 1
    y = tensor.layer_norm(x, np.ones(2), np.zeros(2), eps=3.0)
    assert np.allclose(y.numpy(), [[0.5, -0.5]], rtol=1e-14)


def test_bug_32_width_one(device: str) -> None:
    x, gain, bias = leaf([[3.0], [-2.0]], device), leaf([2.0], device), leaf([0.5], device)
    y = tensor.layer_norm(x, gain, bias)
    assert y.tolist() == [[0.5], [0.5]]
    assert not gradient(y, x, [[1], [2]]).any()
    assert gradient(y, gain, [[1], [2]]).tolist() == [0]
    assert gradient(y, bias, [[1], [2]]).tolist() == [3]


# -- overflow and masks


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_bug_33_softmax_does_not_overflow(dtype: str, device: str) -> None:
    x = leaf([[1e4, -1e4, 0], [-1e4, -1e4, -1e4]], device, dtype)
    third = Tensor(np.float64(1 / 3), dtype=dtype).item()
    assert x.softmax().tolist() == [[1, 0, 0], [third] * 3]
    top = x.numpy().astype(np.float64)[0, 0]
    assert x.log_softmax()[0].tolist() == [0, Tensor([-2 * top], dtype=dtype).item(), -top]
    assert x.logsumexp().tolist()[0] == top
    for y in (x.softmax(), x.log_softmax(), x.logsumexp()):
        assert np.isfinite(gradient(y, x, np.ones(y.shape))).all()


def test_bug_33_softmax_of_a_row_without_weight(device: str) -> None:
    x = leaf([[-INF, -INF], [0.0, -INF]], device)
    assert x.softmax().tolist() == [[0, 0], [1, 0]]
    assert gradient(x.softmax(), x, [[1, 2], [3, 4]]).tolist() == [[0, 0], [0, 0]]
    assert x.logsumexp().tolist() == [-INF, 0]
    assert gradient(x.logsumexp(), x, [1, 2]).tolist() == [[0, 0], [2, 0]]


UNTAKEN: dict[str, Callable[[Tensor], Tensor]] = {
    "log": tensor.log, "sqrt": tensor.sqrt, "1 / x": lambda x: 1 / x, "x ** -1": lambda x: x**-1,
    "x ** 0.5": lambda x: x**0.5, "x ** x": lambda x: x**x,
}  # fmt: skip


@pytest.mark.parametrize("name", UNTAKEN)
def test_bug_35_branch_not_taken_sends_nothing_back(name: str, device: str) -> None:
    x = leaf([0.0, 4.0], device)
    taken = gradient(UNTAKEN[name](x)[1], x)[1]
    assert gradient(tensor.where(x > 0, UNTAKEN[name](x), 0.0), x, [1, 1]).tolist() == [0, taken]
    assert gradient(UNTAKEN[name](x).masked_fill(x <= 0, 0.0), x, [1, 1]).tolist() == [0, taken]


def test_bug_35_infinite_exponential_not_taken(device: str) -> None:
    x = leaf([1000.0, 0.0], device)
    assert gradient(tensor.where(x < 700, x.exp(), 0.0), x, [1, 1]).tolist() == [0, 1]


# -- points without a slope, by convention

# what, function, inputs, value, a gradient for each input
PINNED: list[tuple[str, Callable[..., Tensor], list[Any], Any, list[Any]]] = [
    ("relu at 0", tensor.relu, [0.0], 0, [0]),
    ("relu at -0", tensor.relu, [-0.0], 0, [0]),
    ("abs at 0", tensor.abs, [0.0], 0, [0]),
    ("sqrt at 0", tensor.sqrt, [0.0], 0, [INF]),
    ("log at 0", tensor.log, [0.0], -INF, [INF]),
    ("1 / 0", lambda x: 1 / x, [0.0], INF, [-INF]),
    ("0 ** 0", tensor.power, [0.0, 0.0], 1, [0, 0]),
    ("0 ** 1", tensor.power, [0.0, 1.0], 0, [1, 0]),
    ("0 ** 2", tensor.power, [0.0, 2.0], 0, [0, 0]),
    ("0 ** 0.5", tensor.power, [0.0, 0.5], 0, [INF, 0]),
    ("0 ** -1", tensor.power, [0.0, -1.0], INF, [-INF, -INF]),
    ("x ** 0 at 0", lambda x: x**0, [0.0], 1, [0]),
    ("x ** 1 at 0", lambda x: x**1, [0.0], 0, [1]),
    ("x ** 2 at 0", lambda x: x**2, [0.0], 0, [0]),
    ("0 ** x at 0", lambda x: 0.0**x, [0.0], 1, [0]),
    ("(-2) ** 3", lambda x: x**3, [-2.0], -8, [12]),
    ("(-2) ** 0.5", lambda x: x**0.5, [-2.0], NAN, [NAN]),
    ("max of equals", lambda x: x.max(), [[3.0, 1.0, 3.0]], 3, [[0.5, 0, 0.5]]),
    ("min of equals", lambda x: x.min(), [[1.0, 1.0, 1.0, 1.0]], 1, [[0.25] * 4]),
    ("max of -inf", lambda x: x.max(), [[-INF, -INF]], -INF, [[0.5, 0.5]]),
    ("maximum of equals", tensor.maximum, [2.0, 2.0], 2, [0.5, 0.5]),
    ("minimum of equals", tensor.minimum, [2.0, 2.0], 2, [0.5, 0.5]),
    ("maximum with a number", lambda x: tensor.maximum(x, 0.0), [0.0], 0, [0.5]),
    (
        "clip at its ends", lambda x: x.clip(-1, 1),
        [[-1.0, 1.0, 1.5, NAN]], [-1, 1, 1, NAN], [[1, 1, 0, 0]],
    ),
    ("std of equals", lambda x: x.std(), [[0.1, 0.1, 0.1]], 0, [[0, 0, 0]]),
    ("sigmoid at 0", tensor.sigmoid, [0.0], 0.5, [0.25]),
    ("gelu at 0", tensor.gelu, [0.0], 0, [0.5]),
    ("gelu, erf form, at 0", lambda x: tensor.gelu(x, "erf"), [0.0], 0, [0.5]),
    ("silu at 0", tensor.silu, [0.0], 0, [0.5]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "inputs", "value", "gradients"),
    [row[1:] for row in PINNED],
    ids=[row[0] for row in PINNED],
)
def test_bug_36_pinned_values_and_subgradients(
    function: Callable[..., Tensor],
    inputs: list[Any],
    value: Any,
    gradients: list[Any],
    device: str,
) -> None:
    xs = [leaf(x, device) for x in inputs]
    y = function(*xs)
    assert np.allclose(
        y.numpy(), np.asarray(value, dtype=float), rtol=1e-14, atol=0, equal_nan=True
    )
    for x, exact in zip(xs, gradients, strict=True):
        assert np.allclose(
            gradient(y, x, np.ones(y.shape)),
            np.asarray(exact, dtype=float),
            rtol=1e-14,
            atol=0,
            equal_nan=True,
        )


def test_step_says_that_it_has_no_gradient(device: str) -> None:
    x = leaf([-1.0, 0.0, 2.0], device)
    assert x.step().tolist() == [0, 0, 1]
    with pytest.raises(GraphError, match="`step` has no gradient"):
        x.step().sum().backward()


# -- erf and GELU


def test_erf_to_1e15() -> None:
    x = np.concatenate(
        [
            np.linspace(-8, 8, 20001),
            np.geomspace(1e-300, 30, 3000),
            -np.geomspace(1e-20, 30, 3000),
            [0.0, -0.0, INF, -INF],
        ]
    )
    exact = np.array([math.erf(v) for v in x])
    found = error_function(x)
    assert np.abs(found - exact).max() < 1e-15
    assert (np.abs(found - exact) <= 1e-15 * np.abs(exact)).all()  # relative too, down to 1e-300
    assert np.isnan(error_function(np.array([NAN]))).all()
    single = error_function(x.astype(np.float32))
    assert single.dtype == np.float32
    assert np.abs(single - np.array([math.erf(v) for v in x.astype(np.float32)])).max() < 3e-7


def test_erf_against_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    x = np.linspace(-7, 7, 30001)
    assert np.abs(error_function(x) - special.erf(x)).max() < 1e-15


def test_bug_37_two_forms_of_gelu(device: str) -> None:
    """The forms differ by at most 4.7e-4, near |x| = 2.7, so each is held to 1e-12 of its own
    formula there.
    """
    points = np.concatenate([np.linspace(-5, 5, 201), [2.7, -2.7]])
    x = leaf(points, device)
    by_erf = np.array([v / 2 * math.erfc(-v / math.sqrt(2)) for v in points])
    by_tanh = np.array(
        [v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in points]
    )
    assert 4.6e-4 < np.abs(by_erf - by_tanh).max() < 4.8e-4
    assert np.allclose(x.gelu("erf").numpy(), by_erf, rtol=0, atol=1e-12)
    assert np.allclose(x.gelu("tanh").numpy(), by_tanh, rtol=0, atol=1e-12)
    for switch in (nullcontext(), kernels.off()):
        with switch:
            assert np.allclose(x.gelu().numpy(), by_tanh, rtol=0, atol=1e-12)  # GPT-2's by default
    slope_erf = [
        math.erfc(-v / math.sqrt(2)) / 2 + v * math.exp(-v * v / 2) / math.sqrt(2 * math.pi)
        for v in points
    ]
    assert np.allclose(gradient(x.gelu("erf"), x, np.ones(203)), slope_erf, rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match="forms 'tanh' and 'erf', not 'exact'"):
        x.gelu("exact")


# -- 16 bits


@pytest.mark.parametrize(
    ("dtype", "count", "exact"), [("float16", 60_000, 60_000), ("bfloat16", 70_000, 70_144)]
)
def test_bug_40_long_sums_in_16_bits(dtype: str, count: int, exact: int, device: str) -> None:
    """bfloat16 alone stops counting ones at 256, float16 at 2048. 70,144 is the bfloat16 nearest to
    70,000.
    """
    ones = tensor.ones(count, 2, dtype=dtype, device=device)
    assert ones.sum(0).tolist() == [exact, exact]
    assert ones[:, 0].contiguous().sum().item() == exact
    assert ones.mean().item() == 1
    assert ones.var().item() == 0
    assert ones.cumsum(0)[-1].tolist() == [exact, exact]
    assert (ones.T @ ones).tolist() == [[exact] * 2] * 2
    one = tensor.ones(dtype=dtype, device=device, requires_grad=True)
    # the sum that undoes a broadcast
    assert (
        gradient(one + tensor.zeros(count, dtype=dtype, device=device), one, np.ones(count))
        == exact
    )


def test_intermediates_do_not_overflow_in_float16(device: str) -> None:
    x = leaf([60000.0, -60000.0, 60000.0, -60000.0], device, "float16")
    assert x.std().item() == 60000  # its square is 3.6e9, and float16 ends at 65504
    assert (x + 0).abs().mean().item() == 60000
    assert x.softmax().tolist() == [0.5, 0, 0.5, 0]
    assert x.logsumexp().item() == 60000
    ones = tensor.ones(4, dtype="float16", device=device)
    assert tensor.layer_norm(x, ones, ones * 0).tolist() == [1, -1, 1, -1]
    loss = tensor.mean_squared_error(x, x.detach() + 400)  # rounds to 416, whose square is 173,056
    assert loss.item() == INF
    assert gradient(loss, x).tolist() == [-208] * 4


# -- extremes, as PyTorch has them

EXTREMES: dict[str, tuple[str, list[Any]]] = {
    "softmax": ("softmax(x, -1)", [[1, INF, 0], [NAN, 1, 2], [1e300, -1e300, 0]]),
    "log_softmax": ("log_softmax(x, -1)", [[1, -INF, 0], [1e300, 0, 0]]),
    "logsumexp": (
        "logsumexp(x, -1)",
        [[1, INF, 0], [INF, -INF, 0], [NAN, 0, 0], [-1e300, -1e300, 0]],
    ),
    "exp": ("exp(x)", [-INF, 710, INF, NAN, -1000]), "log": ("log(x)", [0, -1, INF, NAN, 5e-324]),
    "sqrt": ("sqrt(x)", [-1, INF, NAN, 5e-324]),
    "tanh": ("tanh(x)", [-INF, INF, 1000, -1000, NAN]),
    "sigmoid": ("sigmoid(x)", [-INF, INF, 1000, -1000, NAN, 40, -40]),
    "erf": ("erf(x)", [-INF, INF, NAN, 1e200]),
    "silu": ("nn.functional.silu(x)", [1000, -1000, NAN, -40]),
    "gelu": ("nn.functional.gelu(x, approximate='tanh')", [1000, -1000, NAN, 40, -40]),
}  # fmt: skip


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes_agree_with_pytorch(name: str, device: str) -> None:
    torch = pytest.importorskip("torch")
    expression, values = EXTREMES[name]
    ours, theirs = (
        leaf(values, device),
        torch.tensor(np.array(values, dtype=float), requires_grad=True),
    )
    y, z = getattr(tensor, name)(ours), eval("torch." + expression, {"torch": torch, "x": theirs})
    assert np.allclose(y.numpy(), z.detach().numpy(), rtol=1e-13, atol=0, equal_nan=True)
    (dx,) = torch.autograd.grad(z, theirs, torch.ones_like(z))
    assert np.allclose(
        gradient(y, ours, np.ones(y.shape)), dx.numpy(), rtol=1e-9, atol=1e-16, equal_nan=True
    )


def test_divide_at_the_ends_of_the_range(device: str) -> None:
    a, b = leaf([1e-300, 1e300], device), leaf([1e-200, 1e200], device)
    # b * b alone would be 0 or infinite
    assert np.allclose(gradient(a / b, b, [1, 1]), [-1e100, -1e-100], rtol=1e-14)


@pytest.mark.parametrize("name", ["max", "min"])
def test_nan_takes_the_gradient_of_an_extreme(name: str, device: str) -> None:
    """If a row has NaN, the extreme is NaN, and the NaNs share the gradient: PyTorch's max()."""
    rows = [[1.0, NAN, 2.0, NAN], [3.0, 5.0, 5.0, 3.0], [NAN, NAN, NAN, 1.0]]
    torch = pytest.importorskip("torch")
    for row in rows:
        x = torch.tensor(row, requires_grad=True)
        getattr(x, name)().backward()
        y = leaf(row, device)
        assert np.allclose(gradient(getattr(y, name)(), y, np.ones(())), x.grad.numpy())
    x = leaf(rows, device)
    assert gradient(getattr(x, name)(1), x, np.ones(3)).sum(1).round(9).tolist() == [1, 1, 1]


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_nan_takes_the_gradient_of_a_choice(name: str, device: str) -> None:
    """As in PyTorch; a number of Python too."""
    torch = pytest.importorskip("torch")
    pairs = [NAN, 1.0, NAN, 2.0, 3.0, INF], [1.0, NAN, NAN, 2.0, 1.0, NAN]
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in pairs)
    dy = np.arange(1.0, 7)
    getattr(torch, name)(a, b).backward(torch.tensor(dy))
    x, y = (leaf(data, device) for data in pairs)
    assert np.array_equal(gradient(getattr(tensor, name)(x, y), x, dy), a.grad.numpy())
    assert np.array_equal(gradient(getattr(tensor, name)(x, y), y, dy), b.grad.numpy())
    assert gradient(getattr(tensor, name)(x[:2], 1.0), x, [2, 2]).tolist()[:2] == [2, 1]
    assert gradient(x[:3].relu(), x, [1, 2, 3]).tolist()[:3] == [1, 2, 3]  # max(x, 0)


# -- integers


def test_integers_in_float_functions(device: str) -> None:
    """float32 where NumPy has the function; where it has not, an error that says what to do."""
    x = Tensor([[0, 1, 4]], device=device)
    for name in ("exp", "log", "sqrt", "sin", "cos", "tanh"):
        y = getattr(x, name)()
        assert y.dtype == np.float32
        assert np.allclose(y.numpy(), getattr(np, name)(np.array([[0.0, 1.0, 4.0]])), rtol=1e-7)
    assert x.mean().item() == np.float32(5 / 3)
    assert x.var().item() == np.float32(26 / 9)
    # without wrapping round at 256
    assert Tensor(np.array([0, 255], np.uint8), device=device).std().item() == 127.5
    assert Tensor([False, True], device=device).var().item() == 0.25
    for name in ("sigmoid", "silu", "gelu", "erf", "softmax", "log_softmax", "logsumexp"):
        with pytest.raises(
            DTypeError, match=rf"`{name}` needs floats, not int64: use x.to\('float32'\)"
        ):
            getattr(x, name)()
