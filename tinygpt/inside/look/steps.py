"""The arrays of a pass through a model: in words, as formulas, and as they are.

The words and formulas are in steps.toml. The arrays come from a recording in which the references
of all ops run, so every intermediate exists. (A fused attention makes no weights.)
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from typing import NamedTuple

import numpy as np

import tensor
from tensor.nn import evaluating
from tensor.recording import Forward, Value
from tinygpt.config import GPTConfig
from tinygpt.inside.arrays import value_of
from tinygpt.model.gpt import GPT


class Step(NamedTuple):
    """One array on the way from the text to the next token. steps.toml explains the fields."""

    name: str
    part: str
    title: str
    words: str
    formula: str
    axes: str
    like: str
    where: str


def read(name: str) -> str:
    """The text of a file in this folder."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


SAID = tomllib.loads(read("steps.toml"))


def steps(config: GPTConfig) -> Iterator[Step]:
    """All steps, in the order in which the model takes them."""
    yield from _filled("before", config)
    for block in range(config.layers):
        yield from _filled("block", config, block)
    yield from _filled("after", config)


def _filled(where: str, config: GPTConfig, block: int = 0) -> Iterator[Step]:
    """The steps at one where, as far as a model of this configuration takes them."""
    choices = asdict(config)
    signs = {"bias": " + b" * config.bias, "scale": "√C · " * bool(config.scaled)}
    signs["function"] = config.activation.removesuffix("_erf")
    values = choices | signs | {"i": block, "head": config.width // config.heads}
    for step in SAID[where]:
        if step.get("when", {}).items() <= choices.items():
            texts = SAID["norm"] | step
            yield Step(*(texts[field].format_map(values) for field in Step._fields))


# -- the arrays


def arrays_of(model: GPT, ids: list[int]) -> dict[str, Value]:
    """The array of each step, by name."""
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
