"""A decoder's pass over new tokens with a cache, as one call: what calls decoder.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.dtypes import float32, int64
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array

NORM_FIRST, RELU, BIASES, TURNED_HEAD, LAST = 1, 2, 4, 8, 16


def _supports(
    ids: Array,
    keys: Array,
    values: Array,
    seen: Array,
    rows: Array,
    parameters: tuple[Array, ...],
    **_: bool | float,
) -> str | None:
    return refusal(ids, seen, rows, dtype=int64) or refusal(keys, values, *parameters)


@kernel_for("decode", device="cpu", supports=_supports)
def decode_in_one_call(
    ids: Array,
    keys: Array,
    values: Array,
    seen: Array,
    rows: Array,
    parameters: tuple[Array, ...],
    *,
    pre_norm: bool,
    relu: bool,
    biases: bool,
    tied: bool,
    last: bool,
    eps: float,
) -> Any:
    """The logits of new tokens, which join the cache; it does not count them yet. NotImplemented
    where a logit is not finite.

    ids: (B, T)   keys, values: (rows, layers, H, context, D)   seen: (rows,)   rows: (B,), those
    that the tokens are for
    logits: (B, T, V), or (B, 1, V) with `last`
    parameters: token and position table, 12 of each block (gain, bias, weight, bias, ... in the
    order of use; any array for a bias that is not there),
    gain and bias of the last norm, head
    """
    (B, T), (_, layers, H, context, D) = ids.shape, keys.shape
    vocabulary = len(parameters[0])
    logits = np.empty((B, 1 if last else T, vocabulary), float32)
    flags = NORM_FIRST * pre_norm + RELU * relu + BIASES * biases + TURNED_HEAD * tied + LAST * last
    strange = library.decode(
        ids,
        parameters,
        keys,
        values,
        seen,
        rows,
        logits,
        B,
        T,
        layers,
        H,
        D,
        context,
        vocabulary,
        flags,
        eps,
    )
    return NotImplemented if strange else logits
