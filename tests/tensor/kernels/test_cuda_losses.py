"""Cross-entropy on a GPU, of logits and of the product that makes them, beside float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels, optim
from tensor.memory.devices import Array, array_module

# the error of a norm that rounding allows, where logits are rounded too
ERRORS = {"float64": 1e-13, "float32": 1e-5, "float16": 2e-3, "bfloat16": 1.5e-2}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "sum": {"reduction": "sum"},
    "ignored": {"ignore_index": -1},
    "smoothed": {"label_smoothing": 0.1, "ignore_index": -1},
}


pytestmark = pytest.mark.usefixtures("gpu")


def drawn(*shape: int, dtype: str, seed: int = 0) -> Array:
    """Normal numbers that the dtype holds, in float64."""
    x = np.random.default_rng(seed).standard_normal(shape)
    return Tensor(x, dtype=dtype).numpy().astype(np.float64)


def targets_of(rows: int, classes: int, ignored: bool) -> Array:
    ids = np.random.default_rng(7).integers(0, classes, rows)
    if ignored:
        ids[::3] = -1
    return ids


def close(found: Tensor, exact: Array, dtype: str) -> None:
    assert str(found.dtype) == dtype or found.ndim == 0
    values = found.detach().numpy().astype(np.float64)
    assert values.shape == exact.shape
    error = np.linalg.norm(values - exact) / max(np.linalg.norm(exact), 1e-300)
    assert error <= ERRORS[dtype], (error, dtype)


def of_product(
    device: str, dtype: str, x: Array, w: Array, t: Array, scale: float, options: Any
) -> list[Tensor]:
    """The loss, dx and dw of a loss that is multiplied by `scale`."""
    xs = [Tensor(a, dtype=dtype, device=device, requires_grad=True) for a in (x, w)]
    loss = tensor.linear_cross_entropy(*xs, Tensor(t, device=device), **options)
    (loss * scale).backward()
    return [loss, *(x.grad for x in xs)]  # type: ignore[list-item]


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("classes", [8, 65, 1000, 5001])
def test_a_product_and_its_loss(
    classes: int, name: str, dtype: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensor.kernels.cuda import cross_entropy

    options = OPTIONS[name]
    t = targets_of(300, classes, "ignore_index" in options)
    x, w = drawn(300, 24, dtype=dtype), drawn(24, classes, dtype=dtype, seed=1) / 4
    exact = of_product("cpu", "float64", x, w, t, 3.0, options)
    for chunk in (2**30, 128 * classes * Tensor(0.0, dtype=dtype).dtype.itemsize):
        monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
        for transposed in (False, True):
            given = {**options, "transposed": transposed}
            found = of_product(device, dtype, x, w.T if transposed else w, t, 3.0, given)
            assert kernels.latest("linear_cross_entropy")[1] == "cuda kernel"
            found[2] = found[2].T if transposed else found[2]
            for ours, true in zip(found, exact, strict=True):
                close(ours, true.detach().numpy(), dtype)


@pytest.mark.parametrize("dtype", ERRORS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("classes", [1, 8, 65, 5001, 60000])
def test_a_loss_of_logits(classes: int, reduction: str, dtype: str, device: str) -> None:
    x, t = drawn(3, 7, classes, dtype=dtype), targets_of(21, classes, True).reshape(3, 7)
    dy = drawn(3, 7, dtype=dtype, seed=3) if reduction == "none" else np.float64(0.5)
    for smoothing in (0.0, 0.25):
        options: Any = {
            "reduction": reduction,
            "ignore_index": -1,
            "label_smoothing": smoothing,
        }
        ways = []
        for place, kind in ((device, dtype), ("cpu", "float64")):
            logits = Tensor(x, dtype=kind, device=place, requires_grad=True)
            loss = tensor.cross_entropy(logits, Tensor(t, device=place), **options)
            loss.backward(Tensor(dy, dtype=kind, device=place))
            ways.append((loss, logits.grad))
        for ours, true in zip(*ways, strict=True):
            assert ours is not None
            assert true is not None
            close(ours, true.detach().numpy(), dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "value", [np.nan, np.inf, -np.inf], ids=["NaN", "infinity", "minus infinity"]
)
def test_logits_that_are_not_finite_end_as_in_the_reference(
    value: float, dtype: str, device: str
) -> None:
    x = drawn(6, 40, dtype=dtype)
    x[0, 3] = x[1] = x[2, 5] = value
    t = np.array([1, 2, 5, 1, 2, 3])
    for options in ({}, {"label_smoothing": 0.1}, {"ignore_index": 2}):
        ways = []
        for place in (device, "cpu"):
            logits = Tensor(x, dtype=dtype, device=place, requires_grad=True)
            given = Tensor(t, device=place)
            loss = tensor.cross_entropy(logits, given, reduction="none", **options)  # type: ignore[arg-type]
            loss.backward(tensor.ones_like(loss))
            assert logits.grad is not None
            ways.append((loss.detach().numpy(), logits.grad.numpy()))
        for ours, true in zip(*ways, strict=True):
            ours, true = ours.astype(np.float64), true.astype(np.float64)
            np.testing.assert_array_equal(np.isnan(ours), np.isnan(true))
            np.testing.assert_allclose(ours, true, rtol=2e-2, atol=1e-3)


def test_what_is_ignored_has_no_gradient_for_any_dloss(device: str) -> None:
    x, w = drawn(6, 8, dtype="float32"), drawn(8, 16, dtype="float32")
    t = np.array([1, -1, 2, -1, 3, 4])
    _, dx, dw = of_product(device, "float32", x, w, t, float("inf"), {"ignore_index": -1})
    assert (dx.numpy()[[1, 3]] == 0).all()
    assert not np.isfinite(dx.numpy()[[0, 2, 4, 5]]).any()
    assert not np.isfinite(dw.numpy()).any()
    loss, dx, dw = of_product(device, "float32", x, w, -np.ones(6, int), 1.0, {"ignore_index": -1})
    assert loss.item() == 0
    assert not dx.numpy().any()
    assert not dw.numpy().any()


def test_the_layouts_and_dtypes_of_the_inputs(device: str) -> None:
    x, w, t = drawn(5, 7, 16, dtype="bfloat16"), drawn(16, 33, dtype="bfloat16"), np.arange(35)
    t = (t % 33).reshape(5, 7)
    loss, dx, dw = of_product("cpu", "float64", x, w, t, 1.0, {})
    wide = [
        Tensor(np.repeat(a, 2, -1), dtype="bfloat16", device=device, requires_grad=True)
        for a in (x, w)
    ]
    parts = [a[..., 1::2] for a in wide]
    for kind in ("int32", "uint8", "int64"):
        ids = Tensor(t.T, dtype=kind, device=device).T
        found = tensor.linear_cross_entropy(*parts, ids)
        close(found, loss.detach().numpy(), "bfloat16")
    assert kernels.latest("linear_cross_entropy")[1] == "cuda kernel"
    found.backward()
    for leaf, exact in zip(wide, (dx, dw), strict=True):
        assert leaf.grad is not None
        close(leaf.grad[..., 1::2], exact.numpy(), "bfloat16")


def test_the_logits_of_all_rows_never_exist(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensor.kernels.cuda import cross_entropy

    cupy = array_module(device)
    monkeypatch.setattr(cross_entropy, "CHUNK", 2**22)
    rows, classes, kind = 4096, 8192, "bfloat16"  # 64 MiB of logits
    x, w = (
        Tensor(drawn(*shape, dtype=kind), dtype=kind, device=device, requires_grad=True)
        for shape in ((rows, 64), (64, classes))
    )
    t = tensor.zeros(rows, dtype="int64", device=device)
    pool = cupy.get_default_memory_pool()
    for warm in (True, False):
        pool.free_all_blocks()
        before = pool.total_bytes()
        tensor.linear_cross_entropy(x, w, t).backward()
        if not warm:
            assert pool.total_bytes() - before < rows * classes * 2 / 4


def test_without_a_graph_only_the_loss_is_made(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensor.kernels.cuda import cross_entropy

    calls: list[int] = []
    product = cross_entropy.product
    monkeypatch.setattr(
        cross_entropy, "product", lambda *args, **how: calls.append(1) or product(*args, **how)
    )
    x, w = tensor.randn(8, 4, device=device), tensor.randn(4, 16, device=device)
    t = tensor.zeros(8, dtype="int64", device=device)
    found = []
    for learns in ((False, False), (True, False), (False, True), (True, True)):
        x.requires_grad, w.requires_grad = learns
        tensor.linear_cross_entropy(x, w, t)
        found.append(len(calls))
        calls.clear()
    with tensor.no_grad():
        tensor.linear_cross_entropy(x, w, t)
    assert [*found, len(calls)] == [1, 2, 2, 3, 1]


def test_a_tied_table_has_the_sum_of_both_gradients(device: str) -> None:
    """The head writes into the buffer, and the embedding adds."""
    from tinygpt.config import GPTConfig
    from tinygpt.model.gpt import GPT

    config = GPTConfig(vocabulary=40, context=16, heads=2, width=32, layers=1)
    ids = np.random.default_rng(0).integers(0, 40, (2, 4, 16))
    grads = []
    for place, dtype in ((device, "bfloat16"), (device, "float32"), ("cpu", "float32")):
        tensor.manual_seed(0)
        model = GPT(config, dtype=dtype, device=place)
        optimiser = optim.AdamW(model.parameters())
        for _ in range(2):
            optimiser.zero_grad()
            (model.loss(ids[0], ids[1]) * 2).backward()
        assert model.token_embedding.weight.grad is not None
        grads.append(model.token_embedding.weight.grad.numpy().astype(np.float64))
    for ours, error in zip(grads, (5e-2, 1e-4), strict=False):
        assert np.linalg.norm(ours - grads[2]) <= error * np.linalg.norm(grads[2])


def test_equal_runs_give_equal_bits_and_backward_twice_works(device: str) -> None:
    x, w = drawn(500, 24, dtype="bfloat16"), drawn(24, 1000, dtype="bfloat16")
    t = targets_of(500, 1000, False)
    first, second = (of_product(device, "bfloat16", x, w, t, 1.0, {}) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())
    leaf = Tensor(x, dtype="bfloat16", device=device, requires_grad=True)
    loss = tensor.linear_cross_entropy(
        leaf, Tensor(w, dtype="bfloat16", device=device), Tensor(t, device=device)
    )
    loss.backward(retain_graph=True)
    (once,) = tensor.grad(loss * 2, [leaf])
    assert leaf.grad is not None
    np.testing.assert_allclose(once.numpy(), 2 * leaf.grad.numpy().astype(np.float32), rtol=1e-2)
