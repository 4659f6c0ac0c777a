"""Matrix products of CuPy arrays through cuBLASLt, by their strides: a transposed operand costs no
copy.

Products of 16-bit floats are summed in float32 and rounded once. Those of float32 are float32's,
or TF32's within `kernels.tf32()`.
"""

from __future__ import annotations

import functools
import math
from typing import TypeAlias

from tensor.dtypes import DType, float32, float64
from tensor.kernels.cuda.cublaslt import (
    ADD_BIAS,
    FLOAT32,
    FLOAT64,
    PLAIN,
    TF32,
    Plan,
    Shape,
    multiply,
    plan,
)
from tensor.kernels.cuda.launch import contiguous, empty
from tensor.kernels.cuda.small_products import Operand, Product, fits
from tensor.kernels.cuda.small_products import multiply as multiply_small
from tensor.memory.devices import Array, cupy
from tensor.mode import MODE

# the shape of an array, and its strides in bytes
Layout: TypeAlias = tuple[tuple[int, ...], tuple[int, ...]]


def product(
    a: Array,
    b: Array,
    out: Array | None = None,
    *,
    add: bool = False,
    bias: Array | None = None,
) -> Array:
    """out = a b + bias, or out += a b with `add`.   a: (..., M, K)   b: (..., K, N)   out:
    (..., M, N)   bias: (N,)

    Leading axes are equal; or b is one matrix, and a, row-major, has rows (..., K). Each operand
    is row-major or a transposed view of a row-major array; other layouts are copied.   out:
    row-major, or a matrix whose rows lie apart; of the same dtype or float32; without it a new
    array.
    """
    if out is None:
        out = empty((*a.shape[:-1], b.shape[-1]), a.dtype)
    if out.size == 0 or a.size == 0:
        if not add:
            out[...] = 0 if bias is None else bias
        return out
    if bias is not None:
        bias = contiguous(bias)
    if a.dtype == float32 and b.ndim == 2:
        rows, results = (x if x.ndim == 2 else rows_of(x) for x in (a, out))
        if out._c_contiguous and fits(rows, b, out, bias):
            multiply_small(Product(Operand(rows), Operand(b), results, bias, add=add))
            return out
    layouts = (a.shape, a.strides) if a.ndim == b.ndim else _flat(a), (b.shape, b.strides)
    if not _queued(a, b, out, layouts, add, bias):
        a, b = cupy().ascontiguousarray(a), cupy().ascontiguousarray(b)
        return product(a, b, out, add=add, bias=bias)
    return out


def product_over_rows(a: Array, b: Array, out: Array | None = None, *, add: bool = False) -> Array:
    """out = a^T b, or out += a^T b with `add`: the sum over all rows.   a: (..., M)   b: (..., N),
    both row-major   out: (M, N)
    """
    if out is None:
        out = empty((a.shape[-1], b.shape[-1]), a.dtype)
    if out.size == 0 or a.size == 0:
        if not add:
            out[...] = 0
        return out
    if a.dtype == float32:
        left, right = rows_of(a).T, rows_of(b)
        if fits(left, right, out):
            multiply_small(Product(Operand(left), Operand(right), out, add=add))
            return out
    (rows, columns), (down, across) = _flat(a)
    _queued(a, b, out, (((columns, rows), (across, down)), _flat(b)), add, None)
    return out


def rows_of(x: Array) -> Array:
    """A row-major array as a matrix of all its rows."""
    return x.reshape(-1, x.shape[-1])


def _queued(
    a: Array,
    b: Array,
    out: Array,
    layouts: tuple[Layout, Layout],
    add: bool,
    bias: Array | None,
) -> bool:
    """Queue the product of arrays that lie so. False, and nothing done, where cuBLASLt cannot."""
    a_at, b_at, out_at = a.data.ptr, b.data.ptr, out.data.ptr
    bias_at, epilogue = (0, PLAIN) if bias is None else (bias.data.ptr, ADD_BIAS)
    dtype = a.dtype
    compute = FLOAT32 if dtype.itemsize == 2 else _compute(dtype)
    types = dtype, out.dtype, compute, epilogue
    together = 256 | a_at | b_at | out_at | bias_at
    # the largest power of two, at most 256, that divides all addresses
    alignment = together & -together
    leading = out.shape[-1] if out._c_contiguous else out.strides[0] // out.itemsize
    planned = _planned(cupy().cuda.runtime.getDevice(), layouts, leading, types, alignment)
    if planned is None:
        return False
    # a row-major array is its transpose in column-major order: D^T = B^T A^T
    multiply(planned, b_at, a_at, out_at, add, bias_at)
    return True


def _flat(x: Array) -> Layout:
    """The layout of a row-major array as a matrix of all its rows."""
    columns, size = x.shape[-1], x.itemsize
    return (x.size // columns, columns), (columns * size, size)


@functools.lru_cache(maxsize=4096)
def _planned(
    device: int,
    layouts: tuple[Layout, Layout],
    leading: int,
    types: tuple[DType, DType, int, int],
    alignment: int,
) -> Plan | None:
    """The plan of a product of arrays that lie so; None where one must be copied first.

    layouts: of a and b   leading: numbers from a row of the result to the next   types: of the
    operands, of the result, of the sums, and the epilogue
    """
    (a_shape, _), (b_shape, _) = layouts
    left, right = (_readable(*layout, types[0].itemsize) for layout in layouts)
    if left is None or right is None:
        return None
    n, k, m = a_shape[-2], a_shape[-1], b_shape[-1]
    found = Shape(
        m,
        n,
        k,
        (right[0], left[0]),
        (right[1], left[1], leading),
        *types,
        alignment,
        math.prod(a_shape[:-2]),
        (right[2], left[2], n * m),
    )
    return plan(device, found)


def _compute(dtype: DType) -> int:
    if dtype == float32 and MODE.get().tf32:
        return TF32
    return FLOAT64 if dtype == float64 else FLOAT32


def _readable(
    shape: tuple[int, ...], strides: tuple[int, ...], size: int
) -> tuple[bool, int, int] | None:
    """(whether columns, not rows, lie in one piece; elements from a row, or a column, to the next
    one; elements from a matrix to the next one). None for an array that cuBLASLt cannot read.
    """
    rows, columns = shape[-2:]
    down, across = strides[-2:]
    stride = _one_stride(shape[:-2], strides[:-2])
    if stride is None:
        return None
    if (across == size or columns == 1) and (down >= columns * size or rows == 1):
        return False, max(down // size, columns), stride // size
    if (down == size or rows == 1) and (across >= rows * size or columns == 1):
        return True, max(across // size, rows), stride // size
    return None


def _one_stride(sizes: tuple[int, ...], strides: tuple[int, ...]) -> int | None:
    """The bytes from a matrix to the next one, where one number says that of all leading axes."""
    stride, expected = 0, None
    for size, given in zip(reversed(sizes), reversed(strides), strict=True):
        if size == 1:
            continue
        if expected is None:
            stride = given
        elif given != expected:
            return None
        expected = given * size
    return stride
