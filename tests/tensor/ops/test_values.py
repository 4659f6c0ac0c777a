"""What every op computes, against NumPy in float64 by formulas that share no code with the ops;
then the same in fewer bits.

The oracle gets the very inputs the op gets, after they were rounded to its dtype. float16 and
bfloat16 are computed in float32 and
rounded once, so half a unit in the last place is all they may be off.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest

import tensor
from tensor import Tensor
from tensor.gradient_cases import CASES, Case, distinct, normal, positive
from tensor.memory.devices import Array
from tensor.memory.layout import Shape
from tensor.ops.op import OPS
from tensor.random import Key

DTYPES = ("float64", "float32", "float16", "bfloat16")


class Value(NamedTuple):
    """`call` on tensors of these shapes gives what `oracle` gives on float64 arrays; `steps`: how
    often it rounds to 16 bits.
    """

    call: Callable[..., Any]
    oracle: Callable[..., Any]
    shapes: tuple[Shape, ...]
    draw: Callable[[np.random.Generator, int], Array]
    steps: int


VALUES: dict[str, list[Value]] = {}


def value(
    op: str,
    call: Callable[..., Any],
    oracle: Callable[..., Any],
    *shapes: Shape,
    draw: Any = normal,
    steps: int = 1,
) -> None:
    VALUES.setdefault(op, []).append(Value(call, oracle, shapes, draw, steps))


# -- element by element


def by_hand(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """Python's own floats, one at a time."""
    return lambda x: np.array([function(float(v)) for v in np.ravel(x)]).reshape(np.shape(x))


BINARY: dict[str, tuple[Any, Any]] = {
    "add": (np.add, normal), "subtract": (np.subtract, normal), "multiply": (np.multiply, normal),
    "divide": (np.divide, positive),
    "power": (np.power, positive), "maximum": (np.fmax, normal), "minimum": (np.fmin, normal),
}  # fmt: skip
for _name, (_oracle, _draw) in BINARY.items():
    for _a, _b in (
        ((3, 4), (3, 4)),
        ((3, 1), (1, 4)),
        ((4,), (2, 3, 4)),
        ((2, 3), ()),
        ((0, 3), (1, 3)),
    ):
        value(_name, getattr(tensor, _name), _oracle, _a, _b, draw=_draw)
value("power", lambda x: x**3, lambda x: x * x * x, (3, 4))
value("power", lambda x: 2.0**x, lambda x: np.exp2(x), (3, 4))
value("divide", lambda x: 3 / x, lambda x: 3 * x**-1, (3, 4), draw=positive)

UNARY: dict[str, tuple[Callable[[float], float], Any]] = {
    "negative": (lambda v: 0.0 - v, normal), "abs": (math.fabs, normal), "exp": (math.exp, normal),
    "log": (math.log, positive), "sqrt": (math.sqrt, positive),
    "sin": (math.sin, normal), "cos": (math.cos, normal), "tanh": (math.tanh, normal),
    "erf": (math.erf, normal),
    "sigmoid": (lambda v: (1 + math.tanh(v / 2)) / 2, normal),
    "silu": (lambda v: v * (1 + math.tanh(v / 2)) / 2, normal),
    "relu": (lambda v: v if v > 0 else 0.0, normal),
    "step": (lambda v: 1.0 if v > 0 else 0.0, normal),
}  # fmt: skip
for _name, (_function, _draw) in UNARY.items():
    for _shape in ((3, 4), (2, 1, 5), (), (0, 2)):
        value(_name, getattr(tensor, _name), by_hand(_function), _shape, draw=_draw)
