"""All that the page and the pictures show, as facts and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensor
from tensor.nn import evaluating
from tensor.random import Generator
from tensor.tape import Value
from tinygpt.config import LARGE, SEEDS, VOCABULARY, check, check_fields, option
from tinygpt.console import visible
from tinygpt.errors import InputError
from tinygpt.generation import sampling
from tinygpt.generation import steps as generate
from tinygpt.look import learning
from tinygpt.look.learning import Weights
from tinygpt.look.walk import walk
from tinygpt.metrics import Losses
from tinygpt.model import GPT
from tinygpt.runs import Run
from tinygpt.tokenizers import Tokenizer, word_of

CANDIDATES = 8  # tokens that are named for each place
LENGTH = 16  # tokens written, if there is room and nothing else is asked for
MAPPED = 512  # tokens in the map of embeddings: of a large vocabulary the first, which are the most frequent, and those of the text
ATTENTION = 64 << 20  # bytes of attention weights in one page


@dataclass(frozen=True)
class LookConfig:
    """The text to look at, and how it goes on. Temperature first, then top-k, then top-p."""

    prompt: str | None = option(None, "text to look at (the first words of the text it learned, if not given)", "TEXT")
    length: int | None = option(None, f"tokens that the model adds ({LENGTH}, or as many as there is room for, if not given)", least=0, most=1_000_000)
    temperature: float = option(0.0, "0 always takes the likeliest token; 1 draws as the model says; above, wilder", least=0, most=LARGE)
    top_k: int | None = option(None, "draw from the k likeliest tokens only", least=1, most=VOCABULARY)
    top_p: float | None = option(None, "draw from the fewest tokens that together have probability p", above=0, most=1)
    seed: int = option(0, "what the draws follow from", least=0, most=SEEDS)

    def __post_init__(self) -> None:
        check_fields(self)
        check(self.prompt != "", "the prompt is empty: give it at least one character")


@dataclass(frozen=True)
class Text:
    """The tokens of a prompt, and those that the model added."""

    ids: list[int]
    prompt: int  # how many of them were given
    words: list[str]  # each token, safe to show
    given: str
    written: str


@dataclass(frozen=True)
class Sight:
    """The text as certain weights see it."""

    step: int | None
    shown: bool  # the weights that the page is about
    best: bool  # those with the lowest validation loss, where the run went on after them
    attention: list[Any]  # a layer each: (H, T, T), what does not see is 0
    candidates: Any  # (T, n) ids, the likeliest first
    probabilities: Any  # (T, n)
    written: str  # what they make of the prompt
    loss: float | None  # nats a token, over the prompt; None where one token has nothing to be guessed
    points: Any  # (the tokens of Look.mapped, 2): their embeddings in the plane


@dataclass(frozen=True)
class Look:
    """Everything."""

    run: Run
    model: GPT
    text: Text
    walked: dict[str, Value]
    sights: list[Sight]
    losses: Losses
    mapped: list[int]  # ids in the map of embeddings
    share: float  # of the embeddings' variance that the map shows
    why_few: str  # why there are no earlier weights, "" where there are

    @property
    def sight(self) -> Sight:
        return next(sight for sight in self.sights if sight.shown)

    @property
    def start(self) -> int:
        """The place in the prompt after which the model knows least what comes: there is most to see. Not the first, which sees but itself."""
        p = self.walked["probabilities"].array[0, : self.text.prompt].astype(np.float64)
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(-1)  # nats
        return int(entropy[1:].argmax()) + 1 if len(entropy) > 1 else 0


def gather(run: Run, model: GPT, tokenizer: Tokenizer, config: LookConfig, best: bool = True) -> Look:
    """Continue the prompt, then look at the whole with all weights that were kept. Raises InputError for what cannot be looked at."""
    given = _given(run, tokenizer, config)
    room = _room(model, given, config)
    with tensor.no_grad(), evaluating():
        check_finite(run, model(np.array(given)).numpy(), last=not best)  # before it writes: what it would draw from them means nothing
    text = _continued(model, tokenizer, given, min(LENGTH, room) if config.length is None else config.length, config)
    check_size(model, len(text.ids))
    centre, axes, share = learning.plane(_table(model))
    mapped = sorted({*range(min(model.config.vocabulary, MAPPED)), *text.ids})
    walked = walk(model, text.ids)
    sights = []
    for weights in learning.learned(run, model, best):
        arrays = walked if weights.shown else walk(weights.model, text.ids)
        check_finite(run, arrays["logits"].array, last=not (best and weights.shown))  # what broke a snapshot is in the last weights too
        points = ((_table(weights.model)[mapped] - centre) @ axes).astype(np.float32)
        sights.append(_sight(weights, arrays, text, tokenizer, config, points))
    why = "" if len(sights) > 1 else "this run kept no snapshots of its weights on the way (train with --snapshots 8)"
    return Look(run, model, text, walked, sights, learning.losses(run), mapped, share, why)


def _given(run: Run, tokenizer: Tokenizer, config: LookConfig) -> list[int]:
    """The prompt's tokens; where none is given, the opening's, and of a long one those that leave room for as many more."""
    ids = tokenizer.encode(run.separator + (run.opening if config.prompt is None else config.prompt))
    return ids if config.prompt is not None or len(ids) <= run.model.context else ids[: max(1, run.model.context // 2)]


def _room(model: GPT, ids: list[int], config: LookConfig) -> int:
    """How many tokens can be added to these. Raises InputError where that is fewer than is asked for."""
    context = model.config.context
    if not ids:
        raise InputError("the prompt has no token\ngive it at least one: --prompt TEXT")
    room = context - len(ids)
    if room < 0:
        raise InputError(f"the prompt has {len(ids)} tokens, and the model sees {context} at once\ngive a shorter one: --prompt TEXT")
    if (config.length or 0) > room:
        raise InputError(f"--length {config.length}: after a prompt of {len(ids)} tokens there is room for {room} more in the context of {context}")
    return room


def check_finite(run: Run, logits: Any, last: bool) -> None:
    """Raises InputError where logits are no finite numbers, with the command that tells who made them so, of the last weights or the best."""
    if not np.isfinite(logits.astype(np.float32)).all():
        broken = "the model's logits are not finite numbers: its weights are broken; take an earlier checkpoint, or train with a lower learning rate"
        raise InputError(f"{broken}\nwho made it: tinygpt step {run.name} --plain --break nan" + " --last" * last)


def _continued(model: GPT, tokenizer: Tokenizer, ids: list[int], length: int, config: LookConfig) -> Text:
    new = _written(model, ids, length, config)
    given, written = (visible(tokenizer.decode(part), lines=False) for part in (ids, new))
    return Text(ids + new, len(ids), words_of(tokenizer, ids + new), given, written)


def _written(model: GPT, ids: list[int], length: int, config: LookConfig) -> list[int]:
    generator = Generator()
    generator.load_state({"seed": config.seed, "draws": 0})
    how = sampling(config.temperature, config.top_k, config.top_p)
    return [step.token for _, step in generate(model, [ids], length, how, [generator])]


def words_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Each token as text that is safe to show; of one that is a part of a character, the bytes."""
    return [word_of(tokenizer, i) for i in ids]


