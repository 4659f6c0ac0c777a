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
from tensor.errors import DTypeError, ShapeError
from tinygpt.config import EncoderDecoderConfig
from tinygpt.ids import PAD, SourceTarget, padded
from tinygpt.model.block import Around, Block, through_blocks
from tinygpt.model.cache import Cache
from tinygpt.model.transformer import Transformer, head_loss, last_of


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

    def loss(
        self, x: Any, targets: Any, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """-ln p(target) in nats, the mean over all tokens of the targets.
        x: `source` (B, S) and `target` (B, T), the right answer shifted by one: <sos> and all of it
        but the last token   targets: (B, T), the right answer, which ends with <eos>, then -1
        """
        return head_loss(self, self.hidden(x.source, x.target), targets, reduction, label_smoothing)

    def example(self, rows: int) -> tuple[Any, Any]:
        """A batch (x, y) for `loss`, of the full context: all ids are 0."""
        ids = np.zeros((rows, self.context), np.int64)
        return SourceTarget(ids, ids), ids

    def given(self, sources: Sequence[Sequence[int]]) -> Given:
        """What writes the targets of these sources, token after token. Raises ShapeError for a
        source that has no token or more than the context, IndexError for a token outside the
        vocabulary.
        """
        return Given(self, sources)


class Given:
    """An encoder-decoder that has read its sources: a Decoder (generation/generate.py), whose cache
    has a row, or several, for each source. The memory's keys and values are made once.
    """

    slides = False  # the first token is <sos>: no window without it was ever seen

    def __init__(self, model: EncoderDecoder, sources: Sequence[Sequence[int]]):
        self.model, self.context, self.device = model, model.context, model.device
        ids, _ = padded(_checked(sources, model.context))
        with tensor.no_grad(), nn.evaluating():
            memory = model.encode(ids)
            self.mask = model.mask(ids)
            self.memory = tuple(block.answers(memory).array for block in model.decoder)

    def new_cache(self, rows: int) -> Cache:
        """An empty cache for the targets. Each source has as many rows as the others, next to each
        other.
        """
        count = len(self.memory[0])
        if rows % count:
            raise ShapeError(f"a cache of {rows} rows for {count} sources: as many rows for each")
        cache = Cache(self.model.config, rows, like=self.model.token_embedding.weight.array)
        cache.memory, cache.sources = self.memory, np.arange(rows) // (rows // count)
        cache.memory_mask = None if self.mask is None else self.mask.array
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
        with tensor.no_grad(), nn.evaluating():
            x = model.embed_at(ids, cache.seen[cache.rows])
            around = Around(memory_mask=cache.answers_mask, cache=cache)
            h = through_blocks(model.decoder, model.decoder_norm, x, around)
            logits = model.logits(last_of(h) if last else h)
        cache.seen[cache.rows] += ids.shape[1]
        return logits


def _checked(sources: Sequence[Sequence[int]], context: int) -> list[list[int]]:
    """The sources as lists. Raises ShapeError and DTypeError, with the numbers."""
    if len(sources) == 0:
        raise ShapeError("no source to read: give at least one, a list of token ids each")
    rows = [np.asarray(source) for source in sources]
    for i, row in enumerate(rows):
        if row.ndim != 1 or len(row) > context or not (row != PAD).any():
            raise ShapeError(
                f"sources[{i}] of shape {row.shape}: one sequence of 1 to {context} token ids (the "
                f"model's context) is needed, not all of them <pad>"
            )
        if row.dtype.kind not in "iu":
            raise DTypeError(
                f"sources[{i}] holds {row.dtype}: ids must be integers, as a tokenizer's encode "
                "gives them"
            )
    return [row.tolist() for row in rows]
