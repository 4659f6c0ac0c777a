"""AdamW, the norm and the loss scale on a GPU, against float64 and against the host."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tensor import Tensor, nn, no_grad, optim
from tensor.dtypes import as_dtype
from tensor.kernels import KERNELS, latest, off
from tensor.memory.devices import Array, array_module, to_host
from tensor.optim.scaling import LEAST, MOST
from tests.tensor.optim.test_clipped_step import by_hand
from tests.tensor.optim.test_optimizers import Model, give, gradients, values

DTYPES = ["bfloat16", "float16", "float32", "float64"]
NUMBERS: dict[str, Any] = {"b1": 0.9, "b2": 0.99, "eps": 1e-8, "decay": 0.999}


@pytest.fixture
def xp(gpu: str) -> Any:
    """CuPy."""
    return array_module(gpu)


def kernel(name: str) -> Any:
    """The kernel of that name for a GPU."""
    (found,) = [kernel.function for kernel in KERNELS[name] if kernel.device == "cuda"]
    return found


def exact(array: Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    return to_host(array).astype(np.float64)


def stretch(xp: Any, dtype: str, size: int, start: int) -> dict[str, Array]:
    """Arrays of an update, which begin `start` elements into their memory; moments are poisoned
    outside.
    """
    rng = np.random.default_rng(size)
    narrow = as_dtype(dtype).itemsize == 2
    wide = "float32" if narrow else dtype
    whole = {name: xp.full(size + start, xp.nan, wide) for name in ("w", "m", "v")}
    arrays = {name: array[start:] for name, array in whole.items()}
    arrays["w"][:] = xp.asarray(rng.standard_normal(size))
    arrays["m"][:] = arrays["v"][:] = 0
    g = xp.asarray(rng.standard_normal(size + start).astype(np.float32)).astype(as_dtype(dtype))
    rounded = xp.zeros(size + start, as_dtype(dtype))[start:] if narrow else None
    return {**arrays, "g": g[start:], "narrow": rounded}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("size", "start"), [(1, 0), (1000, 0), (1001, 1), (700_001, 3)])
def test_steps_with_a_bad_one_in_the_middle(dtype: str, size: int, start: int, xp: Any) -> None:
    """A NaN in the second of three gradients: nothing is written, and the third counts as 2."""
    arrays, skipped = stretch(xp, dtype, size, start), xp.zeros(1)
    w, g = exact(arrays["w"]), exact(arrays["g"])
    m = v = np.zeros(size)
    true = math.sqrt((g * g).sum())
    limit, taken = true / 3, 0
    for t in (1, 2, 3):
        now = {**arrays, "g": arrays["g"].copy() if t == 2 else arrays["g"]}
        if t == 2:
            now["g"][size // 2] = math.nan
        update = {**now, **NUMBERS, "rate": 0.01, "t": t}
        norm = kernel("clipped_adamw")(
            now["g"], updates=[update], limit=limit, skipped=skipped, scale=None, patience=1
        )
        if t == 2:
            assert math.isnan(float(norm))
            continue
        assert float(norm) == pytest.approx(true, rel=1e-12)
        taken += 1
        d = g / 3
        m, v = 0.9 * m + 0.1 * d, 0.99 * v + 0.01 * d * d
        change = m / (1 - 0.9**taken) / (np.sqrt(v / (1 - 0.99**taken)) + 1e-8)
        w = 0.999 * w - 0.01 * change
    assert float(skipped[0]) == 1
    bound = 1e-13 if dtype == "float64" else 1e-6
    for name, right in {"w": w, "m": m, "v": v}.items():
        np.testing.assert_allclose(exact(arrays[name]), right, rtol=bound, atol=bound)
    if arrays["narrow"] is not None:
        assert bool((arrays["narrow"] == arrays["w"].astype(as_dtype(dtype))).all())


def test_the_norm_of_extremes(xp: Any) -> None:
    """Squares that float32 cannot hold; and float16 with a factor."""
    for size in (1e30, 1e-30):
        g = xp.full(1001, size, np.float32)
        assert math.sqrt(float(kernel("squared_norm")(g))) == pytest.approx(
            float(np.float32(size)) * math.sqrt(1001), rel=1e-12
        )
    assert float(kernel("squared_norm")(xp.zeros((3, 4), np.float32)[:, ::2])) == 0


@pytest.mark.parametrize("start", [2.0, LEAST, MOST])
def test_the_loss_scale_is_that_of_the_host(start: float, xp: Any) -> None:
    arrays, skipped = stretch(xp, "float16", 100, 0), xp.zeros(1)
    host, there = optim.LossScale(start, patience=2), xp.asarray(np.array([start, 0.0]))
    for t, bad in enumerate([False, False, True, False, True, True, False, False, False], 1):
        g = arrays["g"].copy()
        g[3] = math.inf if bad else g[3]
        update = {**arrays, **NUMBERS, "g": g, "rate": 0.01, "t": t}
        norm = kernel("clipped_adamw")(
            g, updates=[update], limit=1.0, skipped=skipped, scale=there, patience=2
        )
        if not bad:
            assert float(norm) * host.value == pytest.approx(float(np.linalg.norm(exact(g))))
        host.adapt(not bad)
        assert there.tolist() == [host.value, host.good], t
    assert float(skipped[0]) == 3


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_optimiser_steps_as_the_host_does(dtype: str, xp: Any, device: str) -> None:
    """With unequal counts, NaN now and then, and a loss scale for float16."""
    one, two = (Model(dtype=dtype, device=device) for _ in range(2))
    first, second = (optim.AdamW(model, lr=0.03, weight_decay=0.2) for model in (one, two))
    for optimizer in (first, second):
        optimizer.loss_scale = optim.LossScale(8.0, patience=2) if dtype == "float16" else None
    for step in range(9):
        given = gradients(step)
        if step in (2, 5):
            assert given["matrix"] is not None
            given["matrix"][0, 0] = math.nan
        for model in (one, two):
            give(model, given)
        norm = optim.clipped_step(first, 0.5)
        assert isinstance(norm, Tensor)
        with off():
            assert float(norm) == pytest.approx(by_hand(second, 0.5), rel=1e-6, nan_ok=True)
    assert first.counts == second.counts
    assert first.taken == second.taken == 7
    if first.loss_scale is not None and second.loss_scale is not None:
        assert first.loss_scale.state_dict() == second.loss_scale.state_dict()
    bound = {"float64": 1e-12, "float32": 1e-5, "float16": 5e-3, "bfloat16": 3e-2}[dtype]
    for name, value in values(one).items():
        np.testing.assert_allclose(value, values(two)[name], rtol=bound, atol=bound, err_msg=name)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_step_alone_goes_through_the_kernel(dtype: str, xp: Any, device: str) -> None:
    models = [Model(dtype=dtype, device=device) for _ in range(2)]
    optimizers = [optim.AdamW(model, lr=0.03, weight_decay=0.2) for model in models]
    for step in range(5):
        for model in models:
            give(model, gradients(step))
        optimizers[0].step()
        assert latest("adamw")[1] == "cuda kernel"
        with off():
            optimizers[1].step()
    for one, two in zip(*(optimizer.state for optimizer in optimizers), strict=True):
        for name, array in one.items():
            np.testing.assert_allclose(exact(array), exact(two[name]), rtol=1e-5, atol=1e-6)


def test_two_runs_and_a_resumed_one_are_bit_equal(xp: Any, device: str) -> None:
    """Over more blocks than one, with skipped steps on the way."""

    def made() -> tuple[nn.Parameter, optim.AdamW]:
        rng = np.random.default_rng(0)
        w = nn.Parameter(rng.standard_normal(300_000), dtype="bfloat16", device=device)
        return w, optim.AdamW([w], lr=0.01)

    def take(w: nn.Parameter, optimizer: optim.AdamW, steps: range) -> None:
        for step in steps:
            g = np.random.default_rng(step).standard_normal(w.shape)
            g[5] = math.nan if step in (2, 6) else g[5]
            w.grad = Tensor(g, dtype=w.dtype, device=device)
            optim.clipped_step(optimizer, 1.0)

    runs = [made() for _ in range(3)]
    take(*runs[0], range(10))
    take(*runs[1], range(5))
    (w, half), (again, resumed) = runs[1:]
    with_state = half.state_dict()
    with no_grad():
        again[:] = w
    resumed.load_state_dict(with_state)
    take(again, resumed, range(5, 10))
    assert resumed.state_dict()["counts"] == runs[0][1].state_dict()["counts"] == {"0": 8}
    for name, array in resumed.state_dict()["arrays"].items():
        assert bool((array == runs[0][1].state_dict()["arrays"][name]).all()), name
    assert np.array_equal(again.numpy(), runs[0][0].numpy())
