"""All that the page and the pictures show, as facts and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensor
from tensor.nn import evaluating
from tensor.random import Generator
from tensor.recording import Value
from tinygpt.config import LookConfig, SampleConfig
from tinygpt.config.sampling import LENGTH
from tinygpt.errors import InputError
from tinygpt.generation.generate import steps as generate
from tinygpt.inside.arrays import Floats, floats, is_finite
from tinygpt.inside.look import learning
from tinygpt.inside.look.steps import arrays_of
from tinygpt.model.gpt import GPT
from tinygpt.runs.metrics import Losses
from tinygpt.runs.run import Run
from tinygpt.terminal import command, shown
from tinygpt.tokenizers import Tokenizer, word_of

CANDIDATES = 8  # tokens that are named for each position
# tokens in the map of embeddings, and those of the text; the first ones are the most frequent
MAPPED = 512
ATTENTION = 64 << 20  # bytes of attention weights in one page


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
    """The text as the weights of one step of the training see it."""

    step: int | None
    shown: bool  # the weights that the page is about
    best: bool  # those with the lowest validation loss, where the run went on after them
    attention: list[Any]  # of each layer (H, T, T); 0 where a token cannot see another
    candidates: Any  # (T, n) ids, the likeliest first
    probabilities: Any  # (T, n)
    written: str  # the continuation of the prompt
    loss: float | None  # nats a token, over the prompt; None for a prompt of one token
    points: Any  # (the tokens of Look.mapped, 2): their embeddings in the plane


@dataclass(frozen=True)
class Look:
    """All that a page shows."""

    run: Run
    model: GPT
    text: Text
    arrays: dict[str, Value]  # by the name of the step
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
        """The position in the prompt after which the model is least sure. Not the first position,
        which sees only itself.
        """
        p = floats(self.arrays["probabilities"].array[0, : self.text.prompt])
        entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(-1)  # nats
        return int(entropy[1:].argmax()) + 1 if len(entropy) > 1 else 0


def gather(
    run: Run, model: GPT, tokenizer: Tokenizer, config: LookConfig, best: bool = True
) -> Look:
    """Continue the prompt, and look at the whole text with all weights that were kept. Raises
    InputError for a text that is too long.
    """
    given = _given(run, tokenizer, config)
    length = _length(model, given, config)
    with tensor.no_grad(), evaluating():  # nothing can be drawn from broken logits
        check_finite(run, model(np.array(given)).numpy(), last=not best)
    new = _written(model, given, length, config)
    ids = given + new
    words = words_of(tokenizer, ids)
    parts = [shown(tokenizer.decode(part)) for part in (given, new)]
    text = Text(ids, len(given), words, *parts)
    check_size(model, len(ids))
    centre, axes, share = learning.plane(_table(model))
    mapped = sorted({*range(min(model.config.vocabulary, MAPPED)), *ids})
    own, step = arrays_of(model, ids), learning.step_of(run, best)
    went_on = step != learning.step_of(run, best=False)
    sights = []
    for at, weights in learning.learned(run, model, step):
        is_shown = weights is model
        arrays = own if is_shown else arrays_of(weights, ids)
        # a snapshot that is broken leaves the last weights broken too
        check_finite(run, arrays["logits"].array, last=not (best and is_shown))
        written = new if is_shown else _written(weights, given, length, config)
        points = ((_table(weights)[mapped] - centre) @ axes).astype(np.float32)
        facts: dict[str, Any] = {"step": at, "shown": is_shown, "best": is_shown and went_on}
        facts |= {"written": shown(tokenizer.decode(written)), "points": points}
        sights.append(_sight(arrays, text, facts))
    sights.sort(key=lambda sight: sight.step or 0)
    why = "this run kept no snapshots of its weights on the way (train with --snapshots 8)"
    why = why if len(sights) == 1 else ""
    return Look(run, model, text, own, sights, learning.losses(run), mapped, share, why)


def _given(run: Run, tokenizer: Tokenizer, config: LookConfig) -> list[int]:
    """The tokens of the prompt. Without a prompt those of the text's opening; of a long opening as
    many as fill half the context.
    """
    text = run.opening if config.prompt is None else config.prompt
    ids = tokenizer.encode(run.separator + text)
    if config.prompt is None and len(ids) > run.model.context:
        return ids[: max(1, run.model.context // 2)]
    return ids


def _length(model: GPT, ids: list[int], config: LookConfig) -> int:
    """How many tokens to write behind these. Raises InputError where they do not fit."""
    context = model.config.context
    if not ids:
        raise InputError("the prompt has no token\ngive it at least one: --prompt TEXT")
    space = context - len(ids)
    if space < 0:
        raise InputError(
            f"the prompt has {len(ids)} tokens, and the model sees {context} at once\n"
            "give a shorter one: --prompt TEXT"
        )
    if (config.length or 0) > space:
        raise InputError(
            f"--length {config.length}: after a prompt of {len(ids)} tokens "
            f"there is room for {space} more in the context of {context}"
        )
    return min(LENGTH, space) if config.length is None else config.length


def check_finite(run: Run, logits: Any, last: bool) -> None:
    """Raise InputError where logits are not finite. The message has the command that finds the
    origin. last: the logits are of the last weights.
    """
    if not is_finite(logits):
        which = ["--last"] if last else []
        raise InputError(
            "the model's logits are not finite numbers: its weights are broken; "
            "take an earlier checkpoint, or train with a lower learning rate\n"
            f"who made it: {command('step', run.folder, '--plain', '--break', 'nan', *which)}"
        )


def _written(model: GPT, ids: list[int], length: int, config: LookConfig) -> list[int]:
    how = SampleConfig(None, length, config.temperature, config.top_k, config.top_p)
    steps = generate(model, [ids], how, [Generator(config.seed)])
    return [step.token for _, step in steps]


def words_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Each token as text that is safe to show; for a part of a character, the bytes."""
    return [word_of(tokenizer, i) for i in ids]


def check_size(model: GPT, tokens: int) -> None:
    """Raise InputError where the attention of so many tokens does not fit into a page. The message
    has the largest number that fits.
    """
    heads = model.config.layers * model.config.heads
    if heads * tokens * (tokens + 1) * 2 > ATTENTION:
        most = int((ATTENTION / 2 / heads) ** 0.5)
        raise InputError(
            f"{tokens} tokens in {heads} heads make more attention than a page can hold\n"
            f"give at most {most}: a shorter --prompt, or --length N"
        )


def _table(model: GPT) -> Floats:
    return floats(model.token_embedding.weight.numpy())


def _sight(arrays: dict[str, Value], text: Text, facts: dict[str, Any]) -> Sight:
    """facts: the fields that do not follow from the arrays."""
    p = arrays["probabilities"].array[0]  # (T, V)
    candidates = np.argsort(-p, axis=-1, kind="stable")[:, :CANDIDATES]
    guessed = floats(p[np.arange(text.prompt - 1), text.ids[1 : text.prompt]])
    weights = [value.array[0] for name, value in arrays.items() if name.endswith(".weights")]
    return Sight(
        attention=[array.astype(np.float32) for array in weights],
        candidates=candidates.astype(np.int32),
        probabilities=np.take_along_axis(p, candidates, -1).astype(np.float32),
        loss=float(-np.log(np.maximum(guessed, 1e-30)).mean()) if len(guessed) else None,
        **facts,
    )
