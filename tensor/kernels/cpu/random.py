"""Random bits: what calls random.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array
from tensor.random import Key


@kernel_for("random_bits", supports=lambda rows, columns, key, xp: refusal())
def random_bits_by_lanes(rows: int, columns: int, key: Key, xp: Any) -> Array:
    """The same words as the reference's, 16 counters side by side."""
    out = np.empty((rows, columns), np.uint32)
    # C takes the low 32 bits of each number
    library.random_bits(out, rows, columns, *key, key.seed >> 32)
    return out
