"""The walk of a run and a prompt: the forward pass over the prompt, the loss of predicting each
next token, and the backward pass, all recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

import tensor
from tensor.recording import Recording
from tinygpt.errors import InputError
from tinygpt.inside.step.names import Names
from tinygpt.inside.step.stops import Stop, holders, stops_of
from tinygpt.inside.step.walk import Walk
from tinygpt.model.gpt import GPT
from tinygpt.runs.run import Run
from tinygpt.terminal import shown
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


def recorded(run: Run, model: GPT, tokenizer: Tokenizer, prompt: str | None, how: How) -> Session:
    """Record the prompt, by default the opening of the run's text. Raises InputError for a prompt
    that is too long, too short, or has unknown tokens.
    """
    config = model.config
    ids = _ids(run, config.context + 1, tokenizer, prompt)
    x, y = np.array([ids[:-1]]), np.array([ids[1:]])
    with np.errstate(all="ignore"):
        bad = holders((name, parameter.numpy()) for name, parameter in model.named_parameters())
        recording, other = record(how, lambda how: model.loss(x, y).backward())
    model.zero_grad()
    loss = f"{float(recording.forwards[-1].outputs[0].array):.4f}"
    stops, text = stops_of(recording), shown(repr(tokenizer.decode(ids)))
    task = f"from each of the first {x.size}, predict the one that follows: ids {x.shape}"
    said = [
        f"run      {run.name}",
        f"text     {text}: {len(ids)} tokens",
        f"task     {task}",
        f"loss     {loss} nats a token",
        *facts(stops, recording, other),
        *(f"NaN      {line}" for line in bad),
    ]
    word = partial(word_of, tokenizer)
    sizes = frozenset((config.width, config.width // config.heads))
    names = Names(tuple(map(word, ids[:-1])), config.vocabulary, word, sizes)
    title = f"{run.name} · {text} · loss {loss}"
    return Session(Walk(stops, recording), title, said, names, run.folder)


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
    ids = tokenizer.encode(run.separator + (run.opening if prompt is None else prompt))
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
