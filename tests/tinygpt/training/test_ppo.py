"""PPO beside the same formulas written reply by reply, in loops over Python's floats; its gradient
beside finite differences of them.   Tests: training/objectives/ppo.py, training/ppo.py
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from tensor import no_grad
from tensor.nn import evaluating
from tests.helpers.alignment import CONTEXT, END, PROMPTS, made
from tinygpt.config import AlignConfig
from tinygpt.ids import IGNORED
from tinygpt.model.aligned import Aligned
from tinygpt.training.objectives.ppo import PPOLoss, Replies, advantages_of, whitened
from tinygpt.training.ppo import learned_from, numbers_of, parts_of, steered
from tinygpt.training.rollouts import Rollout, roll_out

LENGTH = 4
CHOICES = AlignConfig(dtype="float64", gamma=0.9, gae=0.8, clip_range=0.15, value_weight=0.3)


def rolled(model: Aligned, seed: int = 3, prompts: Any = PROMPTS) -> Rollout:
    return roll_out(model, prompts, END, LENGTH, seed, first=0)


# -- the same, written otherwise: one reply at a time, without padding


class Spoken(NamedTuple):
    """What the models say of the tokens of a reply, in its order."""

    log_p: list[float]
    log_q: list[float]
    entropy: list[float]
    values: list[float]
    score: float


def logarithms(logits: Any) -> list[float]:
    top = max(logits)
    total = math.log(math.fsum(math.exp(x - top) for x in logits)) + top
    return [x - total for x in logits]


def spoken(model: Any, prompt: list[int], reply: list[int]) -> Spoken:
    """Of one reply. The whole of it goes through each model, alone in its batch."""
    whole, first = [*prompt, *reply], len(prompt) - 1
    with no_grad(), evaluating():
        h = model.policy.hidden([whole]).numpy()[0]
        p, q = (each([whole]).numpy()[0].tolist() for each in (model.policy, model.reference))
        score = model.reward([whole]).numpy()[0, -1, 0]
    weight, bias = model.value.weight.numpy()[:, 0], float(model.value.bias.numpy()[0])
    found = Spoken([], [], [], [], (float(score) - 0.25) / 1.5)
    for place, token in enumerate(reply, first):
        logs = logarithms(p[place])
        found.log_p.append(logs[token])
        found.log_q.append(logarithms(q[place])[token])
        found.entropy.append(-math.fsum(math.exp(x) * x for x in logs))
        found.values.append(math.fsum(h[place] * weight) + bias)
    return found


def all_spoken(model: Aligned, rollout: Rollout) -> list[Spoken]:
    """With the score of a reply that was cut off: the lowest of all."""
    told = [spoken(model, *each) for each in zip(PROMPTS, rollout.replies, strict=True)]
    lowest = min(one.score for one in told)
    ended = [reply[-1] == END for reply in rollout.replies]
    return [
        one if whole else one._replace(score=lowest) for one, whole in zip(told, ended, strict=True)
    ]


def summed(rewards: list[float], values: list[float], gamma: float, gae: float) -> list[float]:
    """A_t = sum_k (gamma lambda)^k d_t+k, as it is defined."""
    ends = [*values, 0.0]
    d = [r + gamma * ends[t + 1] - ends[t] for t, r in enumerate(rewards)]
    return [
        math.fsum((gamma * gae) ** k * later for k, later in enumerate(d[t:]))
        for t in range(len(d))
    ]


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


def placed(rollout: Rollout, rows: list[list[float]]) -> Any:
    """At the token before the one it is about; 0 elsewhere."""
    whole = np.zeros(rollout.ids.shape)
    for i, row in enumerate(rows):
        start = len(PROMPTS[i]) - 1
        whole[i, start : start + len(row)] = row
    return whole


# -- a rollout


def test_replies_end_early_are_cut_off_and_fill_the_context() -> None:
    """What the other tests need, and what a rollout is: nothing is written after the end, and the
    last token fits the context.
    """
    model = made()
    replies = rolled(model).replies
    assert any(len(reply) < LENGTH and reply[-1] == END for reply in replies)
    assert any(len(reply) == LENGTH and reply[-1] != END for reply in replies)
    assert len(PROMPTS[-1]) + len(replies[-1]) == CONTEXT
    assert all(reply.count(END) == (reply[-1] == END) for reply in replies)


def test_a_rollout_is_that_of_the_formulas() -> None:
    model = made()
    rollout = rolled(model)
    told = all_spoken(model, rollout)
    close: Any = {"rtol": 0, "atol": 1e-12}
    for name in ("log_p", "log_q", "entropy", "values"):
        expected = placed(rollout, [getattr(one, name) for one in told])
        np.testing.assert_allclose(getattr(rollout, name), expected, **close)
    np.testing.assert_allclose(rollout.passed, placed(rollout, [x.log_p for x in told]), **close)
    np.testing.assert_allclose(rollout.scores, [one.score for one in told], **close)
    kl = [math.fsum(p - q for p, q in zip(one.log_p, one.log_q, strict=True)) for one in told]
    numbers = numbers_of(rollout)
    entropies = [x for one in told for x in one.entropy]
    assert numbers["kl"] == pytest.approx(math.fsum(kl) / len(kl), abs=1e-12)
    assert numbers["reward"] == pytest.approx(np.mean([one.score for one in told]), abs=1e-12)
    assert numbers["entropy"] == pytest.approx(math.fsum(entropies) / len(entropies), abs=1e-12)
    assert numbers["length"] == len(entropies) / len(told)


def test_kl_is_the_divergence_of_the_distributions() -> None:
    """The mean over many replies of one token is sum_v p_v (ln p_v - ln q_v)."""
    model, prompt, count = made(), PROMPTS[0], 4000
    rollout = roll_out(model, [prompt] * count, END, 1, seed=1, first=0)
    with no_grad(), evaluating():
        p, q = (
            np.array(logarithms(each([prompt]).numpy()[0, -1].tolist()))
            for each in (model.policy, model.reference)
        )
    exact = float((np.exp(p) * (p - q)).sum())
    spread = float(np.sqrt((np.exp(p) * (p - q - exact) ** 2).sum() / count))
    assert exact > 10 * spread
    assert abs(rollout.kl - exact) < 4 * spread


@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-12), ("float32", 1e-6)])
def test_the_sampler_says_what_training_says(dtype: str, limit: float) -> None:
    """Log-probabilities, relative to the size of the logits."""
    model = made(dtype)
    for seed in range(4):
        rollout = rolled(model, seed)
        with no_grad(), evaluating():
            size = float(np.abs(model.policy(rollout.ids).numpy()).max())
        assert rollout.gap <= limit * max(size, 1)
        assert (rollout.log_p[rollout.targets != IGNORED] < 0).all()


def test_a_reply_follows_from_its_number() -> None:
    """Not from the other prompts, which are padded beside it."""
    model = made()
    together = rolled(model)
    for i, prompt in enumerate(PROMPTS):
        alone = roll_out(model, [prompt], END, LENGTH, seed=3, first=i)
        assert alone.replies[0] == together.replies[i]
    assert rolled(model, seed=4).replies != together.replies


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
    PPOLoss(CHOICES.clip_range, CHOICES.value_weight)(
        model, replies, replies.targets, "mean"
    ).backward()
    assert any(
        case in ("above+", "below-")
        for _, case in terms(all_spoken(model, rollout), lessons, CHOICES)
    )
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
