"""float16 and bfloat16: exact weights beside the rounded ones, and for float16 a loss scale that
finds its size.
"""

from __future__ import annotations

import json
import math
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor
from tensor.optim import SGD, AdamW, LossScale, Muon, Optimizer, clip_gradients, gradient_norm
from tensor.random import Generator, Key
from tests.helpers.program import TINY, losses
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig, story
from tinygpt.__main__ import main
from tinygpt.data.windows import Windows
from tinygpt.training.measure import mean_loss
from tinygpt.training.step import StepRecord, optimizer_of, train, update

WINDOWS = Windows(CharacterTokenizer(story()).encode(story()), 16)


def model_of(dtype: str, device: str, **choices: Any) -> GPT:
    options: dict[str, Any] = {"context": 16, "width": 32, "heads": 2, "layers": 2, **choices}
    return GPT(GPTConfig(22, **options), generator=Generator(1), dtype=dtype, device=device)


def trained(dtype: str, device: str, **choices: Any) -> tuple[GPT, Optimizer, list[StepRecord]]:
    model, config = (
        model_of(dtype, device),
        TrainConfig(steps=60, batch=8, lr=0.01, dtype=dtype, device=device, **choices),
    )
    optimizer = optimizer_of(model, config)
    with np.errstate(all="ignore"):
        return model, optimizer, list(train(model, WINDOWS, config, optimizer))


# -- the story


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_bug_48_sixteen_bits_learn_as_float32_does(optimizer: Any, device: str) -> None:
    """60 steps: the loss over all windows is within 0.05 nats of float32's, where both began at 3.1
    and came to about 1.
    """
    expected = mean_loss(trained("float32", device, optimizer=optimizer)[0], WINDOWS, 32)
    assert expected < 1.2
    for dtype in ("bfloat16", "float16"):
        model, optimiser, records = trained(dtype, device, optimizer=optimizer)
        assert mean_loss(model, WINDOWS, 32) == pytest.approx(expected, abs=0.05)
        for flat, state in zip(optimiser.flats, optimiser.state, strict=True):
            assert flat.weights.dtype.name == flat.gradients.dtype.name == dtype
            assert {array.dtype.name for array in state.values()} == {"float32"}
            assert np.array_equal(Tensor(state["master"]).to(dtype).numpy(), flat.weights.numpy())
        assert sum(record.skipped for record in records) <= 2
        assert {record.loss_scale is None for record in records} == {dtype != "float16"}
        # the loss itself is a float32
        assert all(
            isinstance(record.loss, float) and len(repr(record.loss)) > 10 for record in records
        )


def test_a_loss_scale_is_for_float16_alone(device: str) -> None:
    for dtype in ("float32", "float64", "bfloat16", "float16"):
        config = TrainConfig(dtype=dtype, device=device)
        assert (optimizer_of(model_of(dtype, device), config).loss_scale is not None) == (
            dtype == "float16"
        )


# -- master weights


@pytest.mark.parametrize(
    "make",
    [
        lambda p: SGD(p, lr=1e-4),
        lambda p: AdamW(p, lr=1e-4, weight_decay=0),
        lambda p: Muon(p, lr=1e-4, weight_decay=0),
    ],
)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_bug_48_small_updates_survive(make: Any, dtype: str, device: str) -> None:
    """A hundred updates of about 1e-4, each of which 1.0 would round away: float16 has steps of
    1e-3 there, bfloat16 of 8e-3.
    """
    parameters = [
        Tensor(np.ones((4, 4)), dtype=dtype, device=device, requires_grad=True),
        Tensor(np.ones(3), dtype=dtype, device=device, requires_grad=True),
    ]
    twins = [
        Tensor(np.ones(p.shape), dtype="float32", device=device, requires_grad=True)
        for p in parameters
    ]
    optimizer, exact = make(parameters), make(twins)
    for _ in range(100):
        for p in (*parameters, *twins):
            p.grad = Tensor(np.eye(4) if p.ndim == 2 else np.ones(3), dtype=p.dtype, device=device)
        optimizer.step()
        exact.step()
    for p, twin in zip(parameters, twins, strict=True):
        assert float(twin.min()) < 0.995
        np.testing.assert_allclose(
            p.detach().to("float32").numpy(),
            twin.detach().numpy(),
            atol=2e-3 if dtype == "bfloat16" else 3e-4,
        )


