"""The bounds of benchmarks/edge.py, on a coarser grid; and gradients of 0 at values that are not
finite.
"""

from __future__ import annotations

import math
import runpy
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
EDGE = runpy.run_path(str(Path(__file__).parents[3] / "benchmarks" / "edge.py"), run_name="edge")
ELEMENTWISE: dict[str, Any] = {**EDGE["FUNCTIONS"], **EDGE["OPERATIONS"]}
# their gradients are dy or 0
CHOICES = {"where", "masked_fill"}


@pytest.mark.usefixtures("compiled_kernels")
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_bug_77_errors_over_the_whole_range_of_floats(name: str) -> None:
    for *line, fits in EDGE["rows"]([name], coarseness=16):
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
    """Whatever the values are, also where there are many, and in 16 bits."""
    values = [math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 3e38, 1e-45]
    call: Callable[..., Any] = ELEMENTWISE[name][0]
    arrays = [np.array(values * 4)]
    if name in EDGE["OPERATIONS"]:
        arrays = [a.ravel() for a in np.meshgrid(values, values)]
    for dtype in ("float32", "float64", "bfloat16"):
        xs = [Tensor(x, dtype=dtype, requires_grad=True) for x in arrays]
        with np.errstate(all="ignore"), kernels.off(*(() if not on else ("random_bits",))):
            y = tensor.where(np.zeros(arrays[0].shape, bool), call(*xs), 0.0)
            for dx in grad(y, xs, tensor.ones(y.shape, dtype=dtype)):
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
