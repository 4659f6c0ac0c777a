"""Every choice that shapes a run, as frozen dataclasses. The command line makes its flags from these fields and their `help`.

    GPTConfig     the model
    TrainConfig   its training
    SampleConfig  what it is asked to write

The command line adds what belongs to no run: which run, which file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, Literal

from tensor.dtypes import FLOATS, as_dtype
from tensor.errors import DTypeError
from tinygpt.errors import InputError


class ConfigError(InputError):
    """A choice that cannot be, or two that do not go together; says which, and what would."""


def option(default: Any, text: str, metavar: str | None = None) -> Any:
    """A field with its default, the line that `--help` prints for it, and what it calls the value (N for numbers, if not given)."""
    return field(default=default, metadata={"help": text, "metavar": metavar})


def check(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raise ConfigError unless the value is a whole number, `least` or more."""
    check(isinstance(value, Integral) and value >= least, f"{name} {value}: a whole number, at least {least}, is needed")  # type: ignore[operator]


KINDS: dict[str, tuple[type, str]] = {"int": (Integral, "a whole number"), "float": (Real, "a number"), "bool": (bool, "true or false"), "str": (str, "text")}


def check_kinds(config: Any) -> None:
    """Raise ConfigError unless each field holds what its annotation says: a file may have been edited."""
    for f in fields(config):
        kind, value = str(f.type).split(" | ")[0], getattr(config, f.name)
        if kind in KINDS and not (value is None and "None" in str(f.type)):
            known, said = KINDS[kind]
            check(isinstance(value, known) and (kind == "bool") == isinstance(value, bool), f"{f.name} {value!r}: {said} is needed")


