"""The choices that shape a model."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from typing import Literal

from tinygpt.config.options import VOCABULARY, ConfigError, changed, check, check_fields, option

LABELS = 1000  # of a classifier, at most


@dataclass(frozen=True)
class ModelConfig:
    """A transformer of any kind."""

    labels = tuple[str, ...]()  # of a classifier, where it is a field: the names of its classes
    # as many as the tokenizer knows
    vocabulary: int = option(MISSING, "number of different tokens, V", least=1, most=VOCABULARY)
    # the window: what lies further back is forgotten
    context: int = option(32, "tokens the model sees at once, T", least=1, most=1_000_000)
    # the residual stream; heads share it evenly
    width: int = option(64, "numbers that stand for one token, C", least=1, most=1_000_000)
    # each looks at width / heads numbers of its own
    heads: int = option(4, "attention heads a layer, H", least=1, most=1_000_000)
    # each is attention, then feed-forward
    layers: int = option(2, "transformer blocks, one after the other", least=1, most=10_000)
    # 0 for small data seen many times
    dropout: float = option(0.0, "share of activations left out in training", least=0, below=1)
    # sinusoidal has no parameters
    positions: Literal["learned", "sinusoidal"] = option("learned", "how a token knows its place")
    # None: with sinusoidal positions, as Vaswani et al. 2017, section 3.4
    scaled: bool | None = option(
        None, "token embeddings times the square root of the width (default: if sinusoidal)"
    )
    # post: the form of 2017
    norm: Literal["pre", "post"] = option("pre", "LayerNorm before or after each residual sum")
    # gelu in its tanh form, as GPT-2; gelu_erf is the exact one
    activation: Literal["gelu", "gelu_erf", "relu"] = option(
        "gelu", "nonlinearity of the feed-forward"
    )
    # keeps a row of equal numbers from a division by zero
    epsilon: float = option(1e-5, "added to the variance in LayerNorm", above=0, most=1)
    bias: bool = option(True, "biases in the linear layers")  # LayerNorm keeps its own
    # saves V x C parameters
    tied: bool = option(True, "the head shares the token embedding's weights")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scaled is None:
            object.__setattr__(self, "scaled", self.positions == "sinusoidal")
        if self.width % self.heads:
            wider = -(-self.width // self.heads) * self.heads
            fewer = max(
                heads for heads in range(1, min(self.heads, 1000)) if self.width % heads == 0
            )
            raise ConfigError(
                f"width {self.width} is not divisible by heads {self.heads}, which share it "
                f"evenly: try width {wider} or heads {fewer}"
            )

    @property
    def outcomes(self) -> int:
        """How many different targets there are: the labels of a classifier, else V."""
        return len(self.labels) or self.vocabulary


@dataclass(frozen=True)
class GPTConfig(ModelConfig):
    """A decoder-only transformer. The defaults learn the story; GPT-2 is GPTConfig(50257, 1024,
    768, 12, 12, dropout=0.1).      Radford et al. 2019
    """


@dataclass(frozen=True)
class EncoderDecoderConfig(ModelConfig):
    """An encoder and a decoder of `layers` blocks each, and one vocabulary for source and target.
    The defaults are the form of Vaswani et al. 2017.
    """

    positions: Literal["learned", "sinusoidal"] = changed(ModelConfig, "positions", "sinusoidal")
    norm: Literal["pre", "post"] = changed(ModelConfig, "norm", "post")
    activation: Literal["gelu", "gelu_erf", "relu"] = changed(ModelConfig, "activation", "relu")


@dataclass(frozen=True)
class BERTConfig(ModelConfig):
    """An encoder alone, which learns to fill in masked tokens. BERT of 2018 is BERTConfig(30522,
    512, 768, 12, 12, dropout=0.1).      Devlin et al. 2018
    """

    norm: Literal["pre", "post"] = changed(ModelConfig, "norm", "post")
    activation: Literal["gelu", "gelu_erf", "relu"] = changed(ModelConfig, "activation", "gelu_erf")
    epsilon: float = changed(ModelConfig, "epsilon", 1e-12)
    segments: int = option(2, "texts in one input, each with an embedding", least=1, most=1_000)


@dataclass(frozen=True)
class GPTClassifierConfig(GPTConfig):
    """A GPT whose head gives a logit for each label, in the place of the next token."""

    labels: tuple[str, ...] = option((), "the names of the classes")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.labels)


@dataclass(frozen=True)
class BERTClassifierConfig(BERTConfig):
    """A BERT whose head gives a logit for each label, in the place of the masked token."""

    labels: tuple[str, ...] = option((), "the names of the classes")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_labels(self.labels)


def check_labels(labels: tuple[str, ...]) -> None:
    """Raise ConfigError for no label, for too many, and for two that are equal."""
    count = len(labels)
    check(1 <= count <= LABELS, f"labels: there are {count:,}, and from 1 to {LABELS:,} are needed")
    check(len(set(labels)) == count, "labels: two are the same, and each class needs its own")
