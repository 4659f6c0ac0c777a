"""The bounds of benchmarks/edge.py, on a coarser grid; and gradients of 0 at values that are not
finite.
"""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, kernels, ops
from tensor.gradient_cases import WITHOUT_GRADIENT
from tests.helpers.kernel_runs import compiled_kernels

__all__ = ["compiled_kernels"]
sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))
EDGE: Any = importlib.import_module("edge")
ELEMENTWISE: dict[str, Any] = {**EDGE.FUNCTIONS, **EDGE.OPERATIONS}
# their gradients are dy or 0
CHOICES = {"where", "masked_fill"}


@pytest.mark.usefixtures("compiled_kernels")
@pytest.mark.parametrize("name", [*ELEMENTWISE, *EDGE.SUMS])
def test_bug_77_errors_over_the_whole_range_of_floats(name: str) -> None:
    for *line, fits in EDGE.rows([name], coarseness=16):
        assert fits, line


def test_every_elementwise_op_is_in_the_table() -> None:
    files = ("tensor.ops.elementwise", "tensor.ops.activations")
    of_elements = {
        name
        for name, op in ops.OPS.items()
        if op.reference.__module__ in files and name not in WITHOUT_GRADIENT | CHOICES
    }
    measured = {name.split(",")[0] for name in ELEMENTWISE}
    assert of_elements <= measured, of_elements - measured


@pytest.mark.usefixtures("compiled_kernels")
@pytest.mark.parametrize("on", [True, False])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_bug_76_a_branch_not_taken_gets_no_gradient(name: str, on: bool) -> None:
    """Whatever the values are, also where there are many, and in 16 bits. Backward, which the
    user did not write, sets no warning off.
    """
    values = [math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 3e38, 1e-45]
    call: Callable[..., Any] = ELEMENTWISE[name][0]
    arrays = [np.array(values * 4)]
    if name in EDGE.OPERATIONS:
        arrays = [a.ravel() for a in np.meshgrid(values, values)]
    for dtype in ("float32", "float64", "bfloat16"):
        xs = [Tensor(x, dtype=dtype, requires_grad=True) for x in arrays]
        with np.errstate(all="ignore"), kernels.off(*(() if not on else ("random_bits",))):
            y = tensor.where(np.zeros(arrays[0].shape, bool), call(*xs), 0.0)
            with np.errstate(divide="raise", invalid="raise"):
                gradients = grad(y, xs, tensor.ones(y.shape, dtype=dtype))
        for dx in gradients:
            assert not dx.numpy().any()


def test_bug_76_the_entropy_of_probabilities_of_zero() -> None:
    p = Tensor([0.0, 0.5, math.nan], requires_grad=True)
    with np.errstate(all="ignore"):
        tensor.where(p > 0, p * p.log(), 0.0).sum().backward()
    np.testing.assert_allclose(p.grad.numpy(), [0, 1 + math.log(0.5), 0], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bug_77_the_tail_of_the_exact_gelu(dtype: str) -> None:
    x = np.linspace(-36 if dtype == "float64" else -12.9, 36, 4001).astype(dtype)
    exact = np.array([v / 2 * math.erfc(-v / math.sqrt(2)) for v in x.astype(float)])
    y = tensor.gelu(Tensor(x), form="erf").numpy()
    assert y.dtype == dtype
    # the exponent x^2 / 2 has the error of a rounded x^2
    np.testing.assert_allclose(y, exact, rtol=5e-13 if dtype == "float64" else 2e-7, atol=0)


# -- sums


def test_bug_77_sums_that_overflow_on_the_way() -> None:
    x = Tensor([[3e38, 3e38, -3e38], [1.0, 2.0, 3.0]])
    assert x.sum(1).tolist() == pytest.approx([3e38, 6])
    assert x.mean(1).tolist() == pytest.approx([1e38, 2])
    assert x.sum().tolist() == pytest.approx(3e38)
    assert Tensor([3e38, 3e38]).sum().item() == math.inf
    assert math.isnan(Tensor([math.inf, -math.inf]).sum().item())
    assert not isinstance(Tensor([1, 2]).sum().item(), float)


@pytest.mark.parametrize("scale", [1e-38, 1e-30, 1e-20, 1.0, 1e20, 1e37])
def test_bug_77_spread_at_every_scale(scale: float) -> None:
    x = np.array([[1.0, 2.0, 4.0, 8.0]], np.float32) * np.float32(scale)
    y = Tensor(x, requires_grad=True)
    std = y.std(-1)
    std.sum().backward()
    exact = x.astype(float)
    np.testing.assert_allclose(std.numpy(), exact.std(-1), rtol=1e-6)
    slope = (exact - exact.mean()) / (4 * exact.std())
    np.testing.assert_allclose(y.grad.numpy(), slope, rtol=1e-5)
    assert y.std(-1).dtype == tensor.float32
    assert y.grad.dtype == tensor.float32
    assert not tensor.full((3,), scale).std().item()


@pytest.mark.parametrize("on", [True, False])
def test_bug_77_layer_norm_of_one_number_and_of_tiny_ones(on: bool) -> None:
    """A number alone is its mean; without eps the scale does not count."""
    rng = np.random.default_rng(0)
    with kernels.off(*(() if not on else ("random_bits",))):
        x = Tensor(rng.standard_normal((50, 1)).astype(np.float32), requires_grad=True)
        y = tensor.layer_norm(x, Tensor([1.7]), Tensor([0.3]))
        (y * Tensor(rng.standard_normal((50, 1)).astype(np.float32))).sum().backward()
        assert (y.numpy() == np.float32(0.3)).all()
        assert not x.grad.numpy().any()
        row, one, zero = np.array([[1.0, 2, 4]], np.float32), tensor.ones(3), tensor.zeros(3)
        large, small = (
            tensor.layer_norm(Tensor(row * np.float32(s)), one, zero, eps=0.0).numpy()
            for s in (1, 1e-30)
        )
        np.testing.assert_allclose(small, large, rtol=1e-6)


@pytest.mark.parametrize("on", [True, False])
def test_bug_77_attention_of_scores_beyond_float32(on: bool) -> None:
    """The largest score has all the weight."""
    q, v = np.full((3, 4), 1e30, np.float32), np.eye(3, 4, dtype=np.float32)
    k = np.array([[1.0], [3.0], [2.0]], np.float32) * np.float32(1e30) * np.ones(4, np.float32)
    leaves = [Tensor(x, requires_grad=True) for x in (q, k, v)]
    with kernels.off(*(() if not on else ("random_bits",))):
        for causal, seen in ((False, [1, 1, 1]), (True, [0, 1, 1])):
            y = tensor.attention(*leaves, causal=causal)
            np.testing.assert_array_equal(y.numpy(), v[seen])
            for dx in grad(y.sum(), leaves):
                assert dx is not None
                assert np.isfinite(dx.numpy()).all()
                assert dx.dtype == tensor.float32


def test_bug_33_log_softmax_of_nothing_but_minus_infinity() -> None:
    """The logarithm of softmax's zeros, and no gradient."""
    x = Tensor([[-math.inf, -math.inf], [0.0, -math.inf]], requires_grad=True)
    y = tensor.log_softmax(x)
    assert y.tolist() == [[-math.inf, -math.inf], [0, -math.inf]]
    (dx,) = grad(y, x, Tensor([[1.0, 2.0], [1.0, 2.0]]))
    assert dx.tolist() == [[0, 0], [-2, 2]]