def check_size(model: GPT, tokens: int) -> None:
    """Raise InputError where the attention of so many tokens is more than a page can hold, with the largest number that it can."""
    heads = model.config.layers * model.config.heads
    if heads * tokens * (tokens + 1) * 2 > ATTENTION:
        most = int((ATTENTION / 2 / heads) ** 0.5)
        raise InputError(f"{tokens} tokens in {heads} heads make more attention than a page can hold\ngive at most {most}: a shorter --prompt, or --length N")


def _table(model: GPT) -> Any:
    return model.token_embedding.weight.numpy().astype(np.float64)


def _sight(weights: Weights, arrays: dict[str, Value], text: Text, tokenizer: Tokenizer, config: LookConfig, points: Any) -> Sight:
    attention = [arrays[f"blocks.{i}.weights"].array[0].astype(np.float32) for i in range(weights.model.config.layers)]
    p = arrays["probabilities"].array[0]  # (T, V)
    candidates = np.argsort(-p, axis=-1, kind="stable")[:, :CANDIDATES]
    if weights.shown:
        written = text.written
    else:
        new = _written(weights.model, text.ids[: text.prompt], len(text.ids) - text.prompt, config)
        written = visible(tokenizer.decode(new), lines=False)
    guessed = p[np.arange(text.prompt - 1), text.ids[1 : text.prompt]].astype(np.float64)
    loss = float(-np.log(np.maximum(guessed, 1e-30)).mean()) if len(guessed) else None
    top = np.take_along_axis(p, candidates, -1).astype(np.float32)
    return Sight(weights.step, weights.shown, weights.best, attention, candidates.astype(np.int32), top, written, loss, points)
