"""Random bits: what calls random.c."""

from __future__ import annotations

from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array
from tensor.random import Key


@kernel_for("random_bits", supports=lambda bits, key: refusal())
def random_bits_by_lanes(bits: Array, key: Key) -> None:
    """The same words as the reference's, 16 counters side by side, into `bits` (rows, columns)."""
    # C takes the low 32 bits of each number
    library.random_bits(bits, *bits.shape, *key, key.seed >> 32)
