"""`clipped_step`: clipping and a step in one, and the counts where a device skips steps unseen.

The device is a kernel in NumPy here, with the contract of the one in CUDA (tests/tensor/kernels/
test_cuda_adamw.py tests that one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tensor import Tensor, kernels, optim
from tensor.kernels import KERNELS, Kernel, off
from tensor.memory.devices import Array
from tensor.optim import clipping
from tensor.optim.adamw import adamw
from tests.tensor.optim.test_optimizers import SHAPES, Model, give, gradients, values

SCALE = 2.0**10


def given(step: int, reached: str, device_scale: float = 1.0) -> dict[str, Array | None]:
    """Gradients of a step; every third has a NaN. reached: "all" parameters, or "some"."""
    rng = np.random.default_rng(step)
    drawn: dict[str, Array | None] = {name: rng.standard_normal(x) for name, x in SHAPES.items()}
    chosen = drawn if reached == "all" else gradients(step)
    scaled = {name: None if g is None else g * device_scale for name, g in chosen.items()}
    if step % 3 == 1:
        assert scaled["matrix"] is not None
        scaled["matrix"][0, 0] = math.nan
    return scaled


def by_hand(optimizer: optim.Optimizer, limit: float) -> float:
    """What `clipped_step` is."""
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    norm = optim.clip_gradients(optimizer, limit * scale) / scale
    if math.isfinite(norm):
        optimizer.step()
    if optimizer.loss_scale is not None:
        optimizer.loss_scale.adapt(math.isfinite(norm))
    return norm


def device_kernel(
    *gradients: Array,
    updates: list[dict[str, Any]],
    limit: float,
    skipped: Array,
    scale: Array | None,
    patience: int,
) -> Array:
    """The contract of `clipped_adamw`, in NumPy."""
    by = 1.0 if scale is None else scale[0]
    norm = np.sqrt(sum((g.astype(np.float64) ** 2).sum() for g in gradients)) / by
    fitted = bool(np.isfinite(norm))
    skipped += not fitted
    if scale is not None:
        state = optim.LossScale(by, patience)
        state.good = int(scale[1])
        state.adapt(fitted)
        scale[:] = state.value, state.good
    for run in updates if fitted else []:
        t, w, b1, b2 = run["t"] - int(skipped[0]), run["w"], run["b1"], run["b2"]
        numbers = {
            "step_size": run["rate"] / (1 - b1**t),
            "bias_correction": 1 / math.sqrt(1 - b2**t),
        }
        constants = {name: run[name] for name in ("b1", "b2", "eps", "decay")}
        g = run["g"].astype(w.dtype) * (min(1, limit / norm) / by)
        adamw(w, g, run["m"], run["v"], **constants, **numbers)
        if run["narrow"] is not None:
            run["narrow"][...] = w.astype(run["narrow"].dtype)
    return np.array(norm)


@pytest.fixture
def device_decides(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Arrays of the CPU count as those of a GPU that has the kernel."""
    for name, function in {"clipped_adamw": device_kernel, "adamw": adamw}.items():
        monkeypatch.setitem(KERNELS, name, [Kernel("cpu", function, lambda *_, **__: None)])
    monkeypatch.setattr(clipping, "is_cuda", lambda array: True)
    monkeypatch.setattr(kernels, "_DISABLED", False)
    return


def made(dtype: str, scaled: bool) -> tuple[Model, optim.AdamW]:
    model = Model(dtype=dtype)
    optimizer = optim.AdamW(model, lr=0.03, betas=(0.8, 0.95), weight_decay=0.2)
    optimizer.loss_scale = optim.LossScale(SCALE, patience=2) if scaled else None
    return model, optimizer


@pytest.mark.parametrize(("dtype", "scaled"), [("float32", False), ("float16", True)])
def test_on_the_cpu_it_is_its_parts(dtype: str, scaled: bool) -> None:
    (one, first), (two, second) = made(dtype, scaled), made(dtype, scaled)
    for step in range(6):
        for model in (one, two):
            give(model, given(step, "some", SCALE if scaled else 1.0))
        norms = optim.clipped_step(first, 0.5), by_hand(second, 0.5)
        assert isinstance(norms[0], float)
        assert np.array_equal(*norms, equal_nan=True)
    assert first.counts == second.counts
    for name, value in values(one).items():
        assert np.array_equal(value, values(two)[name])
    if first.loss_scale is not None and second.loss_scale is not None:
        assert first.loss_scale.state_dict() == second.loss_scale.state_dict()


