"""GELU: what calls gelu.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal
from tensor.memory.devices import Array


def _supports(x: Array, form: str = "tanh") -> str | None:
    if form != "tanh":
        return f"form {form!r}: only the tanh form has a short cut"
    return refusal(x) if x.size else "no elements"


@kernel_for("gelu", supports=_supports)
def gelu_without_tanh(x: Array, form: str = "tanh") -> Any:
    """y = x / (1 + e^(-2u)), and its gradient."""
    width = x.shape[-1] if x.ndim else 1
    rows, y = x.size // width, np.empty(x.shape, x.dtype)
    library.gelu_forward(x, y, rows, width)

    def dx(dy: Array) -> Array:
        dx = np.empty(x.shape, x.dtype)
        library.gelu_backward(x, in_order(dy), dx, rows, width)
        return dx

    return y, (dx,)