# -- the loss scale


def test_bug_48_the_scale_halves_and_recovers() -> None:
    scale = LossScale(patience=3)
    seen = []
    for fitted in (
        True,
        True,
        False,
        True,
        True,
        True,
        True,
        True,
        False,
        False,
        True,
        True,
        True,
        True,
    ):
        scale.adapt(fitted)
        seen.append(math.log2(scale.value))
    assert seen == [16, 16, 15, 15, 15, 16, 16, 16, 15, 14, 14, 14, 15, 15]
    other = LossScale(patience=3)
    other.load_state_dict(json.loads(json.dumps(scale.state_dict())))
    assert (other.value, other.good) == (scale.value, scale.good) == (2.0**15, 1)
    for wrong in ({"value": 0.0}, {"value": math.inf}, {"patience": 0}):
        with pytest.raises(ValueError, match="LossScale"):
            LossScale(**wrong)


def test_the_scale_stays_a_number_of_float32() -> None:
    scale = LossScale(patience=1)
    for fitted, bound in ((False, 2.0**-126), (True, 2.0**127)):
        for _ in range(300):
            scale.adapt(fitted)
        assert scale.value == bound
        assert 0 < np.float32(scale.value) < math.inf
    scale.load_state_dict({"value": 0.0, "good": 0})
    assert scale.value == 2.0**-126


def test_bug_48_an_overflow_is_skipped_and_the_scale_finds_its_size(device: str) -> None:
    """Of 2^40 every gradient overflows: such steps change nothing. Once they fit, they all do, and
    the scale tries more again.
    """
    model, config = (
        model_of("float16", device),
        TrainConfig(steps=60, batch=8, dtype="float16", device=device),
    )
    optimizer = optimizer_of(model, config)
    optimizer.loss_scale = LossScale(2.0**40, patience=8)
    before = [state["master"].copy() for state in optimizer.state]
    records: list[StepRecord] = []
    with np.errstate(all="ignore"):
        for record in train(model, WINDOWS, config, optimizer):
            records.append(record)
            if all(r.skipped for r in records):
                assert all(
                    np.array_equal(Tensor(a).numpy(), Tensor(s["master"]).numpy())
                    for a, s in zip(before, optimizer.state, strict=True)
                )
                assert set(optimizer.counts.values()) == {0}
    skipped = [record.skipped for record in records]
    first = skipped.index(False)
    assert 18 <= first <= 30
    assert [record.loss_scale for record in records[: first + 1]] == [
        2.0 ** (40 - i) for i in range(first + 1)
    ]
    assert set(optimizer.counts.values()) == {60 - sum(skipped)}
    values = [record.loss_scale or 0 for record in records[first:]]
    assert max(values) > values[0]  # it grew again
    # and fell only where it had grown
    assert sum(skipped[first:]) <= sum(b > a for a, b in pairwise(values))
    assert records[-1].loss < records[0].loss - 0.3


def test_bug_48_gradients_below_float16_arrive(device: str) -> None:
    """1e-9 is 0 in float16; of the scaled loss it is there, in float32 it is itself again, and the
    update is that of the true gradient.
    """
    w = Tensor([1.0, -2.0], dtype="float16", device=device, requires_grad=True)
    optimizer = SGD([w], lr=1e6)
    optimizer.loss_scale = scale = LossScale()
    loss = (w.to("float32") * Tensor([1e-9, 3e-9], device=device)).sum()
    loss.backward(tensor.full_like(loss, scale.value))
    assert w.grad is not None
    assert gradient_norm(optimizer) / scale.value == pytest.approx(math.sqrt(10) * 1e-9, rel=1e-2)
    optimizer.step()
    np.testing.assert_allclose(
        Tensor(optimizer.state[0]["master"]).numpy()[:2], [0.999, -2.003], rtol=1e-5
    )


