"""GPT: a decoder-only transformer.      Radford et al. 2019; Vaswani et al. 2017

    ids -> token embedding + position embedding -> [ attention, feed-forward ] x layers -> LayerNorm -> logits of the next token

Shapes:   B batch   T time (tokens)   C width (channels)   H heads   D head width, C / H   V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn, random
from tensor.devices import Array
from tensor.dtypes import NARROW, DTypeLike
from tensor.errors import DTypeError, ShapeError
from tensor.kernels import KERNELS, all_off, choose
from tensor.mode import MODE
from tinygpt import generation
from tinygpt.attention import Attention
from tinygpt.cache import Cache
from tinygpt.config import ConfigError, GPTConfig
from tinygpt.corpus import IGNORED
from tinygpt.feed_forward import FeedForward

DROPOUTS = 3  # in each block: attention's weights, attention's output, feed-forward's output
ENTRY = 60  # bytes that a safetensors header takes for a tensor, at least: its name, dtype, shape and place
SINUSOIDS = 1 << 22  # numbers in the table of sinusoids, at most, beyond as many as the model has parameters
SPREAD = 0.02  # standard deviation of fresh weights


class Block(nn.Module):
    """Tokens look at each other, then think alone; each adds to the residual stream x: (B, T, C)."""

    def __init__(self, config: GPTConfig, number: int = 0):
        first = 1 + DROPOUTS * number  # 0 is the embedding's
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(config, first)
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config, first + 2)
        self.pre_norm = config.norm == "pre"

    def __call__(self, x: Tensor) -> Tensor:
        if self.pre_norm:
            x = x + self.attention(self.attention_norm(x))
            x = x + self.feed_forward(self.feed_forward_norm(x))
        else:
            x = self.attention_norm(x + self.attention(x))
            x = self.feed_forward_norm(x + self.feed_forward(x))
        return x


def through_blocks(blocks: list[Block], final_norm: nn.LayerNorm, x: Tensor, cache: Cache | None = None, recompute: bool = False) -> Tensor:
    """h = final_norm(x after every block): `for block in blocks: x = block(x)`, with each residual sum and the LayerNorm after it as one op.

    A sum and the norm that follows it may belong to neighbouring blocks, so this is the one place that looks across them.   x, h: (B, T, C)
    With kernels off it is literally that loop, so that a tape shows each block. recompute: of each block x alone is kept, and backward
    computes the block once more. The same numbers in all three.
    """
    if recompute or (cache is None and all_off()):
        for block in blocks:
            x = tensor.checkpoint(block, x) if recompute else block(x)
        return final_norm(x)
    layers = [None] * len(blocks) if cache is None else cache.layers
    branches = [branch for block, layer in zip(blocks, layers, strict=True) for branch in (partial(block.attention, cache=layer), block.feed_forward)]
    norms = [norm for block in blocks for norm in (block.attention_norm, block.feed_forward_norm)]
    if not blocks[0].pre_norm:
        for branch, norm in zip(branches, norms, strict=True):
            _, x = norm.after_sum(x, branch(x))
        return final_norm(x)
    h = norms[0](x)
    for branch, norm in zip(branches, [*norms[1:], final_norm], strict=True):
        x, h = norm.after_sum(x, branch(h))
    return h


class GPT(nn.Module):
    """model(ids) -> logits: for each position, how strongly each token of the vocabulary is expected next.

    ids: (B, T) or (T,), B then 1, T at most `context`   logits: (B, T, V).   The weights follow from the generator alone (by default the
    one that `tensor.manual_seed` seeds): drawn in float64, then rounded, they are the same in every dtype and on every device. `draw=False`
    leaves them at zero, for weights that are loaded next.
    """

    recompute = False  # whether training keeps the start of each block alone, and computes the rest again in backward

    def __init__(self, config: GPTConfig, *, generator: random.Generator | None = None, dtype: DTypeLike = "float32", device: str = "cpu", draw: bool = True):
        self.config = config
        learned = config.positions == "learned"
        if not learned and config.context * config.width > SINUSOIDS + parameter_count(config):  # no file's size bounds this table
            raise ConfigError(
                f"context {config.context:,}: a table of {config.context:,} x {config.width:,} sinusoids is far larger than the model\n"
                f"take positions that are learned, or a context of at most {(SINUSOIDS + parameter_count(config)) // config.width:,}"
            )
        table = np.zeros((config.context, config.width)) if learned else sinusoids(config.context, config.width)
        with nn.undrawn():
            self.token_embedding = nn.Embedding(config.vocabulary, config.width)
            self.position_embedding = nn.Parameter(table) if learned else Tensor(table)  # a plain Tensor is a buffer: it does not learn
            self.dropout = nn.Dropout(config.dropout, number=0)
            self.blocks = [Block(config, i) for i in range(config.layers)]
            self.final_norm = nn.LayerNorm(config.width)
            self.head = None if config.tied else nn.Linear(config.width, config.vocabulary, bias=False)
        self.to(dtype=dtype, device=device)
        if draw:
            self.initialise(generator or random.default)

    def initialise(self, generator: random.Generator) -> None:
        """Draw all weights anew: biases 0, gains 1, the rest from N(0, 0.02^2).      Radford et al. 2019, section 2.3

        The two projections of each block that add to the residual stream are drawn from N(0, 0.02^2 / (2 layers)): the stream is a sum
        of 2 layers terms, and so starts equally wide for any depth.
        """
        residual = SPREAD / math.sqrt(2 * self.config.layers)
        with tensor.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.ndim < 2:
                    parameter[...] = 1.0 if name.endswith("gain") else 0.0
                    continue
                spread = residual if name.endswith("projection.weight") else SPREAD
                drawn = generator.normal(parameter.shape) * spread
                parameter[...] = tensor.Tensor(drawn, dtype=parameter.dtype, device=parameter.device)

    def __call__(self, ids: Any, cache: Cache | None = None, last: bool = False) -> Tensor:
        ids = self.check_ids(ids)  # (B, T)
        return self.logits(self.embed(ids), last) if cache is None else self.decode(ids, cache, last)

    def embed(self, ids: Any) -> Tensor:
        """What enters the first block: x = token embedding + position embedding.   ids: (B, T) or (T,)   x: (B, T, C)"""
        return self.dropout(tensor.positional_embedding(self.check_ids(ids), self.token_embedding.weight, self.position_embedding))

    def logits(self, x: Tensor, last: bool = False, cache: Cache | None = None) -> Tensor:
        """From what entered the first block to what the last token of each prefix expects.   x: (B, T, C)   logits: (B, T, V)

        last: only those of the last position, (B, 1, V).
        """
        h = through_blocks(self.blocks, self.final_norm, x, cache, self.recompute and self.learning)  # (B, T, C)
        if last and h.shape[1] > 1:
            h = h[:, -1:].contiguous()
        if self.head is not None:
            return self.head(h)
        # The tied head: a token is expected as much as its embedding points along h (Press & Wolf 2017): h @ weight.T.
        return tensor.linear(h, self.token_embedding.weight, transposed=True)  # (B, T, V)

    def decode(self, ids: Tensor, cache: Cache, last: bool = False) -> Tensor:
        """The logits of tokens that come after those in the cache, which they join. No dropout, and nothing is recorded.   ids: (B, T)

        One op: a kernel does it whole, else the layers run one by one.
        """
        cache.check(*ids.shape)
        if not cache.parameters or cache.parameters[0] is not self.token_embedding.weight.array:  # they were packed, or moved, since
            cache.parameters = self._in_order()
        arrays = [ids.array, cache.keys, cache.values, cache.seen, cache.rows, cache.parameters]
        config = self.config
        options: dict[str, Any] = {
            "pre_norm": config.norm == "pre",
            "relu": config.activation == "relu",
            "biases": config.bias,
            "tied": config.tied,
            "last": last,
        }
        options["eps"] = self.final_norm.eps
        kernel = choose("decode", KERNELS.setdefault("decode", []), arrays, options, MODE.get().kernels_off)
        found = NotImplemented if kernel is None else kernel(*arrays, **options)
        if found is not NotImplemented:
            logits = Tensor.from_array(found)
        else:
            with tensor.no_grad(), nn.evaluating():
                places = cache.seen[cache.rows, None] + np.arange(ids.shape[1])  # (B, T)
                x = self.token_embedding(ids) + tensor.embedding(places, self.position_embedding)  # (B, T, C)
                logits = self.logits(x, last, cache)
        cache.seen[cache.rows] += ids.shape[1]
        return logits

    def _in_order(self) -> tuple[Array, ...]:
        """The arrays of all parameters in the order of their use; where there is no bias, its weight stands once more."""
        parts: list[Tensor] = [self.token_embedding.weight, self.position_embedding]
        for block in self.blocks:
            attention, feed_forward = block.attention, block.feed_forward
            for norm, *layers in (
                (block.attention_norm, attention.qkv, attention.projection),
                (block.feed_forward_norm, feed_forward.expand, feed_forward.projection),
            ):
                parts += norm.gain, norm.bias
                for layer in layers:
                    parts += layer.weight, layer.weight if layer.bias is None else layer.bias
        head = self.token_embedding.weight if self.head is None else self.head.weight
        return tuple([part.array for part in (*parts, self.final_norm.gain, self.final_norm.bias, head)])

    def loss(self, ids: Any, targets: Any, reduction: str = "mean") -> Tensor:
        """-ln p(target), in nats, the mean over all tokens; ln V for a model that knows nothing.   ids, targets: (B, T) or (T,)

        A target of -1 counts for nothing.   reduction: "mean", "sum" or "none", as in cross_entropy.
        """
        logits = self(ids)  # (B, T, V)
        if logits.dtype in NARROW:  # three digits of a loss are too few, and a float16 sum of many ends at 65504
            logits = logits.to("float32")
        targets = Tensor.wrap(targets)
        if targets.ndim == 1:
            targets = targets.unsqueeze(0)
        if targets.shape != logits.shape[:2]:
            raise ShapeError(f"targets of shape {targets.shape} for ids of shape {logits.shape[:2]}: each token needs one target, the token after it")
        return tensor.cross_entropy(logits, targets.to(logits.device), ignore_index=IGNORED, reduction=reduction)  # (B, T, V) against (B, T)

    def generate(
        self,
        ids: Any,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: random.Generator | None = None,
    ) -> Any:
        """`ids` and the `length` tokens that follow, as lists.   ids: (T,) or (B, T), of any length from 1 on; the last `context` tokens are looked at.

        temperature: 0 takes the likeliest token, 1 draws as the model says, above is wilder.   top_k: draws from the k likeliest only.
        top_p: draws from the fewest that together have probability p.   generator: where the draws come from; by default what
        `tensor.manual_seed` seeds.

        Dropout is off meanwhile, and nothing is recorded. Raises InputError (a ValueError) for an empty prompt or impossible options.
        """
        ids = Tensor.wrap(ids)
        texts = ids.tolist() if ids.ndim == 2 else [ids.tolist()]
        how, source = generation.sampling(temperature, top_k, top_p), generator or random.default
        for row, step in generation.steps(self, texts, length, how, [source] * len(texts)):
            texts[row].append(step.token)
        return texts if ids.ndim == 2 else texts[0]

    def stream(
        self,
        ids: Any,
        length: int,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        generator: random.Generator | None = None,
    ) -> Iterator[int]:
        """The new tokens of `generate` alone, each as soon as it is drawn."""
        how = generation.sampling(temperature, top_k, top_p)
        return (step.token for _, step in generation.steps(self, [ids], length, how, [generator or random.default]))

    @classmethod
    def from_gpt2(cls, folder: Any, *, dtype: DTypeLike | None = None, device: str = "cpu") -> GPT:
        """The GPT-2 in a folder of Hugging Face's (config.json, model.safetensors), with dropout off; see gpt2.py."""
        from tinygpt import gpt2  # here: it imports this module

        return gpt2.load(folder, dtype=dtype, device=device)

    def check_ids(self, ids: Any) -> Tensor:
        """ids as integers (B, T) on the model's device. Raises ShapeError, DTypeError and IndexError, with the numbers."""
        ids = Tensor.wrap(ids)
        vocabulary, context = self.config.vocabulary, self.config.context
        if ids.ndim not in (1, 2) or ids.size == 0:
            raise ShapeError(f"ids of shape {ids.shape}: (T,) or (B, T) is needed, with at least one token")
        if ids.dtype.kind not in "iu":
            raise DTypeError(f"ids must be integers, as a tokenizer's encode gives them, not {ids.dtype}")
        if ids.shape[-1] > context:
            raise ShapeError(f"{ids.shape[-1]} tokens do not fit the model's context of {context}: pass the last {context} of them, or make a model with more")
        if ids.device == "cpu":  # looking at a GPU's ids would wait for it
            for wrong in (int(ids.array.min()), int(ids.array.max())):
                if not 0 <= wrong < vocabulary:
                    raise IndexError(f"token {wrong} is outside this model's vocabulary, 0 to {vocabulary - 1}: its text was encoded by another tokenizer")
        if ids.ndim == 1:
            ids = Tensor.from_array(ids.array[None])
        return ids.to(self.token_embedding.weight.device)  # type: ignore[no-any-return]


