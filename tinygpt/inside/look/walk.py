"""One recorded pass through the model: every array from the ids to the probabilities of the next
token.

The references of all ops run, so every intermediate exists. A fused attention makes no weights.
"""

from __future__ import annotations

import numpy as np

import tensor
from tensor.nn import evaluating
from tensor.recording import Forward, Value
from tinygpt.inside.arrays import value_of
from tinygpt.inside.look.steps import steps
from tinygpt.model.gpt import GPT


def walk(model: GPT, ids: list[int]) -> dict[str, Value]:
    """name -> array, for each step of steps.py."""
    with tensor.no_grad(), evaluating(), tensor.record(implementation="reference") as recording:
        model(np.array([ids])).softmax(-1)
    ops = {entry.name: entry for entry in recording.forwards}
    found: dict[str, Value] = {}
    for step in steps(model.config):
        op, _, name = step.where.partition(":")
        if not step.like:
            found[step.name] = _value(ops[op], name)
    return found


def _value(op: Forward, name: str) -> Value:
    """An input or output of an op; else a variable in the source of the op, at its first value."""
    for value in (*op.inputs, *op.outputs):
        if value.name == name:
            return value
    arrays = [moment.values[name] for moment in op.lines() if name in moment.values]
    return value_of("y", arrays[0], f"{op.module}.{name}")
