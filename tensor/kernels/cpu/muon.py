"""Muon's update of all matrices in one call: what calls muon.c."""

from __future__ import annotations

from tensor.kernels import kernel_for
from tensor.kernels.cpu.adamw import updatable
from tensor.kernels.cpu.compiled import library
from tensor.memory.devices import Array


@kernel_for("muon", supports=lambda w, g, u, slots: updatable(w, g, u))
def muon_by_matrices(w: Array, g: Array, u: Array, slots: Array, **numbers: float) -> None:
    """w, g, u: flat, with matrices at `slots`, (count, 3): start, inputs, outputs. Each matrix by
    one thread. The numbers of the update come in its order.
    """
    library.muon(w, g, u, slots, len(slots), *numbers.values())
