"""The cache: keys and values of the tokens that a model has seen, so that each new token is computed alone.

    logits = model(prompt, cache)       all prompt tokens at once (or in chunks)
    logits = model([token], cache)      then one at a time: it looks back at the cache

What a token's keys and values are depends on its position. So a full cache ends: past the context every token changes its position.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from tensor import Tensor
from tensor.devices import Array
from tensor.errors import ShapeError
from tensor.kernels import KERNELS, choose
from tensor.mode import MODE
from tensor.ops.attention import causal_mask

if TYPE_CHECKING:
    from tinygpt.model import GPT


class LayerCache:
    """One layer's keys and values, (B, H, context, D) each, of which the first `seen` tokens are there."""

    def __init__(self, keys: Array, values: Array):
        self.keys, self.values, self.seen = keys, values, 0

    def attend(self, qkv: Tensor) -> Tensor:
        """Add the keys and values of new tokens, and let them look at all that are there.   qkv: (B, T, 3C)   y: (B, T, C)"""
        arrays = [qkv.array, self.keys, self.values, self.seen]
        function = choose("cached_attention", KERNELS.setdefault("cached_attention", []), arrays, {}, MODE.get().kernels_off) or cached_attention
        y = function(*arrays)
        self.seen += qkv.shape[1]
        return Tensor.from_array(y)


class Cache:
    """The caches of all layers of a model, for `rows` sequences of equal length side by side."""

    def __init__(self, model: GPT, rows: int = 1):
        config, weight = model.config, model.token_embedding.weight.array
        shape = (rows, config.heads, config.context, config.width // config.heads)
        self.rows = rows
        self.layers = [LayerCache(np.empty_like(weight, shape=shape), np.empty_like(weight, shape=shape)) for _ in range(config.layers)]

    @property
    def seen(self) -> int:
        """How many tokens are in it."""
        return self.layers[0].seen

    @property
    def room(self) -> int:
        """How many more there is room for."""
        return int(self.layers[0].keys.shape[2]) - self.seen

    def check(self, rows: int, tokens: int) -> None:
        """Raise ShapeError unless `tokens` new ones of so many rows fit."""
        if rows != self.rows:
            raise ShapeError(f"{rows} rows of new tokens for a cache of {self.rows}")
        if tokens > self.room:
            raise ShapeError(f"{tokens} new tokens for a cache that holds {self.seen} and has room for {self.room}: past the context, start a new one")


def cached_attention(qkv: Array, keys: Array, values: Array, seen: int) -> Array:
    """y = softmax(q k^T / sqrt(D)) v of new tokens over all tokens up to themselves; their keys and values go into the cache in place.

    qkv: (B, T, 3C)   keys, values: (B, H, context, D), of which `seen` are there   y: (B, T, C)
    """
    (B, T, C3), (H, D) = qkv.shape, (keys.shape[1], keys.shape[3])
    q, k, v = np.moveaxis(qkv.reshape(B, T, 3, H, D), (2, 3), (0, 2))  # 3 x (B, H, T, D)
    total = seen + T
    keys[:, :, seen:total], values[:, :, seen:total] = k, v
    s = (q @ keys[:, :, :total].swapaxes(-1, -2)) * (1 / math.sqrt(D))  # (B, H, T, S)
    if T > 1:
        s = np.where(causal_mask(T, total, s), s, -np.inf)
    e = np.exp(s - s.max(-1, keepdims=True))
    y = (e / e.sum(-1, keepdims=True)) @ values[:, :, :total]  # (B, H, T, D)
    return y.swapaxes(1, 2).reshape(B, T, C3 // 3)
