"""The feed-forward layer: what each token makes, on its own, of what attention brought it.      Vaswani et al. 2017, section 3.3"""

from __future__ import annotations

import tensor
from tensor import Tensor, nn
from tinygpt.config import GPTConfig


class FeedForward(nn.Module):
    """y = activation(x W1 + b1) W2 + b2.   x, y: (B, T, C), 4C between.   `number` tells its dropout from others."""

    def __init__(self, config: GPTConfig, number: int = 0):
        self.expand = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.projection = nn.Linear(4 * config.width, config.width, bias=config.bias)
        self.gelu = config.activation == "gelu"
        self.dropout = nn.Dropout(config.dropout, number)

    def __call__(self, x: Tensor) -> Tensor:
        h = tensor.linear_gelu(x, self.expand.weight, self.expand.bias) if self.gelu else self.expand(x).relu()  # (B, T, 4C)
        return self.dropout(self.projection(h))
