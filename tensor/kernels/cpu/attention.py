"""Causal self-attention by blocks of queries: what calls attention.c; and the same in NumPy, for
what that does not take.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensor.dtypes import float32, float64
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal
from tensor.memory.devices import Array
from tensor.ops.op import reference_of
from tensor.random import Key

BLOCK = 128  # queries at a time, in NumPy


def _shape_refusal(qkv: Array, heads: int, dropout: float) -> str | None:
    if dropout:
        return "dropout"
    if qkv.ndim != 3 or not qkv.size or qkv.shape[-1] % (3 * heads):
        return f"shape {qkv.shape} with {heads} heads"
    return None


def _supports(
    qkv: Array, heads: int, *, dropout: float = 0.0, key: Key | None = None
) -> str | None:
    return _shape_refusal(qkv, heads, dropout) or refusal(qkv)


@kernel_for("causal_self_attention", device="cpu", supports=_supports)
def attention_by_heads(
    qkv: Array, heads: int, *, dropout: float = 0.0, key: Key | None = None
) -> Any:
    """y; the maximum of each row and its sum of e^s are kept for backward, which makes the weights
    again.   qkv: (B, T, 3C)   y: (B, T, C)
    """
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    D = C // heads
    y, kept = np.empty((B, T, C), qkv.dtype), np.empty((2, B, heads, T), qkv.dtype)
    sizes = B, T, heads, D, 1 / math.sqrt(D)
    if library.packed_attention_forward(qkv, y, kept, *sizes):
        # something is not finite: the composition keeps it from the queries before it
        return NotImplemented

    def backward(dy: Array) -> tuple[Array]:
        dy, dqkv = in_order(dy), np.empty(qkv.shape, qkv.dtype)
        if library.packed_attention_backward(qkv, kept, dy, dqkv, *sizes):
            return (_by_reference(qkv, heads, dy),)
        return (dqkv,)

    return y, backward


def _by_reference(qkv: Array, heads: int, dy: Array) -> Array:
    """The gradient of packed heads by the reference, where something in it is not finite."""
    B, T, C = dy.shape
    # 3 x (B, H, T, D)
    q, k, v = np.moveaxis(qkv.reshape(B, T, 3, heads, C // heads), (2, 3), (0, 2))
    _, backward = reference_of("attention")(q, k, v, causal=True)
    parts = backward(dy.reshape(B, T, heads, C // heads).swapaxes(1, 2))[:3]
    return np.ascontiguousarray(np.moveaxis(np.stack(parts), (0, 2), (2, 3))).reshape(qkv.shape)


def _supports_apart(
    q: Array, k: Array, v: Array, bias: Array | None = None, **options: Any
) -> str | None:
    if bias is not None or options.get("mask") is not None or options.get("dropout"):
        return "bias, mask and dropout"
    if q.ndim < 2 or q.size == 0 or q.shape != k.shape or k.shape != v.shape:
        return f"q {q.shape}, k {k.shape}, v {v.shape}: equal shapes"
    if {q.dtype, k.dtype, v.dtype} != {float32}:
        return f"dtype {q.dtype}"
    return refusal()  # of any strides: what is not contiguous is copied, which is linear in T too


@kernel_for("attention", device="cpu", supports=_supports_apart)
def attention_of_heads(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Any:
    """The same for q, k, v: (..., T, D) that lie apart."""
    T, D = q.shape[-2:]
    factor = 1 / math.sqrt(D) if scale is None else scale
    sizes = q.size // (T * D), T, D, factor, causal
    q, k, v = in_order(q), in_order(k), in_order(v)
    y, kept = np.empty(q.shape, q.dtype), np.empty((2, *q.shape[:-1]), q.dtype)
    if library.attention_forward(q, k, v, y, kept, *sizes):
        return NotImplemented

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dq, dk, dv = (np.empty(q.shape, q.dtype) for _ in range(3))
        dy = in_order(dy)
        if library.attention_backward(q, k, v, kept, dy, dq, dk, dv, *sizes):
            dq, dk, dv, _ = reference_of("attention")(q, k, v, causal=causal, scale=factor)[1](dy)
        return dq, dk, dv, None

    return y, backward


def _supports_numpy(
    qkv: Array, heads: int, *, dropout: float = 0.0, key: Key | None = None
) -> str | None:
    if qkv.dtype not in (float32, float64):
        return f"dtype {qkv.dtype}"
    return _shape_refusal(qkv, heads, dropout) or ("one block" if qkv.shape[1] <= BLOCK else None)


@kernel_for("causal_self_attention", device="cpu", supports=_supports_numpy)
def attention_by_blocks(
    qkv: Array, heads: int, *, dropout: float = 0.0, key: Key | None = None
) -> Any:
    """The same in NumPy, memory linear in T: a block of queries meets the keys up to its last one.
    Dao et al. 2022, algorithm 1
    """
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    D = C // heads
    if not np.isfinite(qkv[..., C:]).all():
        return NotImplemented
    q, k, v = np.moveaxis(qkv.reshape(B, T, 3, heads, D), (2, 3), (0, 2))  # 3 x (B, H, T, D)
    y, lse = np.empty((B, T, heads, D), qkv.dtype), np.empty((B, heads, T, 1), qkv.dtype)
    scale = 1 / math.sqrt(D)
    heads_of_y = y.swapaxes(1, 2)  # (B, H, T, D)
    # added to the square on the diagonal
    after = np.triu(np.full((BLOCK, BLOCK), -np.inf, qkv.dtype), 1)
    blocks = [(start, min(start + BLOCK, T)) for start in range(0, T, BLOCK)]

    def scores(start: int, stop: int) -> Array:
        s = q[:, :, start:stop] @ k[:, :, :stop].swapaxes(-1, -2)  # (B, H, block, keys)
        s *= scale
        s[..., start:] += after[: stop - start, : stop - start]
        return s

    for start, stop in blocks:
        s = scores(start, stop)
        m = s.max(-1, keepdims=True)
        np.exp(np.subtract(s, m, out=s), out=s)
        total = s.sum(-1, keepdims=True)
        heads_of_y[:, :, start:stop] = (s @ v[:, :, :stop]) / total
        lse[:, :, start:stop] = m + np.log(total)
    if not (np.isfinite(y).all() and np.isfinite(lse).all()):
        return NotImplemented

    def backward(dy: Array) -> tuple[Array]:
        if not np.isfinite(dy).all():
            return (_by_reference(qkv, heads, dy),)
        dqkv = np.zeros((B, T, 3, heads, D), qkv.dtype)
        dq, dk, dv = np.moveaxis(dqkv, (2, 3), (0, 2))
        dy = dy.reshape(B, T, heads, D).swapaxes(1, 2)
        dot = (dy * heads_of_y).sum(-1, keepdims=True)  # (B, H, T, 1)
        for start, stop in blocks:
            here = slice(start, stop)
            p = scores(start, stop)
            np.exp(np.subtract(p, lse[:, :, here], out=p), out=p)
            dv[:, :, :stop] += p.swapaxes(-1, -2) @ dy[:, :, here]
            ds = dy[:, :, here] @ v[:, :, :stop].swapaxes(-1, -2)
            ds -= dot[:, :, here]
            ds *= p
            ds *= scale
            dq[:, :, here] = ds @ k[:, :, :stop]
            dk[:, :, :stop] += ds.swapaxes(-1, -2) @ q[:, :, here]
        return (dqkv.reshape(qkv.shape),)

    return y.reshape(B, T, C), backward
