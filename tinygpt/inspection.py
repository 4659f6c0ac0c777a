"""What a model is made of, in two views of the same thing.

    graph view     `tree(model)`: its modules in the order of computation, with what each does and how many numbers it holds
    matrix view    `matrices(model)`: its arrays one by one, with shape, strides and what their numbers are like

and `shares(model)`: in which parts the parameters are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tensor import Tensor, nn
from tensor.devices import to_host
from tensor.layout import Shape
from tinygpt.config import GPTConfig
from tinygpt.model import GPT, Block

NEAR_ZERO = 0.01  # of the largest number: what is smaller hardly counts beside it


# -- the matrix view --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Matrix:
    """One array of the model, a matrix or a row of gains or biases."""

    name: str
    shape: Shape
    strides: Shape  # in numbers, not bytes
    dtype: str
    numbers: int
    bytes: int
    learned: bool  # False: a buffer, computed once and for all
    tensor: Tensor = field(repr=False, compare=False)


@dataclass(frozen=True)
class Statistics:
    """What the numbers of an array are like, computed in float64."""

    mean: float
    std: float
    smallest: float
    largest: float
    norm: float  # sqrt(sum of w^2)
    near_zero: float  # share of the numbers with |w| below a hundredth of the largest |w|
    not_finite: int = 0  # numbers that are NaN or infinite; left out of all the others


def matrices(model: GPT) -> list[Matrix]:
    """Every array, parameters and buffers, each once, in the order of computation."""
    return [branch.matrix for branch in tree(model).walk() if branch.matrix is not None]


def statistics(x: Tensor) -> Statistics:
    """Mean, standard deviation, extremes, norm and the share near zero."""
    values = np.asarray(to_host(x.array), dtype=np.float64).ravel()
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Statistics(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, values.size)
    smallest, largest = float(finite.min()), float(finite.max())
    near = np.abs(finite) <= NEAR_ZERO * max(-smallest, largest)
    norm = float(np.sqrt(np.square(finite).sum()))
    return Statistics(float(finite.mean()), float(finite.std()), smallest, largest, norm, float(near.mean()), values.size - finite.size)


def cells(x: Tensor, rows: int, columns: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The matrix made small: each cell is the root of the mean square of the numbers that fall into it.   (at most rows, at most columns)"""
    values = np.asarray(to_host(x.array), dtype=np.float64)
    values = values.reshape(1, -1) if values.ndim < 2 else values.reshape(-1, values.shape[-1])
    squares = np.square(values)
    for axis, most in ((0, rows), (1, columns)):
        size = squares.shape[axis]
        edges = np.arange(min(size, most)) * size // min(size, most)
        counts = np.diff(np.append(edges, size))
        squares = np.add.reduceat(squares, edges, axis) / np.expand_dims(counts, 1 - axis)
    small: np.ndarray[Any, np.dtype[np.float64]] = np.sqrt(squares)
    return small


# -- the graph view ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Branch:
    """A module and what is in it, or one array."""

    name: str
    note: str = ""  # what a module does
    branches: tuple[Branch, ...] = ()
    matrix: Matrix | None = None
    open: bool = True  # whether what is in it is shown

    def walk(self) -> Iterator[Branch]:
        """This one and all below, from top to bottom."""
        yield self
        for branch in self.branches:
            yield from branch.walk()

    @property
    def numbers(self) -> int:
        """Parameters in it: buffers do not count."""
        return sum(branch.matrix.numbers for branch in self.walk() if branch.matrix is not None and branch.matrix.learned)

    @property
    def bytes(self) -> int:
        """Of its parameters."""
        return sum(branch.matrix.bytes for branch in self.walk() if branch.matrix is not None and branch.matrix.learned)


def tree(model: GPT) -> Branch:
    """The modules in the order in which a token passes them, down to the arrays."""
    root = _branch("GPT", "", model, notes(model.config))
    if model.head is not None:
        return root
    weight = model.token_embedding.weight
    note = f"token_embedding.weight, transposed {weight.T.shape}"
    return Branch(root.name, root.note, (*root.branches, Branch("head", note)), root.matrix)


