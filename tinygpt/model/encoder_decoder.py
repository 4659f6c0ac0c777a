"""The encoder-decoder: it reads a source, then writes a target.      Vaswani et al. 2017

    source -> embedding -> [ attention, feed-forward ] x layers -> LayerNorm -> memory
    target -> embedding -> [ causal attention, cross-attention, feed-forward ] x layers -> LayerNorm
    -> logits of the next token of the target

Shapes:   B batch   S tokens of the source   T tokens of the target   C width   V vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn
from tinygpt.config import EncoderDecoderConfig
from tinygpt.ids import PAD
from tinygpt.model.block import Around, Block, through_blocks
from tinygpt.model.cache import Cache
from tinygpt.model.transformer import Transformer, last_of


class EncoderDecoder(Transformer):
    """model(source, target) -> logits: for each position of the target, how strongly each token is
    expected next.   source: (B, S) ids   target: (B, T) ids, the first of them <sos>
    logits: (B, T, V)

    One table embeds the tokens of both, and is the head too, if `tied`. The shorter sources of a
    batch end in <pad>, which nobody looks at.   section 3.4
    """

    config: EncoderDecoderConfig

    def _add_blocks(self) -> None:
        config = self.config
        self.encoder = [Block(config, causal=False) for _ in range(config.layers)]
        self.encoder_norm = nn.LayerNorm(config.width, config.epsilon)
        self.decoder = [Block(config, cross=True) for _ in range(config.layers)]
        self.decoder_norm = nn.LayerNorm(config.width, config.epsilon)

    def __call__(self, source: Any, target: Any) -> Tensor:
        return self.logits(self.hidden(source, target))

    def hidden(self, source: Any, target: Any) -> Tensor:
        """What the head reads.   h: (B, T, C)"""
        mask = self.mask(source)
        around = Around(memory=self.encode(source), memory_mask=mask)
        return self._through(self.decoder, self.decoder_norm, self.embed(target), around)

    def encode(self, source: Any) -> Tensor:
        """The memory: a vector for each token of the source, in its context.   (B, S, C)"""
        around = Around(mask=self.mask(source))
        return self._through(self.encoder, self.encoder_norm, self.embed(source), around)

    def _through(
        self, blocks: Sequence[Block], norm: nn.LayerNorm, x: Tensor, around: Around
    ) -> Tensor:
        return through_blocks(blocks, norm, x, around, self.recompute and self.learning)

    def mask(self, source: Any) -> Tensor | None:
        """Where the source is no <pad>: bools (B, 1, 1, S), None where all of it is none."""
        known = self.check_ids(source).array != PAD
        return None if known.all() else Tensor.from_array(known[:, None, None, :])

    def loss(
        self, x: Any, targets: Any, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """-ln p(target) in nats, the mean over all tokens of the targets.
        x: `source` (B, S) and `target` (B, T), the right answer shifted by one: <sos> and all of it
        but the last token   targets: (B, T), the right answer, which ends with <eos>, then -1
        """
        return self.surprise(self(x.source, x.target), targets, reduction, label_smoothing)

    def given(self, sources: Sequence[Sequence[int]]) -> Given:
        """What writes the targets of these sources, token after token."""
        return Given(self, sources)


class Given:
    """An encoder-decoder that has read its sources: a Decoder (generation/generate.py), whose cache
    has a row for each source. The memory's keys and values are made once.
    """

    def __init__(self, model: EncoderDecoder, sources: Sequence[Sequence[int]]):
        self.model, self.context, self.device = model, model.context, model.device
        longest = max(map(len, sources))
        ids = np.array([[*source, *[PAD] * (longest - len(source))] for source in sources])
        with tensor.no_grad(), nn.evaluating():
            memory = model.encode(ids)
            self.mask = model.mask(ids)
            self.answers = tuple(block.answers(memory).array for block in model.decoder)

    def new_cache(self, rows: int) -> Cache:
        """An empty cache for the targets, a row for each source."""
        cache = Cache(self.model.config, rows, like=self.model.token_embedding.weight.array)
        cache.memory = self.answers
        return cache

    def check_ids(self, ids: Any) -> Tensor:
        """As the model's."""
        return self.model.check_ids(ids)

    def decode(self, ids: Tensor, cache: Cache, last: bool = False) -> Tensor:
        """The logits of the tokens after those in the cache. The new tokens join the cache.
        ids: (B, T)   logits: (B, T, V), or (B, 1, V) with `last`
        """
        model = self.model
        cache.check(*ids.shape)
        mask = None if self.mask is None else Tensor.from_array(self.mask.array[cache.rows])
        with tensor.no_grad(), nn.evaluating():
            x = model.embed_at(ids, cache.seen[cache.rows])
            around = Around(memory_mask=mask, cache=cache)
            h = through_blocks(model.decoder, model.decoder_norm, x, around)
            logits = model.logits(last_of(h) if last else h)
        cache.seen[cache.rows] += ids.shape[1]
        return logits
