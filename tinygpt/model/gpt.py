"""GPT: a decoder-only transformer.      Radford et al. 2019; Vaswani et al. 2017

    ids -> token embedding + position embedding -> [ attention, feed-forward ] x layers -> LayerNorm
    -> logits of the next token

Shapes:   B batch   T time (tokens)   C width (channels)   H heads   D head width, C / H   V
vocabulary
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn, random
from tensor.dtypes import NARROW, DTypeLike
from tensor.errors import DTypeError, ShapeError
from tensor.kernels import pick
from tensor.memory.devices import Array
from tinygpt.config import GPTConfig, SampleConfig
from tinygpt.generation.generate import steps
from tinygpt.ids import IGNORED
from tinygpt.model.block import Block, through_blocks
from tinygpt.model.cache import Cache
from tinygpt.model.positions import position_table

SPREAD = 0.02  # standard deviation of fresh weights


class GPT(nn.Module):
    """model(ids) -> logits: for each position, how strongly each token is expected next.
    ids: (B, T) or (T,), B then 1, T at most `context`   logits: (B, T, V)

    The weights depend on the generator alone (by default the one that `tensor.manual_seed` seeds).
    They are drawn in float64, then rounded: the same in every dtype and on every device.
    `draw=False` leaves the weights at zero, for weights that are loaded next.
    """

    # whether training keeps only the input of each block, and backward computes the rest again
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
        self.scale = math.sqrt(config.width) if config.scaled else 1.0  # of the token embeddings
        with nn.undrawn():
            self.token_embedding = nn.Embedding(config.vocabulary, config.width)
            self.position_embedding = position_table(config)
            self.dropout = nn.Dropout(config.dropout)
            self.blocks = [Block(config) for _ in range(config.layers)]
            self.final_norm = nn.LayerNorm(config.width, config.epsilon)
            self.head = None
            if not config.tied:
                self.head = nn.Linear(config.width, config.vocabulary, bias=False, role="head")
        # each dropout draws masks of its own: the embedding's is number 0
        dropouts = [part for _, part in self.named_modules() if isinstance(part, nn.Dropout)]
        for number, dropout in enumerate(dropouts):
            dropout.number = number
        self.to(dtype=dtype, device=device)
        if draw:
            self._draw(generator or random.default)

    def _draw(self, generator: random.Generator) -> None:
        """Draw matrices and tables from N(0, 0.02^2). Biases stay 0, and gains 1.
        Radford et al. 2019, section 2.3

        The residual stream is a sum of 2 layers terms. The projections that make these terms are
        drawn from N(0, 0.02^2 / (2 layers)), so the stream starts equally wide for any depth.
        """
        residual = SPREAD / math.sqrt(2 * self.config.layers)
        with tensor.no_grad():
            for name, parameter in self.named_parameters():
                if parameter.role != "vector":
                    spread = residual if name.endswith("projection.weight") else SPREAD
                    drawn = generator.normal(parameter.shape) * spread
                    parameter[...] = Tensor(drawn, dtype=parameter.dtype, device=parameter.device)

    def __call__(self, ids: Any, cache: Cache | None = None, last: bool = False) -> Tensor:
        if cache is not None:
            return self.decode(self.check_ids(ids), cache, last)
        return self.logits(self.embed(ids), last)

    def embed(self, ids: Any) -> Tensor:
        """x = scale * token embedding + position embedding.   ids: (B, T) or (T,)   x: (B, T, C)

        The scale is sqrt(C) with `config.scaled`, else 1. Sinusoids reach 1. Without the scale they
        are far larger than fresh embeddings.   Vaswani et al. 2017, section 3.4
        """
        tokens, positions = self.token_embedding.weight, self.position_embedding
        x = tensor.positional_embedding(self.check_ids(ids), tokens, positions, scale=self.scale)
        return self.dropout(x)

    def logits(self, x: Tensor, last: bool = False, cache: Cache | None = None) -> Tensor:
        """The blocks and the head.   x: (B, T, C), as `embed` gives   logits: (B, T, V)

        last: only those of the last position, (B, 1, V).
        """
        h = through_blocks(self.blocks, self.final_norm, x, cache, self.recompute and self.learning)
        if last and h.shape[1] > 1:
            h = h[:, -1:].contiguous()
        if self.head is not None:
            return self.head(h)
        # tied: a logit is the product of h and the token's embedding, h @ weight.T
        # Press and Wolf 2017
        return tensor.linear(h, self.token_embedding.weight, transposed=True)

    def new_cache(self, rows: int = 1) -> Cache:
        """An empty cache for so many sequences. A parameter replaced later needs a new cache."""
        return Cache(self.config, rows, like=self.token_embedding.weight.array)

    @property
    def context(self) -> int:
        """How many tokens the model sees at once, T."""
        return self.config.context

    @property
    def device(self) -> str:
        """Where the parameters are."""
        return self.token_embedding.weight.device

    def decode(self, ids: Tensor, cache: Cache, last: bool = False) -> Tensor:
        """The logits of the tokens after those in the cache. The new tokens join the cache.
        ids: (B, T)   logits: (B, T, V), or (B, 1, V) with `last`

        There is no dropout and no graph. A kernel does the whole pass, else the layers run one by
        one.
        """
        cache.check(*ids.shape)
        # packing and moving give the parameters new arrays
        if not cache.parameters or cache.parameters[0] is not self.token_embedding.weight.array:
            cache.parameters = self._in_order()
        arrays = [ids.array, cache.keys, cache.values, cache.seen, cache.rows, cache.parameters]
        config = self.config
        options: dict[str, Any] = {
            "pre_norm": config.norm == "pre",
            "activation": config.activation,
            "biases": config.bias,
            "tied": config.tied,
            "last": last,
            "eps": self.final_norm.eps,
            "scale": self.scale,
        }
        kernel = pick("decode", *arrays, **options)
        found = NotImplemented if kernel is None else kernel(*arrays, **options)
        if found is not NotImplemented:
            logits = Tensor.from_array(found)
        else:
            with tensor.no_grad(), nn.evaluating():
                time = cache.seen[cache.rows, None] + np.arange(ids.shape[1])  # (B, T)
                tokens = self.scale * self.token_embedding(ids)  # (B, T, C)
                x = tokens + tensor.embedding(time, self.position_embedding)
                logits = self.logits(x, last, cache)
        cache.seen[cache.rows] += ids.shape[1]
        return logits

    def _in_order(self) -> tuple[Array, ...]:
        """The arrays of all parameters in the order of their use, which is that of definition.
        Where a layer has no bias, its weight stands once more; a tied head is the token table.
        """
        parts: list[Tensor] = [self.token_embedding.weight, self.position_embedding]
        for _, layer in self.named_modules():
            if isinstance(layer, nn.LayerNorm):
                parts += layer.gain, layer.bias
            elif isinstance(layer, nn.Linear):
                parts += layer.weight, layer.weight if layer.bias is None else layer.bias
        return tuple(part.array for part in (*parts, self.token_embedding.weight))

    def loss(self, ids: Any, targets: Any, reduction: str = "mean") -> Tensor:
        """-ln p(target) in nats, the mean over all tokens; about ln V for fresh weights.
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
