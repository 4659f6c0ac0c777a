"""The cache: keys and values of the tokens that a model has seen, so that only new tokens are
computed.

    logits = model(prompt, cache)       all tokens of the prompt at once, or in parts
    logits = model([token], cache)      then one token at a time

Keys and values depend on the position of their token. Past the context every token changes its
position, so a full cache is cleared.

An encoder-decoder's cache also holds the keys and values of the memory. Those are made once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np

import tensor
from tensor import Tensor
from tensor.errors import ShapeError
from tensor.memory.devices import Array
from tensor.mode import MODE
from tinygpt.config import ModelConfig
from tinygpt.ids import Ids


class Cache:
    """Keys and values, (rows, layers, H, context, D) each, of several sequences. Row r holds
    seen[r] tokens.

    like: an array of the dtype and device that the cache is to have.
    """

    def __init__(self, config: ModelConfig, rows: int = 1, *, like: Array):
        shape = (rows, config.layers, config.heads, config.context, config.width // config.heads)
        self.keys, self.values = np.zeros_like(like, shape=shape), np.zeros_like(like, shape=shape)
        self.seen: Ids = np.zeros(rows, np.int64)
        self.rows: Ids = np.arange(rows)  # the rows of the new tokens, B of them
        # the model's arrays, and the scales of those that are rounded, from the first use on
        self.parameters: tuple[Array, ...] = ()
        self.scales: tuple[Array, ...] = ()
        # of an encoder's memory: keys and values, one (sources, S, 2C) for each layer; where a
        # source is no <pad>, (sources, 1, 1, S); and the source that each row answers
        self.memory: tuple[Array, ...] = ()
        self.memory_mask: Array | None = None
        self.sources: Ids = np.arange(rows)

    def of(self, rows: Sequence[int]) -> Cache:
        """The cache of some rows, in the same memory: for new tokens of these rows alone."""
        part = copy.copy(self)
        # checks the rows and counts them from 0: in C row -1 would lie before the cache
        part.rows = np.arange(len(self.seen))[list(rows)]
        return part

    @property
    def free(self) -> int:
        """How many more tokens fit into each of its rows."""
        return int(self.keys.shape[3]) - int(self.seen[self.rows].max())

    def clear(self) -> None:
        """Forget all tokens of its rows."""
        self.seen[self.rows] = 0

    def reorder(self, rows: Ids) -> None:
        """Row r takes over the tokens and the source of row rows[r], for all rows r at once."""
        into = np.flatnonzero(rows != np.arange(len(rows)))
        taken, longest = rows[into], int(self.seen.max())
        for array in (self.keys, self.values):
            array[into, :, :, :longest] = array[taken, :, :, :longest]
        self.seen[into], self.sources[into] = self.seen[taken], self.sources[taken]

    def check(self, rows: int, tokens: int) -> None:
        """Raise ShapeError unless `tokens` new ones for so many rows fit."""
        if rows != len(self.rows):
            raise ShapeError(f"{rows} rows of new tokens for a cache of {len(self.rows)}")
        if tokens > self.free:
            raise ShapeError(
                f"{tokens} new tokens for a cache that holds {self.keys.shape[3] - self.free} and "
                f"has room for {self.free}: clear() it, and give the last tokens anew"
            )

    def answers(self, layer: int) -> Tensor:
        """The keys and values of the memory that its rows look at, (B, S, 2C)."""
        return Tensor.from_array(self.memory[layer][self.sources[self.rows]])

    @property
    def answers_mask(self) -> Tensor | None:
        """Where its rows may look in the memory, (B, 1, 1, S). None: everywhere."""
        mask = self.memory_mask
        return None if mask is None else Tensor.from_array(mask[self.sources[self.rows]])

    def attend(self, layer: int, qkv: Tensor) -> Tensor:
        """y = softmax(q k^T / sqrt(D)) v of the new tokens, each over all tokens of its row up to
        itself. The new keys and values are written into the cache.   qkv: (B, T, 3C)   y: (B, T, C)
        """
        keys, values = self.keys[:, layer], self.values[:, layer]  # (rows, H, context, D)
        seen, rows = self.seen, self.rows
        (B, T, C3), (_, H, _, D) = qkv.shape, keys.shape
        q, k, v = np.moveaxis(qkv.array.reshape(B, T, 3, H, D), (2, 3), (0, 2))  # 3 x (B, H, T, D)
        time = seen[rows, None] + np.arange(T)  # (B, T)
        # rows and times as indices give (B, T, H, D)
        keys[rows[:, None], :, time] = k.swapaxes(1, 2)
        values[rows[:, None], :, time] = v.swapaxes(1, 2)
        total = int(seen[rows].max()) + T  # S: the longest row's
        visible = np.arange(total) <= time[:, None, :, None]  # (B, 1, T, S)
        k, v = keys[:, :, :total], values[:, :, :total]
        # a graph would keep k and v, which later tokens change
        if MODE.get().recording or not np.array_equal(rows, np.arange(len(seen))):
            k, v = k[rows], v[rows]  # copies, (B, H, S, D)
        y = tensor.attention(*map(Tensor.from_array, (q, k, v)), mask=visible)  # (B, H, T, D)
        return y.transpose(1, 2).reshape(B, T, C3 // 3)