value(
    "gelu",
    tensor.gelu,
    by_hand(lambda v: v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))),
    (3, 4),
)
value(
    "gelu",
    lambda x: tensor.gelu(x, "erf"),
    by_hand(lambda v: v / 2 * math.erfc(-v / math.sqrt(2))),
    (3, 4),
)
value(
    "clip",
    lambda x: x.clip(-0.5, 0.25),
    by_hand(lambda v: -0.5 if v < -0.5 else 0.25 if v > 0.25 else v),
    (3, 4),
)
value("clip", lambda x: x.clip(high=0.25), by_hand(lambda v: min(v, 0.25)), (3, 4))

MASK = np.array([[True, False, True, False]] * 2 + [[False, False, True, True]])
value(
    "where", lambda a, b: tensor.where(MASK, a, b), lambda a, b: MASK * a + ~MASK * b, (3, 4), (4,)
)
value("masked_fill", lambda x: x.masked_fill(MASK, 5.0), lambda x: 5 * MASK + ~MASK * x, (2, 3, 4))

# in Python's operator module
COMPARISONS = {
    "equal": "eq",
    "not_equal": "ne",
    "less": "lt",
    "less_equal": "le",
    "greater": "gt",
    "greater_equal": "ge",
}
for _name, _python in COMPARISONS.items():
    _sign = getattr(operator, _python)
    value(
        _name,
        _sign,
        lambda a, b, c=_sign: np.array(
            [c(v, w) for v, w in zip(a.tolist(), b.tolist(), strict=True)]
        ),
        (12,),
        (12,),
    )
    value(
        _name, lambda a, c=_sign: c(a, a), lambda a, c=_sign: np.full(a.shape, c(0.0, 0.0)), (3, 4)
    )
    value(
        _name,
        lambda a, c=_sign: c(0.25, a),
        lambda a, c=_sign: np.array([c(0.25, v) for v in a.tolist()]),
        (12,),
    )
for _name, _bits in {
    "bitwise_and": lambda a, b: a & b,
    "bitwise_or": lambda a, b: a | b,
    "bitwise_xor": lambda a, b: a ^ b,
}.items():
    value(
        _name,
        lambda a, b, f=_bits: f(a > 0, b > 0),
        lambda a, b, f=_bits: f(a > 0, b > 0),
        (3, 4),
        (4,),
    )
    value(
        _name,
        lambda f=_bits: f(Tensor([12, 10, 7]), 6),
        lambda f=_bits: np.array([f(12, 6), f(10, 6), f(7, 6)]),
    )
value("invert", lambda a: ~(a > 0), lambda a: a <= 0, (3, 4))

# -- over axes

AXES: list[Any] = [None, 0, -1, 1, (0, 2), (-1, 1), (0, 1, 2)]
for _axis in AXES:
    for _keep in (False, True):
        _o: dict[str, Any] = {"axis": _axis, "keepdims": _keep}
        value("sum", lambda x, o=_o: x.sum(**o), lambda x, o=_o: np.sum(x, **o), (2, 3, 4))
        value("mean", lambda x, o=_o: x.mean(**o), lambda x, o=_o: np.average(x, **o), (2, 3, 4))
        value(
            "var",
            lambda x, o=_o: x.var(**o),
            lambda x, o=_o: np.mean(x * x, **o) - np.mean(x, **o) ** 2,
            (2, 3, 4),
        )
        value(
            "std",
            lambda x, o=_o: x.std(**o, correction=1),
            lambda x, o=_o: np.std(x, ddof=1, **o),
            (2, 3, 4),
        )
        value("max", lambda x, o=_o: x.max(**o), lambda x, o=_o: np.max(x, **o), (2, 3, 4))
        value("min", lambda x, o=_o: x.min(**o), lambda x, o=_o: -np.max(-x, **o), (2, 3, 4))
        value(
            "logsumexp",
            lambda x, o=_o: x.logsumexp(**o),
            lambda x, o=_o: np.log(np.sum(np.exp(x), **o)),
            (2, 3, 4),
        )
    value(
        "any",
        lambda x, a=_axis: (x > 1).any(a),
        lambda x, a=_axis: np.sum(x > 1, axis=a) > 0,
        (2, 3, 4),
    )
    value(
        "all",
        lambda x, a=_axis: (x > -1).all(a),
        lambda x, a=_axis: np.sum(x <= -1, axis=a) == 0,
        (2, 3, 4),
    )
