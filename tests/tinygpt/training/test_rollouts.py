"""Rollouts: the replies, and what the models say of them, beside each reply alone.   Tests:
training/rollouts.py
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tensor import no_grad
from tensor.nn import evaluating
from tests.helpers.alignment import (
    CONTEXT,
    END,
    LENGTH,
    PROMPTS,
    all_spoken,
    logarithms,
    made,
    placed,
    rolled,
)
from tinygpt.errors import InputError
from tinygpt.ids import IGNORED
from tinygpt.training.ppo import numbers_of
from tinygpt.training.rollouts import roll_out, standardise


def test_replies_end_early_are_cut_off_and_fill_the_context() -> None:
    """What the other tests need, and what a rollout is: nothing is written after the end, and the
    last token fits the context.
    """
    model = made()
    replies = rolled(model).replies
    assert any(len(reply) < LENGTH and reply[-1] == END for reply in replies)
    assert any(len(reply) == LENGTH and reply[-1] != END for reply in replies)
    assert len(PROMPTS[-1]) + len(replies[-1]) == CONTEXT
    assert replies[-1][-1] != END
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
        alone = roll_out(model, [prompt], END, LENGTH, seed=2, first=i)
        assert alone.replies[0] == together.replies[i]
    assert rolled(model, seed=4).replies != together.replies


def test_scores_are_standardised_by_the_replies_of_the_start() -> None:
    model = made()
    model.mean[...], model.spread[...] = 0.0, 1.0
    standardise(model, PROMPTS * 20, END, LENGTH)
    rollout = roll_out(model, PROMPTS * 20, END, LENGTH, seed=0, first=1 << 30)
    assert rollout.scores.mean() == pytest.approx(0, abs=1e-6)
    assert rollout.scores.std() == pytest.approx(1, rel=1e-6)
    assert model.reward is not None
    next(iter(model.reward.parameters())).detach()[...] = np.inf
    with np.errstate(all="ignore"), pytest.raises(InputError, match="scores are not finite"):
        standardise(model, PROMPTS, END, LENGTH)
