"""The kinds of models that a run can hold, by the name that config.json gives."""

from __future__ import annotations

from typing import Any, NamedTuple

from tinygpt.config import (
    BERTClassifierConfig,
    BERTConfig,
    EncoderDecoderConfig,
    GPTClassifierConfig,
    GPTConfig,
)
from tinygpt.model.bert import BERT
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.model.gpt import GPT
from tinygpt.model.heads import BERTClassifier, GPTClassifier


class Kind(NamedTuple):
    """A model and its configuration."""

    config: type[Any]  # of ModelConfig
    model: type[Any]  # of Transformer


KINDS = {
    "gpt": Kind(GPTConfig, GPT),
    "encoder-decoder": Kind(EncoderDecoderConfig, EncoderDecoder),
    "bert": Kind(BERTConfig, BERT),
    "gpt-classifier": Kind(GPTClassifierConfig, GPTClassifier),
    "bert-classifier": Kind(BERTClassifierConfig, BERTClassifier),
}
