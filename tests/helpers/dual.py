"""Forward mode by dual numbers: an oracle for reverse mode that shares no code and no formula with
it.

A dual number is a + b e with e^2 = 0. Then f(a + b e) = f(a) + f'(a) b e, so a program that is run
on duals gives its value and, beside
it, its derivative along b: no graph, no order, nothing to accumulate. Here a is an array and there
is one b for each number that the
program depends on, so that the tangents of a result are the columns of its Jacobian.

Functions bear the names of the engine's ops. What the engine does in one op (softmax, layer_norm,
attention, cross_entropy) is written
out here in elementary steps, as on paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

Array = Any


class Dual:
    """An array and its tangents, one for each direction."""

    def __init__(self, value: Array, tangents: Sequence[Array]):
        self.value = np.asarray(value)
        self.tangents = [np.asarray(t) for t in tangents]
        assert all(t.shape == self.value.shape for t in self.tangents), (
            "a tangent has the shape of its value"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape


def variables(*arrays: Array) -> list[Dual]:
    """Duals for the inputs of a program; direction i is the i-th number of all inputs one after the
    other.
    """
    total, start, duals = sum(a.size for a in arrays), 0, []
    for a in arrays:
        tangents = np.zeros((total, *a.shape))
        tangents.reshape(total, -1)[range(start, start + a.size), range(a.size)] = 1
        duals.append(Dual(a, list(tangents)))
        start += a.size
    return duals


def gradients(
    outputs: Sequence[Dual], upstream: Sequence[Array], inputs: Sequence[Dual]
) -> list[Array]:
    """dL/dx for each input x, where dL/dy is given for each output y: (sum over y of dL/dy *
    dy/dx), one direction at a time.
    """
    along = [
        sum(float((dy * y.tangents[i]).sum()) for y, dy in zip(outputs, upstream, strict=True))
        for i in range(len(inputs[0].tangents))
    ]
    ends = np.cumsum([x.value.size for x in inputs])
    return [
        part.reshape(x.shape)
        for part, x in zip(np.split(np.array(along), ends[:-1]), inputs, strict=True)
    ]


def _value(x: Any) -> Array:
    return x.value if isinstance(x, Dual) else np.asarray(x)


def _push(value: Array, tangent: Callable[..., Array], *operands: Any) -> Dual:
    """A result whose tangent is a function of the operands' tangents; those of constants are 0."""
    count = next(len(x.tangents) for x in operands if isinstance(x, Dual))
    columns = zip(
        *(x.tangents if isinstance(x, Dual) else [np.zeros(np.shape(x))] * count for x in operands),
        strict=True,
    )
    return Dual(value, [tangent(*column) for column in columns])


def _linear(x: Dual, function: Callable[[Array], Array]) -> Dual:
    """A linear map: what it does to the value, it does to each tangent."""
    return _push(function(x.value), function, x)


def _curve(x: Dual, value: Array, slope: Array) -> Dual:
    return _push(value, lambda s: slope * s, x)


# -- arithmetic and functions


def add(a: Any, b: Any) -> Dual:
    return _push(_value(a) + _value(b), lambda s, t: s + t, a, b)


def subtract(a: Any, b: Any) -> Dual:
    return _push(_value(a) - _value(b), lambda s, t: s - t, a, b)


def multiply(a: Any, b: Any) -> Dual:
    u, v = _value(a), _value(b)
    return _push(u * v, lambda s, t: s * v + u * t, a, b)


def divide(a: Any, b: Any) -> Dual:
    u, v = _value(a), _value(b)
    return _push(u / v, lambda s, t: (s * v - u * t) / v**2, a, b)


def power(a: Any, b: Any) -> Dual:
    u, v = _value(a), _value(b)
    if not isinstance(b, Dual):
        return _curve(a, u**v, v * u ** (v - 1))
    return _push(u**v, lambda s, t: u**v * (t * np.log(u) + v * s / u), a, b)