for _axis in (0, 1, -1):
    value(
        "argmax",
        lambda x, a=_axis: x.argmax(a),
        lambda x, a=_axis: np.argsort(x, axis=a).take(-1, axis=a),
        (2, 3, 4),
        draw=distinct,
    )
    value(
        "argmin",
        lambda x, a=_axis: x.argmin(a),
        lambda x, a=_axis: np.argsort(x, axis=a).take(0, axis=a),
        (2, 3, 4),
        draw=distinct,
    )
    value(
        "cumsum",
        lambda x, a=_axis: x.cumsum(a),
        lambda x, a=_axis: np.stack([x.take(range(i + 1), a).sum(a) for i in range(x.shape[a])], a),
        (2, 3, 4),
    )
    value(
        "softmax",
        lambda x, a=_axis: x.softmax(a),
        lambda x, a=_axis: np.exp(x) / np.exp(x).sum(a, keepdims=True),
        (2, 3, 4),
    )
    value(
        "log_softmax",
        lambda x, a=_axis: x.log_softmax(a),
        lambda x, a=_axis: np.log(np.exp(x) / np.exp(x).sum(a, keepdims=True)),
        (2, 3, 4),
    )
value("argmax", lambda x: x.argmax(), lambda x: np.argsort(x.ravel())[-1], (2, 3, 4), draw=distinct)

# -- products, positions, views, layers

for _a, _b, _sum in (
    ((3, 4), (4, 5), "ij,jk->ik"), ((2, 3, 4), (2, 4, 5), "bij,bjk->bik"),
    ((2, 1, 3, 4), (5, 4, 2), "bcij,djk->bdik"), ((4,), (4,), "i,i->"),
    ((3, 4), (4,), "ij,j->i"), ((4,), (2, 4, 5), "j,bjk->bk"), ((2, 3, 4), (4,), "bij,j->bi"),
    ((2, 0), (0, 3), "ij,jk->ik"),
):  # fmt: skip
    value(
        "matmul",
        lambda a, b: a @ b,
        lambda a, b, s=_sum: np.einsum(s, a, b, optimize=False),
        _a,
        _b,
    )
