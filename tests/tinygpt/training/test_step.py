"""The loop: which windows come when, what a step changes, what it leaves alone."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, kernels
from tensor.mode import MODE
from tensor.optim import AdamW, gradient_norm
from tensor.random import Generator, Key, keyed
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig, floor, story
from tinygpt.data.windows import Windows
from tinygpt.training.measure import mean_loss, measured_rows
from tinygpt.training.order import batch_rows
from tinygpt.training.step import (
    StepRecord,
    arithmetic,
    learning_rate,
    optimizer_of,
    threads,
    train,
)

IDS = CharacterTokenizer(story()).encode(story())
WINDOWS = Windows(IDS, 8)


def small(device: str, **choices: Any) -> GPT:
    options: dict[str, Any] = {
        "vocabulary": 22,
        "context": 8,
        "width": 8,
        "heads": 2,
        "layers": 1,
        **choices,
    }
    return GPT(GPTConfig(**options), generator=Generator(1), dtype="float64", device=device)


def weights(model: GPT) -> dict[str, np.ndarray[Any, Any]]:
    return {
        name: parameter.detach().clone().numpy() for name, parameter in model.named_parameters()
    }


def differ(
    before: dict[str, np.ndarray[Any, Any]], after: dict[str, np.ndarray[Any, Any]]
) -> list[str]:
    return [name for name in before if not np.array_equal(before[name], after[name])]


# -- batches


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**64 - 1))
def test_each_window_comes_once_an_epoch(windows: int, batch: int, seed: int) -> None:
    steps = -(-3 * windows // batch)  # three epochs at least
    stream = np.concatenate([batch_rows(step, batch, windows, seed) for step in range(steps)])
    assert len(stream) == steps * batch
    for epoch in range(3):
        assert sorted(stream[epoch * windows : (epoch + 1) * windows]) == list(range(windows))


def test_batches_follow_from_the_seed_and_the_number_alone() -> None:
    later = batch_rows(50, 16, 117, seed=3)
    batch_rows(2, 16, 117, seed=4)
    assert np.array_equal(batch_rows(50, 16, 117, seed=3), later)
    assert not np.array_equal(batch_rows(50, 16, 117, seed=4), later)
    # another order each epoch
    assert not np.array_equal(batch_rows(0, 117, 117, seed=3), batch_rows(1, 117, 117, seed=3))
    assert not np.array_equal(batch_rows(0, 117, 117, seed=3), np.arange(117))


def test_shuffling_does_not_repeat_the_draws_that_made_the_weights() -> None:
    assert not np.array_equal(Generator(7).permutation(117), batch_rows(0, 117, 117, seed=7))


# -- a step


def test_records(device: str) -> None:
    config = TrainConfig(steps=30, batch=4, lr=0.01, warmup=5, device=device)
    records = list(train(small(device), WINDOWS, config))
    assert [record.step for record in records] == list(range(1, 31))
    assert [record.lr for record in records] == [learning_rate(step, config) for step in range(30)]
    assert records[4].lr < records[5].lr == pytest.approx(0.01)  # the warm-up is over
    assert records[5].lr > records[29].lr > 0.001  # a tenth would be reached at step 30
    assert all(
        record.tokens == 32 and record.seconds > 0 and not record.skipped for record in records
    )
    assert abs(records[0].loss - math.log(22)) < 0.1
    assert records[-1].loss < records[0].loss


def test_a_step_is_adamw_after_clipping(device: str) -> None:
    """The loop against the same step written out."""
    config = TrainConfig(steps=10, batch=4, clip=0.5, device=device)
    model, other = small(device), small(device)
    record = next(train(model, WINDOWS, config))

    optimizer = AdamW(other, lr=learning_rate(0, config), betas=(0.9, 0.99), weight_decay=0.1)
    x, y = WINDOWS[batch_rows(0, 4, len(WINDOWS), 0)]
    loss = other.loss(x, y)
    loss.backward()
    norm = gradient_norm(other)
    assert norm > 0.5  # it was clipped
    for parameter in other.parameters():
        assert parameter.grad is not None
        parameter.grad *= 0.5 / norm
    optimizer.step()

    assert record.loss == pytest.approx(loss.item(), rel=1e-12)
    assert record.gradient_norm == pytest.approx(norm, rel=1e-12)
    for name, expected in weights(other).items():
        np.testing.assert_allclose(weights(model)[name], expected, rtol=1e-9, atol=1e-12)


def test_an_objective_of_ones_own(device: str) -> None:
    """The step asks a function for the loss, by default the model's own."""
    calls: list[str] = []

    def half(model: GPT, x: Any, y: Any, reduction: str) -> Tensor:
        calls.append(reduction)
        return model.loss(x, y, reduction) * 0.5

    for accumulation, expected in ((1, ["mean"]), (2, ["sum", "sum"])):
        config = TrainConfig(steps=1, batch=4, accumulation=accumulation, device=device)
        (usual,) = train(small(device), WINDOWS, config)
        (record,) = train(small(device), WINDOWS, config, objective=half)
        assert record.loss == pytest.approx(usual.loss / 2)
        assert record.gradient_norm == pytest.approx(usual.gradient_norm / 2)
        assert calls == expected
        calls.clear()


