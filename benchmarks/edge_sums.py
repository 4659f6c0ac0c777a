"""The sums that edge.py measures: the sizes of their terms, and errors in n eps of these."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from edge_functions import BITS, LARGEST, SMALLEST, Array, Error

import tensor
from tensor import Tensor, grad, kernels, nn

EPS = 2.0**-23


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
    centred = np.abs(x) + average(np.abs(x))
    return Sizes(x.var(-1), (2 * centred * np.abs(dy)[:, None] / x.shape[-1],))


def of_std(x: Array, dy: Array) -> Sizes:
    centred, std = np.abs(x) + average(np.abs(x)), x.std(-1, keepdims=True)
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


def rms_norm(x: Tensor, gain: Tensor) -> Tensor:
    layer = nn.RMSNorm(x.shape[-1])
    vars(layer)["gain"] = gain  # the leaf whose gradient is measured
    return layer(x)


def of_mean_squared_error(x: Array, target: Array, dy: Array) -> Sizes:
    d = np.abs(x) + np.abs(target)
    slope = 2 * d * np.abs(dy) / x.size
    return Sizes((d * d).mean(), (slope, slope))


def of_attention(q: Array, k: Array, v: Array, dy: Array) -> Sizes:
    scale = 1 / math.sqrt(q.shape[-1])
    hidden = np.triu(np.ones((len(q), len(k)), bool), 1)
    p, _ = weights_of(np.where(hidden, -np.inf, scale * q @ k.T))
    scores = scale * np.abs(q) @ np.abs(k).T
    p = p * (1 + scores + total(p * scores))
    p = np.where(hidden, 0, p + SMALLEST / EPS)  # a weight below the smallest number may be 0
    q, k, v, dy = np.abs(q), np.abs(k), np.abs(v), np.abs(dy)
    dp = dy @ v.T
    ds = scale * p * (dp + total(p * dp))
    return Sizes(p @ v, (ds @ k, ds.T @ q, p.T @ dy))


def targets_of(x: Any) -> Array:
    """The fourth, the seventh class, ..."""
    return (3 + 3 * np.arange(x.shape[0])) % x.shape[-1]


# the inputs, of which each x has the scale and the mean; the call; the sizes of its terms
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
    "RMSNorm": ("x gain", rms_norm, of_rms_norm),
    "mean_squared_error": ("x x", tensor.mean_squared_error, of_mean_squared_error),
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
        shapes = {"gain": (width,), "bias": (width,)}
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
        unit = max(max(a.shape) for a in arrays) * 2.0 ** -BITS[dtype]
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
