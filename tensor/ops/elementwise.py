"""Element by element: y[i] = f(a[i], b[i]). Shapes are equal here; broadcasting happened before,
and its gradient happens after.

Each op returns its result and, for each input, the function that makes that input's gradient from
dy; what a function does not mention is not kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensor.dtypes import float64
from tensor.errors import OptionError
from tensor.memory.devices import Array, is_cuda
from tensor.ops.error_function import bell, error_function
from tensor.ops.inputs import REALS
from tensor.ops.op import Mask, check_float, elementwise_op


def slope(dy: Array, s: Any) -> Array:
    """dy * s, where a dy of 0 gives 0 even if the slope s is infinite or NaN: `where(x > 0, log(x),
    0)` sends 0 to the log it did not take.

    s: an array, a number, or a function that makes the slope. NumPy's warnings of that are off.
    """
    if callable(s):
        with np.errstate(divide="ignore", invalid="ignore"):
            s = s()
    return dy * s if _finite(s) else _taken(dy, lambda: dy * s)


def _finite(s: Any) -> bool:
    """Whether a sum of squares is finite, which is found out fast. Of an array on a GPU, False:
    looking would wait for the device.
    """
    if type(s) in REALS:
        return math.isfinite(s)
    if type(s) is not np.ndarray and is_cuda(s):
        return False
    flat = s.ravel()
    return math.isfinite(flat.dot(flat))


def _taken(dy: Array, dx: Callable[[], Array]) -> Array:
    """dx(), and 0 where dy is 0, without NumPy's warnings."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = dx()
        return found if _finite(found) else np.where(dy == 0, 0, found)


# -- arithmetic


@elementwise_op
def add(a: Array, b: Array) -> Any:
    """y = a + b"""
    return a + b, (lambda dy: dy, lambda dy: dy)


@elementwise_op
def subtract(a: Array, b: Array) -> Any:
    """y = a - b"""
    return a - b, (lambda dy: dy, lambda dy: -dy)


@elementwise_op
def multiply(a: Array, b: Array) -> Any:
    """y = a b,   da = b dy,   db = a dy"""
    return a * b, (lambda dy: slope(dy, b), lambda dy: slope(dy, a))


@elementwise_op
def divide(a: Array, b: Array) -> Any:
    """y = a / b,   da = dy / b,   db = -a dy / b^2.   Integers give floats."""

    # not (1 / b) dy, which a Python 0.0 refuses; not a / b^2: b^2 overflows or vanishes first
    return a / b, (lambda dy: _taken(dy, lambda: dy / b), lambda dy: slope(dy, lambda: -a / b / b))


@elementwise_op
def power(a: Array, b: Array) -> Any:
    """y = a^b,   da = b a^(b-1) dy,   db = ln(a) y dy.   0^0 = 1, where both gradients are 0 by
    choice; a < 0 has no db: NaN.
    """
    # NumPy says so itself, CuPy computes something
    if type(b) is int and b < 0 and a.dtype.kind in "biu":
        raise OptionError(
            f"{a.dtype} to the power {b}: integers to negative integer powers are no integers; "
            "use .to('float32')"
        )
    # int64; of b = 2 alone NumPy's ** would make a square, an int8
    y = np.power(a, b) if type(b) is int and a.dtype == bool else a**b

    def steepness() -> Array:  # b a^(b-1)
        if type(b) in REALS:
            # a^(b-1) may overflow where b y / a does not
            return np.zeros_like(y) if b == 0 else b * (y / a if b < 0 else a ** (b - 1))
        powers = np.power(a, np.subtract(b, 1, dtype=float64))  # b - 1 is not rounded
        return np.where(b == 0, 0, b * powers).astype(y.dtype)

    def growth() -> Array:  # ln(a) y; a may be a Python number, and y may overflow before that
        grown = np.log(a, dtype=float64) * np.power(a, b, dtype=float64)
        return np.where(np.equal(a, 0) & np.greater_equal(b, 0), 0, grown).astype(y.dtype)

    return y, (lambda dy: slope(dy, steepness), lambda dy: slope(dy, growth))


@elementwise_op
def negative(x: Array) -> Any:
    """y = -x"""
    return -x, (lambda dy: -dy,)


@elementwise_op
def abs(x: Array) -> Any:
    """y = |x|,   dx = sign(x) dy, 0 at 0"""
    return np.abs(x), (lambda dy: slope(dy, np.sign(x)),)


# -- functions


@elementwise_op
def exp(x: Array) -> Any:
    """y = e^x,   dx = y dy"""
    y = np.exp(x)
    return y, (lambda dy: slope(dy, y),)


@elementwise_op
def log(x: Array) -> Any:
    """y = ln x,   dx = dy / x"""
    return np.log(x), (lambda dy: slope(dy, lambda: 1 / x),)


