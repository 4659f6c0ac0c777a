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

    def backward(dy: Array, *, out: Any = (None,) * 3, add: Any = (False,) * 3) -> Any:
        return _gradients(x, gain, bias, eps, kept, dy, None, out, add)

    return y, backward


@kernel_for("residual_layer_norm", supports=_supports_residual)
def residual_layer_norm_by_rows(
    x: Array, y: Array, gain: Array, bias: Array, *, eps: float = 1e-5
) -> Any:
    """s = x + y and its LayerNorm in one pass; so too backward, which adds the gradient of s."""
    width = x.shape[-1]
    rows = x.size // width
    s, normed, kept = np.empty_like(x), np.empty_like(x), np.empty((2, rows), x.dtype)
    if library.residual_norm_forward(x, y, s, gain, bias, normed, kept, rows, width, eps):
        return NotImplemented

    def backward(ds: Any, dn: Any, *, out: Any = (None,) * 4, add: Any = (False,) * 4) -> Any:
        if dn is None:
            return ds, ds, None, None
        gradients = _gradients(s, gain, bias, eps, kept, dn, ds, out[1:], add[1:])
        return gradients[0], *gradients

    return (s, normed), backward


def _gradients(
    s: Array,
    gain: Array,
    bias: Array,
    eps: float,
    kept: Array,
    dn: Array,
    ds: Array | None,
    out: Any,
    add: Any,
) -> tuple[Array, Array, Array]:
    """Of s, gain and bias, from dn, the gradient of the norm, and ds, which came for s itself."""
    width, dn, ds = s.shape[-1], in_order(dn), None if ds is None else in_order(ds)
    dx = np.empty(s.shape, s.dtype)
    dgain = overwritable(out[1], add[1], (width,), s.dtype)
    dbias = overwritable(out[2], add[2], (width,), s.dtype)
    sizes = s.size // width, width, ds is not None
    if library.norm_backward(s, gain, kept, dn, dn if ds is None else ds, dx, dgain, dbias, *sizes):
        dx, dgain[...], dbias[...] = reference_of("layer_norm")(s, gain, bias, eps=eps)[1](dn)
        dx = dx if ds is None else dx + ds
    return dx, dgain, dbias
