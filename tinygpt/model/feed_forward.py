"""The feed-forward layer: each token, on its own, works on the result of attention.
Vaswani et al. 2017, section 3.3
"""

from __future__ import annotations

import tensor
from tensor import Tensor, nn
from tinygpt.config import ModelConfig


class FeedForward(nn.Module):
    """y = activation(x W1 + b1) W2 + b2.   x, y: (B, T, C), 4C between."""

    def __init__(self, config: ModelConfig):
        self.expand = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.projection = nn.Linear(4 * config.width, config.width, bias=config.bias)
        self.activation = config.activation
        self.dropout = nn.Dropout(config.dropout)

    def __call__(self, x: Tensor) -> Tensor:
        if self.activation == "gelu":
            h = tensor.linear_gelu(x, self.expand.weight, self.expand.bias)  # (B, T, 4C)
        elif self.activation == "gelu_erf":
            h = self.expand(x).gelu(form="erf")
        else:
            h = self.expand(x).relu()
        return self.dropout(self.projection(h))
