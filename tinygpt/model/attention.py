"""Multi-head attention: each token asks, and other tokens answer.
Vaswani et al. 2017, section 3.2
"""

from __future__ import annotations

import tensor
from tensor import Tensor, nn
from tinygpt.config import ModelConfig
from tinygpt.model.cache import Cache


class _Heads(nn.Module):
    """concatenate over heads( softmax(q k^T / sqrt(D)) v ) W + b, with dropout of the weights and
    of the result.
    """

    def __init__(self, config: ModelConfig):
        self.heads = config.heads
        self.projection = nn.Linear(config.width, config.width, bias=config.bias)
        self.weights_dropout = nn.Dropout(config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def attend(
        self, q: Tensor, kv: Tensor | None, mask: Tensor | None, causal: bool = False
    ) -> Tensor:
        """As `tensor.multi_head_attention` takes q, kv and the mask.   y: (B, T, C)"""
        p = self.weights_dropout.p if self.learning else 0.0
        key = self.weights_dropout.key() if p else None
        y = tensor.multi_head_attention(
            q, kv, mask, heads=self.heads, causal=causal, dropout=p, key=key
        )
        return self.dropout(self.projection(y))


class Attention(_Heads):
    """Self-attention: the tokens of one sequence answer.   x, y: (B, T, C)

    q, k, v are one projection of x, in that order, each H heads of D = C / H numbers.
    causal: the token itself and all before it answer; else all tokens.
    """

    def __init__(self, config: ModelConfig, causal: bool = True):
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        super().__init__(config)
        self.causal = causal

    def __call__(
        self, x: Tensor, mask: Tensor | None = None, cache: Cache | None = None, layer: int = 0
    ) -> Tensor:
        if cache is not None:
            return self.projection(cache.attend(layer, self.qkv(x)))
        return self.attend(self.qkv(x), None, mask, self.causal)


class CrossAttention(_Heads):
    """The tokens of one sequence ask, those of another answer.
    x, y: (B, T, C)   memory: (B, S, C)   mask: bools (B, 1, 1, S), True: look
    """

    def __init__(self, config: ModelConfig):
        self.q = nn.Linear(config.width, config.width, bias=config.bias)
        self.kv = nn.Linear(config.width, 2 * config.width, bias=config.bias)
        super().__init__(config)

    def __call__(
        self,
        x: Tensor,
        memory: Tensor | None,
        mask: Tensor | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        kv = self.kv(memory) if cache is None else cache.answers(layer)
        return self.attend(self.q(x), kv, mask)
