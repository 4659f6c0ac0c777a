"""What a training learns from, and what it is measured on."""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.config import ModelConfig
from tinygpt.data.windows import Examples
from tinygpt.tokenizers import Tokenizer


@dataclass(frozen=True)
class Data:
    """Windows to learn from, and to measure on (None: the same ones)."""

    name: str  # for people
    size: str  # for people: 149 characters
    opening: str  # the first words of the text
    hash: str  # SHA-256 of the text, or the hash of a token folder
    tokenizer: Tokenizer
    windows: Examples
    validation: Examples | None
    floor: float | None  # lower bound of the loss, nats a token; None where nobody knows

    @property
    def example(self) -> str:
        """The word for one of what is learned from: window, pair, example or text."""
        return example_of(self.windows)

    @property
    def unit(self) -> str:
        """The word for a token: character, byte or token."""
        return self.tokenizer.unit

    @property
    def target(self) -> str:
        """The word for what the loss is a mean over: a token, or of a classifier a text."""
        return getattr(self.windows, "target", self.unit)

    def outcomes(self, model: ModelConfig) -> int:
        """What a model that knows nothing guesses among."""
        return getattr(self.windows, "outcomes", model.outcomes)


def example_of(windows: Examples) -> str:
    """The word for one of these: window, pair, example or text."""
    return getattr(windows, "example", "window")
