"""A run of a small encoder-decoder whose answers differ in length and never are right."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.helpers.program import created
from tests.tinygpt.generation.test_beam import drawn
from tinygpt import CharacterTokenizer, TrainConfig
from tinygpt.config import EncoderDecoderConfig
from tinygpt.data.prepare import prepare
from tinygpt.ids import PAIR_TOKENS
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.runs.run import Run
from tinygpt.tokenizers import SpecialTokenizer

TOKENIZER = SpecialTokenizer(CharacterTokenizer("abc de"), PAIR_TOKENS)
FILE = Path("own.tsv")  # the pairs of its training: the last two are kept back
SOURCES = ["a", "ab", "abc", "bc", "c", "cab", "d", "de", "eb", "bad"]


@pytest.fixture
def pairs_run(here: Path) -> EncoderDecoder:
    """The model of runs/pairs."""
    FILE.write_text("".join(f"{source}\t{source[::-1]}\n" for source in SOURCES))
    config = EncoderDecoderConfig(
        TOKENIZER.size, 8, width=8, heads=2, layers=1, positions="learned", tied=False
    )
    model: EncoderDecoder = drawn(EncoderDecoder(config, dtype="float64", draw=False), 96)
    training = TrainConfig(pairs=str(FILE), validation=0.2, dtype="float64")
    run = Run(config, training, "bad", kind="encoder-decoder", folder=Path("runs/pairs"))
    run = replace(run, text=prepare(training, config.context, TOKENIZER).hash)
    weights = {name: w.array for name, w in model.state_dict().items()}
    checkpoint.save(created(run, TOKENIZER).folder, {runs.MODEL: weights}, checkpoint.State())
    return model