def test_the_scale_is_for_any_dtype_and_optimiser(device: str) -> None:
    """float32 and float64 have no need of it, but the same meaning: weights and means of the true
    gradient, also where a kernel makes them without.
    """
    for dtype in ("float32", "float64", "float16"):
        for make in (SGD, AdamW, Muon):
            found = []
            for factor in (None, 2.0**5):
                w = Tensor(
                    np.arange(12.0).reshape(3, 4) / 8,
                    dtype=dtype,
                    device=device,
                    requires_grad=True,
                )
                optimizer = make([w], lr=0.1)
                optimizer.loss_scale = None if factor is None else LossScale(factor)
                for _ in range(3):
                    w.grad = Tensor(
                        np.cos(np.arange(12.0)).reshape(3, 4) * (factor or 1.0),
                        dtype=dtype,
                        device=device,
                    )
                    optimizer.step()
                found.append(
                    [
                        w.detach().to("float64").numpy(),
                        *(
                            Tensor(array).to("float64").numpy()
                            for array in optimizer.state[0].values()
                        ),
                    ]
                )
            for one, other in zip(*found, strict=True):
                np.testing.assert_allclose(
                    one, other, rtol=1e-3, atol=1e-5 if dtype != "float16" else 1e-3
                )


def test_bug_43_clipping_is_of_the_true_gradient(device: str) -> None:
    """The norm is told and cut as of the unscaled loss: the masters move as they do from clipped
    gradients in float32.
    """
    x, y = WINDOWS[:8]
    norms, moved = [], []
    for dtype in ("float32", "float16"):
        model = model_of(dtype, device)
        optimizer = SGD(model, lr=0.1)
        optimizer.loss_scale = LossScale(2.0**12) if dtype == "float16" else None
        before = {
            place.name: place.parameter.detach().to("float32").numpy().copy()
            for flat in optimizer.flats
            for place in flat.slots
        }
        norms.append(float(update(model, optimizer, x, y, 0.25)[1]))
        masters: list[Any] = [
            state.get("master", flat.weights.array)
            for flat, state in zip(optimizer.flats, optimizer.state, strict=True)
        ]
        steps = [
            (
                Tensor(master[place.start : place.stop]).to("float32").numpy()
                - before[place.name].reshape(-1)
            )
            for flat, master in zip(optimizer.flats, masters, strict=True)
            for place in flat.slots
        ]
        moved.append(np.concatenate(steps))
        assert clip_gradients(optimizer, math.inf) == pytest.approx(
            0.25 * (2.0**12 if dtype == "float16" else 1), rel=1e-2
        )
    assert norms[0] > 1
    assert norms[1] == pytest.approx(norms[0], rel=1e-2)
    assert np.linalg.norm(moved[0]) == pytest.approx(0.1 * 0.25, rel=1e-3)
    assert np.linalg.norm(moved[1] - moved[0]) < 0.02 * np.linalg.norm(moved[0])


def test_accumulation_is_scaled_once(device: str) -> None:
    x, y = WINDOWS[:9]
    found = []
    for accumulation in (1, 3):
        model = model_of("float16", device, dropout=0.2).train()
        optimizer = optimizer_of(model, TrainConfig(dtype="float16", device=device))
        assert optimizer.loss_scale is not None
        optimizer.loss_scale.value = 2.0**10
        numbers = update(model, optimizer, x, y, 1.0, accumulation, Key(3))
        found.append(list(map(float, numbers)))
        assert optimizer.loss_scale.good == 1
    assert found[0] == pytest.approx(found[1], rel=5e-3)


def test_a_loss_summed_over_many_targets_is_finite(device: str) -> None:
    """float16 ends at 65504: a sum of 4,096 losses of 30 lies beyond."""
    model = model_of("float16", device)
    model.token_embedding.weight.array[...] *= 300
    x, y = WINDOWS[np.zeros(512, int)]
    with np.errstate(all="ignore"):
        loss = mean_loss(model, WINDOWS, 512, np.zeros(512, int))
        assert loss == pytest.approx(float(model.eval().loss(x[:1], y[:1])), rel=1e-3)
    assert loss * x.size > 65504


# -- the program


def test_metrics_tell_the_scale(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tinygpt.training.step.LossScale", partial(LossScale, 2.0**40))
    assert main(["train", *TINY, "--steps", "18", "--dtype", "float16"]) == 0
    records = [record for record in losses(tmp_path / "runs" / "story-1") if "lr" in record]
    assert [record["loss_scale"] for record in records] == [2.0 ** (40 - i) for i in range(18)]
    assert capsys.readouterr().err.endswith(
        "; the weights stay as they were; the loss is scaled by 2^39 from here on, not 2^40\n"
    )
    assert main(["train", *TINY, "--steps", "2", "--dtype", "bfloat16"]) == 0
    assert all("loss_scale" not in record for record in losses(tmp_path / "runs" / "story-2"))
