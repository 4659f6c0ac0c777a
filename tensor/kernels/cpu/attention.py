"""Attention by blocks of queries: what calls attention.c; and the same in NumPy, for what
attention.c does not take. Memory is linear in the numbers of queries and keys.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from tensor.dtypes import float32, float64
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal
from tensor.memory.devices import Array
from tensor.ops.op import reference_of
from tensor.random import MASK, Key, threshold_of

BLOCK = 128  # queries at a time, in NumPy
NO_MASK = np.ones((1, 1, 1, 1), bool)  # given in the place of a mask


@functools.lru_cache(maxsize=256)
def _numbers(
    causal: bool, masked: bool, scale: float, dropout: float, key: Key | None
) -> tuple[Array, float, float]:
    """What attention.c is told beside arrays."""
    seed, *numbers = key or Key()
    words = seed & MASK, seed >> 32, *(number & MASK for number in numbers)
    options = np.array([causal, masked, threshold_of(dropout), *words])
    return options, scale, 1 / (1 - dropout)


def _refused(
    mask: Array | None, dropout: float, key: Key | None, full: tuple[int, ...]
) -> str | None:
    """Why C cannot take this mask and this dropout.   full: the shape of the weights"""
    # the first axis counts samples, and C has one axis before that of the heads
    usable = key is not None and 0 < dropout < 1 and threshold_of(dropout) <= MASK
    if dropout and not (usable and len(full) in (3, 4)):
        return f"dropout {dropout} of {len(full)} axes, key {key}"
    if mask is not None:
        if type(mask) is not np.ndarray:
            return f"a mask that is a {type(mask).__name__}"
        ends = zip(reversed(mask.shape), reversed(full), strict=False)
        if mask.dtype != bool or mask.ndim > len(full) or any(m not in (1, n) for m, n in ends):
            return f"mask {mask.shape} of {mask.dtype} for weights {full}"
    return refusal()


# -- heads side by side


def _supports_packed(
    q: Array,
    kv: Array | None = None,
    mask: Array | None = None,
    *,
    heads: int,
    dropout: float = 0.0,
    key: Key | None = None,
    **_: Any,
) -> str | None:
    keys, count = (q, 3) if kv is None else (kv, 1)
    three = q.ndim == keys.ndim == 3 and 0 not in (q.size, keys.size)
    if not three or heads < 1 or q.shape[2] % (count * heads):
        return f"shape {q.shape} with {heads} heads"
    if kv is not None and (kv.shape[0], kv.shape[2]) != (len(q), 2 * q.shape[2]):
        return f"kv {kv.shape} for q {q.shape}"
    full = len(q), heads, q.shape[1], keys.shape[1]
    return refusal(q, keys) or _refused(mask, dropout, key, full)


@kernel_for("multi_head_attention", supports=_supports_packed)
def attention_by_heads(
    q: Array,
    kv: Array | None = None,
    mask: Array | None = None,
    *,
    heads: int,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """y, from heads that lie side by side.   q: (B, T, C), kv: (B, S, 2C), or q, k and v in one,
    (B, T, 3C)   y: (B, T, C)
    """
    B, T, C = q.shape if kv is not None else (*q.shape[:2], q.shape[2] // 3)
    numbers = _numbers(causal, mask is not None, 1 / math.sqrt(C // heads), dropout, key)
    y, kept = np.empty((B, T, C), float32), np.empty((2, B, heads, T), float32)
    parts, seen = _parts(q, kv, heads), _expanded(mask, q, kv, heads)
    if library.attention_forward(*parts, seen, _split(y, 1, heads)[0], kept, *numbers):
        # something is not finite: the composition keeps it from those who may not see it
        return NotImplemented

    # an array that a closure mentions costs time in every forward pass: views are made again
    def backward(dy: Array) -> tuple[Array | None, ...]:
        dq, dkv = np.empty(q.shape, float32), None if kv is None else np.empty(kv.shape, float32)
        parts, seen = _parts(q, kv, heads), _expanded(mask, q, kv, heads)
        dparts, dheads = _parts(dq, dkv, heads), _split(in_order(dy), 1, heads)[0]
        numbers = _numbers(causal, mask is not None, 1 / math.sqrt(C // heads), dropout, key)
        if library.attention_backward(*parts, seen, kept, dheads, *dparts, *numbers):
            options: Any = {"causal": causal, "mask": mask, "dropout": dropout, "key": key}
            exact = reference_of("attention")(*parts, **options)[1](dheads)
            for dpart, wanted in zip(dparts, exact[:3], strict=True):
                dpart[...] = wanted
        return dq, dkv, None

    return y, backward


def _expanded(mask: Array | None, q: Array, kv: Array | None, heads: int) -> Array:
    """The mask as (B, H, T, S), of any strides."""
    if mask is None:
        return NO_MASK
    keys = q if kv is None else kv
    return np.broadcast_to(mask, (len(q), heads, q.shape[1], keys.shape[1]))


def _parts(q: Array, kv: Array | None, heads: int) -> tuple[Array, Array, Array]:
    """Views of q, k and v in the arrays they are packed in.   Each (B, H, T or S, D)"""
    if kv is None:
        q, k, v = _split(q, 3, heads)
        return q, k, v
    k, v = _split(kv, 2, heads)
    return _split(q, 1, heads)[0], k, v


def _split(x: Array, count: int, heads: int) -> Array:
    """(B, T, count C) -> (count, B, H, T, D), a view"""
    B, T, width = x.shape
    return x.reshape(B, T, count, heads, width // (count * heads)).transpose(2, 0, 3, 1, 4)


# -- heads that lie apart


def _supports(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Array | None = None,
    dropout: float = 0.0,
    key: Key | None = None,
    **_: Any,
) -> str | None:
    refused = _unlike(q, k, v, bias)
    if refused or {q.dtype, k.dtype, v.dtype} != {float32}:
        return refused or f"dtype {q.dtype}"
    return _refused(mask, dropout, key, (*q.shape[:-1], k.shape[-2]))


def _unlike(q: Array, k: Array, v: Array, bias: Array | None) -> str | None:
    """Why these are not heads of equal sizes, with as many keys as values."""
    if bias is not None:
        return "bias"
    fits = 2 <= q.ndim == k.ndim and k.shape == v.shape and q.shape[:-2] == k.shape[:-2]
    if not fits or q.shape[-1] != k.shape[-1] or 0 in (q.size, k.size):
        return f"q {q.shape}, k {k.shape}, v {v.shape}"
    return None


@kernel_for("attention", supports=_supports)
def attention_of_heads(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    scale: float | None = None,
    mask: Array | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """The same for q: (..., T, D) and k, v: (..., S, D), of any strides."""
    factor = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    y, shape = np.empty(q.shape, float32), (*q.shape[:-1], k.shape[-2])
    seen = NO_MASK if mask is None else _by_heads(np.broadcast_to(mask, shape))
    parts = _readable(q), _readable(k), _readable(v)
    heads, numbers = _by_heads(y), _numbers(causal, mask is not None, factor, dropout, key)
    kept = np.empty((2, *heads.shape[:3]), float32)
    if library.attention_forward(*parts, seen, heads, kept, *numbers):
        return NotImplemented

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dq, dk, dv = (np.empty(x.shape, float32) for x in (q, k, v))
        out = _by_heads(dq), _by_heads(dk), _by_heads(dv)
        if library.attention_backward(*parts, seen, kept, _readable(dy), *out, *numbers):
            options: Any = {"causal": causal, "mask": mask, "dropout": dropout, "key": key}
            dq, dk, dv, _ = reference_of("attention")(q, k, v, scale=factor, **options)[1](dy)
        return dq, dk, dv, None

    return y, backward


def _by_heads(x: Array) -> Array:
    """(..., rows, columns) as (B, H, rows, columns)"""
    return x.reshape(-1, x.shape[-3] if x.ndim > 3 else 1, *x.shape[-2:])


def _readable(x: Array) -> Array:
    """The same for C: a copy where the numbers of a row do not lie side by side."""
    aligned = x.flags.aligned and x.strides[-1] == x.itemsize
    return _by_heads(x if aligned else x.copy())


# -- in NumPy


def _supports_numpy(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    causal: bool = False,
    dropout: float = 0.0,
    **_: Any,
) -> str | None:
    refused = _unlike(q, k, v, bias)
    if refused or dropout:
        return refused or "dropout"
    if q.shape[-2] <= BLOCK or (causal and k.shape[-2] < q.shape[-2]):
        return "one block" if q.shape[-2] <= BLOCK else "queries before the first key"
    return None if q.dtype in (float32, float64) else f"dtype {q.dtype}"


@kernel_for("attention", supports=_supports_numpy)
def attention_by_blocks(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Any:
    """The reference on one block of queries after another, each with the keys up to its last one.
    Backward runs each block again, so memory is linear in T.      Chen et al. 2016
    """
    T, S = q.shape[-2], k.shape[-2]
    allowed = None if mask is None else np.broadcast_to(mask, (*q.shape[:-1], S))
    blocks = [slice(start, min(start + BLOCK, T)) for start in range(0, T, BLOCK)]

    def block(here: slice) -> tuple[Any, int]:
        """The reference of some queries, and the number of keys that they meet."""
        keys = S - T + here.stop if causal else S
        part = None if allowed is None else allowed[..., here, :keys]
        known = k[..., :keys, :], v[..., :keys, :]
        attention = reference_of("attention")
        return attention(q[..., here, :], *known, mask=part, causal=causal, scale=scale), keys

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dq, dk, dv = (np.zeros(x.shape, dy.dtype) for x in (q, k, v))
        for here in blocks:
            (_, gradients), keys = block(here)
            dhere, dkeys, dvalues, _ = gradients(dy[..., here, :])
            dq[..., here, :] = dhere
            dk[..., :keys, :] += dkeys
            dv[..., :keys, :] += dvalues
        return dq, dk, dv, None

    return np.concatenate([block(here)[0][0] for here in blocks], axis=-2), backward