value(
    "linear",
    OPS["linear"],
    lambda x, w, b: np.einsum("bti,io->bto", x, w) + b,
    (2, 3, 4),
    (4, 5),
    (5,),
)
value("linear", OPS["linear"], lambda x, w: np.einsum("i,io->o", x, w), (4,), (4, 5))
value("take", lambda x: x[[0, 2, 0]], lambda x: np.stack([x[0], x[2], x[0]]), (3, 4))
value("take", lambda x: x[x > 0], lambda x: np.array([v for v in x.ravel() if v > 0]), (3, 4))
value(
    "gather",
    lambda x: x.gather([[0, 3], [2, 2], [1, 0]], 1),
    lambda x: np.array([[x[0, 0], x[0, 3]], [x[1, 2], x[1, 2]], [x[2, 1], x[2, 0]]]),
    (3, 4),
)
value(
    "embedding",
    lambda w: tensor.embedding([[0, 2], [2, 1]], w),
    lambda w: np.array([[w[0], w[2]], [w[2], w[1]]]),
    (3, 4),
)
value("one_hot", lambda: Tensor([1, 0, 3]).one_hot(4), lambda: np.eye(4)[[1, 0, 3]])
value("one_hot", lambda: Tensor([[1, 0]]).one_hot(), lambda: np.eye(2)[[[1, 0]]])
value(
    "concatenate",
    lambda a, b: tensor.concatenate([a, b, a], 1),
    lambda a, b: np.hstack([a, b, a]),
    (2, 3),
    (2, 1),
)
value(
    "concatenate",
    lambda a, b: tensor.stack([a, b], 1),
    lambda a, b: np.array([[a[0], b[0]], [a[1], b[1]]]),
    (2, 3),
    (2, 3),
)
value(
    "pad",
    lambda x: x.pad(((1, 0), (0, 2)), 7.0),
    lambda x: np.block([[np.full((1, 5), 7.0)], [x, np.full((2, 2), 7.0)]]),
    (2, 3),
)
value("clone", lambda x: x.T.clone(), lambda x: x.T, (2, 3))
value("cast", lambda x: x.to("int32"), lambda x: np.trunc(x), (2, 3))
value("transfer", lambda x: OPS["transfer"](x, device=x.device), lambda x: x, (2, 3))
value(
    "view",
    lambda x: x.view(4, -1),
    lambda x: np.array([x.ravel()[6 * i : 6 * i + 6] for i in range(4)]),
    (2, 3, 4),
)
value("permute", lambda x: x.permute(2, 0, 1), lambda x: np.einsum("ijk->kij", x), (2, 3, 4))
value("transpose", lambda x: x.transpose(0, -1), lambda x: np.einsum("ijk->kji", x), (2, 3, 4))
value("expand", lambda x: x.expand(3, -1, 2), lambda x: np.tile(x, (3, 1, 2)), (2, 1))
value("squeeze", lambda x: x.squeeze(), lambda x: x[0, :, 0], (1, 3, 1))
value("unsqueeze", lambda x: x.unsqueeze(1), lambda x: x[:, None], (2, 3))
value("index", lambda x: x[1, ::-2], lambda x: x[1, [3, 1]], (2, 4))
value(
    "split",
    lambda x: tensor.concatenate(x.split([1, 3])[::-1]),
    lambda x: np.vstack([x[1:], x[:1]]),
    (4, 2),
)


def normalised(x: Array, gain: Array, bias: Array, eps: float = 1e-5) -> Array:
    rows = [
        (row - np.mean(row)) / math.sqrt(np.var(row) + eps) * gain + bias
        for row in x.reshape(-1, x.shape[-1])
    ]
    return np.array(rows).reshape(x.shape)


for _shape in ((5,), (3, 5), (2, 3, 5)):
    value("layer_norm", tensor.layer_norm, normalised, _shape, (5,), (5,))
value(
    "layer_norm",
    lambda x, g, b: tensor.layer_norm(x, g, b, eps=0.5),
    lambda x, g, b: normalised(x, g, b, 0.5),
    (3, 4),
    (4,),
    (4,),
)
value(
    "cross_entropy",
    lambda x: tensor.cross_entropy(x, [2, 0]),
    lambda x: -np.log(np.exp(x) / np.exp(x).sum(-1, keepdims=True))[[0, 1], [2, 0]].mean(),
    (2, 3),
)
value(
    "mean_squared_error",
    tensor.mean_squared_error,
    lambda a, b: np.mean((a - b) ** 2),
    (3, 4),
    (3, 4),
)
value("l1_loss", tensor.l1_loss, lambda a, b: np.mean(np.abs(a - b)), (3, 4), (3, 4))
value(
    "huber_loss",
    lambda a, b: tensor.huber_loss(a, b, delta=0.5),
    lambda a, b: np.mean(
        np.where(np.abs(a - b) < 0.5, (a - b) ** 2 / 2, 0.5 * np.abs(a - b) - 0.125)
    ),
    (3, 4), (3, 4),
)  # fmt: skip
value(
    "kl_divergence",
    tensor.kl_divergence,
    lambda log_q, p: np.sum(p * np.log(p) - p * log_q) / 3,
    (3, 4), (3, 4), draw=positive,
)  # fmt: skip
value(
    "binary_cross_entropy",
    lambda x, t: tensor.binary_cross_entropy(x.sigmoid(), t),
    lambda x, t: np.mean(-t * np.log(1 / (1 + np.exp(-x))) - (1 - t) * np.log(1 / (1 + np.exp(x)))),
    (3, 4), (3, 4), draw=lambda *shape: np.abs(np.sin(positive(*shape))),
)  # fmt: skip
value(
    "binary_cross_entropy_with_logits",
    tensor.binary_cross_entropy_with_logits,
    lambda x, t: np.mean(-t * np.log(1 / (1 + np.exp(-x))) - (1 - t) * np.log(1 / (1 + np.exp(x)))),
    (3, 4), (3, 4), draw=positive,
)  # fmt: skip
value("dropout", lambda x: tensor.dropout(x, 0.0, key=Key()), lambda x: x, (3, 4))
value("dropout", lambda x: tensor.dropout(x, 1.0, key=Key()), lambda x: 0 * x, (3, 4))


