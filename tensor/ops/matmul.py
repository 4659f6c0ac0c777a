"""Matrix products. NumPy and BLAS walk the strides themselves: a transposed operand costs no copy."""

from __future__ import annotations

from typing import Any

from tensor.devices import Array
from tensor.errors import ShapeError
from tensor.op import compute_op, sum_to


@compute_op
def matmul(a: Array, b: Array) -> Any:
    """y = a b,   da = dy b^T,   db = a^T dy.

    a: (..., M, K)   b: (..., K, N)   y: (..., M, N); leading axes broadcast. A 1-D a is one row, a 1-D b one column, and that axis
    is left out of y.   Raises ShapeError naming the two inner sizes.
    """
    if a.ndim == 0 or b.ndim == 0 or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ShapeError(f"matmul of {a.shape} and {b.shape}: the last axis of the first must equal the {'second last' if b.ndim > 1 else 'only'} axis of the second")
    a_shape, b_shape = a.shape, b.shape
    left = a[None, :] if a.ndim == 1 else a  # (..., M, K)
    right = b[:, None] if b.ndim == 1 else b  # (..., K, N)
    rows, columns = left.shape, right.shape
    y = left @ right
    full = y.shape  # (..., M, N)
    if b.ndim == 1:
        y = y[..., 0]
    if a.ndim == 1:
        y = y[..., 0] if b.ndim == 1 else y[..., 0, :]

    def da(dy: Array) -> Array:
        return sum_to(rows)(dy.reshape(full) @ right.swapaxes(-1, -2)).reshape(a_shape)

    def db(dy: Array) -> Array:
        return sum_to(columns)(left.swapaxes(-1, -2) @ dy.reshape(full)).reshape(b_shape)

    return y, (da, db)
