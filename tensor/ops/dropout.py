"""Dropout: elements left out at random, by a mask that a key alone decides."""

from __future__ import annotations

from typing import Any

from tensor.errors import OptionError
from tensor.memory.devices import Array
from tensor.ops.op import compute_op
from tensor.random import Key, keep_mask


@compute_op
def dropout(x: Array, p: float, *, key: Key) -> Any:
    """y = x * mask / (1 - p), mask 0 with probability p, else 1;   dx = dy * mask / (1 - p).
    Srivastava et al. 2014

    x: (samples, ...).   The mask of sample i depends on the key and i alone (random.Key), so it is
    the same however the batch is split,
    on every device and when recomputed.   p = 1 gives zeros.   Raises ValueError for p outside [0,
    1].
    """
    factor = scaled_mask(x, p, key)
    return x * factor, (lambda dy: dy * factor,)


def scaled_mask(x: Array, p: float, key: Key | None) -> Array:
    """0 with probability p, else 1 / (1 - p), in x's shape and dtype."""
    if key is None:
        raise OptionError("dropout needs a key: random.Key(seed, step, module, sample)")
    if not 0 <= p <= 1:
        raise OptionError(f"dropout p={p}: a probability between 0 and 1")
    return keep_mask(x, p, key).astype(x.dtype) * (1 / (1 - p) if p < 1 else 0.0)
