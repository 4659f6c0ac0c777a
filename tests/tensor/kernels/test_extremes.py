"""Infinity, NaN, 3e38, subnormals and zeros in each argument of each kernel: what is finite is so
with and without it; and as in PyTorch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, kernels, optim
from tensor.kernels import KERNELS
from tensor.ops.op import OPS
from tensor.optim import clip_gradients, gradient_norm
from tensor.optim.adamw import adamw
from tensor.optim.muon import muon
from tests.helpers.kernel_runs import compiled_kernels, draw, taken

__all__ = ["compiled_kernels"]
pytestmark = [
    pytest.mark.usefixtures("compiled_kernels"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

Array = Any
NAN, INF = math.nan, math.inf
HUGE = [3e38, -3e38, 1e20, -1e20]
MILD = [NAN, INF, -INF, 1e-38, 1e-45, 0.0, 8.0, -8.0]
IDS = np.array([[0, 2, 0, 4], [1, 1, 2, 0]])
TARGETS = np.random.default_rng(3).integers(0, 37, 35)
IGNORED = np.where(np.arange(35) % 3, TARGETS, -1)
linear = OPS["linear"]

# a call, the shapes of its inputs
CALLS: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "linear": (linear, [(35, 7), (7, 20), (20,)]),
    "linear, turned": (lambda *x: linear(*x, transposed=True), [(35, 7), (20, 7), (20,)]),
    "linear_gelu": (tensor.linear_gelu, [(35, 7), (7, 20), (20,)]),
    "gelu": (tensor.gelu, [(35, 20)]),
    "layer_norm": (tensor.layer_norm, [(35, 20), (20,), (20,)]),
    "residual_layer_norm": (tensor.residual_layer_norm, [(35, 20), (35, 20), (20,), (20,)]),
    "multi_head_attention": (
        lambda x: tensor.multi_head_attention(x, heads=2, causal=True),
        [(2, 40, 24)],
    ),
    "attention": (tensor.attention, [(2, 40, 5)] * 3),
    "attention, causal": (lambda *x: tensor.attention(*x, causal=True), [(2, 40, 5)] * 3),
    "cross_entropy": (lambda x: tensor.cross_entropy(x, Tensor(TARGETS)), [(35, 37)]),
    "cross_entropy, each": (
        lambda x: tensor.cross_entropy(x, Tensor(IGNORED), reduction="none", ignore_index=-1),
        [(35, 37)],
    ),
    "cross_entropy, smoothed": (
        lambda x: tensor.cross_entropy(x, Tensor(TARGETS), label_smoothing=0.1),
        [(35, 37)],
    ),
    "positional_embedding": (
        lambda w, p: tensor.positional_embedding(Tensor(IDS), w, p),
        [(5, 3), (6, 3)],
    ),
}


def run(
    call: Callable[..., Any], inputs: list[Array], upstream: list[Array], *, on: bool
) -> list[Array]:
    """Outputs, then gradients."""
    xs = [Tensor(x, requires_grad=True) for x in inputs]
    with kernels.off(*(() if not on else ("random_bits",))):
        ys = call(*xs)
        ys = ys if isinstance(ys, tuple) else (ys,)
        return [
            x.numpy()
            for x in (*ys, *grad(ys, xs, [Tensor(dy) for dy in upstream]))
            if x is not None
        ]


def one_element(array: Array) -> tuple[int, ...]:
    """A place in the middle: of the fourth row, say."""
    return tuple(
        min(n - 1, 3 if axis == array.ndim - 2 else 1) for axis, n in enumerate(array.shape)
    )


def spoilt(arrays: list[Array]) -> Iterator[tuple[str, list[Array]]]:
    """Copies with one of the values in one element, in a row, everywhere, in one array after the
    other; and mixtures.
    """
    for which, array in enumerate(arrays):
        row = (..., min(1, array.shape[-2] - 1), slice(None)) if array.ndim > 1 else ...
        for value in HUGE + MILD:
            for place in [one_element(array)] if value in HUGE else [one_element(array), row, ...]:
                copies = [a.copy() for a in arrays]
                copies[which][place] = value
                yield f"{value} in array {which}, {place}", copies
    for seed in range(20):
        rng = np.random.default_rng(seed)
        share = rng.choice([0.01, 0.1])
        yield (
            f"mixture {seed}",
            [
                np.where(
                    rng.random(a.shape) < share, rng.choice(np.array(MILD, np.float32), a.shape), a
                )
                for a in arrays
            ],
        )


def assert_alike(found: list[Array], expected: list[Array], where: str) -> None:
    """NaN and infinities in the same places; finite numbers equal to rounding, where none is so
    large that sums of them cancel.
    """
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        finite = np.isfinite(b)
        np.testing.assert_array_equal(
            np.where(np.isfinite(a), 0, a), np.where(finite, 0, b), err_msg=f"{where}, result {i}"
        )
        largest = np.abs(b[finite]).max(initial=0)
        if largest < 1e6:
            np.testing.assert_allclose(
                a[finite],
                b[finite],
                rtol=0,
                atol=2e-4 * max(1, largest),
                err_msg=f"{where}, result {i}",
            )


@pytest.mark.parametrize("name", CALLS)
def test_bug_33_kernel_and_reference_agree_on_what_is_not_finite(name: str) -> None:
    """In each input and in each upstream gradient."""
    call, shapes = CALLS[name]
    inputs = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    ys = call(*map(Tensor, inputs))
    assert taken(name.split(",")[0])[1] == "cpu kernel"
    upstream = [
        np.asarray(draw(*y.shape, seed=50 + i))
        for i, y in enumerate(ys if isinstance(ys, tuple) else (ys,))
    ]
    for where, arrays in spoilt([*inputs, *upstream]):
        given = arrays[: len(inputs)], arrays[len(inputs) :]
        assert_alike(run(call, *given, on=True), run(call, *given, on=False), f"{name}: {where}")


@pytest.mark.parametrize("T", [7, 40, 150])
def test_bug_33_infinite_queries_and_weights_that_overflow(T: int) -> None:
    """By C and, in float64, by blocks in NumPy: -inf in q and in k, values whose sum overflows, a
    score of -inf for the one key in sight.
    """
    for dtype, huge in (("float32", 3e38), ("float64", 1.7e308)):
        for column, value, rows in (
            (0, 0.5, 3),
            (2, -INF, 3),
            (0, -INF, 3),
            (0, INF, 3),
            (0, NAN, 3),
            (4, huge, slice(None)),
            (0, -huge, slice(None)),
            (2, huge, slice(None)),
        ):
            x = draw(1, T, 6).astype(dtype)
            x[..., 0] = np.abs(x[..., 0])  # so that a key of -inf scores -inf, and is out of sight
            x[0, rows, column] = value
            dy = draw(1, T, 2, seed=1).astype(dtype)
            for bad in (None, INF, NAN):
                dy[0, 2, 1] = dy[0, 2, 1] if bad is None else bad
                ways = [
                    run(
                        lambda x: tensor.multi_head_attention(x, heads=1, causal=True),
                        [x],
                        [dy],
                        on=on,
                    )
                    for on in (True, False)
                ]
                assert_alike(*ways, f"{value} in column {column} and {bad} in dy, {dtype}")


def test_bug_33_rows_whose_sums_overflow() -> None:
    """LayerNorm of rows with more than one huge number, and of huge gradients: the kernel leaves
    them to the reference.
    """
    x, gain, bias, dy = draw(35, 20), draw(20, seed=1), draw(20, seed=2), draw(35, 20, seed=3)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        for which in range(4):
            arrays = [a.copy() for a in (x, gain, bias, dy)]
            spots = rng.random(arrays[which].shape) < 0.2
            arrays[which][spots] = rng.choice(np.array(HUGE, np.float32), int(spots.sum()))
            assert_alike(
                *(run(tensor.layer_norm, arrays[:3], arrays[3:], on=on) for on in (True, False)),
                f"array {which}, seed {seed}",
            )


def test_bug_33_no_gradient_for_a_row_of_nan() -> None:
    """0 times NaN is NaN in the gradient of a loss that is NaN; only a target that is ignored makes
    it 0.
    """
    x, dy = draw(35, 37), draw(35, seed=1)
    x[2:5, 7] = NAN
    dy[1:4] = 0
    call = CALLS["cross_entropy, each"][0]
    ways = [run(call, [x], [dy], on=on) for on in (True, False)]
    assert_alike(*ways, "cross_entropy")
    assert np.isnan(ways[0][1][2]).all()
    assert not ways[0][1][3].any()  # ignored


# -- attention: PyTorch, query by query


def by_query(q: Array, k: Array, v: Array, dy: Array) -> list[Array]:
    """y, dq, dk, dv of causal attention, each query alone with the keys it sees: nothing has to be
    hidden from it.
    """
    torch = pytest.importorskip("torch")
    leaves = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    ys = []
    for t in range(len(q)):
        scores = leaves[0][t : t + 1] @ leaves[1][: t + 1].T / math.sqrt(q.shape[1])
        ys.append(scores.softmax(-1) @ leaves[2][: t + 1])
    y = torch.cat(ys)
    return [x.detach().numpy() for x in (y, *torch.autograd.grad(y, leaves, torch.tensor(dy)))]


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
@pytest.mark.parametrize("part", ["q", "k", "v", "dy"])
def test_bug_33_what_is_not_finite_reaches_the_gradients_of_who_sees_it(
    part: str, wrong: float, on: bool
) -> None:
    """A NaN in a value makes dq and dk NaN, as in PyTorch; who does not see it stays finite."""
    arrays = {name: draw(40, 5, seed=i) for i, name in enumerate(("q", "k", "v", "dy"))}
    arrays[part][35, 2] = wrong
    *inputs, dy = arrays.values()
    found = run(lambda *x: tensor.attention(*x, causal=True), inputs, [dy], on=on)
    expected = by_query(*inputs, dy)
    for name, a, b in zip(("y", "dq", "dk", "dv"), found, expected, strict=True):
        if part == "k" and name == "dq":  # a weight of 0 times infinity: 0 here
            a, b = np.where(np.isnan(b), 0, a), np.nan_to_num(b, nan=0)
        np.testing.assert_array_equal(
            np.where(np.isfinite(a), 0, a), np.where(np.isfinite(b), 0, b), err_msg=name
        )
        np.testing.assert_allclose(
            a[np.isfinite(b)], b[np.isfinite(b)], rtol=0, atol=1e-5, err_msg=name
        )
    assert not np.isfinite(found[1][35 if part != "k" else 36 :]).all() or (
        part == "k" and wrong != NAN
    )
    assert np.isfinite(found[1][:35]).all()


# -- GELU


@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("form", ["tanh", "erf"])
def test_bug_77_gelu_has_its_slope_up_to_the_largest_number(form: str, on: bool) -> None:
    """x^2 overflows from 1.8e19 on; the slope is 0 or 1 there."""
    x = np.append(10.0 ** np.arange(1.5, 38.5, 0.25), 3.4e38).astype(np.float32)
    for sign in (1, -1):
        y, dx = run(lambda x: tensor.gelu(x, form), [sign * x], [np.ones_like(x)], on=on)
        np.testing.assert_array_equal(y, x if sign > 0 else np.zeros_like(x))
        np.testing.assert_array_equal(dx, np.full_like(x, sign > 0))
    y, dx = run(
        lambda x, w: tensor.linear_gelu(x, w),
        [x[:, None], np.ones((1, 1), np.float32)],
        [np.ones((len(x), 1), np.float32)],
        on=on,
    )[:2]
    np.testing.assert_array_equal(dx, np.ones_like(dx))


# -- flat arrays


def test_bug_41_adamw_of_extremes() -> None:
    """Every mixture of extreme weights, gradients and means."""
    values = [NAN, INF, -INF, 3e38, -3e38, 1e20, 1e-30, 1e-38, 1e-45, 0.0, 1.0]
    w, g, m, v = (
        a.ravel().astype(np.float32)
        for a in np.meshgrid(values, values, values, [abs(x) for x in values])
    )
    for t in (1, 5, 1000):
        for lr, keep in ((1e-3, 1.0), (3.0, 0.99)):
            numbers = {
                "b1": 0.9,
                "b2": 0.999,
                "step_size": lr / (1 - 0.9**t),
                "bias_correction": 1 / math.sqrt(1 - 0.999**t),
                "eps": 1e-8,
                "decay": keep,
            }
            ways = [[a.copy() for a in (w, g, m, v)] for _ in range(2)]
            for update, arrays in zip((KERNELS["adamw"][0].function, adamw), ways, strict=True):
                update(*arrays, **numbers)
            for a, b in zip(*ways, strict=True):
                np.testing.assert_array_equal(
                    np.where(np.isfinite(a), 0, a), np.where(np.isfinite(b), 0, b)
                )
                finite = np.isfinite(b)
                np.testing.assert_allclose(a[finite], b[finite], rtol=1e-5, atol=1e-44)


@pytest.mark.parametrize("steps", [0, 2, 5])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_bug_33_muon_of_extremes(which: int, steps: int) -> None:
    numbers = {"lr": 0.02, "momentum": 0.95, "nesterov": True, "steps": steps, "decay": 0.99}
    for value in HUGE + MILD:
        for place in (1, ...):
            ways = []
            for update in (KERNELS["muon"][0].function, muon):
                arrays = [draw(12, seed=i) for i in range(3)]
                arrays[which][place] = value
                if update is muon:
                    update(*(a.reshape(3, 4) for a in arrays), **numbers)
                else:
                    update(*arrays, np.array([(0, 3, 4)]), **numbers)
                ways.append([arrays[0], arrays[2]])
            assert_alike(*ways, f"{value} at {place}")


@pytest.mark.parametrize("on", [True, False])
def test_bug_43_a_norm_whose_squares_overflow(on: bool) -> None:
    """The sum is taken in float64 with kernels and without, so a gradient of 1e20 is clipped, not
    skipped.
    """
    x = Tensor([0.0, 0.0], requires_grad=True)
    x.grad = Tensor([3e20, 4e20])
    with kernels.off(*(() if not on else ("gelu",))):
        assert gradient_norm([x]) == pytest.approx(5e20)
        clip_gradients([x], 1.0)
        assert x.grad.tolist() == pytest.approx([0.6, 0.8])


def test_adamw_learns_from_extremes_as_its_reference_does() -> None:
    """Through the optimiser: gradients that are not finite reach their own elements only."""
    for on in (True, False):
        x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
        optimiser = optim.AdamW([x], lr=0.1)
        x.grad = Tensor([NAN, 0.0, 3e38])
        with kernels.off(*(() if not on else ("gelu",))):
            optimiser.step()
        assert math.isnan(x.tolist()[0])
        assert np.isfinite(x.tolist()[1:]).all()
