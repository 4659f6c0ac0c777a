"""BERT: an encoder alone, which fills in masked tokens.      Devlin et al. 2018

    ids -> LayerNorm of token + position + segment embedding -> [ attention, feed-forward ] x layers
    -> linear layer, activation, LayerNorm -> logits of the token at each position

Each token sees all tokens: those before it and those after it.

Shapes:   B batch   T time (tokens)   C width (channels)   V vocabulary
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tensor
from tensor import Tensor, nn
from tensor.errors import ShapeError
from tinygpt.config import BERTConfig
from tinygpt.ids import PAD
from tinygpt.model.block import Around, Block, through_blocks
from tinygpt.model.feed_forward import activated
from tinygpt.model.transformer import Transformer, token_loss


class BERT(Transformer):
    """model(ids, segments) -> logits: for each position, how strongly each token is expected there.
    ids, segments: (B, T) or (T,), T at most `context`   logits: (B, T, V)

    segments: the number of the text that the token belongs to; by default 0 for all tokens.
    Padding, [PAD], is seen by nobody.
    """

    config: BERTConfig

    def _add_blocks(self) -> None:
        config = self.config
        self.segment_embedding = nn.Embedding(config.segments, config.width)
        self.embedding_norm = nn.LayerNorm(config.width, config.epsilon)
        self.blocks = [Block(config, causal=False) for _ in range(config.layers)]
        self.final_norm: nn.LayerNorm | None = None
        if config.norm == "pre":
            self.final_norm = nn.LayerNorm(config.width, config.epsilon)

    def _add_head(self) -> None:
        config = self.config
        self.transform = nn.Linear(config.width, config.width, bias=config.bias)
        self.transform_norm = nn.LayerNorm(config.width, config.epsilon)
        self.output_bias = nn.Parameter(tensor.zeros(config.vocabulary)) if config.bias else None
        super()._add_head()

    def __call__(self, ids: Any, segments: Any = None) -> Tensor:
        return self.logits(self.hidden(ids, segments))

    def hidden(self, ids: Any, segments: Any = None) -> Tensor:
        """What the head reads: a vector for each token in its context.   h: (B, T, C)"""
        x, around = self.embed(ids, segments), Around(mask=self.mask(ids))
        recompute = self.recompute and self.learning
        return through_blocks(self.blocks, self.final_norm, x, around, recompute)

    def hidden_states(self, ids: Any, segments: Any = None) -> list[Tensor]:
        """The residual stream, (B, T, C): the embeddings, then the stream after each block."""
        states, around = [self.embed(ids, segments)], Around(mask=self.mask(ids))
        for block in self.blocks:
            states.append(block(states[-1], around))
        return states

    def embed(self, ids: Any, segments: Any = None) -> Tensor:
        """x = LayerNorm(token + position + segment embedding).   x: (B, T, C)"""
        ids = self.check_ids(ids)
        segment = self.segment_embedding.weight[0]
        if segments is not None:
            segment = self.segment_embedding(self._check_segments(segments, ids))
        tokens, positions = self.token_embedding.weight, self.position_embedding
        x = tensor.positional_embedding(ids, tokens, positions, scale=self.scale)
        return self.dropout(self.embedding_norm(x + segment))

    def _check_segments(self, segments: Any, ids: Tensor) -> Tensor:
        """segments as (B, T) on the model's device. Raises ShapeError where not each id has one."""
        segments = Tensor.wrap(segments)
        if segments.ndim == 1:
            segments = segments.unsqueeze(0)
        if segments.shape != ids.shape:
            raise ShapeError(
                f"segments of shape {segments.shape} for ids of shape {ids.shape}: each token "
                "needs the number of its segment"
            )
        return segments.to(self.device)

    def logits(self, h: Tensor) -> Tensor:
        """The head: LayerNorm(activation(h W + b)), then its product with each token's embedding,
        plus a bias.   h: (B, T, C)   logits: (B, T, V)
        """
        h = self.transform_norm(activated(h, self.transform, self.config.activation))
        logits = super().logits(h)
        return logits if self.output_bias is None else logits + self.output_bias

    def loss(
        self, ids: Any, targets: Any, reduction: str = "mean", label_smoothing: float = 0.0
    ) -> Tensor:
        """-ln p(target) in nats, the mean over the targets that count. A target of -1 counts for
        nothing; a masked token's target is the token that was there.   ids, targets: (B, T) or (T,)
        """
        return token_loss(self(ids), targets, reduction, label_smoothing)

    def example(self, rows: int) -> tuple[Any, Any]:
        """A batch (x, y) for `loss`, of the full context: all ids are 0."""
        ids = np.zeros((rows, self.context), np.int64)
        return ids, ids

    def vectors(self, ids: Any, segments: Any = None) -> Tensor:
        """A vector for each text: the mean of `hidden` over its tokens.   (B, C)

        Masked tokens train what `hidden` says of each token. Nothing is ever predicted at [CLS], so
        the vector at [CLS] is trained less. Raises ShapeError for a text of padding alone.
        """
        h, mask = self.hidden(ids, segments), self.check_ids(ids).array != PAD
        if not mask.any(axis=1).all():
            raise ShapeError("a text of [PAD] alone has no vector: give each text at least one id")
        share = mask / mask.sum(axis=1, keepdims=True)  # (B, T)
        return (h * Tensor.from_array(share[..., None].astype(h.dtype))).sum(1)
