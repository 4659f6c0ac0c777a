"""Nonlinearities, element by element."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tensor.dtypes import float64
from tensor.errors import GraphError, OptionError
from tensor.memory.devices import Array, as_array
from tensor.ops.elementwise import slope
from tensor.ops.error_function import bell, scaled_tail
from tensor.ops.op import check_float, elementwise_op


def logistic(x: Array) -> Array:
    """1 / (1 + e^-x), from e^-|x|, which cannot overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


@elementwise_op
def sigmoid(x: Array) -> Any:
    """y = 1 / (1 + e^-x),   dx = y (1 - y) dy = e / (1 + e)^2 dy,  e = e^-|x|: 1 - y would lose the
    digits of a small slope.
    """
    check_float("sigmoid", x)
    small = np.exp(-np.abs(x))
    y = np.where(x >= 0, 1, small) / (1 + small)
    return y, (lambda dy: slope(dy, small / (1 + small) ** 2),)


@elementwise_op
def relu(x: Array) -> Any:
    """y = max(x, 0),   dx = dy where x > 0 or x is NaN, so 0 at 0"""
    return np.maximum(x, 0), (lambda dy: dy * ~(x <= 0),)


@elementwise_op
def silu(x: Array) -> Any:
    """y = x s(x), s the sigmoid,   dx = s (1 + x (1 - s)) dy      Elfwing et al. 2018, eq. 5; also
    called swish
    """
    check_float("silu", x)
    return _gated(x, _logistic_tail)


@elementwise_op
def step(x: Array) -> Any:
    """y = 1 where x > 0, else 0: the perceptron's activation (Rosenblatt 1958). It has no gradient:
    backward through it raises GraphError.
    """

    def dx(dy: Array) -> Array:
        raise GraphError(
            "`step` has no gradient: its slope is 0 everywhere and undefined at 0, "
            "so nothing can be learnt through it. Use sigmoid or relu"
        )

    return (x > 0).astype(x.dtype), (dx,)


@elementwise_op
def gelu(x: Array, form: str = "tanh") -> Any:
    """y = x (1 + tanh u) / 2,  u = sqrt(2/pi) (x + 0.044715 x^3), close to x P(X <= x) for X ~ N(0,
    1).      Hendrycks & Gimpel 2016, section 2

    form "tanh":  this one, what GPT-2 was trained with; at most 4.7e-4 off, near |x| = 2.7
    form "erf":   y = x (1 + erf(x / sqrt 2)) / 2, exactly
    """
    check_float("gelu", x)
    if form not in ("tanh", "erf"):
        raise OptionError(f"gelu has the forms 'tanh' and 'erf', not {form!r}")
    return _gated(x, _normal_tail if form == "erf" else _tanh_tail)


def _gated(x: Array, tail: Callable[[Array], tuple[Array, Callable[[], Array]]]) -> Any:
    """y = x P(X <= x) for a symmetric distribution:  y = max(x, 0) - z Q(z),  z = |x|,  Q(z) = P(X
    > z). So no digits are lost where y is close to 0.

    tail: of z, z Q(z) and the function that makes its slope
    """
    # z Q(z) is 0 long before 1000; and infinity times 0 would be NaN
    product, growth = tail(as_array(np.minimum(np.abs(x), 1000)))

    def dx(dy: Array) -> Array:
        below = growth().astype(x.dtype, copy=False)
        return slope(dy, np.where(x > 0, 1 - below, below))

    return np.maximum(x, 0) - product.astype(x.dtype, copy=False), (dx,)


def _logistic_tail(z: Array) -> Any:
    """Q(z) = 1 / (1 + e^z)"""
    near = np.minimum(z, 64)
    # e^-z falls below the smallest normal float32 before z e^-z does
    e, rest = np.exp(-near), np.exp(near - z)
    q = e / (1 + e)
    return z * q * rest, lambda: q * (1 - z / (1 + e)) * rest


def _tanh_tail(z: Array) -> Any:
    """Q(z) = (1 - tanh u) / 2 = 1 / (1 + e^2u).   In place: float64 is large, and new memory costs
    more than the arithmetic.
    """
    k, cubic = math.sqrt(2 / math.pi), 0.044715
    product = z.astype(float64)
    q = product.copy()
    q *= q
    q *= -2 * k * cubic
    q -= 2 * k
    q *= product  # -2u
    np.exp(q, out=q)
    q /= 1 + q
    product *= q

    def growth() -> Array:  # q (1 - 2 z u' (1 - q))
        bend = z * z
        bend *= 3 * cubic
        bend += 1
        bend *= 2 * k * z
        rate = q - 1
        rate *= bend
        rate += 1
        rate *= q
        return rate

    return product, growth


def _normal_tail(z: Array) -> Any:
    """Q(z) = erfc(z / sqrt 2) / 2"""
    density = bell(z, 0.5)
    tail = 0.5 * scaled_tail(z * math.sqrt(0.5))
    return z * density * tail, lambda: density * (tail - z * (1 / math.sqrt(2 * math.pi)))
