"""The versions of attention by hand, from the plainest to the fastest: plain.cu, tiles.cu and
tensor_cores.cu; and decoding.cu for few queries. plain.cu is there to be read; `version_for`
chooses among the others.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from tensor.dtypes import DType, bfloat16, float16
from tensor.kernels.cuda.dropout import KEY
from tensor.kernels.cuda.launch import Source, wide
from tensor.memory.devices import cupy
from tensor.mode import MODE

# what heads.cuh defines: the codes of the members, in `struct`
STRUCTS = {"Heads": "Q3q", "Mask": "Q4q", "Case": f"2d4iI{KEY['Key']}"}
ALIGNED = 16  # bytes: what the rows for tensor cores start at multiples of
# decoding.cu takes so many queries at most, and so many keys at least. A tile of the other versions
# has 64 rows and goes along all keys: with fewer queries most of its work is for nothing, and few
# blocks go a long way. With 16 queries of 64 sequences tensor cores were 6 times as fast.
FEW_QUERIES, MANY_KEYS = 4, 256

Heads = tuple[int, int, int, int]  # an address, and the strides of batch, head and row in elements


class Tiling(NamedTuple):
    """How a kernel is launched: the rows that a block works on, its threads, and its bytes of
    shared memory.
    """

    rows: int
    threads: int
    shared: int = 0


class Split(NamedTuple):
    """decoding.cu, compiled for one case.   queries: of a warp   width: numbers read at once"""

    source: Source
    queries: int
    width: int


class Version(NamedTuple):
    """A `.cu` file, compiled for one case, and how its kernels are launched.

    name: the kernels are attention_NAME_forward, attention_NAME_dq and attention_NAME_dkv
    unit: log-sum-exps are kept times this   width: numbers of y and dy read at once
    split: takes the place of attention_NAME_forward
    """

    name: str
    source: Source
    forward: Tiling
    dq: Tiling
    dkv: Tiling
    unit: float = 1.0
    width: int = 1
    split: Split | None = None


def _source(file: str, *headers: str, **constants: Any) -> Source:
    paths = (f"attention/{name}" for name in ("heads.cuh", *headers))
    return Source(f"attention/{file}", "philox.cuh", *paths, structs=STRUCTS, **constants)


@functools.cache
def plain(dtype: DType, D: int, masked: bool, drops: bool) -> Version:
    """plain.cu: a thread for each row."""
    one = Tiling(64, 64)
    return Version("plain", _source("plain.cu", D=D, MASKED=masked, DROPS=drops), one, one, one)


@functools.cache
def tiles(dtype: DType, D: int, masked: bool, drops: bool) -> Version:
    """tiles.cu: tiles in shared memory, for any float dtype and any strides."""
    size = wide(dtype).itemsize
    rows = 32 if size == 8 else 64
    tile, weights = (rows * (-(-n // 16) * 16 * size + 16) for n in (D, rows))
    source = _source("tiles.cu", D=D, MASKED=masked, DROPS=drops)
    backward = Tiling(rows, 256, 4 * tile + weights)
    return Version("tiles", source, Tiling(rows, 256, 3 * tile + weights), backward, backward)


@functools.cache
def tensor_cores(
    dtype: DType, D: int, masked: bool, drops: bool, M: int = 0, blocks: int = 0
) -> Version:
    """M: a warp has 16 queries times 1 or 2   blocks: at once on a multiprocessor, which decides
    the registers of a thread
    """
    # with 32 rows a warp reads half of what it reads with 16 for a product, where its registers
    # suffice
    M = M or (2 if D > 32 and not (masked or drops) else 1)
    M_keys = M if D <= 64 else 1
    blocks = blocks or (3 if D <= 32 else 2)
    constants = {"D": D, "MASKED": masked, "DROPS": drops, "M": M, "M_KEYS": M_keys}
    source = _source("tensor_cores.cu", "mma.cuh", "warp_tiles.cuh", **constants, BLOCKS=blocks)
    row = 2 * (D + 8)  # bytes in shared memory
    # own rows, and two tiles of the other side twice: in backward with 64 / M rows
    dq, dkv = (Tiling(64 * m, 128, (128 * m + 4 * 64 // m) * row) for m in (M, M_keys))
    return Version(
        "cores",
        source,
        Tiling(64 * M, 128, (64 * M + 4 * 64) * row),
        dq,
        dkv._replace(shared=dkv.shared + 4 * 64 // M_keys * 4),
        unit=math.log2(math.e),
        width=ALIGNED // dtype.itemsize,
    )


@functools.cache
def decoding(
    dtype: DType,
    D: int,
    masked: bool,
    drops: bool,
    backward: Callable[..., Version] = tiles,
    queries: int = 4,
    width: int = 1,
) -> Version:
    """Forward by decoding.cu, and backward by another version."""
    source = _source("decoding.cu", D=D, MASKED=masked, DROPS=drops, QUERIES=queries)
    return backward(dtype, D, masked, drops)._replace(split=Split(source, queries, width))


@functools.cache
def _has_instructions() -> bool:
    """Whether the GPU has what mma.cuh tells it."""
    return int(cupy().cuda.Device().compute_capability) >= 80


def version_for(
    dtype: DType, D: int, scale: float, sizes: tuple[int, int], places: tuple[Heads, ...]
) -> Callable[..., Version]:
    """The fastest version that takes these heads.   sizes: queries, keys"""
    few = sizes[0] <= FEW_QUERIES and sizes[1] >= MANY_KEYS
    # backward's scores are sums in another order than those of decoding.cu, so in float32 the
    # gradients would have 3 times the error
    few = few and not MODE.get().recording
    narrow = dtype in (bfloat16, float16) and D % 16 == 0 and scale > 0
    if not few and not narrow:
        return tiles
    together = 0
    for address, *strides in places:
        together |= address
        for stride in strides:
            together |= stride * dtype.itemsize
    aligned = together % ALIGNED == 0
    version = tensor_cores if narrow and aligned and _has_instructions() else tiles
    if not few:
        return version
    chunk = ALIGNED // dtype.itemsize
    width = chunk if aligned and D % chunk == 0 else 1
    queries = 1 if sizes[0] == 1 else 4
    return functools.partial(decoding, backward=version, queries=queries, width=width)