def attended(q: Array, k: Array, v: Array) -> Array:
    """One query's attention: the average of the rows of v, weighted by e^(q k / sqrt D)."""
    weights = [math.exp(float(q @ row) / math.sqrt(q.size)) for row in k]
    return np.array(weights) @ v / sum(weights)


value(
    "attention", lambda q, k, v: tensor.attention(q, k, v, causal=True),
    lambda q, k, v: np.stack([attended(q[t], k[: t + 1], v[: t + 1]) for t in range(3)]),
    (3, 4), (3, 4), (3, 4),
)  # fmt: skip


# -- compositions as one op: float32 may go through a kernel; in 16 bits each op of the composition
# rounds ---------------------------


def gelu_by_hand(x: Array) -> Array:
    return by_hand(
        lambda v: v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3)))
    )(x)


def attended_heads(x: Array, heads: int) -> Array:
    """Batch row by row, head by head, query by query, from packed q, k, v."""
    C = x.shape[-1] // 3
    D = C // heads
    y = np.empty((*x.shape[:2], C))
    for b, row in enumerate(x):
        for start in range(0, C, D):
            q, k, v = (row[:, i * C + start : i * C + start + D] for i in range(3))
            y[b, :, start : start + D] = [
                attended(q[t], k[: t + 1], v[: t + 1]) for t in range(len(row))
            ]
    return y


for _shape in ((4,), (3, 4), (2, 3, 4)):
    value(
        "linear_gelu",
        tensor.linear_gelu,
        lambda x, w, b: gelu_by_hand(np.einsum("...i,io->...o", x, w) + b),
        _shape,
        (4, 5),
        (5,),
        steps=2,
    )
value(
    "linear_gelu",
    tensor.linear_gelu,
    lambda x, w: gelu_by_hand(np.einsum("...i,io->...o", x, w)),
    (2, 3, 4),
    (4, 5),
    steps=2,
)
for _shape in ((4,), (3, 4), (2, 3, 4)):
    value(
        "residual_layer_norm",
        lambda *inputs: tensor.stack(tensor.residual_layer_norm(*inputs, eps=0.1)),
        lambda x, y, g, b: np.stack([x + y, normalised(x + y, g, b, 0.1)]),
        _shape, _shape, (4,), (4,), steps=2,
    )  # fmt: skip
for _heads in (1, 2, 3):
    value(
        "multi_head_attention",
        lambda x, h=_heads: tensor.multi_head_attention(x, heads=h, causal=True),
        lambda x, h=_heads: attended_heads(x, h), (2, 5, 18),
    )  # fmt: skip
_IDS = np.array([[0, 2, 0], [1, 1, 2]])


def surprise(logits: Array, targets: Array) -> Array:
    """-ln softmax(logits)[target], the mean of all rows."""
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return -np.log(np.take_along_axis(p, targets[..., None], -1)).mean()


