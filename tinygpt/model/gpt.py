"""GPT: a decoder-only transformer.      Radford et al. 2019; Vaswani et al. 2017

    ids -> token embedding + position embedding -> [ attention, feed-forward ] x layers -> LayerNorm
    -> logits of the next token

Shapes:   B batch   T time (tokens)   C width (channels)   H heads   D head width, C / H   V
vocabulary
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn, random
from tensor.kernels import pick
from tensor.memory.devices import Array
from tensor.memory.freed import give_back_freed_memory
from tinygpt.config import GPTConfig, SampleConfig
from tinygpt.generation.generate import steps
from tinygpt.model.block import Around, Block, through_blocks
from tinygpt.model.cache import Cache
from tinygpt.model.int8 import Int8Linear, round_layers
from tinygpt.model.transformer import Transformer, head_loss, last_of


class GPT(Transformer):
    """model(ids) -> logits: for each position, how strongly each token is expected next.
    ids: (B, T) or (T,), B then 1, T at most `context`   logits: (B, T, V)
    """

    config: GPTConfig
    slides = True  # past the context it goes on, and forgets what lies further back

    def _add_blocks(self) -> None:
        config = self.config
        self.blocks = [Block(config) for _ in range(config.layers)]
        self.final_norm = nn.LayerNorm(config.width, config.epsilon)

    def __call__(self, ids: Any, cache: Cache | None = None, last: bool = False) -> Tensor:
        if cache is not None:
            return self.decode(self.check_ids(ids), cache, last)
        h = self.hidden(ids)
        return self.logits(last_of(h) if last else h)

    def hidden(self, ids: Any) -> Tensor:
        """What the head reads: a vector for each token in its context.   h: (B, T, C)"""
        return self.through(self.embed(ids))

    def hidden_states(self, ids: Any) -> list[Tensor]:
        """The residual stream, (B, T, C): the embeddings, then the stream after each block."""
        states = [self.embed(ids)]
        for block in self.blocks:
            states.append(block(states[-1]))
        return states

    def through(self, x: Tensor, around: Around = Around()) -> Tensor:  # noqa: B008 (immutable)
        """h = final_norm(x after every block).   x, as `embed` gives, h: (B, T, C)"""
        recompute = self.recompute and self.learning
        return through_blocks(self.blocks, self.final_norm, x, around, recompute)

    def new_cache(self, rows: int = 1) -> Cache:
        """An empty cache for so many sequences. A parameter replaced later needs a new cache."""
        return Cache(self.config, rows, like=self.token_embedding.weight.array)

    def decode(self, ids: Tensor, cache: Cache, last: bool = False) -> Tensor:
        """The logits of the tokens after those in the cache. The new tokens join the cache.
        ids: (B, T)   logits: (B, T, V), or (B, 1, V) with `last`

        There is no dropout and no graph. A kernel does the whole pass, else the layers run one by
        one.
        """
        cache.check(*ids.shape)
        # packing and moving give the parameters new arrays
        if not cache.parameters or cache.parameters[0] is not self.token_embedding.weight.array:
            cache.parameters, cache.scales = self._in_order()
        arrays = [ids.array, cache.keys, cache.values, cache.seen, cache.rows]
        arrays += [cache.parameters, cache.scales]
        options = {**self.choices(), "last": last}
        kernel = pick("decode", *arrays, **options)
        found = NotImplemented if kernel is None else kernel(*arrays, **options)
        if found is not NotImplemented:
            logits = Tensor.from_array(found)
        else:
            with tensor.no_grad(), nn.evaluating():
                x = self.embed_at(ids, cache.seen[cache.rows])
                h = self.through(x, Around(cache=cache))
                logits = self.logits(last_of(h) if last else h)
        cache.seen[cache.rows] += ids.shape[1]
        return logits

    def writer(self, rows: int) -> Any:
        """What writes so many texts on a GPU alone: a Writer (tensor/kernels/cuda/generation). None
        where no kernel does so.
        """
        parameters, scales = self._in_order()
        options = {**self.choices(), "scales": scales, "heads": self.config.heads, "rows": rows}
        kernel = pick("generate", *parameters, **options)
        return None if kernel is None else kernel(*parameters, **options)

    def choices(self) -> dict[str, Any]:
        """What a kernel for the whole pass is told beside the arrays."""
        config = self.config
        return {
            "pre_norm": config.norm == "pre",
            "activation": config.activation,
            "biases": config.bias,
            "tied": config.tied,
            "eps": self.final_norm.eps,
            "scale": self.scale,
        }

    def to_int8(self) -> GPT:
        """Round the weights of all products to 8 bits, for generation: see int8.py. The model keeps
        no other weights of its layers, and cannot learn any more: its parameters are frozen.
        Returns the model.

        The tables stay. A tied head is a rounded copy of the token table. Raises InputError for a
        weight that is not finite.
        """
        round_layers(self)
        if self.head is None:
            self.head = Int8Linear("token_embedding", self.token_embedding.weight.T)
        # else a tied table would learn, and its rounded copy in the head would not
        self.requires_grad_(False)
        give_back_freed_memory()
        return self

    def _in_order(self) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """The arrays of all parameters in the order of their use, which is that of definition; and
        for each its scales, or itself where it has none.

        Where a layer has no bias, the array before its weight stands once more; a tied head is the
        token table.
        """
        parts: list[Tensor] = [self.token_embedding.weight, self.position_embedding]
        scales: dict[int, Tensor] = {}  # by the place in `parts`
        for _, layer in self.named_modules():
            if isinstance(layer, nn.LayerNorm):
                parts += layer.gain, layer.bias
            elif isinstance(layer, nn.Linear):
                parts += layer.weight, parts[-1] if layer.bias is None else layer.bias
            elif isinstance(layer, Int8Linear):
                scales[len(parts)] = layer.scale
                parts += layer.q, parts[-1] if layer.bias is None else layer.bias
        parts.append(self.token_embedding.weight)
        arrays = tuple(part.array for part in parts)
        return arrays, tuple(scales.get(i, part).array for i, part in enumerate(parts))

    def loss(
        self, ids: Any, targets: Any, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """-ln p(target) in nats, the mean over all tokens; about ln V for fresh weights.
        ids, targets: (B, T) or (T,)

        A target of -1 counts for nothing.   reduction: "mean", "sum" or "none", as in
        cross_entropy.
        """
        return head_loss(self, self.hidden(ids), targets, reduction, label_smoothing)

    def example(self, rows: int) -> tuple[Any, Any]:
        """A batch (x, y) for `loss`, of the full context: all ids are 0."""
        ids = np.zeros((rows, self.context), np.int64)
        return ids, ids

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
