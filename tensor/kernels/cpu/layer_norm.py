"""LayerNorm, alone and of a residual sum: what calls layer_norm.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.graph import overwritable
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal
from tensor.memory.devices import Array
from tensor.ops.op import reference_of


def _supports(x: Array, gain: Array, bias: Array, **_: float) -> str | None:
    if x.size == 0 or x.ndim == 0 or gain.shape != x.shape[-1:] or bias.shape != gain.shape:
        return f"shapes {x.shape}, {gain.shape}, {bias.shape}"
    return refusal(x, gain, bias)


def _supports_residual(x: Array, y: Array, gain: Array, bias: Array, **_: float) -> str | None:
    if x.shape != y.shape:
        return f"shapes {x.shape}, {y.shape}"
    return _supports(x, gain, bias) or refusal(y)


@kernel_for("layer_norm", supports=_supports)
def layer_norm_by_rows(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> Any:
    """Mean and 1 / sqrt(variance + eps) of each row are kept beside x."""
    width = x.shape[-1]
    rows = x.size // width
    y, kept = np.empty(x.shape, x.dtype), np.empty((2, rows), x.dtype)
    if library.norm_forward(x, gain, bias, y, kept, rows, width, eps):
        # a variance is not finite: whether it is depends on the order of the sum
        return NotImplemented
    return y, _backward(x, gain, bias, eps, kept)


@kernel_for("residual_layer_norm", supports=_supports_residual)
def residual_layer_norm_by_rows(
    x: Array, y: Array, gain: Array, bias: Array, *, eps: float = 1e-5
) -> Any:
    """s = x + y and its LayerNorm in one pass."""
    width = x.shape[-1]
    rows = x.size // width
    s, n, kept = np.empty_like(x), np.empty_like(x), np.empty((2, rows), x.dtype)
    if library.residual_norm_forward(x, y, s, gain, bias, n, kept, rows, width, eps):
        return NotImplemented
    backward = _backward(s, gain, bias, eps, kept)
    return [
        ("add", (0, 1), s, (lambda ds: ds, lambda ds: ds)),
        ("layer_norm", (4, 2, 3), n, backward),
    ]


def _backward(x: Array, gain: Array, bias: Array, eps: float, kept: Array) -> Any:
    """The backward function of LayerNorm."""
    width = x.shape[-1]

    def backward(dy: Array, *, out: Any = (None,) * 3, add: Any = (False,) * 3) -> Any:
        dy, dx = in_order(dy), np.empty(x.shape, x.dtype)
        dgain = overwritable(out[1], add[1], (width,), x.dtype)
        dbias = overwritable(out[2], add[2], (width,), x.dtype)
        rows = x.size // width
        if library.norm_backward(x, gain, kept, dy, dx, dgain, dbias, rows, width):
            of_all = reference_of("layer_norm")(x, gain, bias, eps=eps)[1]
            dx, dgain[...], dbias[...] = of_all(dy)
        return dx, dgain, dbias

    return backward