for _transposed in (False, True):
    value(
        "linear_cross_entropy",
        # the loss of 16-bit inputs is float32
        lambda x, w, t=_transposed: tensor.linear_cross_entropy(x, w, _IDS, transposed=t).to(
            x.dtype
        ),
        lambda x, w, t=_transposed: surprise(x @ (w.T if t else w), _IDS),
        (2, 3, 4), (3, 4) if _transposed else (4, 3), steps=2,
    )  # fmt: skip
for _wrap in (lambda ids, x: ids.tolist(), lambda ids, x: Tensor(ids, device=x.device)):
    value(
        "positional_embedding",
        lambda w, p, wrap=_wrap: tensor.positional_embedding(wrap(_IDS, w), w, p),
        lambda w, p: np.array([[w[i] + p[t] for t, i in enumerate(row)] for row in _IDS]),
        (3, 4), (5, 4),
    )  # fmt: skip


def test_every_op_has_a_value() -> None:
    assert set(VALUES) == set(OPS)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", sorted(VALUES))
def test_values(op: str, dtype: str, device: str) -> None:
    for seed, case in enumerate(VALUES[op]):
        drawn = Case(op, case.call, case.shapes, case.draw).inputs(seed)
        inputs = [Tensor(x, dtype=dtype, device=device) for x in drawn]
        exact = np.asarray(case.oracle(*(x.numpy().astype(np.float64) for x in inputs)))
        y = case.call(*inputs)
        assert y.shape == exact.shape, case
        if y.dtype in tensor.dtypes.FLOATS and inputs:
            assert y.dtype == inputs[0].dtype, case
        error = np.abs(y.numpy().astype(np.float64) - exact)
        assert (error <= allowance(exact, dtype, case.steps)).all(), (case, error.max())


def allowance(exact: Array, dtype: str, steps: int = 1) -> Array:
    """What rounding may do: a few units of float64 or float32 against the largest value; for 16
    bits half a unit of each value more.

    A composition that rounds in between: for each such step half a unit of the largest value.
    """
    size = np.abs(exact).astype(np.float64)
    unit = 1e-14 if dtype == "float64" else 2e-6
    half = float(ml_dtypes.finfo(dtype).eps) / 2 if dtype in ("float16", "bfloat16") else 0.0
    return (unit + half * (steps - 1)) * max(1.0, size.max(initial=0)) + half * size


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("op", sorted({case.op for case in CASES} - {"cast"}))
def test_gradients_in_fewer_bits(op: str, dtype: str, device: str) -> None:
    """Against the analytic gradient in float64 of the same rounded inputs, which finite differences
    have checked.

    Each op in a case may round its gradient once: five units against the largest. A GPU's exp and
    log may be off by one more unit each.
    """
    units = 5 if device == "cpu" else 8
    for case in (c for c in CASES if c.op == op):
        narrow = gradients(case, dtype, dtype, device)
        for exact, found in zip(gradients(case, dtype, "float64", device), narrow, strict=True):
            scale = max(1e-3, np.abs(exact).max(initial=0))
            assert (
                np.abs(found - exact).max(initial=0)
                <= units * float(ml_dtypes.finfo(dtype).eps) * scale
            ), case


def gradients(case: Case, rounded: str, dtype: str, device: str) -> list[Array]:
    """The gradients of a case computed in `dtype`, its inputs and upstream gradients first rounded
    to `rounded`.
    """
    xs = [
        Tensor(Tensor(x, dtype=rounded), dtype=dtype, device=device, requires_grad=True)
        for x in case.inputs(1)
    ]
    ys = case.call(*xs)
    ys = ys if isinstance(ys, tuple) else (ys,)
    dys = [
        Tensor(np.random.default_rng(i).standard_normal(y.shape), dtype=rounded)
        .to(y.dtype)
        .to(device)
        for i, y in enumerate(ys)
    ]
    found = tensor.grad(ys, xs, dys)
    return [
        np.zeros(x.shape) if dx is None else dx.numpy().astype(np.float64)
        for x, dx in zip(xs, found, strict=True)
    ]
