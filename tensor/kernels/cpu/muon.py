"""Muon's update of all matrices in one call: what calls muon.c."""

from __future__ import annotations

from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array


@kernel_for(
    "muon",
    device="cpu",
    supports=lambda w, g, u, slots: refusal(w, g, u) if w.flags.writeable else "read-only",
)
def muon_by_matrices(
    w: Array,
    g: Array,
    u: Array,
    slots: Array,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    steps: int,
    decay: float,
) -> None:
    """w, g, u: flat, with matrices at `slots`, (count, 3): start, inputs, outputs. Each matrix by
    one thread.
    """
    library.muon(w, g, u, slots, len(slots), lr, momentum, decay, nesterov, steps)