def negative(x: Dual) -> Dual:
    return _linear(x, np.negative)


def abs(x: Dual) -> Dual:
    return _curve(x, np.abs(x.value), np.sign(x.value))


def exp(x: Dual) -> Dual:
    return _curve(x, np.exp(x.value), np.exp(x.value))


def log(x: Dual) -> Dual:
    return _curve(x, np.log(x.value), x.value**-1.0)


def sqrt(x: Dual) -> Dual:
    return _curve(x, np.sqrt(x.value), 0.5 * x.value**-0.5)


def sin(x: Dual) -> Dual:
    return _curve(x, np.sin(x.value), np.cos(x.value))


def cos(x: Dual) -> Dual:
    return _curve(x, np.cos(x.value), -np.sin(x.value))


def tanh(x: Dual) -> Dual:
    return _curve(x, np.tanh(x.value), np.cosh(x.value) ** -2.0)


def erf(x: Dual) -> Dual:
    return _curve(
        x,
        np.vectorize(math.erf, otypes=[float])(x.value),
        2 / np.sqrt(np.pi) * np.exp(-(x.value**2)),
    )


def sigmoid(x: Dual) -> Dual:
    return divide(1.0, add(1.0, exp(negative(x))))


def silu(x: Dual) -> Dual:
    return multiply(x, sigmoid(x))


def gelu(x: Dual, form: str = "tanh") -> Dual:
    if form == "erf":
        return multiply(multiply(0.5, x), add(1.0, erf(multiply(x, 2**-0.5))))
    inner = multiply((2 / math.pi) ** 0.5, add(x, multiply(0.044715, power(x, 3.0))))
    return multiply(multiply(0.5, x), add(1.0, tanh(inner)))


def relu(x: Dual) -> Dual:
    return _linear(x, lambda s: np.where(x.value > 0, s, 0))


def maximum(a: Any, b: Any) -> Dual:
    u, v = _value(a), _value(b)
    return _push(np.maximum(u, v), lambda s, t: np.where(u > v, s, t), a, b)


def minimum(a: Any, b: Any) -> Dual:
    u, v = _value(a), _value(b)
    return _push(np.minimum(u, v), lambda s, t: np.where(u < v, s, t), a, b)


def clip(x: Dual, low: float, high: float) -> Dual:
    return minimum(maximum(x, low), high)


def where(condition: Array, a: Any, b: Any) -> Dual:
    return _push(
        np.where(condition, _value(a), _value(b)), lambda s, t: np.where(condition, s, t), a, b
    )


def masked_fill(x: Dual, mask: Array, value: float) -> Dual:
    return where(mask, value, x)


# -- reductions


def sum_(x: Dual, axis: Any = None, keepdims: bool = False) -> Dual:
    return _linear(x, lambda s: s.sum(axis=axis, keepdims=keepdims))


def mean(x: Dual, axis: Any = None, keepdims: bool = False) -> Dual:
    return _linear(x, lambda s: s.mean(axis=axis, keepdims=keepdims))


def var(x: Dual, axis: Any = None, keepdims: bool = False) -> Dual:
    return mean(power(subtract(x, mean(x, axis, True)), 2.0), axis, keepdims)


def std(x: Dual, axis: Any = None, keepdims: bool = False) -> Dual:
    return sqrt(var(x, axis, keepdims))


def max_(x: Dual, axis: Any = None, keepdims: bool = False) -> Dual:
    """Where several elements are largest, they are copies of one, and their tangents are equal:
    their mean is each.
    """
    top = x.value == x.value.max(axis=axis, keepdims=True)
    return _linear(
        x,
        lambda s: (
            (s * top).sum(axis=axis, keepdims=keepdims) / top.sum(axis=axis, keepdims=keepdims)
        ),
    )


def min_(x: Dual, axis: Any = None, keepdims: bool = False) -> Dual:
    return negative(max_(negative(x), axis, keepdims))


