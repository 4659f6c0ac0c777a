"""Errors at the edge: every op against float64, over the whole range of floats.

    python benchmarks/edge.py                 # writes benchmarks/edge.md
    python benchmarks/edge.py --only gelu     # prints some lines

*Functions* (exp, gelu, ...). The inputs are every 4,099th float32, or every bfloat16: all
exponents, both signs, subnormals. The unit is an ulp: the distance of two neighbouring floats at
the exact result, and for a slope at the sum of the sizes of its terms. At most 4 for values, at
most 8 for slopes, the gradients where dy = 1.

*Sums* (mean, softmax, attention, ...). The inputs are random numbers at scales from 1e-38 to 1e38,
also with a mean far from 0. The unit is n eps times the sum of the sizes of the terms, n the number
of terms. At most 1.

A result is compared where the exact one is a normal number of the dtype. There, NaN, infinity, and
0 for a number that is not 0 count as an infinite error.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

import tensor
from tensor import Tensor, grad, kernels
from tensor.dtypes import bfloat16, float32

Array: TypeAlias = np.ndarray[Any, Any]
# of float64 inputs: the exact result; its slopes, each as a list of terms that are added
Exact: TypeAlias = Callable[..., Any]
BOUNDS = {"value": 4, "slope": 8}  # ulps
PAGE = Path(__file__).with_suffix(".md")
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


# -- sums: the sizes of their terms in float64


class Sizes(NamedTuple):
    """Of the terms of the result, and of those of each gradient."""

    value: Array
    slopes: tuple[Any, ...]


def total(x: Array) -> Array:
    return x.sum(-1, keepdims=True)


def average(x: Array) -> Array:
    return x.mean(-1, keepdims=True)


def of_mean(x: Array, dy: Array) -> Sizes:
    return Sizes(np.abs(x).mean(-1), (np.abs(dy)[:, None] / x.shape[-1] + 0 * x,))


def of_sum(x: Array, dy: Array) -> Sizes:
    return Sizes(np.abs(x).sum(-1), (np.abs(dy)[:, None] + 0 * x,))


def of_var(x: Array, dy: Array) -> Sizes:
    centred = np.abs(x - average(x))
    return Sizes(x.var(-1), (2 * centred * np.abs(dy)[:, None] / x.shape[-1],))


def of_std(x: Array, dy: Array) -> Sizes:
    centred, std = np.abs(x - average(x)), x.std(-1, keepdims=True)
    share = np.abs(dy)[:, None] / (x.shape[-1] * np.where(std == 0, 1, std))
    return Sizes(std[:, 0], (centred * share,))


def weights_of(x: Array) -> tuple[Array, Array]:
    """(softmax, its relative error in eps: an error in x - max is one in the exponent)"""
    depth = x.max(-1, keepdims=True) - x
    return np.exp(-depth) / total(np.exp(-depth)), 1 + depth


def of_softmax(x: Array, dy: Array) -> Sizes:
    p, wide = weights_of(x)
    return Sizes(p * wide, (p * wide * (np.abs(dy) + total(p * wide * np.abs(dy))),))


def of_log_softmax(x: Array, dy: Array) -> Sizes:
    p, wide = weights_of(x)
    slope = np.abs(dy) + p * wide * total(np.abs(dy))
    return Sizes(wide + math.log(x.shape[-1]), (slope,))


def of_logsumexp(x: Array, dy: Array) -> Sizes:
    p, wide = weights_of(x)
    return Sizes(np.abs(x.max(-1)) + math.log(x.shape[-1]), (p * wide * np.abs(dy)[:, None],))


def of_cross_entropy(x: Array, dy: Array) -> Sizes:
    p, wide = weights_of(x)
    target = np.eye(x.shape[-1])[targets_of(x)]
    value = (target * wide).sum(-1).mean() + math.log(x.shape[-1])
    return Sizes(value, ((p * wide + target) * np.abs(dy) / len(x),))


def of_layer_norm(x: Array, gain: Array, bias: Array, dy: Array) -> Sizes:
    scale = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    n = (np.abs(x) + np.abs(average(x))) * scale
    dn = np.abs(dy * gain)
    dx = scale * (dn + average(dn) + n * average(dn * n))
    return Sizes(n * np.abs(gain) + np.abs(bias), (dx, (np.abs(dy) * n).sum(0), np.abs(dy).sum(0)))


def of_rms_norm(x: Array, gain: Array, dy: Array) -> Sizes:
    scale = 1 / np.sqrt(average(x * x) + 1e-6)
    n, dn = np.abs(x) * scale, np.abs(dy * gain)
    dx = scale * (dn + n * average(dn * n))
    return Sizes(n * np.abs(gain), (dx, (np.abs(dy) * n).sum(0)))


def of_mean_squared_error(x: Array, target: Array, dy: Array) -> Sizes:
    d = np.abs(x) + np.abs(target)
    slope = 2 * d * np.abs(dy) / x.size
    return Sizes((d * d).mean(), (slope, slope))


def of_linear(x: Array, weight: Array, dy: Array) -> Sizes:
    x, weight, dy = np.abs(x), np.abs(weight), np.abs(dy)
    return Sizes(x @ weight, (dy @ weight.T, x.T @ dy))


def of_attention(q: Array, k: Array, v: Array, dy: Array) -> Sizes:
    scale = 1 / math.sqrt(q.shape[-1])
    hidden = np.triu(np.ones((len(q), len(k)), bool), 1)
    p, _ = weights_of(np.where(hidden, -np.inf, scale * q @ k.T))
    scores = scale * np.abs(q) @ np.abs(k).T
    p = p * (1 + scores + total(p * scores))
    q, k, v, dy = np.abs(q), np.abs(k), np.abs(v), np.abs(dy)
    dp = dy @ v.T
    ds = scale * p * (dp + total(p * dp))
    return Sizes(p @ v, (ds @ k, ds.T @ q, p.T @ dy))


def targets_of(x: Any) -> Array:
    """The fourth, the seventh class, ..."""
    return (3 + 3 * np.arange(x.shape[0])) % x.shape[-1]


# what the scale is of, the other inputs, the call, the sizes
SUMS: dict[str, tuple[str, Callable[..., Any], Callable[..., Sizes]]] = {
    "sum": ("x", lambda x: x.sum(-1), of_sum),
    "mean": ("x", lambda x: x.mean(-1), of_mean),
    "var": ("x", lambda x: x.var(-1), of_var),
    "std": ("x", lambda x: x.std(-1), of_std),
    "softmax": ("x", tensor.softmax, of_softmax),
    "log_softmax": ("x", tensor.log_softmax, of_log_softmax),
    "logsumexp": ("x", tensor.logsumexp, of_logsumexp),
    "cross_entropy": (
        "x",
        lambda x: tensor.cross_entropy(x, Tensor(targets_of(x))),
        of_cross_entropy,
    ),
    "layer_norm": ("x gain bias", tensor.layer_norm, of_layer_norm),
    "rms_norm": (
        "x gain",
        lambda x, gain: x * gain / ((x * x).mean(-1, keepdims=True) + 1e-6).sqrt(),
        of_rms_norm,
    ),
    "mean_squared_error": ("x x", tensor.mean_squared_error, of_mean_squared_error),
    "linear": ("x weight", tensor.linear, of_linear),
    "attention": (
        "x x v",
        lambda q, k, v: tensor.attention(q, k, v, causal=True),
        of_attention,
    ),
}


def drawn(inputs: str, dtype: str) -> Iterator[tuple[str, list[Array]]]:
    """(where, inputs): at scales of x from 1e-38 to 1e38, rows of x with mean 0 and with mean 30,
    and of several widths.
    """
    rng = np.random.default_rng(0)
    for width in (1, 2, 33, 200):
        shapes = {"gain": (width,), "bias": (width,), "weight": (width, 7)}
        for power in range(-38, 39, 2):
            for mean in (0, 30):
                arrays = []
                for kind in inputs.split():
                    x = rng.standard_normal(shapes.get(kind, (9, width)))
                    if kind == "x":
                        x = np.clip((x + mean) * 10.0**power, -3e38, 3e38)
                    arrays.append(x.astype(dtype))
                yield f"1e{power}, mean {mean}, width {width}", arrays


def sum_errors(
    inputs: str, call: Callable[..., Any], sizes: Callable[..., Sizes], dtype: str
) -> tuple[Error, Error]:
    """(of the values, of the slopes), in n eps of the sum of the sizes of the terms."""
    value = slope = Error(0, "")
    rng = np.random.default_rng(1)
    for where, arrays in drawn(inputs, dtype):
        xs = [Tensor(x, requires_grad=True) for x in arrays]
        y = call(*xs)
        dy = rng.standard_normal(y.shape).astype(dtype)
        found = [y.numpy(), *(dx.numpy() for dx in grad(y, xs, Tensor(dy)))]
        wide = [x.astype(np.float64) for x in arrays]
        leaves = [Tensor(x, requires_grad=True) for x in wide]
        with kernels.off():
            y = call(*leaves)
            exact = [y.numpy(), *(dx.numpy() for dx in grad(y, leaves, Tensor(dy.astype(float))))]
        size = sizes(*wide, dy.astype(float))
        unit = max(a.shape[-1] for a in arrays) * 2.0 ** -BITS[dtype]
        errors = [
            shares_of(a, b, s * unit, dtype)
            for a, b, s in zip(found, exact, (size.value, *size.slopes), strict=True)
        ]
        value = max(value, Error(errors[0], where))
        slope = max(slope, Error(max(errors[1:]), where))
    return value, slope


def shares_of(found: Array, exact: Array, allowed: Array, dtype: str) -> float:
    """The largest |found - exact| / allowed; infinite for a result that is lost."""
    normal = (np.abs(exact) >= SMALLEST) & (np.abs(exact) <= LARGEST[dtype])
    wide = found.astype(np.float64)
    # of results that cancel, the terms count; and none below the smallest number
    allowed = np.maximum(allowed, 2.0 ** -(126 + BITS[dtype]))
    error = np.where(np.isfinite(wide), np.abs(wide - exact) / allowed, np.inf)
    return float(np.where(normal, error, np.where(np.isnan(wide), np.inf, 0)).max())


# -- the table


def ways(name: str) -> Iterator[tuple[str, str]]:
    """(dtype, whether kernels are on); both only where there are kernels."""
    has_kernel = bool(kernels.KERNELS.get(name.split(",")[0]))
    for dtype in (str(float32), str(bfloat16)):
        yield dtype, "on" if has_kernel else "-"
        if has_kernel:
            yield dtype, "off"


def errors_of(name: str, dtype: str, coarseness: int) -> tuple[Error, Error]:
    if name in FUNCTIONS:
        call, exact, terms = FUNCTIONS[name]
        return elementwise_errors(call, exact, (terms,), [floats(dtype, coarseness)])
    if name in OPERATIONS:
        operation, result, *slopes = OPERATIONS[name]
        return elementwise_errors(operation, result, tuple(slopes), pairs(name, dtype, coarseness))
    return sum_errors(*SUMS[name], dtype)


def rows(
    names: list[str], coarseness: int = 1
) -> Iterator[tuple[str, str, str, Error, Error, bool]]:
    """(op, dtype, kernels, worst value, worst slope, whether both are within the bounds)

    coarseness: so many times fewer inputs
    """
    for name in names:
        bounds = (1, 1) if name in SUMS else (BOUNDS["value"], BOUNDS["slope"])
        for dtype, on in ways(name):
            with np.errstate(all="ignore"), kernels.off(*(() if on == "off" else ("random_bits",))):
                value, slope = errors_of(name, dtype, coarseness)
            yield name, dtype, on, value, slope, value.size <= bounds[0] and slope.size <= bounds[1]


def shown(error: Error) -> str:
    return f"{error.size:.2g} at {error.where}" if error.size else "0"


def main() -> int:
    parser = argparse.ArgumentParser(description="Errors of every op over the range of floats.")
    known = [*FUNCTIONS, *OPERATIONS, *SUMS]
    parser.add_argument(
        "--only", nargs="+", choices=known, metavar="OP", help=f"of {', '.join(known)}"
    )
    options = parser.parse_args()
    lines = [
        "| op | dtype | kernels | worst value | worst slope |",
        "|---|---|---|---|---|",
    ]
    print(*lines, sep="\n")
    failures = 0
    for name, dtype, on, value, slope, fits in rows(options.only or known):
        mark = "" if fits else " too large"
        lines.append(f"| {name} | {dtype} | {on} | {shown(value)} | {shown(slope)}{mark} |")
        print(lines[-1], flush=True)
        failures += not fits
    if not options.only:
        PAGE.write_text("\n".join(lines) + "\n")
    print(f"{failures} lines beyond the bounds", file=sys.stderr)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
