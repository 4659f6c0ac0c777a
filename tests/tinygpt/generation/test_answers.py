"""Answers of an encoder-decoder: up to <eos>, greedy, drawn or searched for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor.errors import ShapeError
from tests.tinygpt.generation.test_beam import SOURCES, encoder_decoder
from tinygpt import SampleConfig
from tinygpt.config import ConfigError
from tinygpt.generation.answers import answers
from tinygpt.generation.beam import beam_search
from tinygpt.generation.sampling import distribution, draws, pick
from tinygpt.ids import EOS, SOS
from tinygpt.model.encoder_decoder import EncoderDecoder


def one_by_one(model: EncoderDecoder, number: int, config: SampleConfig) -> list[int]:
    """The answer to one source, by a whole forward pass for each token."""
    text, generator = [SOS], draws(config.seed, number)
    while len(text) <= min(config.length, model.context):
        logits = model([SOURCES[number]], [text]).numpy()[0, -1]
        text.append(pick(distribution(logits, config), generator))
        if text[-1] == EOS:
            return text[1:-1]
    return text[1:]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"length": 3},
        {"seed": 4},
        {"temperature": 1.5, "top_k": 3, "length": 50},
        {"top_p": 0.7},
    ],
    ids=str,
)
def test_answers_side_by_side_equal_answers_one_by_one(options: dict[str, Any]) -> None:
    """Over eight models, some answers end at once, and some never."""
    lengths, config = set(), SampleConfig(**options)
    for seed in range(8):
        model = encoder_decoder(seed, 8)
        found = answers(model, SOURCES, config)
        assert found == [one_by_one(model, i, config) for i in range(3)]
        assert answers(model, SOURCES[1:], config, number=1) == found[1:]
        lengths |= {len(answer) for answer in found}
    assert {0, min(config.length, 8)} <= lengths
    assert max(lengths) == min(config.length, 8)


def test_the_best_answers_of_a_beam() -> None:
    """The end token counts in ln p, and is no part of the answer."""
    model = encoder_decoder(2, 8)
    found = answers(model, SOURCES, SampleConfig(beam=4, length=6))
    texts = beam_search(model.given(SOURCES), [[SOS]] * 3, 4, 6, EOS)
    for source, answer, (best,) in zip(SOURCES, found, texts, strict=True):
        tokens = best.tokens
        assert tokens == ([*answer, EOS] if tokens[-1] == EOS else answer)
        log_p = model([source], [[SOS, *tokens[:-1]]]).log_softmax().numpy()[0]
        assert np.isclose(best.log_p, log_p[np.arange(len(tokens)), tokens].sum(), rtol=1e-12)
    assert any(best.tokens[-1] == EOS for (best,) in texts)


def test_one_beam_is_greedy() -> None:
    for seed in range(2, 7):
        model = encoder_decoder(seed, 8)
        greedy = answers(model, SOURCES, SampleConfig(temperature=0))
        assert answers(model, SOURCES, SampleConfig(beam=1)) == greedy


def test_wrong_sources_and_beams() -> None:
    with pytest.raises(ShapeError, match=r"sources\[1\] of shape \(0,\)"):
        answers(encoder_decoder(1), [[3], []], SampleConfig())
    with pytest.raises(ConfigError, match="beam 0: a whole number, at least 1 and at most 1,000"):
        SampleConfig(beam=0)
