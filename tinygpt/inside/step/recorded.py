"""The walk of a run and a prompt: the forward pass over the prompt to the loss, and the backward
pass, all recorded. tasks.py says what is predicted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

import tensor
from tensor.recording import Recording
from tinygpt.ids import SourceTarget
from tinygpt.inside.step.names import Names
from tinygpt.inside.step.stops import Stop, holders, stops_of
from tinygpt.inside.step.tasks import task_of
from tinygpt.inside.step.walk import Walk
from tinygpt.runs.run import Run
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


def recorded(
    run: Run,
    model: Any,
    tokenizer: Tokenizer,
    prompt: str | None,
    how: How,
    target: str | None = None,
) -> Session:
    """Record the prompt and the target, as `task_of` takes them."""
    config = model.config
    task = task_of(run, model, tokenizer, prompt, target)
    with np.errstate(all="ignore"):
        bad = holders((name, parameter.numpy()) for name, parameter in model.named_parameters())
        recording, other = record(how, lambda how: task.compute(model).backward())
    model.zero_grad()
    number = f"{float(recording.forwards[-1].outputs[0].array):.4f}"
    stops = stops_of(recording)
    said = [
        f"run      {run.name}",
        *task.facts,
        f"{task.what:<8} {number} {task.unit}",
        *facts(stops, recording, other),
        *(f"NaN      {line}" for line in bad),
    ]
    word = partial(word_of, tokenizer)
    sizes = frozenset((config.width, config.width // config.heads))
    pair = isinstance(task.x, SourceTarget)
    read, source = (task.x.target, task.x.source) if pair else (task.x, [[]])
    words, asked = (tuple(map(word, ids[0])) for ids in (read, source))
    names = Names(words, asked, config.vocabulary, word, sizes)
    title = f"{run.name} · {task.shown} · {task.what} {number}"
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
