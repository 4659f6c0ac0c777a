"""PPO beside the same formulas written reply by reply, in loops over Python's floats; its gradient
beside finite differences of them.   Tests: training/objectives/ppo.py, training/ppo.py
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pytest

import tensor
from tests.helpers.alignment import END, PROMPTS, Spoken, all_spoken, made, placed, rolled
from tinygpt.config import AlignConfig
from tinygpt.ids import IGNORED
from tinygpt.training.objectives.ppo import PPOLoss, Replies, advantages_of, whitened
from tinygpt.training.order import batch_rows
from tinygpt.training.ppo import AlignRecord, learned_from, parts_of, ppo, steered
from tinygpt.training.rollouts import roll_out
from tinygpt.training.step import learning_rate, optimizer_of, update

CHOICES = AlignConfig(dtype="float64", gamma=0.9, gae=0.8, clip_range=0.15, value_weight=0.3)


def summed(rewards: list[float], values: list[float], gamma: float, gae: float) -> list[float]:
    """A_t = sum_k (gamma lambda)^k d_t+k, as it is defined."""
    ends = [*values, 0.0]
    d = [r + gamma * ends[t + 1] - ends[t] for t, r in enumerate(rewards)]
    weight = gamma * gae
    return [math.fsum(weight**k * x for k, x in enumerate(d[t:])) for t in range(len(d))]


class Learned(NamedTuple):
    """What is learned of a reply."""

    old: list[float]
    advantages: list[float]
    returns: list[float]


def learned(told: list[Spoken], config: AlignConfig, price: float) -> list[Learned]:
    """Advantages of mean 0 and spread 1, and returns."""
    found = []
    for one in told:
        rewards = [-price * (p - q) for p, q in zip(one.log_p, one.log_q, strict=True)]
        rewards[-1] += one.score
        ahead = summed(rewards, one.values, config.gamma, config.gae)
        returns = [a + v for a, v in zip(ahead, one.values, strict=True)]
        found.append(Learned(one.log_p, ahead, returns))
    every = [a for one in found for a in one.advantages]
    mean = math.fsum(every) / len(every)
    spread = math.sqrt(math.fsum((a - mean) ** 2 for a in every) / len(every)) + 1e-8
    return [one._replace(advantages=[(a - mean) / spread for a in one.advantages]) for one in found]


def terms(now: list[Spoken], before: list[Learned], config: AlignConfig) -> list[tuple[float, str]]:
    """The loss of each token, and which of the cases of the clip it is."""
    found, e = [], config.clip_range
    for one, lesson in zip(now, before, strict=True):
        for t, old in enumerate(lesson.old):
            ratio, a = math.exp(one.log_p[t] - old), lesson.advantages[t]
            case = "above" if ratio > 1 + e else "below" if ratio < 1 - e else "near"
            if (case, a > 0) in (("above", True), ("below", False)):
                gain = ((1 + e) if a > 0 else (1 - e)) * a  # held: no gradient
            else:
                gain = ratio * a
            error = (one.values[t] - lesson.returns[t]) ** 2
            found.append((0.5 * config.value_weight * error - gain, f"{case}{'+-'[a < 0]}"))
    return found


def loss_of(told: list[Spoken], lessons: list[Learned], config: AlignConfig) -> float:
    values = [value for value, _ in terms(told, lessons, config)]
    return math.fsum(values) / len(values)


# -- the loss


def test_advantages_and_loss_are_those_of_the_formulas() -> None:
    model, moved, price = made(), made(), 0.7
    rollout = rolled(model)
    replies = learned_from(rollout, CHOICES, price)
    lessons = learned(all_spoken(model, rollout), CHOICES, price)
    close: Any = {"rtol": 0, "atol": 1e-12}
    for name in ("advantages", "returns"):
        expected = placed(rollout, [getattr(one, name) for one in lessons])
        places = rollout.targets != IGNORED
        np.testing.assert_allclose(getattr(replies, name)[places], expected[places], **close)
    cases = set()
    for size in (0.0, 0.02, 0.1):
        rng = np.random.default_rng(5)
        for (_, x), (_, before) in zip(
            moved.named_parameters(), model.named_parameters(), strict=True
        ):
            x.detach()[...] = before.numpy() + size * rng.standard_normal(x.shape)
        objective = PPOLoss(CHOICES.clip_range, CHOICES.value_weight)
        now = all_spoken(moved, rollout)
        found = float(objective(moved, replies, replies.targets, "mean"))
        assert found == pytest.approx(loss_of(now, lessons, CHOICES), rel=0, abs=1e-12)
        sides = [case for _, case in terms(now, lessons, CHOICES)]
        summed_loss = float(objective(moved, replies, replies.targets, "sum"))
        assert summed_loss == pytest.approx(found * len(sides), rel=1e-12)
        outside = [case for case in sides if not case.startswith("near")]
        assert objective.clipped == [len(outside) / len(sides)] * 2
        cases |= set(sides)
    assert cases == {f"{case}{sign}" for case in ("above", "below", "near") for sign in "+-"}


def test_gradients_are_those_of_finite_differences() -> None:
    """Of the loss in loops, whose advantages and returns stay. A policy that moved is clipped in
    some places. The reference and the reward model get no gradient.
    """
    model, price, step = made(), 0.7, 1e-5
    rollout = rolled(model)
    replies = learned_from(rollout, CHOICES, price)
    lessons = learned(all_spoken(model, rollout), CHOICES, price)
    rng = np.random.default_rng(5)
    learning = {name: x for name, x in model.named_parameters() if x.requires_grad}
    assert {name.partition(".")[0] for name in learning} == {"policy", "value"}
    for x in learning.values():
        x.detach()[...] = x.numpy() + 0.05 * rng.standard_normal(x.shape)
    objective = PPOLoss(CHOICES.clip_range, CHOICES.value_weight)
    objective(model, replies, replies.targets, "mean").backward()
    cases = {case for _, case in terms(all_spoken(model, rollout), lessons, CHOICES)}
    assert cases & {"above+", "below-"}
    for name, x in learning.items():
        assert x.grad is not None
        direction, before = rng.standard_normal(x.shape), x.numpy().copy()
        losses = []
        for sign in (1, -1):
            x.detach()[...] = before + sign * step * direction
            losses.append(loss_of(all_spoken(model, rollout), lessons, CHOICES))
        x.detach()[...] = before
        expected = (losses[0] - losses[1]) / (2 * step)
        found = float((x.grad.numpy() * direction).sum())
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-9), name
    assert all(x.grad is None for _, x in model.named_parameters() if not x.requires_grad)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("gae", [0.0, 0.5, 1.0])
def test_advantages_look_as_far_ahead_as_they_are_asked_to(gamma: float, gae: float) -> None:
    rng = np.random.default_rng(0)
    targets = np.array([[IGNORED, 3, 4, 2, IGNORED], [5, 2, IGNORED, IGNORED, IGNORED]])
    rewards, values = rng.standard_normal((2, 2, 5))  # also where nothing counts
    rewards = np.where(targets == IGNORED, 0, rewards)
    found = advantages_of(rewards, values, targets, gamma, gae)
    for row, some in ((0, slice(1, 4)), (1, slice(0, 2))):
        expected = summed(rewards[row, some].tolist(), values[row, some].tolist(), gamma, gae)
        np.testing.assert_allclose(found[row, some], expected, rtol=0, atol=1e-14)
    assert not found[targets == IGNORED].any()
    if gamma == gae == 1:  # all that comes, less what was expected
        ahead = rewards[0, 1:4][::-1].cumsum()[::-1] - values[0, 1:4]
        np.testing.assert_allclose(found[0, 1:4], ahead, rtol=0, atol=1e-14)
    if gamma == 0:  # the next reward alone
        np.testing.assert_allclose(found[0, 1:4], (rewards - values)[0, 1:4], rtol=0, atol=1e-14)


def test_whitened_advantages_have_mean_0_and_spread_1() -> None:
    targets = np.array([[IGNORED, 3, 4], [5, 2, IGNORED]])
    found = whitened(np.array([[99.0, 1.0, 2.0], [3.0, 6.0, -99.0]]), targets)
    counted = found[targets != IGNORED]
    assert counted.mean() == pytest.approx(0, abs=1e-15)
    assert counted.std() == pytest.approx(1, abs=1e-7)
    assert not found[targets == IGNORED].any()
    assert not whitened(np.full((2, 3), 4.0), targets).any()  # all are as good as the others


def test_padding_and_prompts_count_for_nothing() -> None:
    """Whatever stands there, in the ids after a reply and in the numbers."""
    model = made()
    replies = learned_from(rolled(model), CHOICES, 0.7)
    nothing = replies.targets == IGNORED
    after = np.cumsum(~nothing[:, ::-1], axis=1)[:, ::-1] == 0
    after[:, 1:] &= after[:, :-1]  # the last token of a reply is read by the reward model
    filled = Replies(
        np.where(after, 7, replies.ids),
        replies.targets,
        *(np.where(nothing, 1e3, x) for x in (replies.log_p, replies.advantages, replies.returns)),
    )
    one, other = (PPOLoss(0.2, 0.1)(model, x, x.targets, "mean").numpy() for x in (replies, filled))
    assert after.any()
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-14)


# -- the updates of a step


def test_each_epoch_learns_from_each_reply_once() -> None:
    config = AlignConfig(batch=10, epochs=3, minibatches=4)
    parts = list(parts_of(10, config, step=5))
    assert [len(part) for part in parts] == [3, 3, 2, 2] * 3
    epochs = [np.concatenate(parts[4 * i : 4 * i + 4]).tolist() for i in range(3)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    again, other = list(parts_of(10, config, step=5)), list(parts_of(10, config, step=6))
    assert all(np.array_equal(one, two) for one, two in zip(parts, again, strict=True))
    assert not all(np.array_equal(one, two) for one, two in zip(parts, other, strict=True))


def test_the_price_of_kl_is_steered_to_the_target() -> None:
    """By at most 2 % a step; a price without a target is fixed."""
    assert steered(0.5, kl=100, target=None) == 0.5
    for kl, expected in ((6.0, 0.5), (6.6, 0.505), (600.0, 0.51), (5.4, 0.495), (-3.0, 0.49)):
        assert steered(0.5, kl, target=6.0) == pytest.approx(expected, rel=1e-12)


class Prompts:
    """In the place of pairs: what PPO asks."""

    prompts, end = PROMPTS, END

    def __len__(self) -> int:
        return len(PROMPTS)


def test_a_step_is_a_rollout_and_its_updates() -> None:
    """Each update learns from the rollout of the step, whose log-probabilities stay, while the
    policy moves.
    """
    config = AlignConfig(dtype="float64", batch=5, steps=3, length=4, epochs=2, kl_target=0.5)
    prompts: Any = Prompts()
    model, other = made(), made()
    records = list(ppo(model, prompts, config, optimizer_of(model, config)))
    optimizer, price = optimizer_of(other, config), config.beta
    for step, record in enumerate(records):
        rows = batch_rows(step, 5, len(PROMPTS), config.seed)
        asked = [PROMPTS[i] for i in rows]
        rollout = roll_out(other, asked, END, 4, config.seed, 5 * step)
        replies = learned_from(rollout, config, price)
        optimizer.lr = learning_rate(step, config)
        moved = []
        for part in parts_of(5, config, step):
            objective = PPOLoss(config.clip_range, config.value_weight)
            some = replies[part]
            update(other, optimizer, some, some.targets, config.clip, objective=objective)
            moved += objective.clipped
        assert record.numbers["clipped"] == np.mean(moved)
        assert record.numbers["kl_price"] == price
        assert record.numbers["kl"] == rollout.kl
        price = price * (1 + 0.1 * min(max(rollout.kl / 0.5 - 1, -0.2), 0.2))
        assert record.carried == {"price": price}
        assert record.tokens == sum(map(len, rollout.replies))
    for (name, x), (_, y) in zip(model.named_parameters(), other.named_parameters(), strict=True):
        assert np.array_equal(x.numpy(), y.numpy()), name
    again = made()
    last = [*ppo(again, prompts, replace(config, steps=1), optimizer_of(again, config))]
    assert last[0].as_dict() | {"seconds": 0, "lr": 0} == records[0].as_dict() | {
        "seconds": 0,
        "lr": 0,
    }


def test_numbers_near_zero_are_told_without_a_sign() -> None:
    """At the first step the policy is the reference, and KL is 0 but for rounding."""
    numbers = dict.fromkeys(("reward", "kl", "entropy", "clipped", "length"), -1e-8)
    told = AlignRecord(numbers, 0.1, 1, 0.001, 4, None).said
    assert told[:3] == ["reward 0.00", "KL 0.00", "entropy 0.00"]


def test_recomputing_gives_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The activations of the policy's blocks, once for each block and update."""
    prompts: Any = Prompts()
    again, models = tensor.checkpoint, [made(), made()]
    blocks = list[Any]()

    def counted(block: Any, *inputs: Any) -> Any:
        blocks.append(block)
        return again(block, *inputs)

    monkeypatch.setattr(tensor, "checkpoint", counted)
    for model, recompute in zip(models, (False, True), strict=True):
        config = AlignConfig(dtype="float64", batch=5, steps=1, length=4, recompute=recompute)
        next(ppo(model, prompts, config, optimizer_of(model, config)))
        assert len(blocks) == recompute * 2 * config.updates
    assert set(blocks) == set(models[1].policy.blocks)
    for x, y in zip(*(model.parameters() for model in models), strict=True):
        assert np.array_equal(x.numpy(), y.numpy())


def test_a_step_is_skipped_where_each_of_its_updates_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights then stay; else the norm is the largest of those that were taken."""
    config = AlignConfig(dtype="float64", batch=5, steps=1, length=4)
    prompts: Any = Prompts()
    model = made()
    before = {name: x.numpy().copy() for name, x in model.named_parameters()}
    assert model.value is not None
    model.value.bias.detach()[...] = np.inf
    record = next(ppo(model, prompts, config, optimizer_of(model, config)))
    assert record.skipped
    for name, x in model.policy.named_parameters():
        assert np.array_equal(x.numpy(), before[f"policy.{name}"])
    norms = iter([math.inf, 2.0, math.nan, 1.0])

    def seeming(model: Any, _: Any, x: Any, y: Any, *more: Any) -> tuple[float, float]:
        return float(more[-1](model, x, y, "mean")), next(norms)

    monkeypatch.setattr("tinygpt.training.ppo.update", seeming)
    record = next(ppo(made(), prompts, config, optimizer_of(model, config)))
    assert not record.skipped
    assert record.gradient_norm == 2.0
