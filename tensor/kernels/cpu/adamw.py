"""AdamW, and the norm and scaling of gradients: what calls adamw.c."""

from __future__ import annotations

from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array


def _supports(w: Array, g: Array) -> str | None:
    return refusal(w, g) if w.flags.writeable else "read-only"


@kernel_for("adamw", device="cpu", supports=_supports)
def adamw_in_one_pass(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    b1: float,
    b2: float,
    step_size: float,
    bias_correction: float,
    eps: float,
    decay: float,
) -> None:
    """w, g, m, v read once and written once."""
    library.adamw(w, g, m, v, w.size, b1, b2, step_size, bias_correction, eps, decay)


@kernel_for("squared_norm", device="cpu", supports=refusal)
def squared_norm_of_all(g: Array) -> float:
    """Summed in float64."""
    return float(library.squared_norm(g, g.size))


@kernel_for("scale", device="cpu", supports=lambda g, factor: _supports(g, g))
def scale_of_all(g: Array, factor: float) -> None:
    """g *= factor"""
    library.scale_all(g, g.size, factor)
