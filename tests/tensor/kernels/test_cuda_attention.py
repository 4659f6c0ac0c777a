"""Attention by cuDNN: on a GPU against float64; without one, what cuDNN is told, by a stand-in that
does the same in NumPy at the same addresses.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.errors import MutationError
from tensor.kept_inputs import KEPT_INPUTS
from tensor.kernels.cuda import cudnn, launch
from tensor.kernels.cuda.attention import by_cudnn as attention
from tensor.ops.op import reference_of
from tests.helpers.without_cudnn import CUDNN, CUPY, UnsupportedError, on_gpu

Array = Any
BF16 = ml_dtypes.bfloat16
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def draw(*shape: int, seed: int = 0, dtype: Any = BF16) -> Array:
    return on_gpu(np.random.default_rng(seed).standard_normal(shape).astype(dtype))


def split(x: Array, count: int, heads: int) -> Array:
    """(B, T, count C) -> (count, B, H, T, D)"""
    B, T, width = x.shape
    return x.reshape(B, T, count, heads, width // count // heads).transpose(2, 0, 3, 1, 4)


def joined(*parts: Array) -> Array:
    """(B, H, T, D) each -> (B, T, count C)"""
    B, _, T, _ = parts[0].shape
    return np.concatenate([part.transpose(0, 2, 1, 3).reshape(B, T, -1) for part in parts], axis=-1)


def assert_near(found: Array, exact: Array, dtype: str = "bfloat16") -> None:
    found, exact = (np.asarray(x, np.float64) for x in (found, exact))
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= 4 * ROUNDING[dtype] * max(1, np.abs(exact).max())


# -- without a GPU


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """cuDNN and CuPy by their stand-ins."""
    caches = attention._plans_packed, attention._plans_apart, cudnn._place
    for module in (attention, cudnn, launch):
        monkeypatch.setattr(module, "cupy", lambda: CUPY)
    for module in (attention, cudnn):
        monkeypatch.setattr(module, "frontend", lambda: CUDNN)
    monkeypatch.setattr(kernels, "NOTES", [])
    monkeypatch.setattr(cudnn, "NOTES", kernels.NOTES)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["self", "cross", "sliced"])
def test_packed_arrays_are_read_and_written_in_place(kind: str, causal: bool) -> None:
    B, T, S, H, D = 2, 5, 5 if kind == "self" else 9, 3, 8
    C = H * D
    q = draw(B, T, 3 * C) if kind == "self" else draw(B, T, C)
    kv = None if kind == "self" else draw(B, S, 2 * C, seed=1)
    if kind == "sliced":
        q = draw(B, T + 2, C + 16)[:, 1:-1, 8:-8]
    options: Any = {"heads": H, "causal": causal}
    assert attention._supports_packed(q, kv, **options) is None
    y, backward = attention.attention_by_cudnn(q, kv, **options)
    dy = draw(T, B, C, seed=2).swapaxes(0, 1)
    dq, dkv, dmask = backward(dy)
    wide = [np.asarray(x, np.float64) for x in (q, kv) if x is not None]
    parts = [*split(wide[0], 3 if kv is None else 1, H)]
    parts += [] if kv is None else [*split(wide[1], 2, H)]
    exact, gradients = reference_of("attention")(*parts, causal=causal)
    dparts = gradients(split(np.asarray(dy, np.float64), 1, H)[0])[:3]
    assert_near(y, joined(exact))
    assert dmask is None
    if kv is None:
        assert dkv is None
        assert_near(dq, joined(*dparts))
    else:
        assert_near(dq, joined(dparts[0]))
        assert_near(dkv, joined(*dparts[1:]))


@pytest.mark.usefixtures("stand_in")
def test_heads_of_any_strides() -> None:
    q = split(draw(2, 5, 48), 1, 3)[0]
    k, v = split(draw(2, 9, 96, seed=1), 2, 3)
    options: Any = {"causal": True, "scale": 0.5}
    assert attention._supports(q, k, v, **options) is None
    y, backward = attention.attention_of_heads_by_cudnn(q, k, v, **options)
    dy = split(draw(2, 5, 48, seed=2), 1, 3)[0]
    found = backward(dy)
    exact, gradients = reference_of("attention")(
        *(np.asarray(x, np.float64) for x in (q, k, v)), **options
    )
    assert_near(y, exact)
    assert found[3] is None
    for dx, wanted in zip(found[:3], gradients(np.asarray(dy, np.float64)), strict=False):
        assert_near(dx, wanted)


@pytest.mark.usefixtures("stand_in")
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(x: Array, kv: Array | None = None, mask: Any = None, **options: Any) -> str:
        refused = attention._supports_packed(x, kv, mask, **{"heads": 2, **options})
        assert refused is not None
        return refused

    x = draw(2, 5, 48)
    assert attention._supports_packed(x, heads=2, causal=True) is None
    assert packed(draw(2, 5, 48, dtype="float32")).startswith("dtype float32")
    assert packed(draw(2, 5, 48), heads=5) == "q (2, 5, 48), kv None with 5 heads"
    assert packed(draw(2, 5, 48), heads=4).startswith("heads of 4 numbers")
    assert packed(draw(1, 5, 3 * 2 * 136)).startswith("heads of 136 numbers")
    assert packed(x, mask=np.ones((2, 1, 1, 5), bool)).startswith("a mask")
    assert packed(x, dropout=0.1).startswith("dropout 0.1")
    assert packed(x[:, :, ::2], heads=1).startswith("strides of")
    assert packed(draw(2, 5, 49)[:, :, 1:]).startswith("strides of")
    assert packed(on_gpu(np.broadcast_to(draw(1, 5, 48), (2, 5, 48)))).startswith("strides of")
    assert packed(draw(2, 1, 16), draw(2, 9, 32)).startswith("one query")
    assert packed(draw(2, 5, 16), draw(2, 4, 32), causal=True).startswith("causal with 5 queries")
    assert packed(draw(2, 5, 16), draw(1, 4, 32)).startswith("q (2, 5, 16), kv (1, 4, 32)")
    assert packed(draw(2, 0, 48)).startswith("shape")
    apart: Any = attention._supports
    q, k = draw(2, 3, 5, 8), draw(2, 3, 7, 8)
    assert apart(q, k, k) is None
    assert apart(q, k, k, draw(5, 7)).startswith("a bias")
    assert apart(q[0], k[0], k[0]).startswith("q (3, 5, 8)")
    assert apart(q, k[:, :1], k[:, :1]).startswith("q (2, 3, 5, 8)")

    for T, error in ((6, UnsupportedError("too new")), (7, RuntimeError("too old"))):

        def fails(*_: Any, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(CUDNN.pygraph, "check_support", fails)
        assert packed(draw(2, T, 48)).endswith(str(error))


@pytest.mark.usefixtures("stand_in")
def test_explain_says_that_backward_is_not_deterministic() -> None:
    x, q = draw(2, 5, 48), draw(2, 3, 5, 8)
    with kernels.deterministic():
        assert attention._supports_packed(x, heads=2) is None
        assert attention._supports(q, q, q) is None
        plans = attention._plans_packed(*attention._case(x, None, 2, False))
        assert not isinstance(plans, str)
        assert plans.backward.graph.options["use_deterministic_algorithm"]
    assert "two equal runs differ" not in kernels.explain()
    for _ in range(2):
        attention._plans_packed.cache_clear()
        assert attention._supports_packed(x, heads=2) is None
        assert attention._supports(q, q, q) is None
    assert kernels.explain().count("two equal runs differ") == 1


def test_cudnn_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package, and one without cuDNN; PyTorch is not imported on the way."""
    frontend = cudnn.frontend.__wrapped__
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert frontend() == ("nvidia-cudnn-frontend is not installed: pip install -e '.[cudnn]'")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    seen = []
    module = ModuleType("cudnn")

    def version() -> int:
        seen.append(sys.modules["torch"])
        raise RuntimeError("Unable to find symbol cudnnGetVersion")

    module.backend_version = version  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "cudnn", module)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert "finds no cuDNN (Unable to find symbol" in frontend()
    assert seen == [None]
    assert "torch" not in sys.modules
    monkeypatch.setattr(module, "backend_version", lambda: 91900)
    assert frontend() is module


