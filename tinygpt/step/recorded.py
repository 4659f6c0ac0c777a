"""From a run and a prompt to a walk: the forward pass over the prompt, the loss of predicting each next token, its backward, all recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeAlias

import numpy as np

import tensor
from tensor.tape import Tape
from tinygpt.console import shown
from tinygpt.corpus import Ids
from tinygpt.errors import InputError
from tinygpt.model import GPT
from tinygpt.runs import Run
from tinygpt.step.conditions import holders
from tinygpt.step.names import NAMELESS, Names
from tinygpt.step.stops import Stop, stops_of
from tinygpt.step.walk import Walk
from tinygpt.tokenizers import Tokenizer, word_of

How: TypeAlias = Literal["reference", "as run"]


@dataclass(frozen=True)
class Session:
    """A walk, and what is said of it beforehand."""

    walk: Walk
    title: str  # one line
    facts: list[str]  # each begins with a word in a column of 9
    names: Names = NAMELESS  # of the places on an axis, where a text is walked


def recorded(run: Run, model: GPT, tokenizer: Tokenizer, prompt: str | None, how: How) -> Session:
    """Record the prompt, by default the opening of the run's text. Raises InputError for one that is too long, too short, or has unknown tokens."""
    ids = _ids(run, model, tokenizer, prompt)
    x, y = np.array([ids[:-1]]), np.array([ids[1:]])
    with np.errstate(all="ignore"):
        bad = holders((name, parameter.numpy()) for name, parameter in model.named_parameters())
        tape, loss = _record(model, x, y, how, values=True)
        other, _ = _record(model, x, y, "as run" if how == "reference" else "reference", values=False)
    stops = stops_of(tape)
    text = shown(repr(tokenizer.decode(ids)))
    facts = [
        f"run      {run.name}",
        f"text     {text}: {len(ids)} tokens",
        f"task     from each of the first {len(ids) - 1}, predict the one that follows: ids (1, {len(ids) - 1})",
        f"loss     {loss:.4f} nats a token",
        *said(stops, tape, other),
        *(f"NaN      {line}" for line in bad),
    ]
    sizes = frozenset((model.config.width, model.config.width // model.config.heads))
    names = Names(tuple(word_of(tokenizer, token) for token in ids[:-1]), model.config.vocabulary, partial(word_of, tokenizer), sizes)
    return Session(Walk(stops, tape), f"{run.name} · {text} · loss {loss:.4f}", facts, names)


def said(stops: Sequence[Stop], tape: Tape, other: Tape) -> list[str]:
    """How many stops and nodes there are, and how many nodes in the other way of running."""
    phases = Counter(stop.phase for stop in stops)
    counts = {tape.implementation: tape.nodes, other.implementation: other.nodes}
    shown_here = {
        "reference": "walked op by op",
        "as run": "walked as run",
    }
    return [
        f"walk     {len(stops)} stops: {', '.join(f'{n} {phase}' + 's' * (phase == 'update' and n > 1) for phase, n in phases.items())}",
        f"graph    {counts['reference']} nodes op by op, {counts['as run']} as run, with kernels; {shown_here[tape.implementation]}",
    ]


def _ids(run: Run, model: GPT, tokenizer: Tokenizer, prompt: str | None) -> list[int]:
    """The tokens, one more than the model looks at, since the last is only predicted."""
    ids, most = tokenizer.encode(run.separator + (run.opening if prompt is None else prompt)), model.config.context + 1
    if prompt is None:
        ids = ids[:most]
    if len(ids) > most:
        raise InputError(f"the prompt has {len(ids)} tokens, but the model sees {most - 1}, and predicts one more\ngive one of at most {most}: --prompt TEXT")
    if prompt == "":
        raise InputError("the prompt is empty: there is nothing to walk through\ngive it at least two tokens: --prompt TEXT")
    if len(ids) < 2:
        raise InputError("a prompt of one token has no next token to predict\ngive it at least two: --prompt TEXT")
    return ids


def _record(model: GPT, x: Ids, y: Ids, how: How, values: bool) -> tuple[Tape, float]:
    model.zero_grad()
    with tensor.record(implementation=how, values=values) as tape:
        loss = model.loss(x, y)
        loss.backward()
    model.zero_grad()
    return tape, float(loss)
