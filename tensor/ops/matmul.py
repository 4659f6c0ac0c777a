"""Matrix products. NumPy and BLAS follow the strides: a transposed operand costs no copy."""

from __future__ import annotations

import math
from typing import Any

from tensor.autograd.broadcast import sum_to
from tensor.errors import ShapeError
from tensor.memory.devices import Array
from tensor.ops.op import compute_op


@compute_op
def matmul(a: Array, b: Array) -> Any:
    """y = a b,   da = dy b^T,   db = a^T dy.

    a: (..., M, K)   b: (..., K, N)   y: (..., M, N); leading axes broadcast. A 1-D a is one row, a
    1-D b one column, and that axis is left out of y.   Raises ShapeError naming the two inner
    sizes.
    """
    if a.ndim == 0 or b.ndim == 0:
        raise ShapeError(
            f"matmul of {a.shape} and {b.shape}: a scalar has no axis to sum over; to scale, use *"
        )
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise _do_not_fit(a, b)
    a_shape, b_shape = a.shape, b.shape
    left = a[None, :] if a.ndim == 1 else a  # (..., M, K)
    right = b[:, None] if b.ndim == 1 else b  # (..., K, N)
    rows, columns = left.shape, right.shape
    try:
        y = left @ right
    except ValueError:  # only the leading axes are left to be wrong
        stacks = f"{left.shape[:-2]} and {right.shape[:-2]}"
        raise ShapeError(
            f"matmul of {a.shape} and {b.shape}: "
            f"the axes before the last two, {stacks}, do not broadcast"
        ) from None
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


def _do_not_fit(a: Array, b: Array) -> ShapeError:
    """Which two sizes differ, and whether b only lies the wrong way round."""
    which, size = ("second last", b.shape[-2]) if b.ndim > 1 else ("only", b.shape[0])
    fits = b.ndim > 1 and a.shape[-1] == b.shape[-1]
    return ShapeError(
        f"matmul of {a.shape} and {b.shape}: the last axis of the first, {a.shape[-1]}, must equal "
        f"the {which} axis of the second, {size}"
        + ". The second one transposed would fit: .mT"
        * fits
    )


@compute_op
def linear(x: Array, weight: Array, bias: Array | None = None, *, transposed: bool = False) -> Any:
    """y = x weight + bias,   dx = dy weight^T,   dweight = x^T dy,   dbias = sum dy.

    x: (..., I)   weight: (I, O), or (O, I) when `transposed`   bias: (O,) or None   y: (..., O).
    One two-dimensional product over all leading axes together: a product for each item of a batch
    is several times slower.
    """
    matrix = weight.T if transposed else weight  # (I, O)
    if matrix.ndim != 2 or x.ndim == 0 or x.shape[-1] != matrix.shape[0]:
        raise _no_product(x, weight, transposed)
    inputs, outputs = matrix.shape
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(
            f"linear of x {x.shape}: bias {bias.shape} must be ({outputs},), "
            f"a number for each output of weight {weight.shape}"
        )
    # N: not -1, which an axis of size 0 leaves open
    shape, count = x.shape, math.prod(x.shape[:-1])
    rows = x.reshape(count, inputs)  # (N, I)
    y = rows @ matrix  # (N, O)
    if bias is not None:
        y += bias

    def dweight(dy: Array) -> Array:
        dy = dy.reshape(count, outputs)
        return dy.T @ rows if transposed else rows.T @ dy

    return y.reshape(*shape[:-1], outputs), (
        lambda dy: (dy.reshape(count, outputs) @ matrix.T).reshape(shape),
        dweight,
        None if bias is None else lambda dy: dy.reshape(count, outputs).sum(0),
    )


def _no_product(x: Array, weight: Array, transposed: bool) -> ShapeError:
    """What linear was given, and the weight that it needs."""
    wanted = x.shape[-1] if x.ndim else "inputs"
    needed = f"(outputs, {wanted})" if transposed else f"({wanted}, outputs)"
    takes = f"weight {weight.shape}"
    if x.ndim and weight.ndim == 2:
        takes = f"its last axis has {wanted} numbers, {takes} takes {weight.shape[transposed]}"
    return ShapeError(f"linear of x {x.shape}: {takes}; a weight {needed} is needed")
