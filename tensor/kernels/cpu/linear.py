"""The linear layer, alone and with GELU: what calls product.c, sums.c and gelu.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.devices import Array
from tensor.graph import Room, new_or_room
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import in_order, library, refusal


def _supports(x: Array, weight: Array, bias: Array | None = None, *, transposed: bool = False) -> str | None:
    if x.size == 0 or x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[transposed]:
        return f"shapes {x.shape}, {weight.shape}"
    outputs = weight.shape[not transposed]
    if outputs == 0 or (bias is not None and bias.shape != (outputs,)):
        return f"shapes {weight.shape}, {bias.shape if bias is not None else None}"
    return refusal(x, weight) if bias is None else refusal(x, weight, bias)


def _dweight(x: Array, dy: Array, shape: Any, rows: int, inputs: int, outputs: int, transposed: bool, room: Room | None) -> Array:
    """x^T dy, written or added straight into its room where there is one."""
    out = np.empty(shape, x.dtype) if room is None else room.array
    library.linear_dweight(x, dy, out, rows, inputs, outputs, transposed, room is not None and room.add)
    return out


@kernel_for("linear", device="cpu", supports=_supports)
def linear_by_bands(x: Array, weight: Array, bias: Array | None = None, *, transposed: bool = False) -> Any:
    """y = x weight + bias in bands of the result, a band a thread; the bias is added while a band is in the cache."""
    shape, lead, outputs = weight.shape, x.shape[:-1], weight.shape[not transposed]
    inputs = x.shape[-1]
    rows = x.size // inputs
    y = np.empty((*lead, outputs), x.dtype)
    library.linear_forward(x, weight, y if bias is None else bias, y, rows, inputs, outputs, transposed, bias is not None)

    def dx(dy: Array) -> Array:
        dx = np.empty((*lead, inputs), dy.dtype)
        library.linear_dx(in_order(dy), weight, dx, rows, inputs, outputs, transposed)
        return dx

    def dweight(dy: Array, *, into: Room | None = None) -> Array:
        return _dweight(x, in_order(dy), shape, rows, inputs, outputs, transposed, into)

    def dbias(dy: Array, *, into: Room | None = None) -> Array:
        dbias = new_or_room(into, (outputs,), dy.dtype)
        library.column_sums(in_order(dy), dbias, rows, outputs)
        return dbias

    return y, (dx, dweight, None if bias is None else dbias)


@kernel_for("linear_gelu", device="cpu", supports=_supports)
def linear_gelu_by_bands(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """h = x weight + bias,  y = gelu(h): bias and GELU while a band is in the cache. Backward makes dh and sums it for dbias in one pass."""
    (inputs, outputs), shape = weight.shape, x.shape
    rows = x.size // inputs
    h, y = np.empty((rows, outputs), x.dtype), np.empty((*shape[:-1], outputs), x.dtype)
    library.linear_gelu_forward(x, weight, h if bias is None else bias, h, y, rows, inputs, outputs, bias is not None)
    has_bias = bias is not None

    def backward(dy: Array, *, into: Any = (None, None, None)) -> tuple[Array | None, ...]:
        dh, dbias, dx = np.empty_like(h), new_or_room(into[2], (outputs,), h.dtype) if has_bias else None, np.empty(shape, h.dtype)
        dy = in_order(dy)
        if has_bias:
            library.gelu_backward_sums(h, dy, dh, dbias, rows, outputs)
        else:
            library.gelu_backward(h, dy, dh, rows, outputs)
        library.linear_dx(dh, weight, dx, rows, inputs, outputs, False)
        return dx, _dweight(x, dh, (inputs, outputs), rows, inputs, outputs, False, into[1]), dbias

    return y, backward
