"""Token + position embedding: what calls embedding.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.dtypes import int64
from tensor.graph import overwritable
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal
from tensor.memory.devices import Array


def _supports(ids: Array, tokens: Array, positions: Array, **_: float) -> str | None:
    if ids.dtype != int64 or ids.ndim != 2 or ids.size == 0:
        return f"ids {ids.shape} {ids.dtype}"
    tables = tokens.ndim == positions.ndim == 2 and tokens.shape[1] == positions.shape[1]
    if not tables or len(positions) < ids.shape[1]:
        return f"tables {tokens.shape}, {positions.shape} for ids {ids.shape}"
    return refusal(ids, dtype=int64) or refusal(tokens, positions)


@kernel_for("positional_embedding", supports=_supports)
def positional_embedding_by_rows(
    ids: Array, tokens: Array, positions: Array, *, scale: float = 1.0
) -> Any:
    """y[b, t] = scale * tokens[ids[b, t]] + positions[t] in one pass; dtokens adds the rows of
    scale * dy, into the buffer where there is one.
    """
    (B, T), (V, C), context = ids.shape, tokens.shape, len(positions)
    dtype = tokens.dtype
    y = np.empty((B, T, C), dtype)
    if library.embed_forward(ids, tokens, positions, y, B * T, T, C, V, scale):
        return NotImplemented  # an id out of range: the composition says which

    def dtokens(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        if out is None:
            out = np.zeros((V, C), dtype)
        elif not add:
            out[...] = 0
        library.add_rows(ids, in_order(dy), out, B * T, C, V, scale)
        return out

    def dpositions(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        out = overwritable(out, add, (context, C), dtype)
        out[T:] = 0
        library.column_sums(in_order(dy), out, B, T * C)  # its first T rows
        return out

    return y, (None, dtokens, dpositions)
