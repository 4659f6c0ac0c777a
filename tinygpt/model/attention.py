"""Multi-head causal self-attention: each token asks; the token itself and all before answer.
Vaswani et al. 2017, section 3.2
"""

from __future__ import annotations

import tensor
from tensor import Tensor, nn
from tinygpt.config import GPTConfig
from tinygpt.model.cache import Cache


class Attention(nn.Module):
    """y = concatenate over heads( softmax(q k^T / sqrt(D), no key after its query) v ) W + b.   x,
    y: (B, T, C)

    q, k, v are one projection of x, in that order, each H heads of D = C / H numbers.
    """

    def __init__(self, config: GPTConfig):
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width, bias=config.bias)
        self.projection = nn.Linear(config.width, config.width, bias=config.bias)
        self.weights_dropout = nn.Dropout(config.dropout)
        self.dropout = nn.Dropout(config.dropout)

    def __call__(self, x: Tensor, cache: Cache | None = None, layer: int = 0) -> Tensor:
        if cache is not None:
            return self.projection(cache.attend(layer, self.qkv(x)))
        p = self.weights_dropout.p if self.learning else 0.0
        key = self.weights_dropout.key() if p else None
        # (B, T, 3C) -> (B, T, C)
        y = tensor.multi_head_attention(
            self.qkv(x), heads=self.heads, causal=True, dropout=p, key=key
        )
        return self.dropout(self.projection(y))
