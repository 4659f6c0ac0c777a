"""Attention on the GPU by cuDNN. The weights never lie in memory: cuDNN goes by blocks of queries
and keys.      Dao et al. 2022

Two things are not as in the composition. cuDNN's backward adds dq in no fixed order, so two equal
runs differ in their last bits, but within `kernels.deterministic()`. (For GPT-2 with a batch of 32
on an H200, a layer then takes 579 us in place of 533, and all layers share 769 MiB to work in, in
place of 97.) And cuDNN multiplies a value that a causal query may not see by 0: where that value is
NaN or infinite, queries up to 127 places before it become NaN.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

from tensor.dtypes import DType, bfloat16, float16, float32
from tensor.kernels import kernel_for
from tensor.kernels.cuda.cudnn import ITEMSIZE, Case, Heads, Plans, frontend
from tensor.kernels.cuda.launch import contiguous, empty
from tensor.memory.devices import Array, cupy
from tensor.memory.layout import contiguous_strides
from tensor.mode import MODE
from tensor.random import Key

WIDTHS = range(8, 129, 8)  # numbers of a head
ALIGNED = 16  # bytes: what addresses and strides must be multiples of


def _refusal(
    arrays: Sequence[Array], T: int, S: int, D: int, causal: bool, masked: bool, dropout: float
) -> str | None:
    """Why cuDNN cannot take this call."""
    dtype = arrays[0].dtype
    if dtype not in (bfloat16, float16) or any(x.dtype != dtype for x in arrays):
        return f"dtype {dtype}: cuDNN's attention takes bfloat16 and float16"
    if D not in WIDTHS:
        return f"heads of {D} numbers: cuDNN takes multiples of 8 up to {WIDTHS[-1]}"
    if masked or dropout:
        return "a mask: cuDNN takes none" if masked else f"dropout {dropout}: cuDNN's mask differs"
    if T == 1:
        return "one query: a new plan for each number of keys takes longer than the composition"
    if causal and S < T:
        return f"causal with {T} queries and {S} keys: some queries see nothing"
    for x in arrays:
        *steps, last = x.strides
        if last != ITEMSIZE or x.data.ptr % ALIGNED or any(s <= 0 or s % ALIGNED for s in steps):
            return f"strides of {x.strides} bytes: cuDNN takes rows that start at multiples of 16"
    module = frontend()
    return module if isinstance(module, str) else None


# -- heads side by side


def _supports_packed(
    q: Array,
    kv: Array | None = None,
    mask: Array | None = None,
    *,
    heads: int,
    causal: bool = False,
    dropout: float = 0.0,
    **_: Any,
) -> str | None:
    keys, count = (q, 3) if kv is None else (kv, 1)
    if not q.ndim == keys.ndim == 3 or 0 in (q.size, keys.size) or heads < 1:
        return f"shape {q.shape} with {heads} heads"
    C = q.shape[2] // count
    if q.shape[2] % (count * heads) or (kv is not None and kv.shape[::2] != (len(q), 2 * C)):
        return f"q {q.shape}, kv {None if kv is None else kv.shape} with {heads} heads"
    arrays = (q,) if kv is None else (q, kv)
    sizes = q.shape[1], keys.shape[1], C // heads
    refused = _refusal(arrays, *sizes, causal, mask is not None, dropout)
    plans = refused or _plans_packed(*_case(q, kv, heads, causal))
    return plans if isinstance(plans, str) else None


def _case(q: Array, kv: Array | None, heads: int, causal: bool) -> tuple[Any, ...]:
    """What the plans of a call depend on."""
    device, deterministic = cupy().cuda.runtime.getDevice(), MODE.get().deterministic
    shapes = (q.shape, q.strides) if kv is None else (q.shape, q.strides, kv.shape, kv.strides)
    return q.dtype, heads, causal, deterministic, device, *shapes


@functools.lru_cache(maxsize=256)
def _plans_packed(
    dtype: DType,
    H: int,
    causal: bool,
    deterministic: bool,
    device: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    keys: tuple[int, ...] | None = None,
    key_strides: tuple[int, ...] = (),
) -> Plans | str:
    C = shape[2] if keys else shape[2] // 3
    (B, T), D = shape[:2], C // H
    q = Heads.in_rows(shape, strides, H, D)
    k = Heads.in_rows(keys, key_strides, H, D) if keys else q
    y = Heads((B, H, T, D), (T * C, D, C, 1))
    # gradients are packed as their inputs, and row-major
    shapes = (shape, keys or shape, keys or shape)
    dqkv = [
        Heads.in_rows(s, tuple(ITEMSIZE * n for n in contiguous_strides(s)), H, D) for s in shapes
    ]
    return Case(dtype, q, k, k, y, dqkv, causal, deterministic, 1 / math.sqrt(D)).plans()


@kernel_for("multi_head_attention", device="cuda", supports=_supports_packed)
def attention_by_cudnn(
    q: Array,
    kv: Array | None = None,
    mask: None = None,
    *,
    heads: int,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """y, and the log-sum-exp of each query's scores, which backward needs beside q, kv and y.

    q: (B, T, C), kv: (B, S, 2C), or q, k and v in one, (B, T, 3C)   y: (B, T, C)
    """
    plans: Any = _plans_packed(*_case(q, kv, heads, causal))
    B, T, width = q.shape
    y = empty((B, T, width if kv is not None else width // 3), q.dtype)
    log_sums = empty((B, heads, T), float32)
    plans.forward.run(*_addresses(q, kv), y.data.ptr, log_sums.data.ptr)

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dy, dq = contiguous(dy), empty(q.shape, q.dtype)
        dkv = None if kv is None else empty(kv.shape, kv.dtype)
        given = y.data.ptr, dy.data.ptr, log_sums.data.ptr
        plans.backward.run(*_addresses(q, kv), *given, *_addresses(dq, dkv))
        return dq, dkv, None

    return y, backward


def _addresses(q: Array, kv: Array | None) -> tuple[int, int, int]:
    """Where q, k and v begin in the arrays that they are packed in."""
    start = q.data.ptr
    if kv is None:
        step = q.shape[2] // 3 * ITEMSIZE
        return start, start + step, start + 2 * step
    keys = kv.data.ptr
    return start, keys, keys + q.shape[2] * ITEMSIZE


# -- heads that lie apart


def _supports(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    scale: float | None = None,
    mask: Array | None = None,
    causal: bool = False,
    dropout: float = 0.0,
    **_: Any,
) -> str | None:
    if bias is not None:
        return "a bias: its gradient is left to the reference"
    fits = q.ndim == k.ndim == 4 and k.shape == v.shape and q.shape[:2] == k.shape[:2]
    if not fits or q.shape[3] != k.shape[3] or 0 in (q.size, k.size):
        return f"q {q.shape}, k {k.shape}, v {v.shape}: equal heads of 4 axes are needed"
    sizes = q.shape[2], k.shape[2], q.shape[3]
    refused = _refusal((q, k, v), *sizes, causal, mask is not None, dropout)
    plans = refused or _plans_apart(*_case_apart(q, k, v, causal, scale))
    return plans if isinstance(plans, str) else None


def _case_apart(q: Array, k: Array, v: Array, causal: bool, scale: float | None) -> tuple[Any, ...]:
    device, deterministic = cupy().cuda.runtime.getDevice(), MODE.get().deterministic
    arrays = q.shape, k.shape, q.strides, k.strides, v.strides
    return q.dtype, causal, deterministic, scale, device, *arrays


@functools.lru_cache(maxsize=256)
def _plans_apart(
    dtype: DType,
    causal: bool,
    deterministic: bool,
    scale: float | None,
    device: int,
    shape: tuple[int, ...],
    keys: tuple[int, ...],
    *strides: tuple[int, ...],
) -> Plans | str:
    q, k, v = (
        Heads(s, tuple(stride // ITEMSIZE for stride in in_bytes))
        for s, in_bytes in zip((shape, keys, keys), strides, strict=True)
    )
    fresh = [Heads.row_major(s) for s in (shape, keys, keys)]
    scale = 1 / math.sqrt(shape[3]) if scale is None else scale
    return Case(dtype, q, k, v, fresh[0], fresh, causal, deterministic, scale).plans()


@kernel_for("attention", device="cuda", supports=_supports)
def attention_of_heads_by_cudnn(
    q: Array,
    k: Array,
    v: Array,
    bias: None = None,
    *,
    scale: float | None = None,
    mask: None = None,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """The same for q: (B, H, T, D) and k, v: (B, H, S, D), of any strides."""
    plans: Any = _plans_apart(*_case_apart(q, k, v, causal, scale))
    y, log_sums = empty(q.shape, q.dtype), empty(q.shape[:3], float32)
    plans.forward.run(*(x.data.ptr for x in (q, k, v, y, log_sums)))

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dqkv = [empty(x.shape, x.dtype) for x in (q, k, v)]
        given = q, k, v, y, contiguous(dy), log_sums
        plans.backward.run(*(x.data.ptr for x in (*given, *dqkv)))
        return *dqkv, None

    return y, backward
