"""Attention of generation: what calls attention.cu."""

from __future__ import annotations

import functools
import math
from typing import Any

from tensor.dtypes import float32
from tensor.kernels.cuda.launch import Source, empty
from tensor.memory.devices import Array

THREADS = 128  # of a block


@functools.cache
def attention_source(D: int, QKV: int, PARTS: int) -> Source:
    """attention.cu.   QKV: parts of its q, k and v   PARTS: of a head's keys"""
    return Source("generation/attention.cu", "generation/early.cuh", D=D, QKV=QKV, PARTS=PARTS)


def attend(
    source: Source,
    qkv: Array,
    bias: Array | None,
    seen: Array,
    keys: Array,
    values: Array,
    heads: int,
    y: Array | None = None,
) -> Array | None:
    """Queue attention.cu.   qkv: (parts, R, 3C), float32   keys, values: (R, heads,
    capacity, D)   y: (R, C), else the parts are returned
    """
    R, D, parts = len(seen), source.constants["D"], source.constants["PARTS"]
    attended = empty((R, heads, parts, D + 2), float32) if y is None else None
    numbers = keys.shape[2], 1 / math.sqrt(D)
    arrays = qkv, bias, seen, keys, values, attended, y
    grid, block, dtype = (parts, heads, R), (THREADS,), keys.dtype
    kinds: dict[str, Any] = {"dtype": dtype, "width": 16 // dtype.itemsize, "early": True}
    source.launch("attend", grid, block, *arrays, *numbers, **kinds)
    return attended


def keep(qkv: Array, keys: Array, values: Array) -> None:
    """The keys and values of a text's first tokens join the cache.   qkv: (B, T, 3C)   keys,
    values: (B, heads, capacity, D)
    """
    (B, T, _), (_, H, capacity, D) = qkv.shape, keys.shape
    kinds: dict[str, Any] = {"dtype": qkv.dtype, "width": 16 // qkv.dtype.itemsize}
    arrays = qkv, keys, values
    attention_source(D, 1, 1).launch("keep", (T, B), (THREADS,), *arrays, H, capacity, **kinds)