@pytest.mark.usefixtures("device_decides")
@pytest.mark.parametrize("reached", ["all", "some"])
@pytest.mark.parametrize(("dtype", "scaled"), [("float32", False), ("float16", True)])
def test_a_device_that_skips_leaves_what_the_host_leaves(
    dtype: str, scaled: bool, reached: str
) -> None:
    """Norms, weights, moments, counts and the scale; and nothing is looked at before the end, where
    the same parameters are reached each time.
    """
    (one, first), (two, second) = made(dtype, scaled), made(dtype, scaled)
    looks = 0
    take_back = first._take_back

    def counted() -> None:
        nonlocal looks
        looks += bool(first._unsure)
        take_back()

    first._take_back = counted  # type: ignore[method-assign]
    factor = SCALE if scaled else 1.0
    for step in range(9):
        for model in (one, two):
            give(model, given(step, reached, factor))
        norm, expected = optim.clipped_step(first, 0.5), by_hand(second, 0.5)
        assert isinstance(norm, Tensor)
        assert float(norm) == pytest.approx(expected, rel=1e-6, nan_ok=True)
    assert looks == 0 or reached == "some"
    assert first.taken == second.taken == 6
    assert first.counts == second.counts
    assert looks > 0
    close = {"rtol": 2e-3, "atol": 1e-5} if scaled else {"rtol": 1e-5, "atol": 1e-6}
    for name, value in values(one).items():
        np.testing.assert_allclose(value, values(two)[name], **close, err_msg=name)
    mine, other = first.state_dict(), second.state_dict()
    for name, array in mine["arrays"].items():
        np.testing.assert_allclose(array, other["arrays"][name], **close, err_msg=name)
    assert mine.get("loss_scale") == other.get("loss_scale")


@pytest.mark.usefixtures("device_decides")
def test_a_resumed_run_is_bit_equal() -> None:
    """Also where steps were skipped before the state was taken, and after."""
    (whole, straight), (_, half), (resumed, again) = (made("float16", True) for _ in range(3))
    for step in range(10):
        give(whole, given(step, "all", SCALE))
        optim.clipped_step(straight, 0.5)
    first = made("float16", True)
    model, half = first
    for step in range(5):
        give(model, given(step, "all", SCALE))
        optim.clipped_step(half, 0.5)
    resumed.load_state_dict(model.state_dict())
    again.load_state_dict(half.state_dict())
    for step in range(5, 10):
        give(resumed, given(step, "all", SCALE))
        optim.clipped_step(again, 0.5)
    assert again.state_dict()["counts"] == straight.state_dict()["counts"]
    for name, array in again.state_dict()["arrays"].items():
        assert np.array_equal(array, straight.state_dict()["arrays"][name]), name
    assert again.loss_scale is not None
    assert straight.loss_scale is not None
    assert again.loss_scale.state_dict() == straight.loss_scale.state_dict()


@pytest.mark.usefixtures("device_decides")
def test_the_step_of_a_schedule_is_the_true_one() -> None:
    """A function of the step gets the steps taken, without those that were skipped."""
    model = Model(dtype="float32")
    asked: list[int] = []

    def rate(step: int) -> float:
        asked.append(step)
        return 0.01

    optimizer = optim.AdamW(model, lr=rate)
    asked.clear()
    for step in range(4):
        give(model, given(step, "all"))
        optim.clipped_step(optimizer, 1.0)
    assert asked == [0, 1, 1, 2]


@pytest.mark.usefixtures("device_decides")
@pytest.mark.parametrize("kind", ["muon", "l2", "sgd", "off", "off adamw", "nothing reached"])
def test_what_the_device_does_not_know_the_host_decides(kind: str) -> None:
    model = Model(dtype="float32")
    makers: dict[str, Any] = {
        "muon": lambda: optim.Muon(model),
        "l2": lambda: optim.Adam(model, weight_decay=0.1),
        "sgd": lambda: optim.SGD(model),
    }
    optimizer = makers.get(kind, lambda: optim.AdamW(model))()
    give(model, dict.fromkeys(SHAPES) if kind == "nothing reached" else gradients(2))
    names = {"off": (), "off adamw": ("adamw",)}
    if kind in names:
        with off(*names[kind]):
            norm = optim.clipped_step(optimizer, 1.0)
    else:
        norm = optim.clipped_step(optimizer, 1.0)
    assert isinstance(norm, float)
    assert optimizer.taken == 1


@pytest.mark.parametrize("limit", [-1.0, math.nan])
def test_a_limit_that_cannot_be(limit: float) -> None:
    with pytest.raises(ValueError, match=f"clipped_step limit={limit}: a norm is at least 0"):
        optim.clipped_step(optim.AdamW(Model()), limit)


def test_a_loss_scale_as_a_tensor() -> None:
    """The value of now: later changes are not seen in it."""
    scale = optim.LossScale(8.0, patience=1)
    now = scale.tensor()
    scale.adapt(True)
    assert (float(now), scale.value, scale.good) == (8.0, 16.0, 0)
    scale.value = 3.0
    assert float(scale.tensor()) == 3.0
