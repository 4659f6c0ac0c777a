"""The linear layer and GELU, alone and together: what calls product.c, sums.c and gelu.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.graph import overwritable
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal
from tensor.memory.devices import Array


def _supports(
    x: Array, weight: Array, bias: Array | None = None, *, transposed: bool = False
) -> str | None:
    if x.size == 0 or x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[transposed]:
        return f"shapes {x.shape}, {weight.shape}"
    outputs = weight.shape[not transposed]
    if outputs == 0 or (bias is not None and bias.shape != (outputs,)):
        return f"shapes {weight.shape}, {bias.shape if bias is not None else None}"
    return refusal(x, weight) if bias is None else refusal(x, weight, bias)


@kernel_for("linear", supports=_supports)
def linear_by_bands(
    x: Array, weight: Array, bias: Array | None = None, *, transposed: bool = False
) -> Any:
    """y = x weight + bias in bands of the result, a band a thread; the bias is added while a band
    is in the cache.
    """
    shape, lead, outputs = weight.shape, x.shape[:-1], weight.shape[not transposed]
    inputs = x.shape[-1]
    rows = x.size // inputs
    sizes = rows, inputs, outputs, transposed
    y = np.empty((*lead, outputs), x.dtype)
    library.linear_forward(x, weight, y if bias is None else bias, y, *sizes, bias is not None)

    def dx(dy: Array) -> Array:
        dx = np.empty((*lead, inputs), dy.dtype)
        library.linear_dx(in_order(dy), weight, dx, *sizes)
        return dx

    def dweight(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        out = np.empty(shape, x.dtype) if out is None else out
        library.linear_dweight(x, in_order(dy), out, *sizes, add)
        return out

    def dbias(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        dbias = overwritable(out, add, (outputs,), dy.dtype)
        library.column_sums(in_order(dy), dbias, rows, outputs)
        return dbias

    return y, (dx, dweight, None if bias is None else dbias)


@kernel_for("linear_gelu", supports=_supports)
def linear_gelu_by_bands(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """h = x weight + bias,  y = gelu(h): bias and GELU while a band is in the cache. Backward makes
    dh and sums it for dbias in one pass.
    """
    (inputs, outputs), shape, has_bias = weight.shape, x.shape, bias is not None
    rows = x.size // inputs
    h, y = np.empty((rows, outputs), x.dtype), np.empty((*shape[:-1], outputs), x.dtype)
    library.linear_gelu_forward(
        x, weight, bias if has_bias else h, h, y, rows, inputs, outputs, has_bias
    )

    def backward(dy: Array, *, out: Any = (None,) * 3, add: Any = (False,) * 3) -> Any:
        dy, dh, dx, dbias = in_order(dy), np.empty_like(h), np.empty(shape, h.dtype), None
        if has_bias:
            dbias = overwritable(out[2], add[2], (outputs,), h.dtype)
            library.gelu_backward_sums(h, dy, dh, dbias, rows, outputs)
        else:
            library.gelu_backward(h, dy, dh, rows, outputs)
        library.linear_dx(dh, weight, dx, rows, inputs, outputs, False)
        dweight = np.empty((inputs, outputs), h.dtype) if out[1] is None else out[1]
        library.linear_dweight(x, dh, dweight, rows, inputs, outputs, False, add[1])
        return dx, dweight, dbias

    return y, backward


def _supports_gelu(x: Array, form: str = "tanh") -> str | None:
    if form != "tanh":
        return f"form {form!r}: only the tanh form has a short cut"
    return refusal(x) if x.size else "no elements"


@kernel_for("gelu", supports=_supports_gelu)
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
