"""Attention on the GPU by hand: the weights never lie in memory, and each gradient is added in a
fixed order, so equal inputs give equal bits.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tensor.dtypes import DType, bool_
from tensor.kernels.cuda.attention.versions import (
    ALIGNED,
    Heads,
    Split,
    Tiling,
    Version,
    version_for,
)
from tensor.kernels.cuda.dropout import words_of
from tensor.kernels.cuda.launch import C_TYPES, contiguous, empty, wide
from tensor.memory.devices import Array, cupy, is_cuda
from tensor.random import MASK, Key, threshold_of

NO_MASK = 0, 0, 0, 0, 0
WIDEST = 128  # numbers of a head
MOST = 2**31  # rows of queries or keys of all heads: they are counted in 32 bits
MOST_PARTS, LEAST_KEYS = 64, 32  # the parts of a head's keys, and the keys of a part
MOST_WARPS = 4096  # for decoding: so many keep a GPU busy
MOST_WEIGHTS = 2**34  # of a sample: a counter of dropout has 32 bits, for four


class Case(NamedTuple):
    """The struct Case: scale of the scores, factor of the weights that dropout keeps, sizes, and
    the words of dropout's key.
    """

    scale: float
    factor: float
    heads: int
    queries: int
    keys: int
    causal: bool
    threshold: int = 0
    later: int = 0
    step: int = 0
    module: int = 0
    sample: int = 0
    seed_low: int = 0
    seed_high: int = 0


class Call(NamedTuple):
    """One call of attention: what forward and backward share."""

    version: Version
    dtype: DType
    batch: int
    qkv: tuple[Heads, ...]
    mask: tuple[int, ...]
    case: Case
    held: Array | None  # what the mask points to

    def launch(self, kernel: str, tiling: Tiling, rows: int, *arguments: Any) -> None:
        """A block for each tile of the rows of each head."""
        blocks = -(-rows // tiling.rows) * self.batch * self.case.heads
        self.version.source.launch(
            f"attention_{self.version.name}_{kernel}",
            (blocks,),
            (tiling.threads,),
            *arguments,
            dtype=self.dtype,
            width=self.version.width,
            shared=tiling.shared,
        )

    def forward(self, y: Heads) -> Array:
        """Fills y, and gives the log-sum-exp of each query's scores."""
        queries = self.case.queries
        log_sums = empty((self.batch, self.case.heads, queries), wide(self.dtype))
        if self.version.split is not None:
            self.decode(self.version.split, y, log_sums)
            return log_sums
        given = *self.qkv, self.mask, y, log_sums, self.case
        self.launch("forward", self.version.forward, queries, *given)
        return log_sums

    def decode(self, split: Split, y: Heads, log_sums: Array) -> None:
        """The same, with the keys split over warps, 4 in a block."""
        source, queries, width = split
        case, D = self.case, source.constants["D"]
        warps = self.batch * case.heads * -(-case.queries // queries)
        count = max(1, min(MOST_PARTS, MOST_WARPS // warps, case.keys // LEAST_KEYS))
        span, warps = -(-case.keys // count), warps * count
        parts = empty((log_sums.size, count, D + 2), log_sums.dtype)
        given = *self.qkv, self.mask, parts, case, count, span, warps
        grid, block = (-(-warps // 4),), (32, 4)
        name = "attention_decoding_parts"
        source.launch(name, grid, block, *given, dtype=self.dtype, width=width)
        joined = parts, y, log_sums, case, count, log_sums.size, self.version.unit
        # a warp joins 8 numbers
        grid = (-(-log_sums.size * -(-D // 8) // 4),)
        name = "attention_decoding_join"
        source.launch(name, grid, block, *joined, dtype=self.dtype, width=width)

    def backward(
        self, y: Heads, log_sums: Array, dy: Heads, dq: Heads, dk: Heads, dv: Heads
    ) -> None:
        """Fills dq, dk and dv."""
        version, totals = self.version, empty(log_sums.shape, log_sums.dtype)
        width = version.width
        reads = -(-version.source.constants["D"] // width)
        threads = min(32, 1 << (reads - 1).bit_length())  # of a row
        grid, block = (-(-totals.size * threads // 128),), (threads, 128 // threads)
        sums = y, dy, totals, self.case, totals.size
        name = "attention_totals"
        version.source.launch(name, grid, block, *sums, dtype=self.dtype, width=width)
        given = *self.qkv, self.mask, dy, log_sums, totals
        self.launch("dq", version.dq, self.case.queries, *given, dq, self.case)
        self.launch("dkv", version.dkv, self.case.keys, *given, dk, dv, self.case)


def _case(
    scale: float, sizes: tuple[int, int, int], causal: bool, dropout: float, key: Key | None
) -> Case:
    """sizes: heads, queries, keys"""
    if not dropout or key is None:
        return Case(scale, 1.0, *sizes, causal)
    threshold = threshold_of(dropout)
    # p = 1 leaves out all, and its threshold is no word of 32 bits
    factor = 1 / (1 - dropout) if threshold <= MASK else 0.0
    return Case(scale, factor, *sizes, causal, threshold & MASK, *words_of(key))


def _mask(mask: Any) -> tuple[tuple[int, ...], Array | None]:
    """The struct Mask, and the array that it points to."""
    if mask is None:
        return NO_MASK, None
    mask = mask if is_cuda(mask) else cupy().asarray(mask)
    missing = (0,) * (4 - mask.ndim)
    steps = [step if n > 1 else 0 for n, step in zip(mask.shape, mask.strides, strict=True)]
    return (mask.data.ptr, *missing, *steps), mask


def _refusal(
    arrays: tuple[Array, ...],
    sizes: tuple[int, int, int, int],
    D: int,
    mask: Any,
    dropout: float,
    key: Key | None,
) -> str | None:
    """Why no version can take this call.   sizes: batch, heads, queries, keys"""
    B, H, queries, keys = sizes
    dtype = arrays[0].dtype
    if dtype not in C_TYPES or any(x.dtype != dtype for x in arrays):
        return f"dtypes {', '.join(str(x.dtype) for x in arrays)}"
    if not 0 < D <= WIDEST:
        return f"heads of {D} numbers: up to {WIDEST} are taken"
    if B * H * max(queries, keys) >= MOST:
        return f"{B} x {H} heads of {queries} queries and {keys} keys: too many to count in 32 bits"
    if mask is not None:
        shape = getattr(mask, "shape", None)
        if shape is None or getattr(mask, "dtype", None) != bool_:
            return "a mask that is no array of bools"
        pairs = zip(reversed(shape), reversed(sizes), strict=False)
        if len(shape) > 4 or any(n not in (1, size) for n, size in pairs):
            return f"a mask {shape} for weights {sizes}"
    if dropout and (key is None or not 0 <= dropout <= 1 or H * queries * keys >= MOST_WEIGHTS):
        return f"dropout {dropout} by {key} of weights {sizes}"
    return None


def _aligned(dy: Array) -> Array:
    """The array itself where it is row-major and starts at a multiple of 16 bytes, else a copy."""
    dy = contiguous(dy)
    return dy if dy.data.ptr % ALIGNED == 0 else dy.copy()


# -- heads side by side


def _packed(x: Array, part: int, H: int, D: int) -> Heads:
    """H heads in each row of an array (B, T, parts x H x D)."""
    size = x.dtype.itemsize
    return x.data.ptr + part * H * D * size, x.strides[0] // size, D, x.strides[1] // size


def _rows(x: Array) -> Array:
    """The array itself where its rows have their elements side by side, else a copy."""
    return x if x.strides[-1] == x.dtype.itemsize else contiguous(x)


def supports_packed(
    q: Array,
    kv: Array | None = None,
    mask: Any = None,
    *,
    heads: int,
    dropout: float = 0.0,
    key: Key | None = None,
    **_: Any,
) -> str | None:
    """Why the kernels do not take these packed heads, as a sentence; None where they do."""
    keys, count = (q, 3) if kv is None else (kv, 1)
    if not q.ndim == keys.ndim == 3 or 0 in (q.size, keys.size) or heads < 1:
        return f"shape {q.shape} with {heads} heads"
    C = q.shape[2] // count
    if q.shape[2] % (count * heads) or (kv is not None and kv.shape[::2] != (len(q), 2 * C)):
        return f"q {q.shape}, kv {None if kv is None else kv.shape} with {heads} heads"
    arrays = (q,) if kv is None else (q, kv)
    sizes = len(q), heads, q.shape[1], keys.shape[1]
    return _refusal(arrays, sizes, C // heads, mask, dropout, key)


def attention_by_hand(
    q: Array,
    kv: Array | None = None,
    mask: Any = None,
    *,
    heads: int,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """y, and the log-sum-exp of each query's scores, which backward needs beside q, kv and y.

    q: (B, T, C), kv: (B, S, 2C), or q, k and v in one, (B, T, 3C)   y: (B, T, C)
    """
    q = _rows(q)
    keys = q if kv is None else _rows(kv)
    (B, T, width), first = q.shape, int(kv is None)
    C = width // 3 if kv is None else width
    D = C // heads
    pairs = (q, 0), (keys, first), (keys, first + 1)
    places = tuple([_packed(x, part, heads, D) for x, part in pairs])
    looks, mask = _mask(mask)
    scale = 1 / math.sqrt(D)
    S = keys.shape[1]
    case = _case(scale, (heads, T, S), causal, dropout, key)
    chosen = version_for(q.dtype, D, scale, (T, S), places)
    version = chosen(q.dtype, D, mask is not None, dropout > 0)
    call = Call(version, q.dtype, B, places, looks, case, mask)
    y = empty((B, T, C), q.dtype)
    log_sums = call.forward(_packed(y, 0, heads, D))

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dy, dq = _aligned(dy), empty(q.shape, q.dtype)
        dkv = dq if kv is None else empty(keys.shape, q.dtype)
        pairs = (y, 0), (dy, 0), (dq, 0), (dkv, first), (dkv, first + 1)
        of_y, *gradients = (_packed(x, part, heads, D) for x, part in pairs)
        call.backward(of_y, log_sums, *gradients)
        return dq, None if kv is None else dkv, None

    return y, backward


# -- heads that lie apart


def _apart(x: Array) -> Heads:
    size = x.dtype.itemsize
    batch, head, row = (step // size for step in x.strides[:3])
    return x.data.ptr, batch, head, row


def supports(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Any = None,
    dropout: float = 0.0,
    key: Key | None = None,
    **_: Any,
) -> str | None:
    """Why the kernels do not take these heads, (..., T, D), as a sentence; None where they do."""
    if bias is not None:
        return "a bias: its gradient is left to the reference"
    fits = q.ndim == k.ndim == 4 and k.shape == v.shape and q.shape[:2] == k.shape[:2]
    if not fits or q.shape[3] != k.shape[3] or 0 in (q.size, k.size):
        return f"q {q.shape}, k {k.shape}, v {v.shape}: equal heads of 4 axes are needed"
    sizes = *q.shape[:3], k.shape[2]
    return _refusal((q, k, v), sizes, q.shape[3], mask, dropout, key)


def attention_of_heads_by_hand(
    q: Array,
    k: Array,
    v: Array,
    bias: None = None,
    *,
    scale: float | None = None,
    mask: Any = None,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """The same for q: (B, H, T, D) and k, v: (B, H, S, D), of any strides."""
    q, k, v = (_rows(x) for x in (q, k, v))
    (B, H, T, D), S = q.shape, k.shape[2]
    scale = 1 / math.sqrt(D) if scale is None else scale
    looks, mask = _mask(mask)
    places = tuple([_apart(x) for x in (q, k, v)])
    case = _case(scale, (H, T, S), causal, dropout, key)
    chosen = version_for(q.dtype, D, scale, (T, S), places)
    version = chosen(q.dtype, D, mask is not None, dropout > 0)
    call = Call(version, q.dtype, B, places, looks, case, mask)
    y = empty(q.shape, q.dtype)
    log_sums = call.forward(_apart(y))

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dqkv = [empty(x.shape, x.dtype) for x in (q, k, v)]
        dy = _aligned(dy)
        call.backward(_apart(y), log_sums, *(_apart(x) for x in (dy, *dqkv)))
        return *dqkv, None

    return y, backward
