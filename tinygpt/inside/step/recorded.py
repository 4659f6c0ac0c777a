"""The walk of a run and a prompt: the forward pass over the prompt, the loss of predicting each
next token, and the backward pass, all recorded.

Of an encoder-decoder, the prompt is the source, and the tokens of a target are predicted. Of a
fine-tuned run, the prompt is an instruction, and the tokens of its answer are predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

import tensor
from tensor.recording import Recording
from tinygpt.config import SampleConfig
from tinygpt.data.instructions import end_of, row_of
from tinygpt.errors import InputError
from tinygpt.generation.answers import answers, continued
from tinygpt.ids import EOS, SOS, Ids, SourceTarget
from tinygpt.inside.step.names import Names
from tinygpt.inside.step.stops import Stop, holders, stops_of
from tinygpt.inside.step.walk import Walk
from tinygpt.runs.prompts import prompt_ids
from tinygpt.runs.run import Run
from tinygpt.terminal import number_of, shown
from tinygpt.tokenizers import Tokenizer, word_of

How: TypeAlias = Literal["reference", "as run"]


@dataclass(frozen=True)
class Session:
    """A walk with its title and facts."""

    walk: Walk
    title: str  # one line
    facts: list[str]  # each begins with a word in a column of 9
    names: Names  # of the positions on an axis, where a text is walked
    folder: Path  # where pictures go


class Task(NamedTuple):
    """What the model reads, and what it is to predict."""

    x: Any  # ids (1, T), or a SourceTarget
    y: Ids  # (1, T)
    shown: str  # the texts, in one line
    facts: list[str]


def recorded(
    run: Run,
    model: Any,
    tokenizer: Tokenizer,
    prompt: str | None,
    how: How,
    target: str | None = None,
) -> Session:
    """Record the prompt, by default the opening of the run's text. target: what an encoder-decoder
    or a fine-tuned run is to write, by default what it writes. Raises InputError for a text that is
    too long, too short, or has unknown tokens.
    """
    config, pair = model.config, run.kind == "encoder-decoder"
    instructed = run.answers
    if target is not None and not (pair or instructed):
        raise InputError(
            f"--target is for an encoder-decoder or a fine-tuned run, and {run.name} is a GPT, "
            "which predicts the tokens of the prompt itself\nleave --target out"
        )
    if pair or instructed:
        make = _pair if pair else _answer
        task = make(run, model, tokenizer, prompt, target)
    else:
        task = _text(run, tokenizer, prompt)
    with np.errstate(all="ignore"):
        bad = holders((name, parameter.numpy()) for name, parameter in model.named_parameters())
        recording, other = record(how, lambda how: model.loss(task.x, task.y).backward())
    model.zero_grad()
    loss = f"{float(recording.forwards[-1].outputs[0].array):.4f}"
    stops = stops_of(recording)
    said = [
        f"run      {run.name}",
        *task.facts,
        f"loss     {loss} nats a token",
        *facts(stops, recording, other),
        *(f"NaN      {line}" for line in bad),
    ]
    word = partial(word_of, tokenizer)
    sizes = frozenset((config.width, config.width // config.heads))
    read, source = (task.x.target, task.x.source) if pair else (task.x, [[]])
    words, asked = (tuple(map(word, ids[0])) for ids in (read, source))
    names = Names(words, asked, config.vocabulary, word, sizes)
    title = f"{run.name} · {task.shown} · loss {loss}"
    return Session(Walk(stops, recording), title, said, names, run.folder)


def _text(run: Run, tokenizer: Tokenizer, prompt: str | None) -> Task:
    """Each token of a text but the first, from those before."""
    ids = _ids(run, run.model.context + 1, tokenizer, prompt)
    x, y = np.array([ids[:-1]]), np.array([ids[1:]])
    text = shown(repr(tokenizer.decode(ids)))
    task = f"from each of the first {x.size}, predict the one that follows: ids {x.shape}"
    return Task(x, y, text, [f"text     {text}: {len(ids)} tokens", f"task     {task}"])


def _pair(
    run: Run, model: Any, tokenizer: Tokenizer, prompt: str | None, target: str | None
) -> Task:
    """Each token of a target and <eos>, from the source and the tokens of the target before."""
    source, most = prompt_ids(run, tokenizer, prompt), run.model.context

    def write(config: SampleConfig) -> list[int]:
        return answers(model, [source], config)[0]

    ids, why = _target(tokenizer, target, EOS, most, write)
    x = SourceTarget(np.array([source]), np.array([[SOS, *ids[:-1]]]))
    texts = [shown(repr(tokenizer.decode(part))) for part in (source, ids)]
    sizes = f"ids {x.source.shape} and {x.target.shape}"
    facts = [
        f"source   {texts[0]}: {number_of(len(source), 'token')}",
        f"target   {texts[1]}: {number_of(len(ids), 'token')}, {why}; the model reads <sos> first",
        f"task     from the source and the tokens before, predict each of the target: {sizes}",
    ]
    return Task(x, np.array([ids]), " -> ".join(texts), facts)


def _answer(run: Run, model: Any, tokenizer: Any, prompt: str | None, target: str | None) -> Task:
    """Each token of an answer and <|end|>, from the instruction and the tokens of the answer
    before.
    """
    given, context, end = prompt_ids(run, tokenizer, prompt), run.model.context, end_of(tokenizer)
    most = context + 1 - len(given)
    if most < 1:
        raise InputError(
            f"the prompt has {len(given)} tokens, but the model sees {context} at once\n"
            "give a shorter one: --prompt TEXT"
        )

    def write(config: SampleConfig) -> list[int]:
        return continued(model, [given], config, end)[0]

    ids, why = _target(tokenizer, target, end, most, write)
    x, y = (row[None] for row in row_of([(given, ids)]))
    texts = [shown(repr(tokenizer.decode(part))) for part in (given, ids)]
    facts = [
        f"prompt   {texts[0]}: {number_of(len(given), 'token')}, no targets: -1 in y",
        f"answer   {texts[1]}: {number_of(len(ids), 'token')}, {why}",
        f"task     from the prompt and the tokens before, predict the answer: ids {x.shape}",
    ]
    return Task(x, y, " -> ".join(texts), facts)


def _target(
    tokenizer: Tokenizer,
    target: str | None,
    end: int,
    most: int,
    write: Callable[[SampleConfig], list[int]],
) -> tuple[list[int], str]:
    """The tokens that are to be predicted, at most so many with the end, and where they are from.
    write: what gives the model's own, without the end.
    """
    ids, why = [], "as given"
    if target is None:
        why = "as the model writes it"
        try:
            ids = write(SampleConfig(length=most, temperature=0))
        except InputError:  # the weights are broken, and a walk shows where
            why = "since its logits are not finite"
    else:
        ids = tokenizer.encode(target)
        if len(ids) >= most:
            raise InputError(
                f"the target has {len(ids)} tokens and {tokenizer.decode([end])}, but the model "
                f"writes {most}, up to its context\ngive one of at most {most - 1}: --target TEXT"
            )
    return [*ids, end][:most], why


def record(how: How, compute: Callable[[How], object]) -> tuple[Recording, Recording]:
    """Recordings of a forward and backward pass: run that way, with values, and run the other way,
    without.
    """
    instead: How = "reference" if how == "as run" else "as run"
    with tensor.record(implementation=how) as recording:
        compute(how)
    with tensor.record(implementation=instead, values=False) as other:
        compute(instead)
    return recording, other


def facts(stops: Sequence[Stop], recording: Recording, other: Recording) -> list[str]:
    """The number of stops and nodes, and of nodes when run the other way."""
    phases = []
    for phase, count in Counter(stop.phase for stop in stops).items():
        phases.append(f"{count} {phase}" + ("s" if phase == "update" and count > 1 else ""))
    how, nodes, others = "op by op", recording.nodes, other.nodes
    if recording.implementation == "as run":
        how, nodes, others = "as run", others, nodes
    return [
        f"walk     {len(stops)} stops: {', '.join(phases)}",
        f"graph    {nodes} nodes op by op, {others} as run, with kernels; walked {how}",
    ]


def _ids(run: Run, most: int, tokenizer: Tokenizer, prompt: str | None) -> list[int]:
    """The tokens. The model looks at all but the last, which is only predicted."""
    ids = prompt_ids(run, tokenizer, prompt)
    if prompt is None:
        return ids[:most]
    if len(ids) > most:
        raise InputError(
            f"the prompt has {len(ids)} tokens, but the model sees {most - 1}, "
            f"and predicts one more\ngive one of at most {most}: --prompt TEXT"
        )
    if prompt and len(ids) > 1:
        return ids
    problem = "a prompt of one token has no next token to predict"
    if not prompt:
        problem = "the prompt is empty: there is nothing to walk through"
    raise InputError(f"{problem}\ngive it at least two tokens: --prompt TEXT")
