"""The choices that shape a sample, and a look at a text."""

from __future__ import annotations

from dataclasses import dataclass

from tinygpt.config.options import LARGE, SEEDS, VOCABULARY, check, check_fields, option

LENGTH = 16  # tokens that a look writes, if they fit and nothing else is asked for
TEMPERATURE = "0 always takes the likeliest token; 1 draws as the model says; above, wilder"


@dataclass(frozen=True)
class LookConfig:
    """A text, and how it goes on. Temperature first, then top-k, then top-p."""

    # characters the tokenizer knows
    prompt: str | None = option(
        None,
        "text to continue, or the source of an encoder-decoder (the first words of what it "
        "learned, if not given)",
        "TEXT",
    )
    length: int | None = option(
        None,
        f"tokens to write ({LENGTH}, or as many as fit, if not given; an encoder-decoder writes up "
        "to <eos>)",
        least=0,
        most=1_000_000,
    )
    # divides the logits
    temperature: float = option(0.0, TEMPERATURE, least=0, most=LARGE)
    # None: from all
    top_k: int | None = option(
        None, "draw from the k likeliest tokens only", least=1, most=VOCABULARY
    )
    # None: from all
    top_p: float | None = option(
        None, "draw from the fewest tokens that together have probability p", above=0, most=1
    )
    # the same seed, the same text
    seed: int = option(0, "what the draws follow from", least=0, most=SEEDS)

    def __post_init__(self) -> None:
        check_fields(self)
        check(
            self.prompt != "",
            "the prompt is empty: the model continues a text, so give it at least one character",
        )


@dataclass(frozen=True)
class SampleConfig(LookConfig):
    """What to write, and how freely. Temperature first, then top-k, then top-p."""

    length: int = option(100, "tokens to write", least=0, most=10_000_000)  # after the prompt
    temperature: float = option(1.0, TEMPERATURE, least=0, most=LARGE)
    # None: tokens are drawn
    beam: int | None = option(
        None,
        "beam search: the likeliest text found by following k at once; nothing is drawn",
        "K",
        least=1,
        most=1_000,
    )
    # None: only after `length` tokens
    stop: str | None = option(
        None, "text after which to stop, not written; \\n is a line end", "TEXT"
    )
    # 0: the text alone
    explain: int = option(
        0, "likeliest tokens to show at each step, with their probabilities", least=0, most=1_000
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check(self.stop != "", "stop is empty: give it at least one character, or leave it out")
