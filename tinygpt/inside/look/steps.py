"""The arrays of a pass through a model: in words, as formulas, and as they are.

The words and formulas are in steps.toml and cross.toml. The arrays come from a recording in which
the references of all ops run, so every intermediate exists. (A fused attention makes no weights.)
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from itertools import product
from typing import Any, NamedTuple

import tensor
from tensor.nn import evaluating
from tensor.recording import Forward, Value
from tinygpt.config import EncoderDecoderConfig, ModelConfig
from tinygpt.ids import SourceTarget
from tinygpt.inside.arrays import value_of


class Step(NamedTuple):
    """One array on the way from the text to the next token. steps.toml explains the fields."""

    name: str
    part: str
    title: str
    words: str
    formula: str
    axes: str
    rows: str
    columns: str
    like: str
    sees: str
    map: str
    where: str


def read(name: str) -> str:
    """The text of a file in this folder."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


SAID = tomllib.loads(read("steps.toml")) | tomllib.loads(read("cross.toml"))


class Stack(NamedTuple):
    """Blocks, one after the other, and the text whose tokens go through them."""

    path: str  # of the blocks
    final: str  # of the norm after them
    group: str  # what a block is called
    rows: str  # the text
    embedding: str
    before: str = ""  # stands before the names of the arrays of the embedding
    again: str = ""  # "#2" where another text was embedded before
    sees: str = "past"
    cross: bool = False
    end: str = "Prediction"  # the part of the norm after the blocks


GPT = Stack("blocks", "final_norm", "Block {i}", "text", "Embedding")
ENCODER = Stack(
    "encoder",
    "encoder_norm",
    "Encoder block {i}",
    "source",
    "Source",
    "source.",
    sees="all",
    end="Memory",
)
DECODER = Stack(
    "decoder",
    "decoder_norm",
    "Decoder block {i}",
    "target",
    "Target",
    "target.",
    again="#2",
    cross=True,
)


def steps(config: ModelConfig) -> Iterator[Step]:
    """All steps, in the order in which the model takes them."""
    stacks = [ENCODER, DECODER] if isinstance(config, EncoderDecoderConfig) else [GPT]
    for stack in stacks:
        yield from _filled("before", config, stack)
        parts = ["attention", *["cross"] * stack.cross, "feed_forward"]
        for block, part in product(range(config.layers), parts):
            yield from _filled(part, config, stack, block)
        yield from _filled("norm_after", config, stack)
    yield from _filled("after", config, stacks[-1])


def _filled(where: str, config: ModelConfig, stack: Stack, block: int = 0) -> Iterator[Step]:
    """The steps at one where, as far as a model of this configuration takes them."""
    choices = asdict(config) | stack._asdict()
    values = choices | {
        "classifies": bool(config.labels),
        "i": block,
        "path": f"{stack.path}.{block}",
        "group": stack.group.format(i=block),
        "label": str(block) if stack is GPT else f"{stack.path} {block}",
        "last": "#3" if stack.cross else "#2",
        "head": config.width // config.heads,
        "bias": " + b" * config.bias,
        "scale": "√C · " * bool(config.scaled),
        "function": config.activation.removesuffix("_erf"),
    }
    for step in SAID[where]:
        if step.get("when", {}).items() <= values.items():
            texts = SAID["norm"] | step
            yield Step(*(texts[field].format_map(values) for field in Step._fields))


# -- the arrays


def logits_of(model: Any, x: Any) -> tensor.Tensor:
    """The logits (1, T, V) of the ids of a text, or of a SourceTarget."""
    logits: tensor.Tensor = model(x.source, x.target) if isinstance(x, SourceTarget) else model(x)
    return logits


def arrays_of(model: Any, x: Any) -> dict[str, Value]:
    """The array of each step, by name."""
    with tensor.no_grad(), evaluating(), tensor.record(implementation="reference") as recording:
        logits_of(model, x).softmax(-1)
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