def sinusoids(context: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """table[t, 2i] = sin(t / 10000^(2i / width)),   table[t, 2i + 1] = cos of the same.   (T, C)      Vaswani et al. 2017, section 3.5"""
    time = np.arange(context)[:, None]  # (T, 1)
    column = np.arange(width)  # (C,)
    table: np.ndarray[Any, np.dtype[np.float64]] = time / 10000.0 ** ((column - column % 2) / width)  # (T, C), the angles
    np.sin(table[:, 0::2], out=table[:, 0::2])
    np.cos(table[:, 1::2], out=table[:, 1::2])
    return table


# -- sizes, known before anything is made -----------------------------------------------------------------------------


def parameter_count(config: GPTConfig) -> int:
    """V C (twice, where the head is not tied) + T C (where positions are learned) + 2 C, and 12 C^2 + 4 C + 9 C of biases a layer."""
    V, T, C = config.vocabulary, config.context, config.width
    tables = V * C * (1 if config.tied else 2) + T * C * (config.positions == "learned")
    return tables + 2 * C + config.layers * (12 * C**2 + 4 * C + 9 * C * config.bias)


def least_bytes(config: GPTConfig, itemsize: int = 2) -> int:
    """The least size of a safetensors file of the parameters: numbers, and ENTRY bytes for each tensor.

    A smaller file is of another model. Compare before time and memory are spent on a config.json.
    """
    tensors = 3 + (config.positions == "learned") + (not config.tied) + config.layers * (8 + 4 * config.bias)
    return parameter_count(config) * itemsize + tensors * ENTRY
