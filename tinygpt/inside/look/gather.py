"""All that the page and the pictures show, as facts and arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import tensor
from tensor.nn import evaluating
from tensor.recording import Value
from tinygpt.config import LookConfig, ModelConfig, SampleConfig
from tinygpt.config.sampling import LENGTH
from tinygpt.errors import InputError
from tinygpt.generation.answers import answers
from tinygpt.generation.generate import steps as generate
from tinygpt.generation.sampling import draws
from tinygpt.ids import SOS, SourceTarget
from tinygpt.inside.arrays import Floats, floats, is_finite
from tinygpt.inside.look import learning
from tinygpt.inside.look.steps import Step, arrays_of, logits_of, steps
from tinygpt.model.transformer import Transformer
from tinygpt.runs.metrics import Losses
from tinygpt.runs.prompts import prompt_ids
from tinygpt.runs.run import Run
from tinygpt.terminal import command, shown
from tinygpt.tokenizers import Tokenizer, end_tokens, word_of

CANDIDATES = 8  # tokens that are named for each position
# tokens in the map of embeddings, and those of the text; the first ones are the most frequent
MAPPED = 512
ATTENTION = 64 << 20  # bytes of attention weights in one page


@dataclass(frozen=True)
class Text:
    """The tokens of a prompt, and those that the model added. Of an encoder-decoder: those of a
    source, <sos>, and the target that the model wrote.
    """

    ids: list[int]
    source: int  # how many of them are of the source; 0 without one
    prompt: int  # how many of them were given
    words: list[str]  # each token, safe to show
    given: str
    written: str
    answer: bool = False  # whether the prompt is an instruction, which is read and not predicted
    labelled: bool = False  # whether the text is read for its label, and nothing is predicted

    @property
    def x(self) -> Any:
        """What the model reads: ids (T,), or a SourceTarget."""
        ids = np.array(self.ids)
        if not self.source:
            return ids
        return SourceTarget(ids[None, : self.source], ids[None, self.source :])

    def places(self, text: str) -> range:
        """Those of a text, which is named as in `Step`, among all tokens."""
        if text == "source":
            return range(self.source)
        return range(self.source, len(self.ids))

    @property
    def guessed(self) -> range:
        """The places of tokens that are predicted, and count in the loss that is shown: of the
        prompt, of the answer to an instruction, or of the target.
        """
        if self.labelled:
            return range(0)
        if self.answer:
            return range(self.prompt, len(self.ids))
        return range(self.source + 1, len(self.ids) if self.source else self.prompt)


@dataclass(frozen=True)
class Sight:
    """The text as the weights of one step of the training see it."""

    step: int | None
    shown: bool  # the weights that the page is about
    best: bool  # those with the lowest validation loss, where the run went on after them
    # of each of Look.maps (H, rows, columns); 0 where a token cannot see another
    attention: list[Any]
    candidates: Any  # (T, n) ids, the likeliest first; of the target, where there is one
    probabilities: Any  # (T, n)
    written: str  # the continuation of the prompt
    loss: float | None  # nats a token, over Text.guessed; None where nothing is
    points: Any  # (the tokens of Look.mapped, 2): their embeddings in the plane


@dataclass(frozen=True)
class Look:
    """All that a page shows."""

    run: Run
    model: Transformer
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
    def maps(self) -> list[Step]:
        """The steps whose arrays are weights of attention."""
        return [step for step in steps(self.run.model) if step.map]

    @property
    def start(self) -> int:
        """The place in the prompt, in the answer or in the target, after which the model is least
        sure. Not the first of a text, which sees no other token of the text. Of a classifier the
        last place, where the label is read.
        """
        if self.text.labelled:
            return len(self.text.ids) - 1
        source, guessed = self.text.source, self.text.guessed
        places = range(max(source + 1, guessed.start - 1), guessed.stop)
        if not places:
            return source
        p = self.arrays["probabilities"].array[0, places.start - source : places.stop - source]
        entropy = -(floats(p) * np.log(np.maximum(floats(p), 1e-300))).sum(-1)  # nats
        return places[int(entropy.argmax())]


def gather(
    run: Run, model: Transformer, tokenizer: Tokenizer, config: LookConfig, best: bool = True
) -> Look:
    """Continue or answer the prompt, or read it for its label, and look at the whole text with all
    weights that were kept. Raises InputError for a text that is too long.
    """
    given = _given(run, tokenizer, config)
    length = _length(run, given, config)
    text = _text(run, model, tokenizer, given, [])
    with tensor.no_grad(), evaluating():  # nothing can be drawn from broken logits
        check_finite(run, logits_of(model, text.x).numpy(), last=not best)
    ends = end_tokens(tokenizer)
    new = _written(run, model, given, length, config, ends)
    text = _text(run, model, tokenizer, given, new)
    ids = text.ids
    check_size(run, text)
    centre, axes, share = learning.plane(_table(model))
    mapped = sorted({*range(min(model.config.vocabulary, MAPPED)), *ids})
    own, step = arrays_of(model, text.x), learning.step_of(run, best)
    went_on = step != learning.step_of(run, best=False)
    sights = []
    for at, weights in learning.learned(run, model, step):
        is_shown = weights is model
        arrays = own if is_shown else arrays_of(weights, text.x)
        # a snapshot that is broken leaves the last weights broken too
        check_finite(run, arrays["logits"].array, last=not (best and is_shown))
        written = new if is_shown else _written(run, weights, given, length, config, ends)
        points = ((_table(weights)[mapped] - centre) @ axes).astype(np.float32)
        facts: dict[str, Any] = {"step": at, "shown": is_shown, "best": is_shown and went_on}
        said = _label(run, arrays) if text.labelled else shown(tokenizer.decode(written))
        facts |= {"written": said, "points": points}
        sights.append(_sight(run, arrays, text, facts))
    sights.sort(key=lambda sight: sight.step or 0)
    why = "this run kept no snapshots of its weights on the way (train with --snapshots 8)"
    why = why if len(sights) == 1 else ""
    return Look(run, model, text, own, sights, learning.losses(run), mapped, share, why)


def _given(run: Run, tokenizer: Tokenizer, config: LookConfig) -> list[int]:
    """The tokens of the prompt. Without a prompt those of the text's opening; of a long opening as
    many as fill half the context.
    """
    ids = prompt_ids(run, tokenizer, config.prompt)
    if config.prompt is None and len(ids) > run.model.context:
        return ids[: max(1, run.model.context // 2)]
    return ids


def _text(
    run: Run, model: Transformer, tokenizer: Tokenizer, given: list[int], new: list[int]
) -> Text:
    """The text of the given tokens and the new ones."""
    source, ids = 0, given + new
    before, written = (shown(tokenizer.decode(part)) for part in (given, new))
    if run.kind == "encoder-decoder":
        source, before = len(given), f"{before} -> "
        ids = given + [SOS, *new][: model.context]
    prompt = len(given) + (source > 0)
    answer = run.answers
    words, labelled = words_of(tokenizer, ids), bool(run.model.labels)
    return Text(ids, source, prompt, words, before, written, answer, labelled)


def _label(run: Run, arrays: dict[str, Value]) -> str:
    """What a classifier says at the last token."""
    p = floats(arrays["probabilities"].array[0, -1])
    return f" -> {shown(run.model.labels[int(p.argmax())])} {p.max():.1%}"


def _length(run: Run, ids: list[int], config: LookConfig) -> int:
    """How many tokens to write behind these. Raises InputError where they do not fit."""
    context = run.model.context
    if not ids:
        raise InputError("the prompt has no token\ngive it at least one: --prompt TEXT")
    if run.model.labels and config.length is not None:
        raise InputError(
            f"{run.name} names the label of a text, so --length has no meaning\nleave it out"
        )
    if run.kind == "encoder-decoder":
        return min(context, context if config.length is None else config.length)
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


def _written(
    run: Run, model: Any, ids: list[int], length: int, config: LookConfig, ends: list[int]
) -> list[int]:
    """What the model writes after a prompt, with the first of `ends` as the last token; of an
    encoder-decoder, its answer up to <eos>.
    """
    how = SampleConfig(None, length, config.temperature, config.top_k, config.top_p, config.seed)
    if run.model.labels:
        return []
    if run.kind == "encoder-decoder":
        return answers(model, [ids], how)[0]
    written: list[int] = []
    for _, step in generate(model, [ids], how, [draws(how.seed, 0)]):
        written.append(step.token)
        if step.token in ends:
            break
    return written


def words_of(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Each token as text that is safe to show; for a part of a character, the bytes."""
    return [word_of(tokenizer, i) for i in ids]


