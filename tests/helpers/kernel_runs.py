"""Ops run three ways, to judge a kernel: in float32 with it, in float32 without, and in float64,
which is taken for the truth.

A kernel may be off by twice what its reference is off by, as the root of the mean square, and by
one unit in the last place of the largest
value; in no element by eight times the reference's largest error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.kernels.cpu import compiled

Array = Any
Call = Callable[..., Any]


@pytest.fixture
def compiled_kernels(device: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The C functions, and three threads, so that work is shared out on any machine."""
    if device != "cpu":
        pytest.skip("these kernels are for the CPU")
    if compiled.unavailable():
        pytest.skip(f"no compiled kernels: {compiled.unavailable()}")
    if kernels.disabled():
        pytest.skip("TENSOR_KERNELS turns kernels off")
    monkeypatch.setattr(kernels, "_last", {})
    compiled.library.set_threads(3)
    yield compiled.library
    compiled.library.set_threads(compiled.thread_count())


def taken(name: str) -> tuple[str, str]:
    """What the latest call of an op took, and why."""
    return kernels._last[name]


def draw(*shape: int, seed: int = 0) -> Array:
    """Normal numbers in float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def run(
    call: Call, inputs: Sequence[Array], dtype: str, *, on: bool, use: Sequence[bool] | None = None
) -> list[Array]:
    """Outputs and then gradients, as float64 arrays; `use`: which outputs anything goes on with, by
    default all. Upstream gradients are random.
    """
    xs = [Tensor(x, dtype=dtype, requires_grad=True) for x in inputs]
    with nullcontext() if on else kernels.off():
        ys = call(*xs)
        ys = ys if isinstance(ys, tuple) else (ys,)
        used = [y for i, y in enumerate(ys) if use is None or use[i]]
        dys = [Tensor(draw(*y.shape, seed=100 + i), dtype=dtype) for i, y in enumerate(used)]
        dxs = tensor.grad(used, xs, dys)
    return [
        np.zeros(x.shape) if y is None else y.numpy().astype(np.float64)
        for x, y in zip([*ys, *xs], [*ys, *dxs], strict=True)
    ]


def judge(found: Array, reference: Array, exact: Array, what: Any = "", terms: float = 0) -> None:
    """Raise AssertionError when a float32 result is off by more than said above. `terms`: how large
    the terms of a sum are that cancel, if larger.
    """
    found, reference, exact = (np.asarray(x, dtype=np.float64) for x in (found, reference, exact))
    assert found.shape == exact.shape, what
    if not exact.size:
        return
    ulp = float(np.spacing(np.float32(max(np.abs(exact).max(), terms))))
    error, usual = np.abs(found - exact), np.abs(reference - exact)
    for name, size, factor in (
        ("largest", np.max, 8),
        ("root mean square", lambda x: np.sqrt(np.mean(x * x)), 2),
    ):
        assert size(error) <= factor * size(usual) + ulp, (
            f"{what}: {name} error {size(error):.3g}; "
            f"the reference's {size(usual):.3g}, an ulp is {ulp:.3g}"
        )


def compare(
    name: str,
    call: Call,
    inputs: Sequence[Array],
    use: Sequence[bool] | None = None,
    terms: float = 0,
) -> None:
    """Judge every output and gradient of an op that must go through its kernel."""
    found = run(call, inputs, "float32", on=True, use=use)
    assert taken(name)[1] == "cpu kernel"
    reference, exact = (
        run(call, inputs, dtype, on=False, use=use) for dtype in ("float32", "float64")
    )
    for i, (f, r, e) in enumerate(zip(found, reference, exact, strict=True)):
        judge(f, r, e, f"{name}, result {i}", terms)
