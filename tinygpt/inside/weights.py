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
from tinygpt.config import BERTConfig, EncoderDecoderConfig, ModelConfig
from tinygpt.model.block import Block
from tinygpt.model.transformer import Transformer
from tinygpt.terminal import number_of

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


def matrices(model: Transformer) -> list[Matrix]:
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


def tree(model: Transformer) -> Branch:
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


# of a block: each with its norm; the second only in a decoder
LAYERS = [
    ("attention_norm", "attention"),
    ("cross_norm", "cross_attention"),
    ("feed_forward_norm", "feed_forward"),
]


def _in_order(module: nn.Module) -> list[tuple[str, Any]]:
    """The modules and arrays of a module in the order of computation. This is the order of their
    definition, except in a block.
    """
    if isinstance(module, Block):
        names = [name for pair in LAYERS for name in (pair if module.pre_norm else pair[::-1])]
        return [(name, vars(module)[name]) for name in names if vars(module).get(name) is not None]
    parts: list[tuple[str, Any]] = []
    for name, value in vars(module).items():
        if isinstance(value, list):
            parts += [(f"{name}.{i}", item) for i, item in enumerate(value)]
        elif isinstance(value, nn.Module | Tensor) and not isinstance(value, nn.Dropout):
            parts.append((name, value))
    return parts


def notes(config: ModelConfig) -> dict[str, str]:
    """What each module does, by its path without the numbers of blocks."""
    of_block, outcomes = _block_notes(config), "K" if config.labels else "V"
    if not isinstance(config, EncoderDecoderConfig):
        return {
            "": f"ids (B, T) -> logits (B, T, {outcomes})",
            "token_embedding": "a row for each token",
            "segment_embedding": "a row for each segment",
            "embedding_norm": "x = norm(token + position + segment)",
            "blocks": "x (B, T, C) -> x (B, T, C)",
            **{f"blocks.{path}": note for path, note in of_block.items()},
            "final_norm": "h = norm(x)",
            "transform": f"h = {config.activation}(x weight + bias)",
            "transform_norm": "h = norm(h)",
            "head": "logits = h weight",
        }
    return {
        "": "source, target -> logits (B, T, V)",
        "token_embedding": "a row for each token",
        "encoder": "x (B, S, C) -> x (B, S, C)",
        **{f"encoder.{path}": note for path, note in of_block.items()},
        "encoder_norm": "memory = norm(x)",
        "decoder": "x (B, T, C) -> x (B, T, C)",
        **{f"decoder.{path}": note for path, note in of_block.items()},
        "decoder_norm": "h = norm(x)",
        "head": "logits = h weight",
    }


def _block_notes(config: ModelConfig) -> dict[str, str]:
    """Those of the parts of a block."""
    several = "s" if config.heads > 1 else ""
    heads = f"{config.heads} head{several} of {config.width // config.heads}"
    norm, added = "x = norm(h)", "h = x + {}(x)"
    if config.norm == "pre":
        norm, added = "h = norm(x)", "x = x + {}(h)"
    return {
        "attention_norm": norm,
        "attention": added.format("attention"),
        "cross_norm": norm,
        "cross_attention": added.replace(")", ", memory)").format("attention"),
        "feed_forward_norm": norm,
        "feed_forward": added.format("feed_forward"),
        "attention.qkv": f"queries, keys, values: {heads}",
        "attention.projection": "the heads mixed",
        "cross_attention.q": f"queries: {heads}",
        "cross_attention.kv": "keys, values of the memory",
        "cross_attention.projection": "the heads mixed",
        "feed_forward.expand": f"4 times as wide, {config.activation}",
        "feed_forward.projection": "and back",
    }


# -- where they are

PARTS = {  # a word in the name of an array -> the part
    "norm": "norms",
    "feed_forward": "feed-forward",
    "cross_attention": "cross-attention",
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


def shares(model: Transformer) -> list[Share]:
    """The parts, those with the most parameters first. Together they are all parameters."""
    config, looks, crossed = model.config, "tokens look back", {}
    blocks, four = number_of(config.layers, "layer"), f"4 C C{' + 4 C' * config.bias}"
    if isinstance(config, EncoderDecoderConfig):
        blocks, looks = number_of(2 * config.layers, "block"), "in each text"
        crossed = {"cross-attention": f"to the source: {config.layers} more of {four}"}
    what = {
        "feed-forward": f"each token alone: {blocks} of 8 C C{' + 5 C' * config.bias}",
        "attention": f"{looks}: {blocks} of {four}",
        **crossed,
        "token table": "V C: a row for each token",
        "position table": "T C: a row for each place",
        "norms": "2 C each: a gain and a bias",
        "head": "V C: how much each token is expected",
    }
    if config.positions != "learned":
        what["position table"] = "computed, not learned"
    if config.labels:
        what["head"] = "K C: how much each label is expected"
    elif config.tied:
        what["token table"] += ", and the head too"
        what["head"] = "tied: the token table once more"
    if isinstance(config, BERTConfig):
        what["attention"] = what["attention"].replace("look back", "look around")
        what["segment table"] = "S C: a row for each segment"
        if not config.labels:
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