def check_size(run: Run, text: Text) -> None:
    """Raise InputError where the attention of the text does not fit into a page. The message has a
    number of tokens that fits.
    """
    maps = [step for step in steps(run.model) if step.map]
    heads, tokens, size = run.model.heads * len(maps), len(text.ids), 0.0
    for step in maps:
        rows, columns = len(text.places(step.rows)), len(text.places(step.columns))
        weights = rows * (rows + 1) / 2 if step.sees == "past" else rows * columns
        size += 4 * run.model.heads * weights
    if size > ATTENTION:
        most = int(tokens * (ATTENTION / size) ** 0.5)
        raise InputError(
            f"{tokens} tokens in {heads} heads make more attention than a page can "
            f"hold\ngive at most {most}: a shorter --prompt, or --length N"
        )


def weights_of(step: Step, text: Text) -> Any:
    """Which tokens of a map see which: bools (rows, columns)."""
    rows, columns = len(text.places(step.rows)), len(text.places(step.columns))
    return np.tri(rows, dtype=bool) if step.sees == "past" else np.ones((rows, columns), bool)


def first_outcome(config: ModelConfig) -> int:
    """The number that the page gives the first column of the logits: 0 where columns are tokens;
    of a classifier labels, which come after all tokens.
    """
    return config.vocabulary if config.labels else 0


def _table(model: Transformer) -> Floats:
    return floats(model.token_embedding.weight.numpy())


def _sight(run: Run, arrays: dict[str, Value], text: Text, facts: dict[str, Any]) -> Sight:
    """facts: the fields that do not follow from the arrays."""
    p = arrays["probabilities"].array[0]  # (T, V)
    candidates = np.argsort(-p, axis=-1, kind="stable")[:, :CANDIDATES]
    ids = [text.ids[place] for place in text.guessed]
    before = np.array(text.guessed, dtype=int) - text.source - 1
    guessed = floats(p[before, ids])
    weights = [arrays[step.name].array[0] for step in steps(run.model) if step.map]
    return Sight(
        attention=[array.astype(np.float32) for array in weights],
        candidates=candidates.astype(np.int32) + first_outcome(run.model),
        probabilities=np.take_along_axis(p, candidates, -1).astype(np.float32),
        loss=float(-np.log(np.maximum(guessed, 1e-30)).mean()) if len(guessed) else None,
        **facts,
    )
