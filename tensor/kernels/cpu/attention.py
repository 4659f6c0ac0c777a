"""Causal self-attention by blocks of queries: what calls attention.c; and the same in NumPy, for
what attention.c does not take.
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

BLOCK = 128  # queries at a time, in NumPy
PACKED = True  # q, k and v lie side by side in the rows of one array


def _supports_packed(qkv: Array, heads: int, *, dropout: float = 0.0, **_: Any) -> str | None:
    if dropout:
        return "dropout"
    if qkv.ndim != 3 or not qkv.size or qkv.shape[-1] % (3 * heads):
        return f"shape {qkv.shape} with {heads} heads"
    return refusal(qkv)


@kernel_for("causal_self_attention", supports=_supports_packed)
def attention_by_heads(qkv: Array, heads: int, **_: Any) -> Any:
    """y, from heads that lie side by side. The maximum of each row of scores and its sum of e^s are
    kept: backward makes the weights again from them.   qkv: (B, T, 3C)   y: (B, T, C)
    """
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    y, kept = np.empty((B, T, C), qkv.dtype), np.empty((2, B, heads, T), qkv.dtype)
    sizes = B * heads, T, heads, C // heads, PACKED, 1 / math.sqrt(C // heads), True
    if library.attention_forward(qkv, qkv, qkv, y, kept, *sizes):
        # something is not finite: the composition keeps it from the queries before it
        return NotImplemented

    def backward(dy: Array) -> tuple[Array]:
        dy, dqkv = in_order(dy), np.empty(qkv.shape, qkv.dtype)
        if library.attention_backward(qkv, qkv, qkv, kept, dy, dqkv, dqkv, dqkv, *sizes):
            return (_by_reference(qkv, heads, dy),)
        return (dqkv,)

    return y, backward


def _by_reference(qkv: Array, heads: int, dy: Array) -> Array:
    """The gradient of packed heads by the reference, where something in it is not finite."""
    B, T, _ = dy.shape
    q, k, v = qkv.reshape(B, T, 3, heads, -1).transpose(2, 0, 3, 1, 4)  # each (B, H, T, D)
    dheads = dy.reshape(B, T, heads, -1).swapaxes(1, 2)
    gradients = reference_of("attention")(q, k, v, causal=True)[1](dheads)[:3]
    return np.stack(gradients).transpose(1, 3, 0, 2, 4).reshape(qkv.shape)


def _supports(
    q: Array, k: Array, v: Array, bias: Array | None = None, **options: Any
) -> str | None:
    if bias is not None or options.get("mask") is not None or options.get("dropout"):
        return "bias, mask and dropout"
    if q.ndim < 2 or q.size == 0 or q.shape != k.shape or k.shape != v.shape:
        return f"q {q.shape}, k {k.shape}, v {v.shape}: equal shapes"
    if {q.dtype, k.dtype, v.dtype} != {float32}:
        return f"dtype {q.dtype}"
    return refusal()  # of any strides: what is not contiguous is copied, which is linear in T too


@kernel_for("attention", supports=_supports)
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
    sizes = q.size // (T * D), T, 1, D, not PACKED, factor, causal
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
    q: Array, k: Array, v: Array, bias: Array | None = None, **options: Any
) -> str | None:
    if bias is not None or options.get("mask") is not None or options.get("dropout"):
        return "bias, mask and dropout"
    if not options.get("causal") or q.ndim < 2 or not BLOCK < q.shape[-2] == k.shape[-2]:
        return "not causal, or one block"
    return None if q.dtype in (float32, float64) else f"dtype {q.dtype}"


@kernel_for("attention", supports=_supports_numpy)
def attention_by_blocks(
    q: Array, k: Array, v: Array, bias: Array | None = None, *, scale: float | None = None, **_: Any
) -> Any:
    """The reference on one block of queries after another, each with the keys up to its last one.
    Backward runs each block again, so memory is linear in T.      Chen et al. 2016
    """
    stops = range(BLOCK, q.shape[-2] + BLOCK, BLOCK)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dq, dk, dv = (np.zeros(x.shape, dy.dtype) for x in (q, k, v))
        for stop in stops:
            here = slice(stop - BLOCK, stop)
            dhere, dkeys, dvalues, _ = _block(q, k, v, stop, scale)[1](dy[..., here, :])
            dq[..., here, :] = dhere
            dk[..., :stop, :] += dkeys
            dv[..., :stop, :] += dvalues
        return dq, dk, dv, None

    return np.concatenate([_block(q, k, v, stop, scale)[0] for stop in stops], axis=-2), backward


def _block(q: Array, k: Array, v: Array, stop: int, scale: float | None) -> Any:
    """The reference of the BLOCK queries before `stop`."""
    keys, values = k[..., :stop, :], v[..., :stop, :]
    queries = q[..., stop - BLOCK : stop, :]
    return reference_of("attention")(queries, keys, values, causal=True, scale=scale)
