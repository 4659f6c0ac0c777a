"""GPT: a decoder-only transformer.      Radford et al. 2019; Vaswani et al. 2017

    ids -> token embedding + position embedding -> [ attention, feed-forward ] x layers -> LayerNorm
    -> logits of the next token

Shapes:   B batch   T time (tokens)   C width (channels)   H heads   D head width, C / H   V
vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn, random
from tensor.dtypes import NARROW, DTypeLike
from tensor.errors import DTypeError, ShapeError
from tensor.kernels import pick
from tensor.memory.devices import Array
from tinygpt.config import ConfigError, GPTConfig, SampleConfig
from tinygpt.generation.generate import steps
from tinygpt.ids import IGNORED
from tinygpt.model.block import Block, through_blocks
from tinygpt.model.cache import Cache
from tinygpt.model.positions import sinusoids
from tinygpt.model.sizes import parameter_count

# numbers in the table of sinusoids, at most, beyond as many as the model has parameters
SINUSOIDS = 1 << 22

SPREAD = 0.02  # standard deviation of fresh weights


class GPT(nn.Module):
    """model(ids) -> logits: for each position, how strongly each token of the vocabulary is
    expected next.

    ids: (B, T) or (T,), B then 1, T at most `context`   logits: (B, T, V)

    The weights follow from the generator alone (by default the one that `tensor.manual_seed`
    seeds). They are drawn in float64, then rounded: the same in every dtype and on every device.
    `draw=False` leaves the weights at zero, for weights that are loaded next.
    """

    # whether training keeps the start of each block alone, and computes the rest again in backward
    recompute = False

    def __init__(
        self,
        config: GPTConfig,
        *,
        generator: random.Generator | None = None,
        dtype: DTypeLike = "float32",
        device: str = "cpu",
        draw: bool = True,
    ):
        self.config = config
        learned = config.positions == "learned"
        # no file's size bounds this table
        if not learned and config.context * config.width > SINUSOIDS + parameter_count(config):
            raise ConfigError(
                f"context {config.context:,}: a table of {config.context:,} x {config.width:,} "
                "sinusoids is far larger than the model\n"
                "take positions that are learned, or a context of at most "
                f"{(SINUSOIDS + parameter_count(config)) // config.width:,}"
            )
        if learned:
            table = np.zeros((config.context, config.width))
        else:
            table = sinusoids(config.context, config.width)
        with nn.undrawn():
            self.token_embedding = nn.Embedding(config.vocabulary, config.width)
            # a plain Tensor is a buffer: it does not learn
            self.position_embedding = (
                nn.Parameter(table, role="table") if learned else Tensor(table)
            )
            self.dropout = nn.Dropout(config.dropout)
            self.blocks = [Block(config) for _ in range(config.layers)]
            self.final_norm = nn.LayerNorm(config.width)
            self.head = (
                None
                if config.tied
                else nn.Linear(config.width, config.vocabulary, bias=False, role="head")
            )
        # each dropout draws masks of its own: the embedding's is number 0
        dropouts = [part for _, part in self.named_modules() if isinstance(part, nn.Dropout)]
        for number, dropout in enumerate(dropouts):
            dropout.number = number
        self.to(dtype=dtype, device=device)
        if draw:
            self.initialise(generator or random.default)

    def initialise(self, generator: random.Generator) -> None:
        """Draw all weights anew: biases 0, gains 1, the rest from N(0, 0.02^2).      Radford et al.
        2019, section 2.3

        The two projections of each block that add to the residual stream are drawn from N(0, 0.02^2
        / (2 layers)): the stream is a sum
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
                parameter[...] = tensor.Tensor(
                    drawn, dtype=parameter.dtype, device=parameter.device
                )

    def __call__(self, ids: Any, cache: Cache | None = None, last: bool = False) -> Tensor:
        ids = self.check_ids(ids)  # (B, T)
        return (
            self.logits(self.embed(ids), last) if cache is None else self.decode(ids, cache, last)
        )

    def embed(self, ids: Any) -> Tensor:
        """x = token embedding + position embedding.   ids: (B, T) or (T,)   x: (B, T, C)"""
        return self.dropout(
            tensor.positional_embedding(
                self.check_ids(ids), self.token_embedding.weight, self.position_embedding
            )
        )

    def logits(self, x: Tensor, last: bool = False, cache: Cache | None = None) -> Tensor:
        """The blocks and the head.   x: (B, T, C), as `embed` gives   logits: (B, T, V)

        last: only those of the last position, (B, 1, V).
        """
        h = through_blocks(self.blocks, self.final_norm, x, cache, self.recompute and self.learning)
        if last and h.shape[1] > 1:
            h = h[:, -1:].contiguous()
        if self.head is not None:
            return self.head(h)
        # The tied head: a token is expected as much as its embedding points along h (Press & Wolf
        # 2017): h @ weight.T.
        return tensor.linear(h, self.token_embedding.weight, transposed=True)  # (B, T, V)

    def new_cache(self, rows: int = 1) -> Cache:
        """An empty cache for so many sequences side by side. A parameter replaced later needs a new
        cache.
        """
        return Cache(self.config, rows, like=self.token_embedding.weight.array)

    @property
    def context(self) -> int:
        """How many tokens the model sees at once, T."""
        return self.config.context

    @property
    def device(self) -> str:
        """Where the parameters are."""
        return str(self.token_embedding.weight.device)

    def decode(self, ids: Tensor, cache: Cache, last: bool = False) -> Tensor:
        """The logits of tokens that come after those in the cache, which they join. No dropout, and
        nothing is recorded.   ids: (B, T)

        One op: a kernel does it whole, else the layers run one by one.
        """
        cache.check(*ids.shape)
        # they were packed, or moved, since
        if not cache.parameters or cache.parameters[0] is not self.token_embedding.weight.array:
            cache.parameters = self._in_order()
        arrays = [ids.array, cache.keys, cache.values, cache.seen, cache.rows, cache.parameters]
        config = self.config
        options: dict[str, Any] = {
            "pre_norm": config.norm == "pre",
            "relu": config.activation == "relu",
            "biases": config.bias,
            "tied": config.tied,
            "last": last,
            "eps": self.final_norm.eps,
        }
        options["eps"] = self.final_norm.eps
        kernel = pick("decode", *arrays, **options)
        found = NotImplemented if kernel is None else kernel(*arrays, **options)
        if found is not NotImplemented:
            logits = Tensor.from_array(found)
        else:
            with tensor.no_grad(), nn.evaluating():
                places = cache.seen[cache.rows, None] + np.arange(ids.shape[1])  # (B, T)
                x = self.token_embedding(ids) + tensor.embedding(places, self.position_embedding)
                logits = self.logits(x, last, cache)
        cache.seen[cache.rows] += ids.shape[1]
        return logits

    def _in_order(self) -> tuple[Array, ...]:
        """The arrays of all parameters in the order of their use; where there is no bias, its
        weight stands once more.
        """
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
        return tuple(
            [part.array for part in (*parts, self.final_norm.gain, self.final_norm.bias, head)]
        )

    def loss(self, ids: Any, targets: Any, reduction: str = "mean") -> Tensor:
        """-ln p(target) in nats, the mean over all tokens; ln V for a model that knows nothing.
        ids, targets: (B, T) or (T,)

        A target of -1 counts for nothing.   reduction: "mean", "sum" or "none", as in
        cross_entropy.
        """
        logits = self(ids)  # (B, T, V)
        # three digits of a loss are too few, and a float16 sum of many ends at 65504
        if logits.dtype in NARROW:
            logits = logits.to("float32")
        targets = Tensor.wrap(targets)
        if targets.ndim == 1:
            targets = targets.unsqueeze(0)
        if targets.shape != logits.shape[:2]:
            raise ShapeError(
                f"targets of shape {targets.shape} for ids of shape {logits.shape[:2]}: each token "
                "needs one target, the token after it"
            )
        # (B, T, V) against (B, T)
        return tensor.cross_entropy(
            logits, targets.to(logits.device), ignore_index=IGNORED, reduction=reduction
        )

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
        """`ids` and the `length` tokens that follow, as lists.   ids: (T,) or (B, T), of any
        length from 1 on; the model sees the last `context` of them.

        temperature: 0 takes the likeliest token, 1 draws as the model says, above 1 is wilder.
        top_k: draw from the k likeliest only.
        top_p: draw from the fewest that together have probability p.
        generator: the source of the draws; by default the one that `tensor.manual_seed` seeds.

        Dropout is off meanwhile, and nothing is recorded. Raises InputError (a ValueError) for an
        empty prompt or impossible options.
        """
        ids = Tensor.wrap(ids)
        texts = ids.tolist() if ids.ndim == 2 else [ids.tolist()]
        config = SampleConfig(length=length, temperature=temperature, top_k=top_k, top_p=top_p)
        generators = [generator or random.default] * len(texts)
        for row, step in steps(self, texts, config, generators):
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
        config = SampleConfig(length=length, temperature=temperature, top_k=top_k, top_p=top_p)
        generators = [generator or random.default]
        return (step.token for _, step in steps(self, [ids], config, generators))

    def check_ids(self, ids: Any) -> Tensor:
        """ids as integers (B, T) on the model's device. Raises ShapeError, DTypeError and
        IndexError, with the numbers.
        """
        ids = Tensor.wrap(ids)
        vocabulary, context = self.config.vocabulary, self.config.context
        if ids.ndim not in (1, 2) or ids.size == 0:
            raise ShapeError(
                f"ids of shape {ids.shape}: (T,) or (B, T) is needed, with at least one token"
            )
        if ids.dtype.kind not in "iu":
            raise DTypeError(
                f"ids must be integers, as a tokenizer's encode gives them, not {ids.dtype}"
            )
        if ids.shape[-1] > context:
            raise ShapeError(
                f"{ids.shape[-1]} tokens do not fit the model's context of {context}: pass the "
                f"last {context} of them, or make a model with more"
            )
        if ids.device == "cpu":  # looking at a GPU's ids would wait for it
            for wrong in (int(ids.array.min()), int(ids.array.max())):
                if not 0 <= wrong < vocabulary:
                    raise IndexError(
                        f"token {wrong} is outside this model's vocabulary, 0 to {vocabulary - 1}: "
                        "its text was encoded by another tokenizer"
                    )
        if ids.ndim == 1:
            ids = Tensor.from_array(ids.array[None])
        return ids.to(self.token_embedding.weight.device)