@elementwise_op
def sqrt(x: Array) -> Any:
    """y = x^(1/2),   dx = dy / 2y, infinite at 0"""
    y = np.sqrt(x)
    return y, (lambda dy: slope(dy, lambda: 0.5 / y),)


@elementwise_op
def sin(x: Array) -> Any:
    """y = sin x,   dx = cos(x) dy"""
    return np.sin(x), (lambda dy: slope(dy, lambda: np.cos(x)),)


@elementwise_op
def cos(x: Array) -> Any:
    """y = cos x,   dx = -sin(x) dy"""
    return np.cos(x), (lambda dy: slope(dy, lambda: -np.sin(x)),)


@elementwise_op
def tanh(x: Array) -> Any:
    """y = tanh x,   dx = (1 - y^2) dy = 4 e / (1 + e)^2 dy,  e = e^-2|x|: y is 1 from x = 9 on,
    where the slope is 6e-8.
    """

    def dx(dy: Array) -> Array:
        e = np.exp(-2 * np.abs(x))
        return slope(dy, 4 * e / (1 + e) ** 2)

    return np.tanh(x), (dx,)


@elementwise_op
def erf(x: Array) -> Any:
    """y = 2/sqrt(pi) * integral of e^(-t^2) from 0 to x,   dx = 2/sqrt(pi) e^(-x^2) dy"""
    check_float("erf", x)

    def dx(dy: Array) -> Array:
        return slope(dy, (2 / math.sqrt(math.pi) * bell(np.clip(x, -40, 40))).astype(x.dtype))

    return error_function(x), (dx,)


# -- choices


def _chosen(a: Array, b: Array, dy: Array) -> Array:
    """dy where a is not smaller than b, so at NaN too; half of it at a tie, else 0."""
    return dy * np.where(np.equal(a, b), 0.5, ~np.less(a, b)).astype(dy.dtype)


@elementwise_op
def maximum(a: Array, b: Array) -> Any:
    """y = max(a, b); a tie sends half the gradient to each, and NaN all of it, as in PyTorch."""
    return np.maximum(a, b), (lambda dy: _chosen(a, b, dy), lambda dy: _chosen(b, a, dy))


@elementwise_op
def minimum(a: Array, b: Array) -> Any:
    """y = min(a, b); a tie sends half the gradient to each, and NaN all of it, as in PyTorch."""
    return np.minimum(a, b), (lambda dy: _chosen(b, a, dy), lambda dy: _chosen(a, b, dy))


@elementwise_op
def clip(x: Array, low: float | None = None, high: float | None = None) -> Any:
    """y = min(max(x, low), high); the gradient passes where low <= x <= high."""

    return np.clip(x, low, high), (lambda dy: dy * (x == np.clip(x, low, high)),)


@elementwise_op
def where(condition: Mask, a: Array, b: Array) -> Any:
    """y = a where the condition is True, else b; each gradient is dy where its side was taken and
    0 elsewhere.
    """
    return np.where(condition, a, b), (
        None,
        lambda dy: np.where(condition, dy, 0),
        lambda dy: np.where(condition, 0, dy),
    )


@elementwise_op
def masked_fill(x: Array, mask: Mask, value: Array) -> Any:
    """y = value where mask is True, else x: `scores.masked_fill(tril == 0, float("-inf"))`."""
    return np.where(mask, value, x), (
        lambda dy: np.where(mask, 0, dy),
        None,
        lambda dy: np.where(mask, dy, 0),
    )


# -- comparisons and logic: no gradients


def _without_gradient(ufunc: np.ufunc, doc: str) -> Callable[[Any, Any], Any]:
    """The op of a ufunc of two operands."""

    def reference(a: Array, b: Array) -> Any:
        return ufunc(a, b), None

    reference.__name__ = reference.__qualname__ = ufunc.__name__
    reference.__doc__ = doc
    return elementwise_op(reference)


equal = _without_gradient(np.equal, "y = (a == b), as bools.")
not_equal = _without_gradient(np.not_equal, "y = (a != b), as bools.")
less = _without_gradient(np.less, "y = (a < b), as bools.")
less_equal = _without_gradient(np.less_equal, "y = (a <= b), as bools.")
greater = _without_gradient(np.greater, "y = (a > b), as bools.")
greater_equal = _without_gradient(np.greater_equal, "y = (a >= b), as bools.")
bitwise_and = _without_gradient(
    np.bitwise_and, 'y = a & b: "and" of bools, bit by bit on integers.'
)
bitwise_or = _without_gradient(np.bitwise_or, 'y = a | b: "or" of bools, bit by bit on integers.')
bitwise_xor = _without_gradient(
    np.bitwise_xor, 'y = a ^ b: "either but not both" of bools, bit by bit on integers.'
)


@elementwise_op
def invert(x: Array) -> Any:
    """y = ~x: "not" of bools, bit by bit on integers."""
    return ~x, None
