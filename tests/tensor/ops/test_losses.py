"""Losses: values by hand and against SciPy and PyTorch, what is ignored, what is smoothed, and
logits at the ends of the range.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, kernels
from tensor.errors import ArgumentError, DTypeError, GraphError, ShapeError
from tensor.memory.devices import Array

INF, NAN = math.inf, math.nan


def leaf(data: Any, device: str, dtype: str = "float64") -> Tensor:
    return Tensor(np.asarray(data), dtype=dtype, device=device, requires_grad=True)


def gradient(y: Tensor, x: Tensor, dy: Any = None) -> Array:
    given = None if dy is None else Tensor(np.asarray(dy), dtype=y.dtype, device=y.device)
    (dx,) = tensor.grad(y, x, given, retain_graph=True)
    assert dx is not None
    return dx.numpy().astype(np.float64)


def nats(row: Array, target: int, smoothing: float = 0.0) -> float:
    """The cross entropy of one row of logits with one target, by its definition: -sum q ln p."""
    largest = max(row)
    total = math.fsum(math.exp(v - largest) for v in row)
    log_p = [v - largest - math.log(total) for v in row]
    return -(1 - smoothing) * log_p[target] - smoothing * math.fsum(log_p) / len(row)


# -- cross entropy


@given(
    shape=st.lists(st.integers(1, 4), max_size=2), classes=st.integers(1, 6),
    ignored=st.sampled_from([None, -100, -1, 0]),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]), reduction=st.sampled_from(["none", "sum", "mean"]),
    seed=st.integers(0, 99),
)  # fmt: skip
@example(shape=[2], classes=3, ignored=None, smoothing=0.1, reduction="mean", seed=0)
def test_bug_38_cross_entropy_by_hand(
    shape: list[int],
    classes: int,
    ignored: int | None,
    smoothing: float,
    reduction: str,
    seed: int,
    device: str,
) -> None:
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 30, (*shape, classes)), rng.integers(0, classes, shape)
    if ignored is not None:
        targets = np.where(rng.random(shape) < 0.3, ignored, targets)
    used = targets != ignored if ignored is not None else np.ones(shape, bool)
    losses, slopes = np.zeros(shape), np.zeros((*shape, classes))
    for place in map(tuple, np.argwhere(used)):
        row, target = logits[place], int(targets[place])
        losses[place] = nats(row, target, smoothing)
        slopes[place] = [
            math.exp(-nats(row, j)) - smoothing / classes - (1 - smoothing) * (j == target)
            for j in range(classes)
        ]
    count = max(used.sum(), 1) if reduction == "mean" else 1
    exact = losses if reduction == "none" else losses.sum() / count

    x = leaf(logits, device)
    y = tensor.cross_entropy(
        x, targets, ignore_index=ignored, label_smoothing=smoothing, reduction=reduction
    )
    assert y.shape == np.shape(exact)
    assert np.allclose(y.numpy(), exact, rtol=1e-12, atol=1e-12)
    dy = rng.standard_normal(y.shape)
    dx = gradient(y, x, dy)
    assert np.allclose(dx, slopes * np.asarray(dy)[..., None] / count, rtol=1e-11, atol=1e-14)
    assert np.allclose(dx.sum(-1), 0, atol=1e-13)  # a constant added to a row changes nothing
    assert not dx[~used].any()


@pytest.mark.parametrize("dtype", ["int64", "int32", "int8", "uint8", "uint64"])
def test_bug_38_targets_of_any_integer_dtype(dtype: str, device: str) -> None:
    logits = np.random.default_rng(0).standard_normal((3, 5))
    exact = np.mean([nats(row, t) for row, t in zip(logits, (4, 0, 2), strict=True)])
    x, targets = leaf(logits, device), np.array([4, 0, 2], dtype)
    for given_targets in (targets, Tensor(targets, device=device), [4, 0, 2]):
        assert np.isclose(tensor.cross_entropy(x, given_targets).item(), exact, rtol=1e-14)
    assert np.isclose(tensor.cross_entropy(x, targets, ignore_index=-100).item(), exact, rtol=1e-14)


def test_bug_38_many_classes(device: str) -> None:
    """Targets beyond 255 and 65,535, of any dtype that holds them."""
    x = leaf(np.arange(70_000.0)[None] / 1e4 % 3, device)
    for target, dtypes in (
        (69_999, ("int64", "int32", "uint32")),
        (40_000, ("uint16", "int64")),
        (200, ("uint8", "int16")),
    ):
        for dtype in dtypes:
            y = tensor.cross_entropy(x, np.array([target], dtype))
            assert np.isclose(y.item(), nats(x.numpy()[0], target), rtol=1e-12)
            assert gradient(y, x).argmin() == target


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_bug_38_large_logits(dtype: str, device: str) -> None:
    """A loss as large as a difference of logits, and a probability of 1, without overflow."""
    x = leaf([[1e4, -1e4, 0], [1e4, -1e4, 0]], device, dtype)
    top = x.numpy().astype(np.float64)[0, 0]
    y = tensor.cross_entropy(x, [0, 1], reduction="none")
    assert y.tolist() == [0, Tensor(np.array(2 * top), dtype=dtype).item()]
    assert gradient(y, x, [1, 1]).tolist() == [[0, 0, 0], [1, -1, 0]]


def test_bug_38_confident_rows_keep_their_loss(device: str) -> None:
    """ln(1 + e^-30) = 9e-14 has three digits left next to the 1 it is added to; its gradient has
    all of them.
    """
    y = tensor.cross_entropy(leaf([[30.0, 0.0]], device), [0])
    assert y.item() == pytest.approx(math.log1p(math.exp(-30)), rel=1e-2)
    assert gradient(tensor.cross_entropy(x := leaf([[30.0, 0.0]], device), [0]), x)[
        0, 1
    ] == pytest.approx(math.exp(-30), rel=1e-12)


def test_logsumexp_and_cross_entropy_against_scipy(device: str) -> None:
    special = pytest.importorskip("scipy.special")
    x = np.random.default_rng(0).normal(0, 200, (4, 5, 6))
    for axis in (-1, 0, (0, 2), None):
        for keepdims in (False, True):
            assert np.allclose(
                Tensor(x, device=device).logsumexp(axis, keepdims).numpy(),
                special.logsumexp(x, axis=axis, keepdims=keepdims),
                rtol=1e-14,
            )
    assert np.allclose(
        Tensor(x, device=device).log_softmax(1).numpy(), special.log_softmax(x, axis=1), rtol=1e-13
    )
    targets = np.random.default_rng(1).integers(0, 6, (4, 5))
    exact = -np.take_along_axis(special.log_softmax(x, axis=-1), targets[..., None], -1).mean()
    assert np.isclose(
        tensor.cross_entropy(Tensor(x, device=device), targets).item(), exact, rtol=1e-14
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_the_loss_of_a_product_is_float32_at_least(dtype: str, device: str) -> None:
    rng = np.random.default_rng(0)
    x, w = (
        Tensor(rng.standard_normal(shape), dtype=dtype, device=device, requires_grad=True)
        for shape in ((40, 8), (8, 30))
    )
    targets = Tensor(rng.integers(0, 30, 40), device=device)
    loss = tensor.linear_cross_entropy(x, w, targets)
    loss.backward()
    assert loss.dtype == tensor.float32
    assert {str(leaf.grad.dtype) for leaf in (x, w) if leaf.grad is not None} == {dtype}
    logits = tensor.linear(x, w).to("float32")
    assert loss.item() == pytest.approx(tensor.cross_entropy(logits, targets).item(), rel=1e-6)


def test_bug_39_mean_over_what_is_not_ignored(device: str) -> None:
    logits = np.random.default_rng(0).standard_normal((2, 3, 4))
    x, targets = leaf(logits, device), np.array([[1, -1, -1], [-1, 3, 0]])
    exact = (nats(logits[0, 0], 1) + nats(logits[1, 1], 3) + nats(logits[1, 2], 0)) / 3
    y = tensor.cross_entropy(x, targets, ignore_index=-1)
    assert np.isclose(y.item(), exact, rtol=1e-14)
    kept = leaf(logits[targets >= 0], device)
    assert np.allclose(
        gradient(y, x)[targets >= 0],
        gradient(tensor.cross_entropy(kept, [1, 3, 0]), kept),
        rtol=1e-14,
    )
    assert not gradient(y, x)[targets < 0].any()


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bug_39_all_ignored(smoothing: float, reduction: str, device: str) -> None:
    x = leaf([[1.0, 2.0], [NAN, -INF]], device)
    y = tensor.cross_entropy(
        x, [7, 7], ignore_index=7, label_smoothing=smoothing, reduction=reduction
    )
    assert not y.numpy().any()
    assert not gradient(y, x, np.full(y.shape, 3.0)).any()


@pytest.mark.parametrize("bad", [-INF, INF, NAN])
def test_bug_39_anything_may_stand_in_an_ignored_row(bad: float, device: str) -> None:
    x = leaf([[1.0, 2.0, 0.5], [bad, bad, bad], [bad, 1.0, 0.0]], device)
    y = tensor.cross_entropy(x, [1, 0, 0], ignore_index=0)
    assert np.isclose(y.item(), nats(np.array([1.0, 2.0, 0.5]), 1), rtol=1e-14)
    dx = gradient(y, x)
    assert np.isfinite(dx).all()
    assert not dx[1:].any()


def test_masked_classes(device: str) -> None:
    """A logit of -inf is a class of probability 0: as a target it costs inf, elsewhere nothing; no
    NaN either way.
    """
    x = leaf([[1.0, -INF, 0.0]], device)
    assert np.isclose(tensor.cross_entropy(x, [0]).item(), math.log1p(math.exp(-1)), rtol=1e-14)
    assert gradient(tensor.cross_entropy(x, [0]), x)[0, 1] == 0
    assert tensor.cross_entropy(x, [1]).item() == INF
    assert gradient(tensor.cross_entropy(x, [1]), x)[0, 1] == -1
    # smoothing asks a third of 0.1 of that class too
    assert tensor.cross_entropy(x, [0], label_smoothing=0.1).item() == INF


def test_cross_entropy_of_nothing(device: str) -> None:
    x = leaf(np.zeros((0, 3)), device)
    y = tensor.cross_entropy(x, np.zeros(0, np.int64))
    assert y.item() == 0
    assert gradient(y, x).shape == (0, 3)
    for shape in ((2, 0), (0, 0)):
        with pytest.raises(ShapeError, match="at least one class"):
            tensor.cross_entropy(np.zeros(shape, np.float32), np.zeros(shape[0], np.int64))


def test_no_target_is_an_ignore_index_beyond_64_bits() -> None:
    x = Tensor([[0.0, 2.0], [1.0, 0.0]])
    for ignored in (2**64, -(2**70)):  # whose last 64 bits are 0
        y = tensor.cross_entropy(x, Tensor([0, 1]), ignore_index=ignored)
        assert y.item() == tensor.cross_entropy(x, [0, 1]).item()


def test_cross_entropy_says_what_is_wrong(device: str) -> None:
    x = leaf(np.zeros((2, 3)), device)
    with pytest.raises(
        DTypeError, match=r"targets must be integers, not float32 \(2,\); or probabilities \(2, 3\)"
    ):
        tensor.cross_entropy(x, [0.0, 1.0])
    with pytest.raises(ShapeError, match=r"logits \(2, 3\) needs targets \(2,\), not \(3,\)"):
        tensor.cross_entropy(x, [0, 1, 2])
    with pytest.raises(ShapeError):
        tensor.cross_entropy(x, [[0, 1]])
    with pytest.raises(ValueError, match="reduction is 'mean', 'sum' or 'none', not 'avg'"):
        tensor.cross_entropy(x, [0, 1], reduction="avg")
    with pytest.raises(ValueError, match=r"label_smoothing=1\.5: a share between 0 and 1"):
        tensor.cross_entropy(x, [0, 1], label_smoothing=1.5)
    with pytest.raises(ShapeError, match=r"weight \(2,\): one for each class, \(3,\)"):
        tensor.cross_entropy(x, [0, 1], weight=[1.0, 2.0])
    with pytest.raises(ValueError, match="ignore_index is for integers, not for probabilities"):
        tensor.cross_entropy(x, np.full((2, 3), 1 / 3), ignore_index=0)
    for ignored in (1.0, "a", [1]):  # with kernels and without
        for place in (nullcontext(), kernels.off()):
            with place, pytest.raises(ArgumentError, match="takes ignore_index as an integer or"):
                tensor.cross_entropy(x.to("float32"), [0, 1], ignore_index=ignored)
    with pytest.raises(GraphError, match="option 'weight' of `cross_entropy` is a constant"):
        tensor.cross_entropy(x, [0, 1], weight=leaf([1.0, 2.0, 3.0], device) * 2)
    if device == "cpu":  # on a GPU looking would stop the stream
        for target in (3, -1):
            with pytest.raises(IndexError, match=f"target {target}, outside 0 to 2"):
                tensor.cross_entropy(x, [0, target])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("scale", [1, 1e4])
def test_cross_entropy_against_pytorch(
    scale: float, reduction: str, smoothing: float, device: str
) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, scale, (6, 5)), rng.integers(0, 5, 6)
    targets[2] = -100
    x, z = leaf(logits, device), torch.tensor(logits, requires_grad=True)
    y = tensor.cross_entropy(
        x, targets, ignore_index=-100, label_smoothing=smoothing, reduction=reduction
    )
    w = torch.nn.functional.cross_entropy(
        z, torch.tensor(targets), label_smoothing=smoothing, reduction=reduction
    )
    assert np.allclose(y.numpy(), w.detach().numpy(), rtol=1e-13)
    dy = rng.standard_normal(y.shape)
    w.backward(torch.tensor(dy))
    assert np.allclose(gradient(y, x, dy), z.grad.numpy(), rtol=1e-12, atol=1e-14)


# -- squared error and binary cross entropy


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_squared_error_and_binary_cross_entropy_against_pytorch(
    reduction: str, device: str
) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 20, (4, 5)), rng.random((4, 5))
    pairs = {
        "l1_loss": torch.nn.functional.l1_loss,
        "mean_squared_error": torch.nn.functional.mse_loss,
        "binary_cross_entropy": torch.nn.functional.binary_cross_entropy,
        "binary_cross_entropy_with_logits": (torch.nn.functional.binary_cross_entropy_with_logits),
    }
    for name, theirs in pairs.items():
        given = 1 / (1 + np.exp(-a / 8)) if name == "binary_cross_entropy" else a
        x, t = leaf(given, device), leaf(b, device)
        z, u = torch.tensor(given, requires_grad=True), torch.tensor(b, requires_grad=True)
        y, w = getattr(tensor, name)(x, t, reduction=reduction), theirs(z, u, reduction=reduction)
        assert np.allclose(y.numpy(), w.detach().numpy(), rtol=1e-13)
        dy = rng.standard_normal(y.shape)
        w.backward(torch.tensor(dy))
        assert np.allclose(gradient(y, x, dy), z.grad.numpy(), rtol=1e-12)
        assert np.allclose(gradient(y, t, dy), u.grad.numpy(), rtol=1e-12)


def test_binary_cross_entropy_takes_probabilities(device: str) -> None:
    loss = tensor.binary_cross_entropy(leaf([0.9], device), [1.0])
    assert math.isclose(loss.item(), -math.log(0.9))
    with pytest.raises(ValueError, match=r"lie in .* binary_cross_entropy_with_logits"):
        tensor.binary_cross_entropy(leaf([1.5], device), [1.0])
    x = leaf([0.0, 1.0, 0.0, 1.0], device)
    y = tensor.binary_cross_entropy(x, [0.0, 1.0, 1.0, 0.0], reduction="none")
    assert y.tolist() == [0, 0, 100, 100]
    assert gradient(y, x, np.ones(4)).tolist() == [0, 0, -1e12, 1e12]


def test_binary_cross_entropy_with_logits_at_the_ends(device: str) -> None:
    x = leaf([1e4, 1e4, -1e4, -1e4, 0.0], device)
    y = tensor.binary_cross_entropy_with_logits(x, [1.0, 0.0, 1.0, 0.0, 0.5], reduction="none")
    assert np.allclose(y.numpy(), [0, 1e4, 1e4, 0, math.log(2)], rtol=1e-14)
    assert gradient(y, x, np.ones(5)).tolist() == [0, 1, -1, 0, 0]


def test_losses_broadcast_nothing(device: str) -> None:
    """(4, 1) against (4,) would silently become the mean of 16 differences."""
    a, b = leaf(np.zeros((4, 1)), device), leaf(np.zeros(4), device)
    for loss in (
        tensor.mean_squared_error,
        tensor.binary_cross_entropy,
        tensor.binary_cross_entropy_with_logits,
    ):
        with pytest.raises(ShapeError, match=r"\(4, 1\) and \(4,\): the shapes must be equal"):
            loss(a, b)
        with pytest.raises(ValueError, match="reduction"):
            loss(b, b, reduction="average")
