"""Muon's update of all matrices in one call: what calls muon.c."""

from __future__ import annotations

from tensor.devices import Array
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal


@kernel_for("muon", device="cpu", supports=lambda w, g, u, places: refusal(w, g, u) if w.flags.writeable else "read-only")
def muon_by_matrices(w: Array, g: Array, u: Array, places: Array, *, lr: float, momentum: float, nesterov: bool, steps: int, keep: float) -> None:
    """w, g, u: flat, with matrices at `places`, (count, 3): start, inputs, outputs. Each matrix by one thread."""
    library.muon(w, g, u, places, len(places), lr, momentum, keep, nesterov, steps)
