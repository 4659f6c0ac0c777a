"""The feed-forward layer: each token, on its own, works on the result of attention.
Vaswani et al. 2017, section 3.3
"""

from __future__ import annotations

import tensor
from tensor import Tensor, nn
from tinygpt.config import ModelConfig

FORMS = {"gelu": "tanh", "gelu_erf": "erf"}


class FeedForward(nn.Module):
    """y = activation(x W1 + b1) W2 + b2.   x, y: (B, T, C), 4C between."""

    def __init__(self, config: ModelConfig):
        self.expand = nn.Linear(config.width, 4 * config.width, bias=config.bias)
        self.projection = nn.Linear(4 * config.width, config.width, bias=config.bias)
        self.activation = config.activation
        self.dropout = nn.Dropout(config.dropout)

    def __call__(self, x: Tensor) -> Tensor:
        h = activated(x, self.expand, self.activation)  # (B, T, 4C)
        return self.dropout(self.projection(h))


def activated(x: Tensor, layer: nn.Linear, activation: str) -> Tensor:
    """activation(x W + b), the activation by its name in the configuration."""
    if activation == "gelu" and type(layer) is nn.Linear:  # without an adapter
        return tensor.linear_gelu(x, layer.weight, layer.bias)
    y = layer(x)
    return y.relu() if activation == "relu" else y.gelu(form=FORMS[activation])