@pytest.mark.usefixtures("stand_in")
def test_the_graph_knows_which_inputs_backward_keeps() -> None:
    _, backward = attention.attention_by_cudnn(draw(2, 5, 16), draw(2, 5, 32), heads=2)
    assert set(KEPT_INPUTS[id(backward.__code__)][0]) == {0, 1}
    q, k, v = (draw(2, 3, 5, 8, seed=i) for i in range(3))
    _, backward = attention.attention_of_heads_by_cudnn(q, k, v)
    assert set(KEPT_INPUTS[id(backward.__code__)][0]) == {0, 1, 2}


# -- on a GPU

# (B, H, T, S, D), S = 0: q, k and v of one sequence
SHAPES = [
    (3, 6, 7, 0, 64),
    (2, 12, 64, 0, 64),
    (1, 6, 257, 0, 128),
    (1, 2, 1024, 0, 64),
    (2, 3, 2, 33, 64),
    (2, 3, 70, 257, 32),
    (2, 3, 100, 100, 8),
]


@pytest.fixture(name="cudnn")
def gpu_with_cudnn(gpu: str) -> str:
    """The GPU under test, with cuDNN."""
    if isinstance(cudnn.frontend(), str):
        pytest.skip(str(cudnn.frontend()))
    return gpu


def run(call: Any, inputs: list[Array], dtype: str, device: str, on: bool) -> list[Array]:
    """y and the gradients of the inputs, in float64."""
    xs = [Tensor(x, dtype=dtype, device=device, requires_grad=True) for x in inputs]
    with nullcontext() if on else kernels.off():
        y = call(*xs)
        dy = np.random.default_rng(9).standard_normal(y.shape)
        dxs = tensor.grad(y, xs, Tensor(dy, dtype=dtype, device=device))
    return [x.to("float64").numpy() for x in (y, *dxs) if x is not None]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_errors_are_those_of_the_composition(dtype: str, causal: bool, cudnn: str) -> None:
    """Against float64, over all shapes."""
    for B, H, T, S, D in SHAPES:
        sizes = [(B, T, H * D), (B, S, 2 * H * D)] if S else [(B, T, 3 * H * D)]
        # numbers that both dtypes have
        inputs = [np.float32(draw(*size, seed=i)) for i, size in enumerate(sizes)]
        call = partial(tensor.multi_head_attention, heads=H, causal=causal)
        found = run(call, inputs, dtype, cudnn, on=True)
        assert kernels.latest("multi_head_attention")[0] == "attention_by_cudnn"
        usual = run(call, inputs, dtype, cudnn, on=False)
        exact = run(call, inputs, "float64", cudnn, on=False)
        for one, other, true in zip(found, usual, exact, strict=True):
            least = ROUNDING[dtype] * np.sqrt(np.mean(true**2)) / 4
            error, allowed = (np.sqrt(np.mean((x - true) ** 2)) for x in (one, other))
            assert error <= 2 * max(allowed, least), (B, H, T, S, D)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_heads_apart_on_a_gpu(dtype: str, cudnn: str) -> None:
    inputs = [np.float32(draw(2, n, 3, 64, seed=i)) for i, n in enumerate((70, 130, 130))]

    def call(*xs: Tensor) -> Tensor:
        y: Tensor = tensor.attention(*(x.transpose(1, 2) for x in xs), causal=True, scale=0.2)
        return y

    found = run(call, inputs, dtype, cudnn, on=True)
    assert kernels.latest("attention")[0] == "attention_of_heads_by_cudnn"
    for one, exact in zip(found, run(call, inputs, "float64", cudnn, on=False), strict=True):
        assert_near(one, exact, dtype)


def test_a_write_before_backward_is_found(cudnn: str) -> None:
    x = tensor.randn(2, 5, 48, dtype="bfloat16", device=cudnn, requires_grad=True)
    y = tensor.multi_head_attention(x, heads=2)
    assert kernels.latest("multi_head_attention")[0] == "attention_by_cudnn"
    with tensor.no_grad():
        x[0] = 0.0
    with pytest.raises(MutationError, match="multi_head_attention"):
        y.sum().backward()


def test_equal_bits_on_demand(cudnn: str) -> None:
    """Of so many keys that cuDNN adds parts of dq in no fixed order."""
    x = tensor.randn(4, 1024, 3 * 256, dtype="bfloat16", device=cudnn, requires_grad=True)
    dy = tensor.randn(4, 1024, 256, dtype="bfloat16", device=cudnn)
    with kernels.deterministic():
        y = tensor.multi_head_attention(x, heads=4, causal=True)
    first, *others = (tensor.grad(y, x, dy, retain_graph=True)[0].numpy() for _ in range(4))
    for other in others:
        assert (first == other).all()
