"""Kernels beside their references: GELU on the CPU, LayerNorm on a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.memory.devices import Array, to_host
from tests.tensor.kernels.test_kernels import needs_compiled_kernels, row


def both_ways(
    name: str, inputs: list[Array], options: dict[str, Any], device: str
) -> list[tuple[list[Array], str]]:
    """[values and gradients, what was taken], with the kernel and without."""
    results = []
    for switch in (nullcontext(), kernels.off(name)):
        xs = [Tensor(x, device=device, requires_grad=True) for x in inputs]
        with switch:
            y = getattr(tensor, name)(*xs, **options)
        taken = row(name)[1]
        dy = np.random.default_rng(5).standard_normal(y.shape)
        dxs = tensor.grad(y, xs, Tensor(dy, dtype=y.dtype, device=device))
        results.append(([x.numpy().astype(np.float64) for x in (y, *dxs) if x is not None], taken))
    return results


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("scale", [1, 30])
@pytest.mark.parametrize("shape", [(7,), (3, 5), (2, 0), ()])
def test_gelu_kernel_equals_its_reference(
    shape: tuple[int, ...], scale: float, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_compiled_kernels()
    monkeypatch.setattr(kernels, "_DISABLED", False)
    x = (scale * np.random.default_rng(0).standard_normal(shape)).astype(dtype)
    (with_kernel, taken), (reference, other) = both_ways("gelu", [x], {}, "cpu")
    assert (taken, other) == (
        "gelu_without_tanh" if x.size and dtype == "float32" else "reference",
        "reference",
    )
    for found, exact in zip(with_kernel, reference, strict=True):
        assert np.allclose(
            found,
            exact,
            rtol=0,
            atol=4 * np.finfo(dtype).eps * max(1, np.abs(exact).max(initial=0)),
        )


def test_gelu_kernel_says_what_it_does_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_DISABLED", False)
    Tensor([1.0]).gelu("erf")
    assert row("gelu") == ["gelu", "reference", "form 'erf': only the tanh form has a short cut"]
    for dtype in ("bfloat16", "float64"):
        Tensor([1.0], dtype=dtype).gelu()
        assert row("gelu") == ["gelu", "reference", f"dtype {dtype}"]
    tensor.zeros(2, 0).gelu()
    assert row("gelu") == ["gelu", "reference", "no elements"]


def test_gelu_kernel_far_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_DISABLED", False)
    for dtype in ("float32", "float64"):
        x = Tensor([-1e4, -100.0, 100.0, 1e4], dtype=dtype, requires_grad=True)
        y = x.gelu()
        assert y.tolist() == [0, 0, 100, 1e4]
        (dx,) = tensor.grad(y, x, np.ones(4, dtype))
        assert dx is not None
        assert dx.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(4,), (3, 5), (2, 3, 64), (300, 96), (2, 1025)])
def test_layer_norm_kernel_equals_its_reference(
    shape: tuple[int, ...], dtype: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if device == "cpu":
        pytest.skip("its kernel is for a GPU")
    monkeypatch.setattr(kernels, "_DISABLED", False)
    rng = np.random.default_rng(0)
    inputs = [
        to_host(Tensor(x, dtype=dtype).array)
        for x in (
            3 + rng.standard_normal(shape),
            rng.standard_normal(shape[-1]),
            rng.standard_normal(shape[-1]),
        )
    ]
    (with_kernel, taken), (reference, other) = both_ways("layer_norm", inputs, {}, device)
    assert (taken, other) == ("layer_norm_in_registers", "reference")
    unit = {"float64": 1e-12, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.6e-2}[dtype]
    for found, exact in zip(with_kernel, reference, strict=True):
        assert np.abs(found - exact).max() <= unit * max(1, np.abs(exact).max())
