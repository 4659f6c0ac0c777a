"""Products on the GPU: every layout against float64, and linear layers against their references."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.dtypes import as_dtype
from tensor.kernels.cuda.products import product, product_over_rows
from tensor.memory.devices import array_module

# the rounding of a result, relative to the sum of the products' sizes
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-22, "float64": 2.0**-50}
SIZES = [(64, 32, 48), (7, 5, 3), (1, 64, 65), (33, 1, 17), (130, 257, 1), (1, 1, 1), (4, 0, 3)]


@pytest.fixture
def xp(gpu: str) -> Any:
    """CuPy."""
    return array_module(gpu)


def drawn(xp: Any, shape: tuple[int, ...], dtype: str, transposed: bool) -> Any:
    """Normal numbers, of that shape; row-major, or the transpose of a row-major array."""
    rng = np.random.default_rng(sum(shape))
    given = (*shape[:-2], shape[-1], shape[-2]) if transposed else shape
    x = xp.asarray(rng.standard_normal(given)).astype(as_dtype(dtype))
    return x.swapaxes(-1, -2) if transposed else x


def assert_close(y: Any, exact: Any, scale: Any, dtype: str) -> None:
    """Within a rounding of the sums' sizes; below 1e-5 a 16-bit float has fewer digits."""
    assert y.shape == exact.shape
    bound = ROUNDING[dtype] * (scale + abs(exact)) + (1e-7 if dtype == "float16" else 0)
    assert (abs(y.astype("float64") - exact) <= bound).all()


@pytest.mark.parametrize("dtype", list(ROUNDING))
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)], ids=str)
def test_products_of_every_layout(dtype: str, lead: tuple[int, ...], xp: Any) -> None:
    wide = "float64" if dtype == "float64" else "float32"
    for (m, k, n), ta, tb in itertools.product(SIZES, (False, True), (False, True)):
        a, b = drawn(xp, (*lead, m, k), dtype, ta), drawn(xp, (*lead, k, n), dtype, tb)
        exact, scale = (f(a.astype("float64")) @ f(b.astype("float64")) for f in (lambda x: x, abs))
        assert_close(product(a, b), exact, scale, dtype)
        sums = xp.full(exact.shape, 3.0, wide)
        assert_close(product(a, b, sums, add=True), exact + 3, scale, wide)
        if dtype != "float64":
            bias = drawn(xp, (1, n), dtype, False)[0]
            assert_close(product(a, b, bias=bias), exact + bias.astype("float64"), scale, dtype)


def test_products_of_slices_and_repeated_matrices(xp: Any) -> None:
    x, w = drawn(xp, (64, 96), "bfloat16", False), drawn(xp, (32, 40), "bfloat16", False)
    stack = xp.broadcast_to(w, (3, 32, 40))
    for a, b in ((x[:, 32:64], w), (x[::2, :32], w), (x[:, ::3], w), (x[::-1, 1:33], w)):
        exact, scale = (f(a.astype("float64")) @ f(b.astype("float64")) for f in (lambda x: x, abs))
        assert_close(product(a, b), exact, scale, "bfloat16")
    rows = drawn(xp, (3, 8, 32), "bfloat16", False)
    exact = rows.astype("float64") @ stack.astype("float64")
    assert_close(product(rows, stack), exact, abs(exact) + 30, "bfloat16")


@pytest.mark.parametrize("lead", [(), (5,), (2, 3), (2, 3, 4)], ids=str)
def test_products_of_rows_and_over_rows(lead: tuple[int, ...], xp: Any) -> None:
    for inputs, outputs in ((6, 7), (1, 3), (64, 48)):
        x, dy = (drawn(xp, (*lead, n), "float32", False) for n in (inputs, outputs))
        w = drawn(xp, (inputs, outputs), "float32", False)
        wide_x, wide_dy, wide_w = (a.astype("float64") for a in (x, dy, w))
        assert_close(product(x, w), wide_x @ wide_w, 100, "float32")
        assert_close(product(dy, w.T), wide_dy @ wide_w.T, 100, "float32")
        rows = wide_dy.reshape(-1, outputs)
        exact = wide_x.reshape(-1, inputs).T @ rows
        added = xp.ones((inputs, outputs), "float32")
        assert_close(product_over_rows(x, dy), exact, 100, "float32")
        assert_close(product_over_rows(x, dy, added, add=True), exact + 1, 100, "float32")


def test_tf32_rounds_operands_and_is_off_otherwise(xp: Any) -> None:
    a, b = drawn(xp, (256, 512), "float32", False), drawn(xp, (512, 256), "float32", True)
    exact = a.astype("float64") @ b.astype("float64")

    def error() -> float:
        return float(abs(product(a, b) - exact).max() / abs(exact).max())

    assert error() < 1e-6
    with kernels.tf32():
        assert 1e-5 < error() < 1e-3
    assert error() < 1e-6


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ["linear", "transposed", "linear_gelu"])
def test_linear_layers_against_float64(name: str, biased: bool, dtype: str, xp: Any) -> None:
    rng = np.random.default_rng(5)
    shapes = [(3, 5, 24), (40, 24) if name == "transposed" else (24, 40), (40,), (3, 5, 40)]
    x, weight, bias, dy = (rng.standard_normal(shape) for shape in shapes)

    def gradients(dtype: str, device: str) -> list[Any]:
        inputs = [Tensor(a, dtype=dtype, device=device) for a in (x, weight, bias)[: 2 + biased]]
        inputs = [Tensor(a.array, requires_grad=True) for a in inputs]
        if name == "linear_gelu":
            y = tensor.linear_gelu(*inputs)
        else:
            y = tensor.linear(*inputs, transposed=name == "transposed")
        y.backward(Tensor(dy, dtype=dtype, device=device))
        taken = kernels.latest(name if name == "linear_gelu" else "linear")
        assert device == "cpu" or taken[0].endswith("by_products")
        return [y.numpy(), *(a.grad.numpy() for a in inputs)]

    def rounded(a: Any) -> Any:
        return Tensor(a, dtype=dtype).to("float64").numpy()

    x, weight, bias, dy = map(rounded, (x, weight, bias, dy))
    for ours, exact in zip(gradients(dtype, "cuda"), gradients("float64", "cpu"), strict=True):
        error = np.linalg.norm(ours.astype(np.float64) - exact) / np.linalg.norm(exact)
        assert error < 2 * ROUNDING[dtype] + 1e-6


def test_a_shared_weight_gets_the_sum_in_its_buffer(xp: Any) -> None:
    layer = tensor.nn.Linear(16, 16)
    layer.to(dtype="bfloat16", device="cuda")
    layer.pack()
    x = tensor.randn(8, 16, device="cuda").to("bfloat16")
    layer(layer(x)).sum().backward()
    both = layer.weight.grad.numpy().astype(np.float32)
    w, b = layer.weight.numpy().astype(np.float32), layer.bias.numpy().astype(np.float32)
    weight = Tensor(w, requires_grad=True)
    h = tensor.linear(Tensor(x.numpy().astype(np.float32)), weight, Tensor(b))
    tensor.linear(h, weight, Tensor(b)).sum().backward()
    assert weight.grad is not None
    exact = weight.grad.numpy()
    assert np.linalg.norm(both - exact) / np.linalg.norm(exact) < 2.0**-7