def test_clip_0_is_no_clipping(device: str) -> None:
    config = TrainConfig(steps=1, batch=4, clip=0, warmup=0, device=device)
    model = small(device)
    assert next(train(model, WINDOWS, config)).gradient_norm == pytest.approx(
        gradient_norm(model), rel=1e-12
    )
    assert (
        next(
            train(
                small(device),
                WINDOWS,
                TrainConfig(steps=1, batch=4, clip=1e-3, warmup=0, device=device),
            )
        ).gradient_norm
        > 1e-2
    )


def test_the_same_seed_is_the_same_run(device: str) -> None:
    def losses(seed: int) -> list[float]:
        return [
            record.loss
            for record in train(
                small(device, dropout=0.2),
                WINDOWS,
                TrainConfig(steps=5, batch=4, seed=seed, device=device),
            )
        ]

    first = losses(1)
    if device == "cpu":
        assert losses(1) == first
    else:  # the embedding's gradient is summed by atomics, in no fixed order
        assert losses(1) == pytest.approx(first, rel=1e-6)
    assert losses(2) != pytest.approx(first, rel=1e-6)


def test_going_on_is_as_if_never_stopped(device: str) -> None:
    """A step follows from its number, the weights and the optimiser's state alone."""
    config = TrainConfig(steps=8, batch=4, device=device)
    whole, halves = small(device, dropout=0.2), small(device, dropout=0.2)
    expected = [record.loss for record in train(whole, WINDOWS, config)]

    steps = train(halves, WINDOWS, config, optimizer := optimizer_of(halves, config))
    got = [next(steps).loss for _ in range(3)]
    fresh = small(device, dropout=0.2)
    again = optimizer_of(fresh, config)
    fresh.load_state_dict(halves.state_dict())
    again.load_state_dict(optimizer.state_dict())
    tensor.manual_seed(12345)  # what another program drew in between does not matter
    got += [record.loss for record in train(fresh, WINDOWS, config, again, first=3)]

    if device == "cpu":
        assert got == expected
        assert differ(weights(whole), weights(fresh)) == []
    else:  # the embedding's gradient is summed by atomics, in no fixed order
        assert got[:1] == expected[:1]
        assert got == pytest.approx(expected, rel=1e-5)


# -- rows of the table of known bugs


class TwoNames(GPT):
    """A GPT whose token table has a second name, as a tied head has in other programs."""

    def __init__(self, config: GPTConfig, **options: Any):
        super().__init__(config, **options)
        self.same_table = self.token_embedding.weight


def test_bug_42_tied_table_decays_once(device: str) -> None:
    """With zero gradients a step is w (1 - lr decay): once for the tied table too, which has one
    place, and never for gains and biases.
    """
    model = TwoNames(
        GPTConfig(22, 8, 8, 2, 1), generator=Generator(1), dtype="float64", device=device
    )
    optimizer = optimizer_of(model, TrainConfig(lr=0.1, weight_decay=0.5, device=device))
    before = weights(model)
    for parameter in model.parameters():
        parameter.grad = tensor.zeros_like(parameter.detach())
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = 0.95 if parameter.ndim >= 2 else 1.0
        np.testing.assert_allclose(
            parameter.detach().numpy(), before[name] * factor, rtol=1e-12, err_msg=name
        )
    assert Counter(
        id(place.parameter) for flat in optimizer.flats for place in flat.slots
    ) == Counter(map(id, model.parameters()))
    assert (
        len(list(model.parameters()))
        == len({id(parameter) for parameter in model.parameters()})
        == len(list(small(device).parameters()))
    )


