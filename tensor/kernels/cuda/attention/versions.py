"""The versions of attention by hand, from the plainest to the fastest: plain.cu, tiles.cu and
tensor_cores.cu. plain.cu is there to be read; `version_for` chooses among the others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

from tensor.dtypes import DType, bfloat16, float16
from tensor.kernels.cuda.launch import Source, wide
from tensor.memory.devices import cupy

# what heads.cuh defines: the codes of the members, in `struct`
STRUCTS = {"Heads": "Q3q", "Mask": "Q4q", "Case": "2d4i6I"}
ALIGNED = 16  # bytes: what the rows for tensor cores start at multiples of

Heads = tuple[int, int, int, int]  # an address, and the strides of batch, head and row in elements


class Tiling(NamedTuple):
    """How a kernel is launched: the rows that a block works on, its threads, and its bytes of
    shared memory.
    """

    rows: int
    threads: int
    shared: int = 0


class Version(NamedTuple):
    """A `.cu` file, compiled for one case, and how its kernels are launched.

    name: the kernels are attention_NAME_forward, attention_NAME_dq and attention_NAME_dkv
    """

    name: str
    source: Source
    forward: Tiling
    dq: Tiling
    dkv: Tiling


def _source(file: str, *headers: str, **constants: int) -> Source:
    paths = (f"attention/{name}" for name in ("heads.cuh", *headers))
    return Source(f"attention/{file}", "philox.cuh", *paths, structs=STRUCTS, **constants)


@functools.cache
def plain(dtype: DType, D: int, masked: bool, drops: bool) -> Version:
    one = Tiling(64, 64)
    return Version("plain", _source("plain.cu", D=D, MASKED=masked, DROPS=drops), one, one, one)


@functools.cache
def tiles(dtype: DType, D: int, masked: bool, drops: bool) -> Version:
    size = wide(dtype).itemsize
    rows = 32 if size == 8 else 64
    tile, weights = (rows * (-(-n // 16) * 16 * size + 16) for n in (D, rows))
    source = _source("tiles.cu", D=D, MASKED=masked, DROPS=drops)
    backward = Tiling(rows, 256, 4 * tile + weights)
    return Version("tiles", source, Tiling(rows, 256, 3 * tile + weights), backward, backward)


@functools.cache
def tensor_cores(
    dtype: DType, D: int, masked: bool, drops: bool, columns: int = 0, blocks: int = 2
) -> Version:
    """columns: of a tile of scores in backward   blocks: of backward at once on a multiprocessor,
    which decides the registers of a thread
    """
    # a warp has 32 queries where its registers suffice
    M = 2 if D <= 64 and not (masked or drops) else 1
    columns = columns or (64 if D <= 64 else 32)
    constants = {"D": D, "MASKED": masked, "DROPS": drops, "M": M, "BACK": columns}
    source = _source("tensor_cores.cu", "mma.cuh", "warp_tiles.cuh", **constants, BLOCKS=blocks)
    row = 2 * (D + 8)  # bytes in shared memory
    shared = (2 * 64 + 4 * columns) * row
    return Version(
        "cores",
        source,
        Tiling(64 * M, 128, (64 * M + 4 * 64) * row),
        Tiling(64, 128, shared),
        Tiling(64, 128, shared + 4 * columns * 4),
    )


@functools.cache
def _has_instructions() -> bool:
    """Whether the GPU has what mma.cuh tells it."""
    return int(cupy().cuda.Device().compute_capability) >= 80


def version_for(
    dtype: DType, D: int, scale: float, places: tuple[Heads, ...]
) -> Callable[..., Version]:
    """The fastest version that takes these heads."""
    if dtype not in (bfloat16, float16) or D % 16 or scale <= 0:
        return tiles
    together = 0
    for address, *strides in places:
        together |= address
        for stride in strides:
            together |= stride * dtype.itemsize
    return tensor_cores if together % ALIGNED == 0 and _has_instructions() else tiles
