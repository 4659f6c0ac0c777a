"""Every choice that shapes a run, as frozen dataclasses. The command line makes its flags from these fields and their `help`.

    GPTConfig     the model
    TrainConfig   its training
    SampleConfig  what it is asked to write

The command line adds what belongs to no run: which run, which file.
"""

from __future__ import annotations

import operator
import re
import typing
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

from tinygpt.errors import InputError

VOCABULARY = 10_000_000  # tokens, forty times the most that is in use
STEPS = 1_000_000_000
LARGE = 1_000_000  # for numbers that no arithmetic bounds, such as learning rates: beyond, float32 only overflows
SEEDS = 2**64 - 1
DTYPES = "float32", "float64", "bfloat16", "float16"


class ConfigError(InputError):
    """A choice that cannot be, or two that do not go together; says which, and what would."""


def check(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


# -- fields, and what they may hold -------------------------------------------------------------------------------------

KINDS: dict[type, tuple[type, str]] = {int: (Integral, "a whole number"), float: (Real, "a number"), bool: (bool, "true or false"), str: (str, "text")}
LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {  # in the order in which they are told
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def option(default: Any, text: str, metavar: str | None = None, **limits: float) -> Any:
    """A field: its default (MISSING for none), its line in `--help`, what that line calls the value (N for numbers, if not given), its LIMITS."""
    return field(default=default, metadata={"help": text, "metavar": metavar, **limits})


class Kind(NamedTuple):
    """What a field's annotation says."""

    type: type
    choices: tuple[str, ...] = ()
    optional: bool = False  # it may be None


@cache
def kinds(config: Any) -> dict[str, Kind]:
    """Of each field its Kind.   int | None -> int, optional;   Literal["pre", "post"] -> str and its choices."""
    return {name: _kind(hint) for name, hint in typing.get_type_hints(config).items()}


def _kind(hint: Any) -> Kind:
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) is Literal:
        return Kind(str, tuple(parts))
    return Kind(parts[0], optional=True) if parts else Kind(hint)


def check_fields(config: Any) -> None:
    """Raise ConfigError unless each field holds what its annotation, its choices and its limits say: files may have been edited."""
    for f in fields(config):
        kind, value = kinds(config.__class__)[f.name], getattr(config, f.name)
        if value is None and kind.optional:
            continue
        if kind.choices:
            check(value in kind.choices, f"{f.name} {value!r}: choose {one_of(kind.choices)}")
            continue
        known, said = KINDS[kind.type]
        check(isinstance(value, known) and (kind.type is bool) == isinstance(value, bool), f"{f.name} {value!r}: {said} is needed")
        limits = {name: limit for name, limit in f.metadata.items() if name in LIMITS}
        told = " and ".join(f"{LIMITS[name][0]} {limit:,}" for name, limit in limits.items())
        check(all(LIMITS[name][1](value, limit) for name, limit in limits.items()), f"{f.name} {value!r}: {said}, {told}, is needed")


def one_of(choices: tuple[str, ...]) -> str:
    """pre or post;   character, byte, word or bpe"""
    return f"{', '.join(choices[:-1])} or {choices[-1]}"


# -- the configurations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GPTConfig:
    """A decoder-only transformer. The defaults learn the story; GPT-2 is GPTConfig(50257, 1024, 768, 12, 12, dropout=0.1)."""

    vocabulary: int = option(MISSING, "number of different tokens, V", least=1, most=VOCABULARY)  # as many as the tokenizer knows
    context: int = option(32, "tokens the model sees at once, T", least=1, most=1_000_000)  # the window: what lies further back is forgotten
    width: int = option(64, "numbers that stand for one token, C", least=1, most=1_000_000)  # the residual stream; heads share it evenly
    heads: int = option(4, "attention heads a layer, H", least=1, most=1_000_000)  # each looks at width / heads numbers of its own
    layers: int = option(2, "transformer blocks, one after the other", least=1, most=10_000)  # each is attention, then feed-forward
    dropout: float = option(0.0, "share of activations left out in training", least=0, below=1)  # 0 for small data seen many times
    positions: Literal["learned", "sinusoidal"] = option("learned", "how a token knows its place")  # sinusoidal has no parameters
    norm: Literal["pre", "post"] = option("pre", "LayerNorm before or after each residual sum")  # post: the form of 2017
    activation: Literal["gelu", "relu"] = option("gelu", "nonlinearity of the feed-forward")  # gelu in its tanh form, as GPT-2
    bias: bool = option(True, "biases in the linear layers")  # LayerNorm keeps its own
    tied: bool = option(True, "the head shares the token embedding's weights")  # saves V x C parameters

    def __post_init__(self) -> None:
        check_fields(self)
        if self.width % self.heads:
            wider = -(-self.width // self.heads) * self.heads
            fewer = max(heads for heads in range(1, min(self.heads, 1000)) if self.width % heads == 0)
            raise ConfigError(f"width {self.width} is not divisible by heads {self.heads}, which share it evenly: try width {wider} or heads {fewer}")


@dataclass(frozen=True)
class TrainConfig:
    """How a model is trained: AdamW, global-norm clipping, a learning rate that warms up and then follows half a cosine."""

    text: str | None = option(None, "file or folder to learn from, or `story` or `grammar` (the story, if none is given)", "TEXT")  # UTF-8
    validation: float = option(0.1, "share of a file's tokens, its end, kept back to measure on", least=0, below=1)  # the story is measured on itself
    tokenizer: Literal["character", "byte", "word", "bpe"] = option("character", "what a token is")  # bpe: byte pairs, trained on the text
    tokens: int = option(1024, "different tokens that bpe learns, or word keeps", least=2, most=VOCABULARY)  # V, for these two
    batch: int = option(16, "windows in one step, B", least=1, most=100_000)  # each of `context` tokens
    accumulation: int = option(1, "batches whose gradients make one step", least=1, most=100_000)  # as one batch that many times larger
    batches: Literal["epochs", "random"] = option("epochs", "each window once an epoch, or windows drawn at random")  # both follow from the seed
    steps: int = option(500, "updates of the weights", least=1, most=STEPS)  # one batch each
    evaluate: int | None = option(None, "steps from one measuring of the validation loss to the next (a tenth of all, if not given)", least=1, most=STEPS)
    patience: int | None = option(None, "early stopping: measurings without a better loss after which training ends (never, if not given)", least=1, most=STEPS)
    optimizer: Literal["adamw", "muon"] = option("adamw", "what turns gradients into updates")  # muon: for matrices; the rest stays AdamW's
    muon_lr: float = option(0.02, "highest learning rate of muon's matrices", above=0, most=LARGE)  # follows the same schedule
    lr: float = option(3e-3, "highest learning rate", above=0, most=LARGE)  # reached after the warm-up
    final_lr: float = option(0.1, "share of the learning rate that is left at the end", least=0, most=1)  # where the cosine ends
    warmup: int | None = option(None, "steps over which the learning rate rises (a tenth of all, if not given)", least=0, most=STEPS)
    weight_decay: float = option(0.1, "share of matrices and tables taken off a step, times the learning rate", least=0, most=LARGE)  # not of gains and biases
    decay_embeddings: bool = option(True, "the tables of tokens and positions decay too")  # and with the first, a tied head
    beta1: float = option(0.9, "memory of AdamW's mean gradient", least=0, below=1)  # 0.9 looks back about 10 steps
    beta2: float = option(0.99, "memory of AdamW's mean squared gradient", least=0, below=1)  # 0.99 looks back about 100 steps
    clip: float = option(1.0, "largest global gradient norm; longer gradients are shortened to it", least=0, most=LARGE)  # 0 turns it off
    stride: int = option(1, "tokens from the start of one training window to the next", least=1, most=STEPS)  # 1: every window there is
    seed: int = option(0, "what all randomness follows from", least=0, most=SEEDS)  # the same seed, the same run
    device: str = option("cpu", "cpu, cuda or cuda:N")  # where the arrays live
    dtype: str = option("float32", f"{', '.join(DTYPES[:-1])} or {DTYPES[-1]}")  # of weights and activations
    recompute: bool = option(False, "activations of each block are computed again in backward: less memory, more time")  # the same numbers
    snapshots: int = option(8, "copies of the weights kept along the way, for tinygpt look to show how they were learned; 0: none", least=0, most=100_000)
    tensorboard: bool = option(False, "event files for TensorBoard in the run's folder")  # needs its package
    out: str | None = option(None, "folder of the run (runs/ and a new name, if not given)", "FOLDER")  # must not hold another run

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in (("text", self.text), ("out", self.out)):
            well = (value or "").encode("utf-8", "ignore").decode() == (value or "")
            check(well, f"{name} {value!a}: config.json cannot hold a name that is no UTF-8: give it another")
        check(self.text != "", "text is empty: give the path of a file or folder, or leave it out for the story")
        check(
            self.warmup is None or self.warmup < self.steps,
            f"warmup {self.warmup}: fewer than the {self.steps} steps, so that the learning rate can come down again",
        )
        check(re.fullmatch("cpu|cuda(:[0-9]{1,3})?", self.device) is not None, f"device {self.device!r}: choose cpu, cuda or cuda:N")
        check(self.dtype in DTYPES, f"dtype {self.dtype!r}: choose {one_of(DTYPES)}")

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
    length: int = option(100, "tokens to write", least=0, most=10_000_000)  # after the prompt
    temperature: float = option(1.0, "0 always takes the likeliest token; 1 draws as the model says; above, wilder", least=0, most=LARGE)  # divides the logits
    top_k: int | None = option(None, "draw from the k likeliest tokens only", least=1, most=VOCABULARY)  # None: from all
    top_p: float | None = option(None, "draw from the fewest tokens that together have probability p", above=0, most=1)  # None: from all
    seed: int = option(0, "what the draws follow from", least=0, most=SEEDS)  # the same seed, the same text
    stop: str | None = option(None, "text after which to stop, not written; \\n is a line end", "TEXT")  # None: only after `length` tokens
    explain: int = option(0, "likeliest tokens to show at each step, with their probabilities", least=0, most=1_000)  # 0: the text alone

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.stop != "", "stop is empty: give it at least one character, or leave it out")
        check(self.prompt != "", "the prompt is empty: the model continues a text, so give it at least one character")