def cumsum(x: Dual, axis: int = -1) -> Dual:
    return _linear(x, lambda s: s.cumsum(axis))


def logsumexp(x: Dual, axis: Any = -1, keepdims: bool = False) -> Dual:
    return log(sum_(exp(x), axis, keepdims))


def softmax(x: Dual, axis: int = -1) -> Dual:
    return divide(exp(x), sum_(exp(x), axis, True))


def log_softmax(x: Dual, axis: int = -1) -> Dual:
    return subtract(x, logsumexp(x, axis, True))


def layer_norm(x: Dual, gain: Any, bias: Any, eps: float = 1e-5) -> Dual:
    normed = divide(subtract(x, mean(x, -1, True)), sqrt(add(var(x, -1, True), eps)))
    return add(multiply(gain, normed), bias)


def cross_entropy(logits: Dual, targets: Array) -> Dual:
    chosen = gather(log_softmax(logits), np.asarray(targets)[..., None])
    return negative(mean(chosen))


# -- products, views, positions


def matmul(a: Any, b: Any) -> Dual:
    u, v = _value(a), _value(b)
    return _push(u @ v, lambda s, t: s @ v + u @ t, a, b)


def attention(q: Dual, k: Dual, v: Dual, causal: bool = False) -> Dual:
    scores = multiply(matmul(q, transpose(k, -1, -2)), q.shape[-1] ** -0.5)
    if causal:
        queries, keys = scores.shape[-2:]
        scores = masked_fill(
            scores, np.triu(np.ones((queries, keys), bool), 1 + keys - queries), -np.inf
        )
    return matmul(softmax(scores), v)


def reshape(x: Dual, *shape: int) -> Dual:
    return _linear(x, lambda s: s.reshape(shape))


def permute(x: Dual, *order: int) -> Dual:
    return _linear(x, lambda s: s.transpose(order))


def transpose(x: Dual, i: int, j: int) -> Dual:
    return _linear(x, lambda s: s.swapaxes(i, j))


def expand(x: Dual, *shape: int) -> Dual:
    return _linear(x, lambda s: np.broadcast_to(s, shape))


def squeeze(x: Dual) -> Dual:
    return _linear(x, np.squeeze)


def unsqueeze(x: Dual, axis: int) -> Dual:
    return _linear(x, lambda s: np.expand_dims(s, axis))


def getitem(x: Dual, key: Any) -> Dual:
    return _linear(x, lambda s: s[key])


def split(x: Dual, size: int, axis: int) -> tuple[Dual, ...]:
    starts = range(0, x.shape[axis], size)
    return tuple(
        _linear(
            x, lambda s, start=start: s.take(range(start, min(start + size, x.shape[axis])), axis)
        )
        for start in starts
    )


def clone(x: Dual) -> Dual:
    return _linear(x, np.copy)


def contiguous(x: Dual) -> Dual:
    return clone(x)


def pad(x: Dual, width: int, value: float = 0.0) -> Dual:
    return _push(np.pad(x.value, width, constant_values=value), lambda s: np.pad(s, width), x)


def gather(x: Dual, indices: Array, axis: int = -1) -> Dual:
    return _linear(x, lambda s: np.take_along_axis(s, indices, axis))


def embedding(ids: Array, weight: Dual) -> Dual:
    return _linear(weight, lambda s: s[np.asarray(ids)])


def concatenate(parts: Sequence[Any], axis: int = 0) -> Dual:
    return _push(
        np.concatenate([_value(x) for x in parts], axis),
        lambda *tangents: np.concatenate(tangents, axis),
        *parts,
    )


def stack(parts: Sequence[Any], axis: int = 0) -> Dual:
    return _push(
        np.stack([_value(x) for x in parts], axis),
        lambda *tangents: np.stack(tangents, axis),
        *parts,
    )


NAMES: dict[str, Callable[..., Any]] = {
    name.rstrip("_"): function
    for name, function in list(globals().items())
    if callable(function) and not name.startswith("_") and name[0].islower()
}