def test_bug_43_non_finite_step_changes_nothing(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The third of five losses is NaN: that step is reported as skipped, leaves weights, means and
    counts alone, and training goes on. This loss differs from call to call, so no step is a graph.
    """
    model = small(device)
    config = TrainConfig(steps=5, batch=4, device=device)
    optimizer = optimizer_of(model, config)
    healthy = model.loss
    calls = iter(range(5))

    def loss(ids: Any, targets: Any, reduction: str) -> Tensor:
        factor = math.nan if next(calls) == 2 else 1.0
        scaled: Tensor = healthy(ids, targets, reduction) * factor
        return scaled

    monkeypatch.setattr(model, "loss", loss)
    records: list[StepRecord] = []
    states = []
    with np.errstate(all="ignore"), kernels.off("training_step"):
        for record in train(model, WINDOWS, config, optimizer):
            records.append(record)
            moments = {
                name: Tensor(array).numpy().copy()
                for name, array in optimizer.state_dict()["arrays"].items()
            }
            states.append((weights(model), moments, dict(optimizer.counts)))
    assert [record.skipped for record in records] == [False, False, True, False, False]
    assert math.isnan(records[2].gradient_norm)
    assert differ(states[1][0], states[2][0]) == []
    assert differ(states[1][1], states[2][1]) == []
    assert states[1][2] == states[2][2]
    # and the next step moves every parameter again
    assert differ(states[2][0], states[3][0]) == list(states[0][0])
    assert all(np.isfinite(array).all() for array in states[-1][0].values())


def test_bug_46_gradients_are_those_of_one_pass(device: str) -> None:
    """In each step, also in the first with gradients lying about: the norm is that of a single
    fresh pass, and gradients are there to see.
    """
    config = TrainConfig(steps=4, batch=4, clip=0, device=device)
    model, fresh = small(device), small(device)
    model.loss(*WINDOWS[:16]).backward()
    before = weights(model)
    for step, record in enumerate(train(model, WINDOWS, config)):
        fresh.load_state_dict(
            {name: Tensor(array, device=device) for name, array in before.items()}
        )
        fresh.zero_grad()
        fresh.loss(*WINDOWS[batch_rows(step, 4, len(WINDOWS), 0)]).backward()
        assert record.gradient_norm == pytest.approx(gradient_norm(fresh), rel=1e-10)
        for name, parameter in fresh.named_parameters():
            grad = dict(model.named_parameters())[name].grad
            assert grad is not None
            assert parameter.grad is not None
            np.testing.assert_allclose(grad.numpy(), parameter.grad.numpy(), rtol=1e-9, atol=1e-12)
        assert differ(before, weights(model)) == list(before)  # and they were used
        before = weights(model)


def test_bug_47_measuring_is_without_dropout(device: str) -> None:
    """Twice the same, the same as without dropout, and afterwards the model trains on with it."""
    model, plain = small(device, dropout=0.5), small(device)
    model.train()
    assert (
        mean_loss(model, WINDOWS, 16)
        == mean_loss(model, WINDOWS, 16)
        == pytest.approx(mean_loss(plain, WINDOWS, 16), rel=1e-12)
    )
    assert all(module.training for _, module in model.named_modules())
    plain.eval()
    mean_loss(plain, WINDOWS, 16)
    assert not any(module.training for _, module in plain.named_modules())


def test_bug_47_training_is_with_dropout(device: str) -> None:
    """Also of a model that was being evaluated; and a step's masks follow from its number."""
    config = TrainConfig(steps=2, batch=4, seed=5, device=device)
    model, other = small(device, dropout=0.5), small(device, dropout=0.5)
    record = next(train(model.eval(), WINDOWS, config))
    x, y = WINDOWS[batch_rows(0, 4, len(WINDOWS), 5)]
    assert record.loss != pytest.approx(other.eval().loss(x, y).item(), rel=1e-6)
    with keyed(Key(5, 0)):
        assert record.loss == pytest.approx(other.train().loss(x, y).item(), rel=1e-12)


# -- measuring


def test_mean_loss_is_the_mean_over_all_windows(device: str) -> None:
    """Whatever the batches: a smaller last one counts by its windows. Nothing is recorded."""
    model = small(device)
    x, y = WINDOWS[:]
    expected = np.mean([model.loss(x[i], y[i]).item() for i in range(len(x))])
    for batch in (1, 16, 100, 1000):
        assert mean_loss(model, WINDOWS, batch) == pytest.approx(expected, rel=1e-12)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert mean_loss(model, WINDOWS, 16, np.array([3, 5])) == pytest.approx(
        model.loss(x[[3, 5]], y[[3, 5]]).item(), rel=1e-12
    )


def test_small_texts_are_measured_whole_and_large_ones_evenly() -> None:
    assert np.array_equal(measured_rows(WINDOWS), np.arange(len(WINDOWS)))
    large = Windows(np.zeros(100_000, dtype=np.int64), 64)
    rows = measured_rows(large)
    assert len(rows) * 64 <= 1 << 18 < len(rows) * 64 * 1.1
    assert set(np.diff(rows)) == {rows[1]}
    assert len(large) - rows[-1] <= rows[1]


def test_threads() -> None:
    assert threads(GPTConfig(22), TrainConfig()) == 1
    assert threads(GPTConfig(65, 256, 384, 6, 6), TrainConfig()) is None
    assert threads(GPTConfig(22), TrainConfig(device="cuda")) is None


def test_learns_a_small_text_to_its_floor(device: str) -> None:
    """Everything together, on what has little to learn: one batch holds all windows."""
    ids = [0, 1, 2, 1, 0, 3] * 4
    windows = Windows(ids, 6)
    model = GPT(GPTConfig(4, 6, 16, 2, 1), generator=Generator(0), device=device)
    for _ in train(
        model, windows, TrainConfig(steps=150, batch=len(windows), lr=0.01, device=device)
    ):
        pass
    least = floor(ids, 6)
    assert least < mean_loss(model, windows, 32) < least + 0.03


def test_tf32_while_it_computes() -> None:
    model = GPTConfig(22, 8, 8, 2, 1)
    for tf32 in (False, True):
        with arithmetic(model, TrainConfig(device="cuda", tf32=tf32)):
            assert MODE.get().tf32 is tf32
        assert not MODE.get().tf32


def test_equal_bits_while_it_computes() -> None:
    model = GPTConfig(22, 8, 8, 2, 1)
    for asked in (False, True):
        with arithmetic(model, TrainConfig(deterministic=asked)):
            assert MODE.get().deterministic is asked
        assert not MODE.get().deterministic
