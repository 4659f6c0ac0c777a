"""Embeddings on the GPU, of tokens and of their positions: what calls embedding.cu."""

from __future__ import annotations

from typing import Any

from tensor.dtypes import int32
from tensor.kernels import kernel_for
from tensor.kernels.cuda.launch import C_TYPES, Source, contiguous, empty, integers, wide, width_of
from tensor.memory.devices import Array, cupy

TABLES = Source("embedding.cu")
TILE, STRETCH, FEW = 1024, 32, 1024  # as in embedding.cu
THREADS = 256
CHUNKS = 64  # at most, for each takes 4 bytes an id of the table


def _supports(ids: Array, *tables: Array, **_: float) -> str | None:
    if ids.dtype.kind not in "iu" or ids.size == 0 or ids.size >= 2**31:
        return f"ids {ids.shape} {ids.dtype}"
    if any(table.ndim != 2 or table.size == 0 for table in tables):
        return f"tables {', '.join(str(table.shape) for table in tables)}"
    dtype = tables[0].dtype
    return None if dtype in C_TYPES and len(tables[0]) < 2**31 else f"dtype {dtype}"


def _supports_positions(ids: Array, tokens: Array, positions: Array, **_: float) -> str | None:
    refusal = _supports(ids, tokens, positions)
    if refusal is None and (
        ids.ndim != 2 or tokens.shape[1] != positions.shape[1] or len(positions) < ids.shape[1]
    ):
        return f"tables {tokens.shape}, {positions.shape} for ids {ids.shape}"
    return refusal


@kernel_for("embedding", device="cuda", supports=_supports)
def embedding_by_packs(ids: Array, weight: Array) -> Any:
    """Rows in packs of 16 bytes; dweight adds them in the order of the sorted ids."""
    found = _rows(ids, weight, None, 1.0)
    return found, (None, _table_gradient(ids, weight, 1.0))


@kernel_for("positional_embedding", device="cuda", supports=_supports_positions)
def positional_embedding_by_packs(
    ids: Array, tokens: Array, positions: Array, *, scale: float = 1.0
) -> Any:
    """y[b, t] = scale * tokens[ids[b, t]] + positions[t] in one pass."""
    (batch, time), shape, dtype = ids.shape, positions.shape, positions.dtype

    def dpositions(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        if out is None:
            out, add = empty(shape, dtype), False
        dy, count = contiguous(dy), time * shape[1]
        width = width_of(shape[1], dy, out)
        grid = (-(-out.size // (THREADS * width)),)
        sizes = batch, count, out.size, add
        TABLES.launch("add_over_batch", grid, (THREADS,), dy, out, *sizes, width=width)
        return out

    y = _rows(ids, tokens, positions, scale)
    return y, (None, _table_gradient(ids, tokens, scale), dpositions)


def _rows(ids: Array, table: Array, positions: Array | None, scale: float) -> Array:
    """y = scale * table[ids] + positions"""
    size, columns = table.shape
    table, period = contiguous(table), 1
    y = empty((*ids.shape, columns), table.dtype)
    width = width_of(columns, table, y)
    if positions is not None:
        positions, period = contiguous(positions), ids.shape[-1]
        width = width_of(columns, table, y, positions)
    grid = (-(-y.size // (THREADS * width)),)
    arguments = *integers(ids), table, positions, y, ids.size, period, size, columns, scale
    options = {"dtype": table.dtype, "width": width}
    TABLES.launch("embedding_forward", grid, (THREADS,), *arguments, **options)
    return y


def _table_gradient(ids: Array, table: Array, scale: float) -> Any:
    """dtable of `_rows`, which may write into a buffer."""
    (size, columns), dtype = table.shape, table.dtype

    def dtable(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        if out is None:
            out, add = empty((size, columns), dtype), False
        dy = contiguous(dy)
        found, count = integers(ids), ids.size
        width = width_of(columns, dy, out)
        options: Any = {"dtype": dtype, "width": width}
        if count <= FEW and size <= FEW:
            given = *found, dy, out, count, size, columns, scale, add
            TABLES.launch("add_few", (size,), (THREADS,), *given, **options)
            return out
        if not add:
            out.data.memset_async(0, out.nbytes)
        grid = (-(-count // STRETCH),)
        block = (min(1024, -(-columns // (32 * width)) * 32),)
        heads, tails = (empty((grid[0], columns), wide(dtype)) for _ in range(2))
        order = found + _sorted(found, count, size, options)
        sizes = size, columns, scale, add
        TABLES.launch(
            "add_stretches", grid, block, *order, dy, out, heads, tails, *sizes, **options
        )
        TABLES.launch("join_stretches", grid, block, *order, heads, tails, out, *sizes, **options)
        return out

    return dtable


def _sorted(
    ids: tuple[Array | None, Array | None], count: int, size: int, options: Any
) -> tuple[Array, Array, Array]:
    """(order, starts, tiles): the positions of the ids in the order of the ids, and where each id
    begins in that order. A stable counting sort, which waits for nothing.
    """
    chunk = -(-count // (CHUNKS * THREADS)) * THREADS
    chunks, tiles = -(-count // chunk), size // TILE + 1
    counts = cupy().zeros((chunks, size), int32)
    ranks, order = empty((count,), int32), empty((count,), int32)
    starts, bases = empty((size + 1,), int32), empty((tiles,), int32)
    by_id = counts, starts, bases, chunks, size
    shared = 4 * THREADS
    launch = TABLES.launch
    sizes = count, size, chunk
    launch("rank_ids", (chunks,), (THREADS,), *ids, counts, ranks, *sizes, shared=shared, **options)
    launch("add_chunks", (tiles,), (TILE,), *by_id, **options)
    launch("add_tiles", (1,), (TILE,), bases, tiles, **options)
    grid = (-(-count // THREADS),)
    arguments = *ids, counts, ranks, starts, bases, order, *sizes
    launch("sort_positions", grid, (THREADS,), *arguments, **options)
    return order, starts, bases
