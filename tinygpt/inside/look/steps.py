"""The arrays of a pass, in words and as formulas, in the order in which the page shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tinygpt.config import GPTConfig


@dataclass(frozen=True)
class Step:
    """One array on the way."""

    name: str  # in what `walk` gives
    part: str  # the part of the model that it belongs to
    title: str
    words: str
    formula: str
    # a letter for each axis: B batch, T token, C width, H head, D head width, S token looked at, V
    # vocabulary
    axes: str
    like: str = ""  # the array of another step, seen otherwise: "masked", "mask"


def steps(config: GPTConfig) -> Iterator[Step]:
    """All of them, in the order in which the model takes them."""
    yield from _embedding(config)
    for i in range(config.layers):
        yield from _block(config, i)
    yield from _head(config)


def _embedding(config: GPTConfig) -> Iterator[Step]:
    part = "Embedding"
    text = (
        "Each token of the text has a number: its place in the list of all tokens "
        "that the model knows."
    )
    yield Step("ids", part, "Ids", text, "ids = encode(text)", "BT")
    text = (
        f"Each id picks its row of a learned table: {config.width} numbers that stand for "
        "this token wherever it occurs."
    )
    yield Step("tokens", part, "Token embeddings", text, "e[t] = E[ids[t]]", "BTC")
    kind = "waves of different lengths"
    formula = "P[t, 2i] = sin(t / 10000^(2i/C)),  P[t, 2i+1] = cos(same)"
    if config.positions == "learned":
        kind, formula = "learned too", "P[t]"
    text = (
        f"A row for each place in the text, {kind}: without it the model could not tell "
        "the first token from the last."
    )
    yield Step("positions", part, "Position embeddings", text, formula, "TC")
    text = (
        "Their sum enters the first block. From here on each token is one row, "
        "and every block adds something to it: the residual stream."
    )
    yield Step("embed", part, "Token + position", text, "x = e + P", "BTC")


def _block(config: GPTConfig, i: int) -> Iterator[Step]:
    at, pre = f"blocks.{i}.", config.norm == "pre"
    attention, feed_forward = f"Block {i}: attention", f"Block {i}: feed-forward"
    if pre:
        yield _norm(at + "attention_norm", attention)
    yield from _attention(config, at, attention)
    text = "What attention found is added to what came in."
    if pre:
        text = "What attention found is added to the stream; nothing that was there is lost."
    yield Step(at + "middle", attention, "Residual sum", text, "x = x + attention", "BTC")
    if pre:
        yield _norm(at + "feed_forward_norm", feed_forward)
    else:
        yield _norm(at + "attention_norm", attention)
    yield from _feed_forward(config, at, feed_forward)
    text = "What the token made of it is added too."
    yield Step(at + "out", feed_forward, "Residual sum", text, "x = x + feed-forward", "BTC")
    if not pre:
        yield _norm(at + "feed_forward_norm", feed_forward)


def _norm(name: str, part: str) -> Step:
    text = (
        "Each row is shifted and scaled to mean 0 and variance 1, then stretched by a learned "
        "gain and shifted by a learned bias: the next layer meets numbers of a known size."
    )
    formula = "n = gain · (x − mean) / √(variance + ε) + bias"
    return Step(name, part, "LayerNorm", text, formula, "BTC")


def _attention(config: GPTConfig, at: str, part: str) -> Iterator[Step]:
    head, bias = config.width // config.heads, " + b" * config.bias
    text = (
        "One product makes three things of each token: a query (q), which asks, what it can be "
        "found by (k), and what it tells (v)."
    )
    title = "Queries, keys, values"
    yield Step(at + "qkv", part, title, text, "[q k v] = n W" + bias, "BTF")
    for name, title, text, formula in (
        ("q", "Queries q", "What each token asks", "q: what am I looking for?"),
        ("k", "Keys k", "What each token can be found by", "k: what do I offer?"),
        ("v", "Values v", "What each token tells those that find it", "v: what do I tell?"),
    ):
        view = "No number moved: these are views of the product before, with other strides."
        text = f"{text}, {head} numbers a head. {view}"
        yield Step(at + name, part, title, text, formula, "BHTD")
    text = (
        "How well each query (row) fits each key (column): a dot product, made smaller by the "
        "root of its length, so that the softmax does not saturate."
    )
    yield Step(at + "scores", part, "Scores", text, f"s = q kᵀ / √{head}", "BHTS")
    text = (
        "A token may look at itself and at what came before. The future is set to −∞, of which "
        "the softmax makes exactly 0."
    )
    yield Step(at + "scores", part, "Mask", text, "s[t, u] = −∞ where u > t", "BHTS", "masked")
    text = (
        "The softmax turns each row into shares that sum to 1: how much each token (row) takes "
        "from each (column). The first map of this page shows the same."
    )
    yield Step(at + "weights", part, "Weights", text, "w = softmax(s)", "BHTS")
    text = "The values of all tokens, mixed by these shares."
    yield Step(at + "heads", part, "What each head brings", text, "y = w v", "BHTD")
    text = (
        f"The {config.heads} heads side by side again. Their rows lay apart in memory, so this "
        "is the one place where numbers are copied."
    )
    yield Step(at + "merged", part, "Heads merged", text, "y = [head 0 | head 1 | …]", "BTC")
    text = "A product that lets the heads' findings be combined."
    yield Step(at + "projection", part, "Projection", text, "a = y W" + bias, "BTC")


def _feed_forward(config: GPTConfig, at: str, part: str) -> Iterator[Step]:
    bias = " + b" * config.bias
    text = (
        "Now each token thinks alone: four times as many numbers, each asking something of the row."
    )
    yield Step(at + "expanded", part, "Expansion", text, "h = n W" + bias, "BTF")
    title, formula, how = "ReLU", "g = max(h, 0)", "silenced"
    if config.activation == "gelu":
        title, formula = "GELU", "g = h/2 (1 + tanh(√(2/π) (h + 0.044715 h³)))"
        how = "nearly silenced, smoothly"
    text = f"Negative answers are {how}: what makes layers more than one product."
    yield Step(at + "activation", part, title, text, formula, "BTF")
    text = "Back to the width of the stream."
    yield Step(at + "feed_forward", part, "Projection", text, "f = g W" + bias, "BTC")


def _head(config: GPTConfig) -> Iterator[Step]:
    part = "Prediction"
    yield _norm("final_norm", part)
    text = "A number for each token of the vocabulary (column): how strongly it is expected next."
    formula = "z = n W"
    if config.tied:
        text += (
            " A token is expected as much as its embedding points along the row: "
            "the table of the first step, used once more."
        )
        formula = "z = n Eᵀ"
    yield Step("logits", part, "Logits", text, formula, "BTV")
    text = (
        "The softmax makes probabilities of them: what this model thinks comes next, "
        "after each token (row)."
    )
    yield Step("probabilities", part, "Softmax", text, "p = softmax(z)", "BTV")