def _branch(name: str, path: str, thing: Any, said: dict[str, str]) -> Branch:
    kind = ".".join(part for part in path.split(".") if not part.isdecimal())  # blocks.1.attention -> blocks.attention
    if isinstance(thing, Tensor):
        learned = isinstance(thing, nn.Parameter)
        matrix = Matrix(path, thing.shape, thing.strides, thing.dtype.name, thing.size, thing.size * thing.dtype.itemsize, learned, thing)
        return Branch(name, matrix=matrix)
    branches = tuple(_branch(child, f"{path}.{child}" if path else child, part, said) for child, part in _in_order(thing))
    return Branch(name, said.get(kind, ""), branches)


def _in_order(module: nn.Module) -> list[tuple[str, Any]]:
    """Its modules and arrays in the order of computation, which is that of their definition but where a norm comes after its sum."""
    parts: list[tuple[str, Any]] = []
    for name, value in vars(module).items():
        if isinstance(value, list):
            parts += [(f"{name}.{i}", item) for i, item in enumerate(value)]
        elif isinstance(value, Tensor) or (isinstance(value, nn.Module) and next(value.parameters(), None) is not None):
            parts.append((name, value))
    if isinstance(module, Block) and not module.pre_norm:
        order = "attention", "attention_norm", "feed_forward", "feed_forward_norm"
        parts.sort(key=lambda part: order.index(part[0]))
    return parts


def notes(config: GPTConfig) -> dict[str, str]:
    """What the modules do, under their paths without the numbers of blocks."""
    heads = f"{config.heads} head{'s' * (config.heads > 1)} of {config.width // config.heads}"
    if config.norm == "pre":
        steps = {"attention_norm": "h = norm(x)", "attention": "x = x + attention(h)", "feed_forward_norm": "h = norm(x)"}
        steps["feed_forward"] = "x = x + feed_forward(h)"
    else:
        steps = {"attention": "h = x + attention(x)", "attention_norm": "x = norm(h)", "feed_forward": "h = x + feed_forward(x)"}
        steps["feed_forward_norm"] = "x = norm(h)"
    return {
        "": "ids (B, T) -> logits (B, T, V)",
        "token_embedding": "a row for each token",
        "blocks": "x (B, T, C) -> x (B, T, C)",
        **{f"blocks.{name}": note for name, note in steps.items()},
        "blocks.attention.qkv": f"queries, keys, values: {heads}",
        "blocks.attention.projection": "the heads mixed",
        "blocks.feed_forward.expand": f"4 times as wide, {config.activation}",
        "blocks.feed_forward.projection": "and back",
        "final_norm": "h = norm(x)",
        "head": "logits = h weight",
    }


# -- where they are ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """How many of the parameters are in a part."""

    part: str
    numbers: int
    share: float  # of all
    what: str


def shares(model: GPT) -> list[Share]:
    """The parts with the most parameters first; they add up to all."""
    config = model.config
    counts = dict.fromkeys(("feed-forward", "attention", "token table", "position table", "norms", "head"), 0)
    for matrix in matrices(model):
        counts[part_of(matrix.name)] += matrix.numbers * matrix.learned
    total, layers = sum(counts.values()), f"{config.layers} layer{'s' * (config.layers > 1)}"
    what = {
        "feed-forward": f"each token alone: {layers} of 8 C C + 5 C" if config.bias else f"each token alone: {layers} of 8 C C",
        "attention": f"tokens look back: {layers} of 4 C C + 4 C" if config.bias else f"tokens look back: {layers} of 4 C C",
        "token table": "V C: a row for each token" + ", and the head too" * config.tied,
        "position table": "T C: a row for each place" if counts["position table"] else "computed, not learned",
        "norms": "2 C each: a gain and a bias",
        "head": "V C: how much each token is expected" if counts["head"] else "tied: the token table once more",
    }
    found = [Share(part, count, count / total, what[part]) for part, count in counts.items()]
    return sorted(found, key=lambda share: -share.numbers)


def part_of(name: str) -> str:
    """The part that an array belongs to, by its name."""
    if "norm" in name:
        return "norms"
    first = name.split(".")[2 if name.startswith("blocks.") else 0]
    return {"feed_forward": "feed-forward", "token_embedding": "token table", "position_embedding": "position table"}.get(first, first)
