"""Updates of AdamW and Muon, the norm and scaling of gradients: what calls adamw.c and muon.c."""

from __future__ import annotations

from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array


def updatable(w: Array, *others: Array, **_: float) -> str | None:
    """Why C cannot write w in place."""
    return refusal(w, *others) if w.flags.writeable else "read-only"


@kernel_for("adamw", supports=updatable)
def adamw_in_one_pass(w: Array, g: Array, m: Array, v: Array, **numbers: float) -> None:
    """w, g, m, v read once and written once. The numbers of the update come in its order."""
    library.adamw(w, g, m, v, w.size, *numbers.values())


@kernel_for("muon", supports=lambda w, g, u, slots: updatable(w, g, u))
def muon_by_matrices(w: Array, g: Array, u: Array, slots: Array, **numbers: float) -> None:
    """w, g, u: flat, with matrices at `slots`, (count, 3): start, inputs, outputs. Each matrix by
    one thread. The numbers of the update come in its order.
    """
    library.muon(w, g, u, slots, len(slots), *numbers.values())


@kernel_for("squared_norm", supports=refusal)
def squared_norm_of_all(g: Array) -> float:
    """Summed in float64."""
    return float(library.squared_norm(g, g.size))


@kernel_for("scale", supports=lambda g, factor: updatable(g))
def scale_of_all(g: Array, factor: float) -> None:
    """g *= factor"""
    library.scale_all(g, g.size, factor)
