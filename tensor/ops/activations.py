"""Nonlinearities, element by element."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensor.errors import GraphError
from tensor.memory.devices import Array
from tensor.ops.elementwise import error_function
from tensor.ops.op import check_float, elementwise_op


def logistic(x: Array) -> Array:
    """1 / (1 + e^-x), from e^-|x|, which cannot overflow."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, small) / (1 + small)


@elementwise_op
def sigmoid(x: Array) -> Any:
    """y = 1 / (1 + e^-x),   dx = y (1 - y) dy"""
    check_float("sigmoid", x)
    y = logistic(x)
    return y, (lambda dy: dy * y * (1 - y),)


@elementwise_op
def relu(x: Array) -> Any:
    """y = max(x, 0),   dx = dy where x > 0, so 0 at 0"""
    return np.maximum(x, 0), (lambda dy: dy * (x > 0),)


@elementwise_op
def silu(x: Array) -> Any:
    """y = x s(x), s the sigmoid,   dx = s (1 + x (1 - s)) dy      Elfwing et al. 2018, eq. 5; also
    called swish
    """
    check_float("silu", x)
    s = logistic(x)
    return x * s, (lambda dy: dy * s * (1 + x * (1 - s)),)


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
    if form == "erf":
        return _gelu_erf(x)
    if form != "tanh":
        raise ValueError(f"gelu has the forms 'tanh' and 'erf', not {form!r}")
    k = math.sqrt(2 / math.pi)
    # (1 + tanh u) / 2 = 1 / (1 + e^-2u), which keeps its digits where 1 + tanh u is close to 0
    with np.errstate(over="ignore"):
        # beyond, s is 0 or 1, and stays so; but 0 times an infinite square would be NaN
        square = np.minimum(x * x, 1e30)
        s = 1 / (1 + np.exp(-2 * k * (x + 0.044715 * square * x)))

    def dx(dy: Array) -> Array:
        du = k * (1 + 3 * 0.044715 * square)  # 2 s (1 - s) du is the slope of s
        return dy * (s + x * (2 * s * (1 - s) * du))

    return x * s, (dx,)


def _gelu_erf(x: Array) -> Any:
    below = 0.5 * (1 + error_function(x * math.sqrt(0.5)))  # P(X <= x)

    def dx(dy: Array) -> Array:
        density = np.exp(-0.5 * x * x) * (1 / math.sqrt(2 * math.pi))
        return dy * (below + x * density)

    return x * below, (dx,)
