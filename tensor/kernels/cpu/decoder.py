"""A decoder's pass over new tokens with a cache, as one call: what calls decoder.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.dtypes import float32, int8, int64
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array

# as in decoder.c
FLAGS = {"pre_norm": 1, "relu": 2, "biases": 4, "tied": 8, "last": 16}


def rounded(parameters: tuple[Array, ...], scales: tuple[Array, ...]) -> list[Array]:
    """The parameters that have scales."""
    return [array for array, scale in zip(parameters, scales, strict=True) if array is not scale]


@kernel_for(
    "decode",
    supports=lambda ids, keys, values, seen, rows, parameters, scales, *, activation, **_: (
        refusal(ids, seen, rows, dtype=int64)
        or refusal(keys, values, *scales)
        or refusal(*rounded(parameters, scales), dtype=int8)
        or (None if activation in ("gelu", "relu") else f"activation {activation}")
    ),
)
def decode_in_one_call(
    ids: Array,
    keys: Array,
    values: Array,
    seen: Array,
    rows: Array,
    parameters: tuple[Array, ...],
    scales: tuple[Array, ...],
    *,
    activation: str,
    eps: float,
    scale: float,
    last: bool,
    **choices: bool,
) -> Any:
    """The logits of new tokens. The tokens join the cache, which does not count them yet.
    NotImplemented where a logit is not finite.

    ids: (B, T)   keys, values: (rows, layers, H, context, D)   seen: (rows,)   rows: (B,), those
    that the tokens are for   logits: (B, T, V), or (B, 1, V) with `last`
    parameters: token and position table, 12 of each block (gain, bias, weight, bias, ... in the
    order of use; any array for a bias that is not there), gain and bias of the last norm, head
    scales: of each parameter that is rounded to int8, (outputs, inputs), its scales (outputs,);
    elsewhere the parameter itself
    scale: of the token embeddings   choices: names of FLAGS
    """
    (B, T), (_, layers, H, context, D) = ids.shape, keys.shape
    logits = np.empty((B, 1 if last else T, len(parameters[0])), float32)
    sizes = B, T, layers, H, D, context, logits.shape[-1]
    choices |= {"last": last, "relu": activation == "relu"}
    flags = sum(FLAGS[name] * on for name, on in choices.items())
    strange = library.decode(
        ids, parameters, scales, keys, values, seen, rows, logits, *sizes, flags, eps, scale
    )
    return NotImplemented if strange else logits
