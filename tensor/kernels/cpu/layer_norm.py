"""LayerNorm, alone and of a residual sum: what calls layer_norm.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.graph import overwritable
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal
from tensor.memory.devices import Array
from tensor.ops.op import reference_of


def _supports(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> str | None:
    if x.size == 0 or x.ndim == 0 or gain.shape != x.shape[-1:] or bias.shape != gain.shape:
        return f"shapes {x.shape}, {gain.shape}, {bias.shape}"
    return refusal(x, gain, bias)


def _supports_residual(
    x: Array, y: Array, gain: Array, bias: Array, *, eps: float = 1e-5
) -> str | None:
    if x.shape != y.shape:
        return f"shapes {x.shape}, {y.shape}"
    return _supports(x, gain, bias) or refusal(y)


@kernel_for("layer_norm", device="cpu", supports=_supports)
def layer_norm_by_rows(x: Array, gain: Array, bias: Array, *, eps: float = 1e-5) -> Any:
    """Mean and 1 / sqrt(variance + eps) of each row are kept beside x."""
    width = x.shape[-1]
    rows = x.size // width
    y, mean, scale = np.empty(x.shape, x.dtype), np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    if library.norm_forward(x, gain, bias, y, mean, scale, rows, width, eps):
        # a variance is not finite: whether it is depends on the order of the sum
        return NotImplemented

    def backward(dy: Array, *, out: Any = (None,) * 3, add: Any = (False,) * 3) -> Any:
        dy, dx = in_order(dy), np.empty(x.shape, x.dtype)
        dgain = overwritable(out[1], add[1], (width,), x.dtype)
        dbias = overwritable(out[2], add[2], (width,), x.dtype)
        if library.norm_backward(x, gain, mean, scale, dy, dx, dgain, dbias, rows, width):
            dx, dgain[...], dbias[...] = reference_of("layer_norm")(x, gain, bias, eps=eps)[1](dy)
        return dx, dgain, dbias

    return y, backward


@kernel_for("residual_layer_norm", device="cpu", supports=_supports_residual)
def residual_layer_norm_by_rows(
    x: Array, y: Array, gain: Array, bias: Array, *, eps: float = 1e-5
) -> Any:
    """s = x + y and its LayerNorm in one pass; so too backward, which adds the gradient of s."""
    width = x.shape[-1]
    rows = x.size // width
    s, normed = np.empty(x.shape, x.dtype), np.empty(x.shape, x.dtype)
    mean, scale = np.empty(rows, x.dtype), np.empty(rows, x.dtype)
    if library.residual_norm_forward(x, y, s, gain, bias, normed, mean, scale, rows, width, eps):
        return NotImplemented

    def backward(ds: Any, dn: Any, *, out: Any = (None,) * 4, add: Any = (False,) * 4) -> Any:
        if dn is None:
            return ds, ds, None, None
        dx = np.empty(s.shape, s.dtype)
        dgain = overwritable(out[2], add[2], (width,), s.dtype)
        dbias = overwritable(out[3], add[3], (width,), s.dtype)
        dn = in_order(dn)
        if ds is None:
            strange = library.norm_backward(s, gain, mean, scale, dn, dx, dgain, dbias, rows, width)
        else:
            strange = library.residual_norm_backward(
                s, gain, mean, scale, dn, in_order(ds), dx, dgain, dbias, rows, width
            )
        if strange:
            dx, dgain[...], dbias[...] = reference_of("layer_norm")(s, gain, bias, eps=eps)[1](dn)
            dx = dx if ds is None else dx + ds
        return dx, dx, dgain, dbias

    return (s, normed), backward
