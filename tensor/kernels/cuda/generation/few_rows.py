"""A decoder's pass over a new token of one text, or of two: what calls few_rows.cu.

All that changes from token to token lies on the GPU, so a CUDA graph can hold the pass.
"""

from __future__ import annotations

import functools
from typing import Any

from tensor.dtypes import DType, float32
from tensor.kernels.cuda.generation.attention import attend, attention_source
from tensor.kernels.cuda.generation.decoder import Decoder
from tensor.kernels.cuda.generation.sampling import Rows
from tensor.kernels.cuda.launch import Source, empty
from tensor.memory.devices import Array

FEW = 2  # texts: for more, cuBLASLt is faster
MULTIPROCESSORS = 132  # of an H200
SUM_BLOCKS = 2 * MULTIPROCESSORS  # of a product: 5 % faster than once or three times as many
LANES, THREADS = 4, 256  # as in few_rows.cu
LEAST_INPUTS = 64  # of a part of a sum: each thread of a block reads one row of the weight
MOST_PARTS = 16  # of a head's keys
HEAD_BLOCKS = 4 * MULTIPROCESSORS
SHARING = "project", "contract"  # kernels whose block keeps its own inputs alone


def columns_of(weights: DType) -> int:
    """The outputs of a block, for weights of that dtype."""
    return LANES * (16 // weights.itemsize)


@functools.cache
def sources(rows: int, C: int, heads: int, weights: DType) -> tuple[Source, Source]:
    """few_rows.cu and attention.cu. Sums, and a head's keys, have as many parts
    as keep all multiprocessors busy.   weights: the dtype of those of products
    """

    def parts(inputs: int, outputs: int) -> int:
        blocks = -(-outputs // columns_of(weights))
        return min(-(-SUM_BLOCKS // blocks), -(-inputs // LEAST_INPUTS))

    D, PARTS = C // heads, min(MOST_PARTS, -(-MULTIPROCESSORS // (rows * heads)))
    sums = parts(C, 3 * C), parts(C, C), parts(C, 4 * C), parts(4 * C, C)
    names = "ROWS", "C", "D", "PARTS", "QKV", "PROJECTED", "EXPANDED", "CONTRACTED"
    constants: dict[str, Any] = dict(zip(names, (rows, C, D, PARTS, *sums), strict=True))
    kinds: dict[str, Any] = {"types": {"Q": weights}, **constants}
    products = Source("generation/few_rows.cu", "generation/early.cuh", **kinds)
    return products, attention_source(D, sums[0], PARTS)


def logits_of_few(decoder: Decoder, keys: Array, values: Array, state: Rows) -> Array:
    """The logits after each row's token, which joins the cache: as `Decoder.logits`.

    keys, values: (layers, rows, heads, capacity, D)
    """
    R, C, dtype = len(state.token), decoder.width, decoder.dtype
    weights = decoder.head.q.dtype
    source, attention = sources(R, C, decoder.heads, weights)
    n = source.constants

    def launch(kernel: str, grid: tuple[int, ...], columns: int, *arguments: Any) -> None:
        kinds: dict[str, Any] = {"dtype": dtype, "width": 16 // dtype.itemsize, "early": True}
        source.launch(kernel, grid, (THREADS,), *arguments, **kinds, shared=R * columns * 4)

    def multiply(kernel: str, inputs: int, outputs: int, parts: int, *arguments: Any) -> Array:
        """`arguments` stand before the product's sums in its parts, which are returned."""
        sums = empty((parts, R, outputs), float32)
        grid = -(-outputs // columns_of(weights)), parts
        share = -(-inputs // parts) if kernel in SHARING else inputs
        launch(kernel, grid, share, *arguments, sums)
        return sums

    x: tuple[Any, ...] = state.token, state.seen, decoder.tokens, decoder.positions, decoder.scale
    kernel = "first_qkv"
    for layer, block in enumerate(decoder.blocks):
        stream = empty((R, C), float32)
        norm = block.norm, block.norm_bias, stream, decoder.eps, *block.qkv
        qkv = multiply(kernel, C, 3 * C, n["QKV"], *x, *norm)
        cache = keys[layer], values[layer]
        attended = attend(attention, qkv, block.qkv_bias, state.seen, *cache, decoder.heads)
        sums = multiply("project", C, C, n["PROJECTED"], attended, *block.project)
        x, stream = (stream, sums, block.project_bias), empty((R, C), float32)
        norm = block.norm2, block.norm2_bias, stream, decoder.eps, *block.expand
        sums = multiply("expand", C, 4 * C, n["EXPANDED"], *x, *norm)
        wide = sums, block.expand_bias, decoder.relu, *block.contract
        sums = multiply("contract", 4 * C, C, n["CONTRACTED"], *wide)
        x, kernel = (stream, sums, block.contract_bias), "next_qkv"
    logits = empty((R, decoder.pitch), float32)
    last = decoder.norm, decoder.norm_bias, decoder.eps
    sizes = decoder.vocabulary, decoder.pitch
    kernel, own, head = "head", 32, tuple(decoder.head)
    if not decoder.tied:
        kernel, own, head = "own_head", THREADS, head[:1]
    grid = (min(HEAD_BLOCKS, -(-decoder.vocabulary // own)),)
    launch(kernel, grid, C, *x, *last, *head, logits, *sizes)
    return logits
