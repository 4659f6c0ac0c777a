"""Products and linear layers on the GPU: what calls cuBLASLt, small_products.cu, and the kernels of
GELU and of column sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tensor.dtypes import bfloat16, float16, float32
from tensor.kernels import kernel_for
from tensor.kernels.cuda.cublaslt import unavailable
from tensor.kernels.cuda.gelu import gelu_backward, gelu_backward_sums, gelu_of
from tensor.kernels.cuda.launch import contiguous, empty
from tensor.kernels.cuda.products import product, product_over_rows, rows_of
from tensor.kernels.cuda.small_products import Operand, Product, fits, multiply
from tensor.kernels.cuda.sums import column_sums
from tensor.memory.devices import Array

TYPES = (bfloat16, float16, float32)  # the reference does float64


def _refused(first: Array, *others: Array | None) -> str | None:
    """Why cuBLASLt does not take these arrays; None if it takes them."""
    dtype = first.dtype
    if dtype not in TYPES:
        return f"dtype {dtype}: one of bfloat16, float16, float32 is needed"
    for other in others:
        if other is not None and other.dtype != dtype:
            return f"dtypes {dtype}, {other.dtype}: one dtype is needed"
    return unavailable()


def _supports_matmul(a: Array, b: Array) -> str | None:
    fits = a.ndim == b.ndim >= 2 and a.shape[:-2] == b.shape[:-2] and a.shape[-1] == b.shape[-2]
    return _refused(a, b) if fits else f"shapes {a.shape}, {b.shape}"


@kernel_for("matmul", device="cuda", supports=_supports_matmul)
def matmul_by_cublaslt(a: Array, b: Array) -> Any:
    """y = a b, with 16-bit operands summed in float32."""
    return product(a, b), (
        lambda dy: product(dy, b.swapaxes(-1, -2)),
        lambda dy: product(a.swapaxes(-1, -2), dy),
    )


def _supports(
    x: Array, weight: Array, bias: Array | None = None, *, transposed: bool = False
) -> str | None:
    if x.ndim == 0 or weight.ndim != 2 or x.shape[-1] != weight.shape[transposed]:
        return f"shapes {x.shape}, {weight.shape}"
    outputs = weight.shape[not transposed]
    if bias is not None and bias.shape != (outputs,):
        return f"shapes {weight.shape}, {bias.shape}"
    return _refused(x, weight, bias)


@kernel_for("linear", device="cuda", supports=_supports)
def linear_by_products(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    transposed: bool = False,
    wanted: Sequence[bool] = (True, True, True),
) -> Any:
    """y = x weight + bias, the bias added before the sum is rounded.

    wanted: which inputs want a gradient. Where all do and the product is small, one launch makes
    all gradients.
    """
    x, matrix = contiguous(x), weight.T if transposed else weight
    y = product(x, matrix, bias=bias)

    def dx(dy: Array) -> Array:
        return product(contiguous(dy), matrix.T)

    def dweight(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        left, right = (dy, x) if transposed else (x, dy)
        return product_over_rows(contiguous(left), contiguous(right), out, add=add)

    def dbias(dy: Array, *, out: Array | None = None, add: bool = False) -> Array:
        out = empty(dy.shape[-1:], dy.dtype) if out is None else out
        return column_sums(dy, out, add)

    def backward(dy: Array, *, out: Any = (None,) * 3, add: Any = (False,) * 3) -> Any:
        return _gradients(x, weight, bias, dy, None, out, add)

    if not transposed and all(wanted) and fits(rows_of(x), weight, bias):
        return y, backward
    return y, (dx, dweight, None if bias is None else dbias)


@kernel_for("linear_gelu", device="cuda", supports=_supports)
def linear_gelu_by_products(x: Array, weight: Array, bias: Array | None = None) -> Any:
    """h = x weight + bias,  y = gelu(h). Kept: h, where the composition keeps more."""
    x = contiguous(x)
    small = fits(rows_of(x), weight, bias)
    h = empty((*x.shape[:-1], weight.shape[1]), x.dtype)
    if small:
        y = empty(h.shape, h.dtype)
        row = None if bias is None else contiguous(bias)
        multiply(Product(Operand(rows_of(x)), Operand(weight), rows_of(h), row, rows_of(y)))
    else:
        y = gelu_of(product(x, weight, h, bias=bias))

    def backward(dy: Array, *, out: Any = (None,) * 3, add: Any = (False,) * 3) -> Any:
        if small:
            return _gradients(x, weight, bias, dy, h, out, add)
        if bias is None:
            dh, dbias = gelu_backward(dy, h), None
        else:
            dh, dbias = gelu_backward_sums(dy, h, out[2], add[2])
        dweight = product_over_rows(x, dh, out[1], add=add[1])
        return product(dh, weight.T), dweight, dbias

    return y, backward


def _gradients(
    x: Array,
    weight: Array,
    bias: Array | None,
    dy: Array,
    h: Array | None,
    out: Sequence[Array | None],
    add: Sequence[bool],
) -> tuple[Array, Array, Array | None]:
    """dx, dweight and dbias of small matrices in one launch.   h: with it, dy is the gradient of
    gelu(h), not that of h
    """
    rows, dx = rows_of(x), empty(x.shape, x.dtype)
    dweight = empty(weight.shape, weight.dtype) if out[1] is None else out[1]
    dbias = None
    if bias is not None:
        dbias = empty(bias.shape, bias.dtype) if out[2] is None else out[2]
    upstream = Operand(rows_of(contiguous(dy)), None if h is None else rows_of(h))
    to_weight = Product(Operand(rows.T), upstream, dweight, add=add[1])
    if bias is not None:
        to_weight = to_weight._replace(sums=dbias, add_sums=add[2])
    multiply(Product(upstream, Operand(weight.T), rows_of(dx)), to_weight)
    return dx, dweight, dbias
