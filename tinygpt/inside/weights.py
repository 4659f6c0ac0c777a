"""The parts of a model, in two views.

    graph view     `tree(model)`: the modules in the order of computation, with what each does and
                   how many numbers it holds
    matrix view    `matrices(model)`: the arrays one by one, with shape and strides

And `shares(model)`: the parts that hold the parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from tensor import Tensor, nn
from tensor.memory.layout import Shape
from tinygpt.config import BERTConfig, GPTConfig
from tinygpt.model.block import Block
from tinygpt.model.gpt import GPT

# -- the matrix view


class Matrix(NamedTuple):
    """One array of the model, a matrix or a row of gains or biases."""

    name: str
    shape: Shape
    strides: Shape  # in numbers, not bytes
    dtype: str
    numbers: int
    bytes: int
    learned: bool  # False: a buffer, computed once
    tensor: Tensor


def matrices(model: GPT) -> list[Matrix]:
    """Every array, parameters and buffers, each once, in the order of computation."""
    return list(tree(model).matrices())


# -- the graph view


@dataclass(frozen=True)
class Branch:
    """A module and its parts, or one array."""

    name: str
    note: str = ""  # what a module does
    branches: tuple[Branch, ...] = ()
    matrix: Matrix | None = None
    open: bool = True  # whether its parts are shown

    def matrices(self) -> Iterator[Matrix]:
        """The arrays in it, from top to bottom."""
        if self.matrix is not None:
            yield self.matrix
        for branch in self.branches:
            yield from branch.matrices()

    @property
    def numbers(self) -> int:
        """Of its parameters: buffers do not count."""
        return sum(matrix.numbers for matrix in self.matrices() if matrix.learned)

    @property
    def bytes(self) -> int:
        """Of its parameters."""
        return sum(matrix.bytes for matrix in self.matrices() if matrix.learned)


def tree(model: GPT) -> Branch:
    """The modules in the order in which a token passes them, down to the arrays."""
    root = _branch(type(model).__name__, "", model, notes(model.config))
    if model.head is not None:
        return root
    shape = model.token_embedding.weight.T.shape
    tied = Branch("head", f"token_embedding.weight, transposed {shape}")
    return replace(root, branches=(*root.branches, tied))


def _branch(name: str, path: str, thing: Any, said: dict[str, str]) -> Branch:
    if isinstance(thing, Tensor):
        learned, size = isinstance(thing, nn.Parameter), thing.size * thing.dtype.itemsize
        facts = thing.shape, thing.strides, thing.dtype.name, thing.size, size
        matrix = Matrix(path, *facts, learned, thing)
        return Branch(name, matrix=matrix)
    branches = tuple(
        _branch(child, f"{path}.{child}".lstrip("."), part, said)
        for child, part in _in_order(thing)
    )
    # blocks.1.attention -> blocks.attention
    kind = ".".join(part for part in path.split(".") if not part.isdecimal())
    return Branch(name, said.get(kind, ""), branches)


def _in_order(module: nn.Module) -> list[tuple[str, Any]]:
    """The modules and arrays of a module in the order of computation. This is the order of their
    definition, except in a block whose norms come after the sums.
    """
    if isinstance(module, Block) and not module.pre_norm:
        order = "attention", "attention_norm", "feed_forward", "feed_forward_norm"
        return [(name, getattr(module, name)) for name in order]
    parts: list[tuple[str, Any]] = []
    for name, value in vars(module).items():
        if isinstance(value, list):
            parts += [(f"{name}.{i}", item) for i, item in enumerate(value)]
        elif isinstance(value, nn.Module | Tensor) and not isinstance(value, nn.Dropout):
            parts.append((name, value))
    return parts


def notes(config: GPTConfig) -> dict[str, str]:
    """What each module does, by its path without the numbers of blocks."""
    several = "s" if config.heads > 1 else ""
    heads = f"{config.heads} head{several} of {config.width // config.heads}"
    norm, added = "x = norm(h)", "h = x + {}(x)"
    if config.norm == "pre":
        norm, added = "h = norm(x)", "x = x + {}(h)"
    return {
        "": "ids (B, T) -> logits (B, T, V)",
        "token_embedding": "a row for each token",
        "segment_embedding": "a row for each segment",
        "embedding_norm": "x = norm(token + position + segment)",
        "blocks": "x (B, T, C) -> x (B, T, C)",
        "blocks.attention_norm": norm,
        "blocks.attention": added.format("attention"),
        "blocks.feed_forward_norm": norm,
        "blocks.feed_forward": added.format("feed_forward"),
        "blocks.attention.qkv": f"queries, keys, values: {heads}",
        "blocks.attention.projection": "the heads mixed",
        "blocks.feed_forward.expand": f"4 times as wide, {config.activation}",
        "blocks.feed_forward.projection": "and back",
        "final_norm": "h = norm(x)",
        "transform": f"h = {config.activation}(x weight + bias)",
        "transform_norm": "h = norm(h)",
        "head": "logits = h weight",
    }


# -- where they are

PARTS = {  # a word in the name of an array -> the part
    "norm": "norms",
    "feed_forward": "feed-forward",
    "attention": "attention",
    "token_embedding": "token table",
    "position_embedding": "position table",
    "segment_embedding": "segment table",
    "head": "head",
    "transform": "head",
    "output": "head",
}


@dataclass(frozen=True)
class Share:
    """The parameters in a part of the model."""

    part: str
    numbers: int
    share: float  # of all
    what: str


def shares(model: GPT) -> list[Share]:
    """The parts, those with the most parameters first. Together they are all parameters."""
    config = model.config
    layers = f"{config.layers} layer{'s' if config.layers > 1 else ''}"
    what = {
        "feed-forward": f"each token alone: {layers} of 8 C C{' + 5 C' * config.bias}",
        "attention": f"tokens look back: {layers} of 4 C C{' + 4 C' * config.bias}",
        "token table": "V C: a row for each token",
        "position table": "T C: a row for each place",
        "norms": "2 C each: a gain and a bias",
        "head": "V C: how much each token is expected",
    }
    if config.positions != "learned":
        what["position table"] = "computed, not learned"
    if config.tied:
        what["token table"] += ", and the head too"
        what["head"] = "tied: the token table once more"
    if isinstance(config, BERTConfig):
        what["attention"] = what["attention"].replace("look back", "look around")
        what["segment table"] = "S C: a row for each segment"
        before = "C C + C + V: a layer and the biases of the tokens"
        what["head"] = f"{before}; {what['head']}"
    counts = dict.fromkeys(what, 0)
    for matrix in matrices(model):
        if matrix.learned:
            part = next(part for word, part in PARTS.items() if word in matrix.name)
            counts[part] += matrix.numbers
    total = sum(counts.values())
    found = [Share(part, count, count / total, what[part]) for part, count in counts.items()]
    return sorted(found, key=lambda share: -share.numbers)
