"""Matrix products of CuPy arrays through cuBLASLt, by their strides: a transposed operand costs no
copy.

Products of 16-bit floats are summed in float32 and rounded once. Those of float32 are float32's,
or TF32's within `kernels.tf32()`.
"""

from __future__ import annotations

import math
from typing import Any

from tensor.dtypes import DType, float32, float64
from tensor.kernels.cuda.cublaslt import ADD_BIAS, FLOAT32, FLOAT64, PLAIN, TF32, Shape, multiply
from tensor.memory.devices import Array, cupy
from tensor.mode import MODE


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

    Leading axes are equal. Each operand is row-major or a transposed view of a row-major array;
    other layouts are copied. out: row-major, of the same dtype or float32; without it a new array.
    """
    shape = *a.shape[:-1], b.shape[-1]
    if out is None:
        out = cupy().empty(shape, a.dtype)
    m, n, k = b.shape[-1], a.shape[-2], a.shape[-1]
    if 0 in (m, n, k, out.size):
        return _empty(out, add, bias)
    # a row-major array is its transpose in column-major order: D^T = B^T A^T
    b, b_transposed, b_leading, b_stride = _readable(b)
    a, a_transposed, a_leading, a_stride = _readable(a)
    addresses = b.data.ptr, a.data.ptr, out.data.ptr, 0 if bias is None else bias.data.ptr
    found = Shape(
        m,
        n,
        k,
        (b_transposed, a_transposed),
        (b_leading, a_leading, m),
        a.dtype,
        out.dtype,
        _compute(a.dtype),
        PLAIN if bias is None else ADD_BIAS,
        _alignment(addresses),
        math.prod(shape[:-2]),
        (b_stride, a_stride, n * m),
    )
    multiply(found, *addresses[:3], add, addresses[3])
    return out


def _empty(out: Array, add: bool, bias: Array | None) -> Array:
    """The result of a product without a number to sum."""
    if not add:
        out[...] = 0 if bias is None else bias
    return out


def _compute(dtype: DType) -> int:
    if dtype == float32 and MODE.get().tf32:
        return TF32
    return FLOAT64 if dtype == float64 else FLOAT32


def _alignment(addresses: tuple[int, ...]) -> int:
    """The largest power of two, at most 256, that divides all addresses."""
    together = 256
    for address in addresses:
        together |= address
    return together & -together


def _readable(x: Array) -> tuple[Array, bool, int, int]:
    """(x or a copy, whether its columns are what lies side by side, elements from a row, or a
    column, to the next one, elements from a matrix to the next one)
    """
    rows, columns = x.shape[-2:]
    size = x.dtype.itemsize
    *leading, down, across = x.strides
    stride = _one_stride(x.shape[:-2], leading)
    if stride is not None:
        if (across == size or columns == 1) and (down >= columns * size or rows == 1):
            return x, False, max(down // size, columns), stride // size
        if (down == size or rows == 1) and (across >= rows * size or columns == 1):
            return x, True, max(across // size, rows), stride // size
    copy = cupy().ascontiguousarray(x)
    return copy, False, columns, rows * columns


def _one_stride(sizes: tuple[int, ...], strides: Any) -> int | None:
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
