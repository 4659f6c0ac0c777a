"""The cache: keys and values of the tokens that a model has seen. So each new token is computed
alone.

    logits = model(prompt, cache)       all prompt tokens at once (or in chunks)
    logits = model([token], cache)      then one at a time: it looks back at the cache

Keys and values depend on the position of their token. So a full cache is of no more use: past the
context every token changes its position.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tensor import Tensor
from tensor.errors import ShapeError
from tensor.memory.devices import Array
from tensor.ops.op import reference_of
from tinygpt.config import GPTConfig
from tinygpt.ids import Ids


class Cache:
    """Keys and values, (rows, layers, H, context, D) each, for sequences side by side; of row r the
    first seen[r] tokens are there.

    like: an array of the dtype and device that the cache is to have.
    """

    def __init__(self, config: GPTConfig, rows: int = 1, *, like: Array):
        shape = (rows, config.layers, config.heads, config.context, config.width // config.heads)
        self.keys, self.values = np.zeros_like(like, shape=shape), np.zeros_like(like, shape=shape)
        self.seen: Ids = np.zeros(rows, np.int64)
        self.rows: Ids = np.arange(rows)  # those that new tokens come for, B of them
        self.parameters: tuple[Array, ...] = ()  # the model's arrays, once they were needed

    def of(self, rows: Sequence[int]) -> Cache:
        """The cache of some rows, in the same memory: for new tokens that only those have."""
        part = copy.copy(self)
        # checked, and counted from 0: C would take -1 for what lies before the cache
        part.rows = np.arange(len(self.seen))[list(rows)]
        return part

    @property
    def room(self) -> int:
        """How many more tokens there is room for, in each of its rows."""
        return int(self.keys.shape[3]) - int(self.seen[self.rows].max())

    @property
    def layers(self) -> list[LayerCache]:
        """The same, layer by layer."""
        return [
            LayerCache(self.keys[:, layer], self.values[:, layer], self.seen, self.rows)
            for layer in range(self.keys.shape[1])
        ]

    def clear(self) -> None:
        """Forget all tokens of its rows."""
        self.seen[self.rows] = 0

    def check(self, rows: int, tokens: int) -> None:
        """Raise ShapeError unless `tokens` new ones for so many rows fit."""
        if rows != len(self.rows):
            raise ShapeError(f"{rows} rows of new tokens for a cache of {len(self.rows)}")
        room = self.room
        if tokens > room:
            held = self.keys.shape[3] - room
            raise ShapeError(
                f"{tokens} new tokens for a cache that holds {held} and has room for {room}: "
                "clear() it, and give the last tokens anew"
            )


class LayerCache(NamedTuple):
    """One layer's keys and values, (rows, H, context, D) each; how many tokens each row has seen,
    (rows,); which rows new tokens are for, (B,).
    """

    keys: Array
    values: Array
    seen: Ids
    rows: Ids

    def attend(self, qkv: Tensor) -> Tensor:
        """Add the keys and values of new tokens, and let them look at all that are there.   qkv:
        (B, T, 3C)   y: (B, T, C)
        """
        return Tensor.from_array(cached_attention(qkv.array, *self))


def cached_attention(qkv: Array, keys: Array, values: Array, seen: Ids, rows: Ids) -> Array:
    """y = softmax(q k^T / sqrt(D)) v of new tokens over all tokens up to themselves; their keys and
    values go into the cache in place.

    qkv: (B, T, 3C)   keys, values: (rows, H, context, D), of row r seen[r] are there   rows: (B,)
    y: (B, T, C)
    """
    (B, T, C3), (H, D) = qkv.shape, (keys.shape[1], keys.shape[3])
    q, k, v = np.moveaxis(qkv.reshape(B, T, 3, H, D), (2, 3), (0, 2))  # 3 x (B, H, T, D)
    for b, row in enumerate(rows.tolist()):
        new = slice(seen[row], seen[row] + T)
        keys[row, :, new], values[row, :, new] = k[b], v[b]
    total = int(seen[rows].max()) + T  # S: the longest row's
    place = seen[rows, None] + np.arange(T)  # (B, T)
    there = np.arange(total) <= place[:, None, :, None]  # (B, 1, T, S): what a token sees
    y, _ = reference_of("attention")(q, keys[rows, :, :total], values[rows, :, :total], mask=there)
    return y.swapaxes(1, 2).reshape(B, T, C3 // 3)
