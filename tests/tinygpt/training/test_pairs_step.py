"""A step on pairs: the loss with smoothed labels, and the learning rates of the paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor.random import Generator
from tests.helpers.pairs_run import SOURCES, TOKENIZER
from tinygpt import TrainConfig
from tinygpt.config import EncoderDecoderConfig
from tinygpt.data.pairs import Pair, Pairs
from tinygpt.ids import IGNORED
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.training.order import batch_rows
from tinygpt.training.step import learning_rate, objective_of, train

PAIRS = Pairs([Pair(source, source[::-1]) for source in SOURCES], TOKENIZER, 8)


def model(device: str) -> EncoderDecoder:
    config = EncoderDecoderConfig(TOKENIZER.size, 8, width=8, heads=2, layers=1)
    return EncoderDecoder(config, generator=Generator(1), dtype="float64", device=device)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_of_a_step_is_pytorchs(smoothing: float, torch: Any, device: str) -> None:
    """Targets of unequal length, in one part or in three of unequal numbers of tokens."""
    options: dict[str, Any] = {"steps": 1, "device": device, "label_smoothing": smoothing}
    whole, parts = (
        TrainConfig(batch=batch, accumulation=accumulation, **options)
        for batch, accumulation in ((9, 1), (3, 3))
    )
    objective = objective_of(whole)
    (once,), (thrice,) = (
        train(model(device), PAIRS, c, objective=objective) for c in (whole, parts)
    )
    x, y = PAIRS[batch_rows(0, 9, len(PAIRS), 0)]
    logits = model(device)(x.source, x.target).detach().numpy()
    exact = torch.nn.functional.cross_entropy(
        torch.tensor(logits).reshape(-1, TOKENIZER.size),
        torch.tensor(y).reshape(-1),
        ignore_index=IGNORED,
        label_smoothing=smoothing,
    )
    assert once.loss == pytest.approx(exact.item(), rel=1e-13)
    assert thrice.loss == pytest.approx(exact.item(), rel=1e-13)
    assert thrice.gradient_norm == pytest.approx(once.gradient_norm, rel=1e-12)


def test_the_schedule_of_the_paper() -> None:
    """width^-0.5 min(t^-0.5, t warmup^-1.5), t from 1.   Vaswani et al. 2017, eq. 3"""
    for width, warmup in ((512, 4000), (64, 100), (64, 1)):
        peak = (width * warmup) ** -0.5
        config = TrainConfig(schedule="inverse_square_root", lr=peak, warmup=warmup, steps=100_000)
        t = np.array([1, 2, 99, 100, 101, 3999, 4000, 4001, 100_000])
        exact = width**-0.5 * np.minimum(t**-0.5, t * warmup**-1.5)
        found = [learning_rate(step - 1, config) for step in t.tolist()]
        np.testing.assert_allclose(found, exact, rtol=1e-14)
        assert learning_rate(warmup - 1, config) == pytest.approx(peak, rel=1e-14)
