"""Dropout and random bits on the GPU: what calls dropout.cu."""

from __future__ import annotations

from typing import Any

from tensor.dtypes import float32
from tensor.kernels import kernel_for
from tensor.kernels.cuda.graphs import OnDevice
from tensor.kernels.cuda.launch import C_TYPES, Source, contiguous, empty, width_of
from tensor.memory.devices import Array
from tensor.random import MASK, Key, threshold_of

KEY = {"Key": "Q5I4x"}  # the struct in philox.cuh
DROPOUT = Source("dropout.cu", "philox.cuh", structs=KEY)
THREADS = 256
MOST = 2**31  # elements: threads are counted in 32 bits


def words_of(key: Key) -> tuple[int, ...]:
    """The struct Key: where the step lies, if it is on the GPU, else 0 and the step; module,
    sample, the low and the high word of the seed.
    """
    step, later = (0, key.step.address) if isinstance(key.step, OnDevice) else (key.step, 0)
    words = step, key.module, key.sample, key.seed, key.seed >> 32
    return later, *[word & MASK for word in words]


def _supports(x: Array, p: float, *, key: Key | None) -> str | None:
    if key is None or not 0 <= p <= 1:
        return f"p={p}, key={key}"
    if x.dtype not in C_TYPES or x.size == 0:
        return f"dtype {x.dtype}, shape {x.shape}"
    return None if x.size < MOST else f"shape {x.shape}: {MOST} elements or more"


def _rows(x: Array) -> int:
    """The samples: each has a counter of its own."""
    rows: int = x.shape[0] if x.ndim > 1 else 1
    return rows


@kernel_for("dropout", device="cuda", supports=_supports)
def dropout_by_counters(x: Array, p: float, *, key: Key) -> Any:
    """A thread makes the mask of its elements from the key, in backward once more."""
    rows, columns = _rows(x), x.size // _rows(x)
    threshold = threshold_of(p)
    # p = 1 leaves out all, and its threshold is no word of 32 bits
    factor = 1 / (1 - p) if threshold <= MASK else 0.0
    numbers = rows, columns, threshold & MASK, factor, words_of(key)

    def masked(x: Array) -> Array:
        x = contiguous(x)
        y = empty(x.shape, x.dtype)
        width = width_of(columns, x, y)
        grid = (-(-x.size // (width * THREADS)),)
        DROPOUT.launch("dropout", grid, (THREADS,), x, y, *numbers, width=width)
        return y

    return masked(x), (masked,)


def _supports_bits(bits: Array, key: Key) -> str | None:
    return None if bits.size < MOST else f"shape {bits.shape}: {MOST} elements or more"


@kernel_for("random_bits", device="cuda", supports=_supports_bits)
def random_bits_by_counters(bits: Array, key: Key) -> None:
    """A thread for each counter of four words."""
    rows, columns = bits.shape
    counters = rows * -(-columns // 4)
    if counters:
        grid, sizes = (-(-counters // THREADS),), (rows, columns)
        DROPOUT.launch("random_bits", grid, (THREADS,), bits, *sizes, words_of(key), dtype=float32)
