"""The functions that edge.py measures: their values and slopes in float64, and errors in ulps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import tensor
from tensor import Tensor, grad
from tensor.dtypes import bfloat16

Array: TypeAlias = np.ndarray[Any, Any]
# of float64 inputs: the exact result; its slopes, each as a list of terms that are added
Exact: TypeAlias = Callable[..., Any]
SMALLEST = 2.0**-126  # the smallest normal number, of bfloat16 too
LARGEST = {"float32": 3.4028235e38, "bfloat16": 3.38953e38}
BITS = {"float32": 23, "bfloat16": 7}
erf, erfc = (np.vectorize(f, otypes=[float]) for f in (math.erf, math.erfc))


class Error(NamedTuple):
    """The worst error, and the inputs at which it is."""

    size: float
    where: str


# -- functions: the formulas in float64


def below(x: Array) -> Array:
    """P(X <= x) for X ~ N(0, 1)."""
    return 0.5 * erfc(-x / math.sqrt(2))


def density(x: Array) -> Array:
    return np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def logistic(x: Array) -> Array:
    return np.where(x < 0, np.exp(-np.abs(x)), 1) / (1 + np.exp(-np.abs(x)))


TANH_GELU = 2 * math.sqrt(2 / math.pi)


def tanh_gelu(x: Array) -> Array:
    return x * logistic(TANH_GELU * (x + 0.044715 * x**3))


def tanh_gelu_terms(x: Array) -> list[Array]:
    u = TANH_GELU * (x + 0.044715 * x**3)
    fall = np.where(np.abs(x) < 1e6, logistic(u) * logistic(-u), 0)
    return [logistic(u), TANH_GELU * x * fall, TANH_GELU * 3 * 0.044715 * x**3 * fall]


def ones(x: Array) -> Array:
    return np.ones_like(x)


FUNCTIONS: dict[str, tuple[Callable[..., Any], Exact, Exact]] = {
    "negative": (lambda x: -x, lambda x: -x, lambda x: [-ones(x)]),
    "abs": (abs, np.abs, lambda x: [np.sign(x)]),
    "exp": (tensor.exp, np.exp, lambda x: [np.exp(x)]),
    "log": (tensor.log, np.log, lambda x: [1 / x]),
    "sqrt": (tensor.sqrt, np.sqrt, lambda x: [0.5 / np.sqrt(x)]),
    "sin": (tensor.sin, np.sin, lambda x: [np.cos(x)]),
    "cos": (tensor.cos, np.cos, lambda x: [-np.sin(x)]),
    "tanh": (tensor.tanh, np.tanh, lambda x: [1 / np.cosh(x) ** 2]),
    "erf": (tensor.erf, erf, lambda x: [2 / math.sqrt(math.pi) * np.exp(-x * x)]),
    "sigmoid": (tensor.sigmoid, logistic, lambda x: [logistic(x) * logistic(-x)]),
    "silu": (
        tensor.silu,
        lambda x: x * logistic(x),
        lambda x: [logistic(x), x * logistic(x) * logistic(-x)],
    ),
    "relu": (tensor.relu, lambda x: np.maximum(x, 0), lambda x: [(x > 0) * 1.0]),
    "gelu, tanh": (tensor.gelu, tanh_gelu, tanh_gelu_terms),
    "gelu, erf": (
        lambda x: tensor.gelu(x, form="erf"),
        lambda x: x * below(x),
        lambda x: [below(x), x * density(x)],
    ),
    "clip": (lambda x: x.clip(-2, 2), lambda x: x.clip(-2, 2), lambda x: [(abs(x) <= 2) * 1.0]),
    "1 / x": (lambda x: 1 / x, lambda x: 1 / x, lambda x: [-1 / x / x]),
    **{
        f"x ** {n}": (
            lambda x, n=n: x**n,
            lambda x, n=n: x**n,
            lambda x, n=n: [n * x ** (n - 1)],
        )
        for n in (2, 3, 0.5, -1, -2, 1.25)
    },
    "2 ** x": (lambda x: 2.0**x, lambda x: 2.0**x, lambda x: [math.log(2) * 2.0**x]),
}

# of two operands: the slopes of both
OPERATIONS: dict[str, tuple[Callable[..., Any], Exact, Exact, Exact]] = {
    "add": (lambda a, b: a + b, np.add, lambda a, b: [ones(a)], lambda a, b: [ones(a)]),
    "subtract": (lambda a, b: a - b, np.subtract, lambda a, b: [ones(a)], lambda a, b: [-ones(a)]),
    "multiply": (lambda a, b: a * b, np.multiply, lambda a, b: [b], lambda a, b: [a]),
    "divide": (lambda a, b: a / b, np.divide, lambda a, b: [1 / b], lambda a, b: [-a / b / b]),
    "power": (
        lambda a, b: a**b,
        np.power,
        lambda a, b: [b * a ** (b - 1)],
        lambda a, b: [np.log(a) * a**b],
    ),
    "maximum": (
        tensor.maximum,
        np.maximum,
        lambda a, b: [(a > b) + 0.5 * (a == b)],
        lambda a, b: [(a < b) + 0.5 * (a == b)],
    ),
    "minimum": (
        tensor.minimum,
        np.minimum,
        lambda a, b: [(a < b) + 0.5 * (a == b)],
        lambda a, b: [(a > b) + 0.5 * (a == b)],
    ),
}


def floats(dtype: str, coarseness: int) -> Array:
    """Numbers of all exponents, evenly among the floats of the dtype, with 0 and the largest."""
    if dtype == "bfloat16":
        sizes = np.arange(0, 0x7F80, coarseness, np.uint16).view(bfloat16)
    else:
        sizes = np.arange(0, 0x7F800000, 4099 * coarseness, np.uint32).view(np.float32)
    sizes = np.append(sizes, np.array(LARGEST[dtype]).astype(dtype))
    return np.concatenate([sizes, -sizes])


def pairs(name: str, dtype: str, coarseness: int) -> list[Array]:
    """Random pairs of normal numbers of all exponents; for a power, exponents below 100 in size."""
    rng, count = np.random.default_rng(0), 200_000 // coarseness
    a, b = (2.0 ** rng.uniform(-125.9, 127.9, count) * rng.choice([-1, 1], count) for _ in range(2))
    if name == "power":
        a, b = np.abs(a), 2.0 ** rng.uniform(-20, 6.6, b.size) * np.sign(b)
    return [x.astype(dtype) for x in (a, b)]


def error_in_ulps(found: Array, exact: Array, size: Array, dtype: str) -> Array:
    """|found - exact| in units of the last place of `size`; infinite for a result that is lost."""
    _, exponent = np.frexp(size)
    ulp = np.ldexp(1.0, np.maximum(exponent - 1, -126) - BITS[dtype])
    normal = (np.abs(exact) >= SMALLEST) & (np.abs(exact) <= LARGEST[dtype])
    lost = ~np.isfinite(found) | (found == 0)
    error = np.where(lost, np.inf, np.abs(found - exact) / ulp)
    # where the exact result is no normal number, anything but NaN
    return np.where(normal, error, np.where(np.isnan(found) & ~np.isnan(exact), np.inf, 0))


def worst(error: Array, inputs: list[Array]) -> Error:
    at = int(np.argmax(np.where(np.isnan(error), np.inf, error)))
    where = ", ".join(f"{float(x.ravel()[at % x.size]):.9g}" for x in inputs)
    return Error(float(error.ravel()[at]), where)


def elementwise_errors(
    call: Callable[..., Any], exact: Exact, terms: tuple[Exact, ...], arrays: list[Array]
) -> tuple[Error, Error]:
    """(of the values, of the slopes)"""
    dtype = str(arrays[0].dtype)
    xs = [Tensor(x, requires_grad=True) for x in arrays]
    y = call(*xs)
    slopes = grad(y, xs, Tensor(np.ones(y.shape, y.dtype)))
    wide = [x.astype(np.float64) for x in arrays]
    right = np.asarray(exact(*wide), np.float64)
    value = worst(error_in_ulps(y.numpy().astype(float), right, right, dtype), arrays)
    found = []
    for slope, of_input in zip(slopes, terms, strict=True):
        parts = of_input(*wide)
        right, size = sum(parts), sum(map(np.abs, parts))
        error = error_in_ulps(slope.numpy().astype(float), right, size, dtype)
        found.append(worst(error, arrays))
    return value, max(found)
