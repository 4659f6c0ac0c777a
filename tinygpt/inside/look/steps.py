"""The arrays of a pass, in words and as formulas. The words are in steps.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from typing import NamedTuple

from tinygpt.config import GPTConfig


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


def _filled(place: str, config: GPTConfig, block: int = 0) -> Iterator[Step]:
    """The steps at one place, as far as a model of this configuration takes them."""
    choices = asdict(config)
    head, bias = config.width // config.heads, " + b" * config.bias
    values = choices | {"i": block, "head": head, "bias": bias}
    for step in SAID[place]:
        if step.get("when", {}).items() <= choices.items():
            texts = SAID["norm"] | step
            yield Step(*(texts[field].format_map(values) for field in Step._fields))