@dataclass(frozen=True)
class GPTConfig:
    """A decoder-only transformer. The defaults learn the story; GPT-2 is GPTConfig(50257, 1024, 768, 12, 12, dropout=0.1)."""

    vocabulary: int = field(metadata={"help": "number of different tokens, V"})  # as many as the tokenizer knows
    context: int = option(32, "tokens the model sees at once, T")  # the window: what lies further back is forgotten
    width: int = option(64, "numbers that stand for one token, C")  # the residual stream; heads share it evenly
    heads: int = option(4, "attention heads a layer, H")  # each looks at width / heads numbers of its own
    layers: int = option(2, "transformer blocks, one after the other")  # each is attention, then feed-forward
    dropout: float = option(0.0, "share of activations left out in training")  # 0 for small data seen many times
    positions: Literal["learned", "sinusoidal"] = option("learned", "how a token knows its place")  # sinusoidal has no parameters
    norm: Literal["pre", "post"] = option("pre", "LayerNorm before or after each residual sum")  # post: the form of 2017
    activation: Literal["gelu", "relu"] = option("gelu", "nonlinearity of the feed-forward")  # gelu in its tanh form, as GPT-2
    bias: bool = option(True, "biases in the linear layers")  # LayerNorm keeps its own
    tied: bool = option(True, "the head shares the token embedding's weights")  # saves V x C parameters

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("vocabulary", "context", "width", "heads", "layers"):
            check_count(name, getattr(self, name))
        if self.width % self.heads:
            wider = -(-self.width // self.heads) * self.heads
            fewer = max(heads for heads in range(1, min(self.heads, 1000)) if self.width % heads == 0)  # a damaged file may say 10^12
            raise ConfigError(f"width {self.width} is not divisible by heads {self.heads}, which share it evenly: try width {wider} or heads {fewer}")
        check(0 <= self.dropout < 1, f"dropout {self.dropout}: a share, at least 0 and below 1")
        for name, choices in (("positions", ("learned", "sinusoidal")), ("norm", ("pre", "post")), ("activation", ("gelu", "relu"))):
            check(getattr(self, name) in choices, f"{name} {getattr(self, name)!r}: choose {' or '.join(choices)}")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: AdamW, global-norm clipping, a learning rate that warms up and then follows half a cosine."""

    text: str | None = option(None, "file or folder to learn from, or `story` or `grammar` (the story, if none is given)", "TEXT")  # UTF-8
    validation: float = option(0.1, "share of a file's tokens, its end, kept back to measure on")  # the story is measured on itself
    tokenizer: Literal["character", "byte", "word", "bpe"] = option("character", "what a token is")  # bpe: byte pairs, trained on the text
    tokens: int = option(1024, "different tokens that bpe learns, or word keeps")  # V, for these two
    batch: int = option(16, "windows in one step, B")  # each of `context` tokens
    accumulation: int = option(1, "batches whose gradients make one step")  # as one batch that many times larger
    batches: Literal["epochs", "random"] = option("epochs", "each window once an epoch, or windows drawn at random")  # both follow from the seed
    steps: int = option(500, "updates of the weights")  # one batch each
    evaluate: int | None = option(None, "steps from one measuring of the validation loss to the next (a tenth of all, if not given)")
    patience: int | None = option(None, "measurings without a better loss after which training stops (never, if not given)")  # early stopping
    optimizer: Literal["adamw", "muon"] = option("adamw", "what turns gradients into updates")  # muon: for matrices; the rest stays AdamW's
    muon_lr: float = option(0.02, "highest learning rate of muon's matrices")  # follows the same schedule
    lr: float = option(3e-3, "highest learning rate")  # reached after the warm-up
    final_lr: float = option(0.1, "share of the learning rate that is left at the end")  # where the cosine ends
    warmup: int | None = option(None, "steps over which the learning rate rises (a tenth of all, if not given)")  # must be fewer than steps
    weight_decay: float = option(0.1, "share of matrices and tables taken off a step, times the learning rate")  # not of gains and biases
    decay_embeddings: bool = option(True, "the tables of tokens and positions decay too")  # and with the first, a tied head
    beta1: float = option(0.9, "memory of AdamW's mean gradient")  # 0.9 looks back about 10 steps
    beta2: float = option(0.99, "memory of AdamW's mean squared gradient")  # 0.99 looks back about 100 steps
    clip: float = option(1.0, "largest global gradient norm; longer gradients are shortened to it")  # 0 turns it off
    stride: int = option(1, "tokens from the start of one training window to the next")  # 1: every window there is
    seed: int = option(0, "what all randomness follows from")  # the same seed, the same run
    device: str = option("cpu", "cpu, cuda or cuda:N")  # where the arrays live
    dtype: str = option("float32", "float32, float64, bfloat16 or float16")  # of weights and activations
    recompute: bool = option(False, "activations of each block are computed again in backward: less memory, more time")  # the same numbers
    snapshots: int = option(8, "copies of the weights kept along the way, for tinygpt look to show how they were learned; 0: none")  # small: float16
    tensorboard: bool = option(False, "event files for TensorBoard in the run's folder")  # needs its package
    out: str | None = option(None, "folder of the run (runs/ and a new name, if not given)", "FOLDER")  # must not hold another run

    def __post_init__(self) -> None:
        check_kinds(self)
        for name in ("batch", "steps", "stride", "accumulation"):
            check_count(name, getattr(self, name))
        for name in ("evaluate", "patience"):
            if getattr(self, name) is not None:
                check_count(name, getattr(self, name))
        check(self.text != "", "text is empty: give the path of a file or folder, or leave it out for the story")
        check_count("snapshots", self.snapshots, least=0)
        check_count("tokens", self.tokens, least=2)
        check(0 <= self.validation < 1, f"validation {self.validation}: a share, at least 0 and below 1")
        check(0 < self.muon_lr < float("inf"), f"muon_lr {self.muon_lr}: a positive number is needed, such as 0.02")
        for name, choices in (("tokenizer", ("character", "byte", "word", "bpe")), ("batches", ("epochs", "random")), ("optimizer", ("adamw", "muon"))):
            check(getattr(self, name) in choices, f"{name} {getattr(self, name)!r}: choose {', '.join(choices[:-1])} or {choices[-1]}")
        check(0 < self.lr < float("inf"), f"lr {self.lr}: a positive number is needed, such as 0.001")
        check(0 <= self.final_lr <= 1, f"final_lr {self.final_lr}: a share of lr, between 0 and 1")
        check(
            self.warmup is None or 0 <= self.warmup < self.steps,
            f"warmup {self.warmup}: at least 0 and fewer than the {self.steps} steps, so that the learning rate can come down again",
        )
        check(0 <= self.weight_decay < float("inf"), f"weight_decay {self.weight_decay}: at least 0")
        for name in ("beta1", "beta2"):
            check(0 <= getattr(self, name) < 1, f"{name} {getattr(self, name)}: at least 0 and below 1")
        check(0 <= self.clip < float("inf"), f"clip {self.clip}: a positive norm, or 0 for no clipping")
        check(0 <= self.seed < 2**64, f"seed {self.seed}: a whole number from 0 to 2^64 - 1")
        check(
            self.device in ("cpu", "cuda") or (self.device.startswith("cuda:") and self.device[5:].isdecimal()),
            f"device {self.device!r}: choose cpu, cuda or cuda:N",
        )
        try:
            known = as_dtype(self.dtype) in FLOATS
        except DTypeError:
            known = False
        check(known, f"dtype {self.dtype!r}: choose float32, float64, bfloat16 or float16")

    @property
    def betas(self) -> tuple[float, float]:
        """AdamW's two memories as the optimiser takes them."""
        return self.beta1, self.beta2

    @property
    def evaluate_steps(self) -> int:
        """The steps between two measurings: as given, else a tenth of all."""
        return max(1, self.steps // 10) if self.evaluate is None else self.evaluate

    @property
    def warmup_steps(self) -> int:
        """The steps of warm-up: as given, else a tenth of all."""
        return self.steps // 10 if self.warmup is None else self.warmup


@dataclass(frozen=True)
class SampleConfig:
    """What to write, and how freely. Temperature first, then top-k, then top-p."""

    prompt: str | None = option(None, "text to continue (the first words of the text it learned, if not given)", "TEXT")  # characters the tokenizer knows
    length: int = option(100, "tokens to write")  # after the prompt
    temperature: float = option(1.0, "0 always takes the likeliest token; 1 draws as the model says; above, wilder")  # divides the logits
    top_k: int | None = option(None, "draw from the k likeliest tokens only")  # None: from all
    top_p: float | None = option(None, "draw from the fewest tokens that together have probability p")  # None: from all
    seed: int = option(0, "what the draws follow from")  # the same seed, the same text
    stop: str | None = option(None, "text after which to stop, not written; \\n is a line end", "TEXT")  # None: only after `length` tokens
    explain: int = option(0, "likeliest tokens to show at each step, with their probabilities")  # 0: the text alone

    def __post_init__(self) -> None:
        check_kinds(self)
        check(self.stop != "", "stop is empty: give it at least one character, or leave it out")
        check_count("explain", self.explain, least=0)
        check(self.prompt != "", "the prompt is empty: the model continues a text, so give it at least one character")
        check_count("length", self.length, least=0)
        check_sampling(self.temperature, self.top_k, self.top_p)
        check(0 <= self.seed < 2**64, f"seed {self.seed}: a whole number from 0 to 2^64 - 1")


def check_sampling(temperature: float, top_k: int | None, top_p: float | None) -> None:
    """Raise ConfigError unless the three say how to draw: temperature >= 0, top_k >= 1, 0 < top_p <= 1."""
    check(0 <= temperature < float("inf"), f"temperature {temperature}: at least 0, which always takes the likeliest token")
    if top_k is not None:
        check_count("top_k", top_k)
    check(top_p is None or 0 < top_p <= 1, f"top_p {top_p}: a probability above 0 and up to 1")
