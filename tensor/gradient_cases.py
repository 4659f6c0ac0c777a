"""One table of calls with which every op's gradient is checked: by `python -m tensor.gradcheck` and by the tests.

Inputs are float64, drawn anew by seed; where an op has a kink or a tie, `draw` keeps every input at least ten steps away from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tensor import ops
from tensor.layout import Shape
from tensor.random import Key

Array = Any


class Case(NamedTuple):
    """`call(*tensors)` for inputs of these shapes; `repeats` says whether equal values in one input are harmless (no ties)."""

    op: str
    call: Callable[..., Any]
    shapes: tuple[Shape, ...]
    draw: Callable[[np.random.Generator, tuple[Shape, ...]], list[Array]]
    repeats: bool = True

    def inputs(self, seed: int) -> list[Array]:
        return [np.asarray(x) for x in self.draw(np.random.default_rng(seed), self.shapes)]


def normal(rng: np.random.Generator, shapes: tuple[Shape, ...]) -> list[Array]:
    """Any numbers."""
    return [rng.standard_normal(shape) for shape in shapes]


def positive(rng: np.random.Generator, shapes: tuple[Shape, ...]) -> list[Array]:
    """Between 0.5 and 2: for log, sqrt, divisors and bases of powers."""
    return [rng.uniform(0.5, 2, shape) for shape in shapes]


def distinct(rng: np.random.Generator, shapes: tuple[Shape, ...]) -> list[Array]:
    """No two elements of all inputs together closer than 0.01, none closer than that to 0 or to -1 and 1: no kinks, no ties."""
    sizes = [int(np.prod(shape)) for shape in shapes]
    values = rng.permutation((np.arange(sum(sizes)) + 0.5 - sum(sizes) / 2 + 0.1) * 0.037)
    values = np.where(np.abs(np.abs(values) - 1) < 0.01, values * 1.05, values)
    return [part.reshape(shape) for part, shape in zip(np.split(values, np.cumsum(sizes)[:-1]), shapes, strict=True)]


CASES: list[Case] = []


def case(op: str, call: Callable[..., Any], *shapes: Shape, draw: Any = normal, repeats: bool = True) -> None:
    """Add a line to the table."""
    CASES.append(Case(op, call, shapes, draw, repeats))


# -- elementwise: equal shapes, broadcasts of both sides, scalars on either side -------------------------------------------

_PAIRS: list[tuple[Shape, Shape]] = [((3, 4), (3, 4)), ((3, 1), (1, 4)), ((4,), (2, 3, 4)), ((2, 3), ()), ((1, 3), (1, 3)), ((0, 3), (1, 3))]
_DRAWS = {"add": normal, "subtract": normal, "multiply": normal, "divide": positive, "power": positive, "maximum": distinct, "minimum": distinct}
for _name, _draw in _DRAWS.items():
    for _a, _b in _PAIRS:
        case(_name, getattr(ops, _name), _a, _b, draw=_draw, repeats=_draw is not distinct)
case("add", lambda x: 2.0 + x + 3, (2, 3))
case("subtract", lambda x: 2.0 - x - 3, (2, 3))
case("multiply", lambda x: 2.0 * x * 3, (2, 3))
case("divide", lambda x: 2.0 / x / 3, (2, 3), draw=positive)
for _exponent in (2, 3, 0, -1, 0.5):
    case("power", lambda x, exponent=_exponent: x**exponent, (2, 3), draw=positive)
case("power", lambda x: 2.0**x, (2, 3))
for _name, _draw in {
    "negative": normal, "abs": distinct, "exp": normal, "log": positive, "sqrt": positive, "sin": normal, "cos": normal, "tanh": normal,
    "erf": normal, "sigmoid": normal, "relu": distinct, "silu": normal,
}.items():  # fmt: skip
    for _shape in ((3, 4), (2, 1, 5), ()):
        case(_name, getattr(ops, _name), _shape, draw=_draw, repeats=True)
for _form in ("tanh", "erf"):
    case("gelu", lambda x, form=_form: ops.gelu(x, form=form), (3, 4))
    case("gelu", lambda x, form=_form: ops.gelu(3 * x, form), (2, 3, 4))
case("clip", lambda x: ops.clip(x, low=-0.2, high=0.3), (3, 4), draw=lambda rng, shapes: [d * 0.7 for d in distinct(rng, shapes)])
case("clip", lambda x: x.clip(high=0.1), (3, 4), draw=distinct)
case("where", lambda a, b: ops.where([[True], [False], [True]], a, b), (3, 4), (4,))
case("where", lambda a: ops.where(np.eye(3, dtype=bool), a, 0.0), (2, 3, 3))
case("masked_fill", lambda x: x.masked_fill(np.eye(3, dtype=bool), 5.0), (2, 3, 3))
case("masked_fill", lambda x, value: ops.masked_fill(x, np.eye(3, dtype=bool), value), (2, 3, 3), ())

# -- reductions: every form of axis ----------------------------------------------------------------------------------------

for _name in ("sum", "mean", "var", "std", "max", "min", "logsumexp"):
    for _axis in (None, 0, -1, (0, 2), (-1, 1)):
        for _keep in (False, True):
            case(
                _name, lambda x, name=_name, axis=_axis, keep=_keep: getattr(ops, name)(x, axis=axis, keepdims=keep), (2, 3, 4),
                draw=distinct if _name in ("max", "min") else normal, repeats=_name not in ("max", "min", "std"),
            )  # fmt: skip
case("sum", lambda x: x.sum(), ())
case("sum", lambda x: x.sum(1), (3, 0, 2))
for _name in ("var", "std"):
    case(_name, lambda x, name=_name: getattr(ops, name)(x, axis=1, correction=1), (3, 4), repeats=False)
for _axis in (0, 1, -1):
    case("cumsum", lambda x, axis=_axis: ops.cumsum(x, axis=axis), (2, 3, 4))
    case("softmax", lambda x, axis=_axis: ops.softmax(x, axis=axis), (2, 3, 4))
    case("log_softmax", lambda x, axis=_axis: ops.log_softmax(x, axis=axis), (2, 3, 4))

# -- products, positions, views ----------------------------------------------------------------------------------------------

_FACTORS: list[tuple[Shape, Shape]] = [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (5, 4, 2)), ((2, 3), (3, 0))]
_FACTORS += [((4,), (4,)), ((3, 4), (4,)), ((4,), (2, 4, 5)), ((2, 3, 4), (4,))]
for _a, _b in _FACTORS:
    case("matmul", ops.matmul, _a, _b)
case("matmul", lambda x: x @ x.T, (3, 4))
case("linear", ops.linear, (3, 4), (4, 5), (5,))
case("linear", ops.linear, (2, 3, 4), (4, 5))
case("linear", ops.linear, (4,), (4, 2), (2,))
case("linear", lambda x, w, b: ops.linear(x, w, b, transposed=True), (2, 3, 4), (5, 4), (5,))
case("take", lambda x: x[[0, 2, 0]], (3, 4))
case("take", lambda x: x[[0, 1, 0], :, [2, 2, 2]], (2, 3, 4))
case("take", lambda x: x[np.arange(12).reshape(3, 4) % 3 == 0], (3, 4))
case("take", lambda x: x[..., [[1, 0], [1, 1]]], (2, 3))
case("gather", lambda x: ops.gather(x, [[0, 0], [2, 1]], axis=1), (2, 3))
case("gather", lambda x: ops.gather(x, [[1, 0, 1]], axis=0), (2, 3))
case("embedding", lambda w: ops.embedding([[0, 2, 0], [1, 0, 2]], w), (4, 3))
case("embedding", lambda w: ops.embedding(np.zeros((0,), dtype=np.int64), w), (4, 3))
case("concatenate", lambda a, b: ops.concatenate([a, b], axis=1), (2, 3), (2, 2))
case("concatenate", lambda a: ops.concatenate([a, a]), (2, 3))
case("concatenate", lambda a, b: ops.stack([a, b], axis=-1), (2, 3), (2, 3))
case("pad", lambda x: ops.pad(x, width=((1, 0), (0, 2))), (2, 3))
case("pad", lambda x: ops.pad(x, 1, 2.0), (2, 3))
case("clone", lambda x: x.clone(), (2, 3))
case("cast", lambda x: x.to("float64") * 1.0, (2, 3))
case("cast", lambda x: ops.OPS["cast"](x, dtype="float64"), (2, 3))
case("transfer", lambda x: ops.OPS["transfer"](x, device=x.device), (2, 3))
case("view", lambda x: x.contiguous().view(4, -1), (2, 3, 4))
case("permute", lambda x: x.permute(2, 0, 1), (2, 3, 4))
case("permute", lambda x: x.T, (2, 3, 4))
case("transpose", lambda x: x.transpose(0, -1), (2, 3, 4))
case("expand", lambda x: x.expand(4, 2, 3), (2, 1))
case("expand", lambda x: x.expand(2, -1), (3,))
case("squeeze", lambda x: x.squeeze(), (2, 1, 3, 1))
case("squeeze", lambda x: x.squeeze((1, 2)), (2, 1, 3, 1))
case("unsqueeze", lambda x: x.unsqueeze(1), (2, 3))
case("index", lambda x: x[1], (2, 3))
case("index", lambda x: x[..., None, ::-2, 1:], (2, 4, 3))
case("index", lambda x: x[1:1], (2, 3))
case("split", lambda x: x.split(2, 1), (2, 5))
case("split", lambda x: x.split([1, 3, 1], -1)[1], (2, 5))
case("split", lambda x: x.chunk(3), (5, 2))

# -- layers and losses ---------------------------------------------------------------------------------------------------------

for _lead in ((), (3,), (2, 3), (2, 2, 3)):
    case("layer_norm", ops.layer_norm, (*_lead, 5), (5,), (5,), repeats=bool(_lead))  # a constant row is a kink but for eps
case("layer_norm", lambda x: ops.layer_norm(x, [1.0], [0.5]), (4, 1))
case("layer_norm", lambda x, g, b: ops.layer_norm(x, g, b, eps=0.1), (3, 4), (4,), (4,))
_IDS = [[0, 3, 1], [2, 2, 0]]
_OPTIONS: list[dict[str, Any]] = [{}, {"reduction": "sum"}, {"reduction": "none"}, {"ignore_index": 2}, {"label_smoothing": 0.1}]
for _options in [*_OPTIONS, {"ignore_index": 0, "label_smoothing": 0.2, "reduction": "sum"}]:
    case("cross_entropy", lambda x, options=_options: ops.cross_entropy(x, _IDS, **options), (2, 3, 4))
case("cross_entropy", lambda x: ops.cross_entropy(x, [1, 1], ignore_index=1), (2, 4))
for _reduction in ("mean", "sum", "none"):
    case("mean_squared_error", lambda a, b, r=_reduction: ops.mean_squared_error(a, b, reduction=r), (2, 3), (2, 3))
    case("binary_cross_entropy", lambda x, t, r=_reduction: ops.binary_cross_entropy(x, t.sigmoid(), reduction=r), (2, 3), (2, 3))
for _p in (0.0, 0.4, 1.0):
    case("dropout", lambda x, p=_p: ops.dropout(x, p, key=Key(7, 1, 2)), (3, 4))
case("attention", ops.attention, (2, 3, 4), (2, 5, 4), (2, 5, 6))
case("attention", lambda q, k, v: ops.attention(q, k, v, causal=True), (2, 3, 4), (2, 5, 4), (2, 5, 4))
case("attention", lambda q, k, v: ops.attention(q, k, v, causal=True), (5, 2), (3, 2), (3, 2))
case("attention", lambda q, k, v, bias: ops.attention(q, k, v, bias, causal=True, scale=0.3), (2, 2, 3, 4), (2, 2, 3, 4), (2, 2, 3, 4), (2, 1, 1, 3))
case("attention", lambda q, k, v: ops.attention(q, k, v, mask=[[True, False, True], [False, False, False]]), (2, 2, 4), (2, 3, 4), (2, 3, 4))
case("attention", lambda q, k, v: ops.attention(q, k, v, causal=True, dropout=0.3, key=Key(3)), (2, 3, 4), (2, 3, 4), (2, 3, 4))
case("attention", lambda x: ops.attention(x, x, x, causal=True), (2, 3, 4))

case("linear_gelu", ops.linear_gelu, (2, 3, 4), (4, 5), (5,))
case("linear_gelu", ops.linear_gelu, (3, 4), (4, 5))
case("residual_layer_norm", lambda *inputs: ops.concatenate(ops.residual_layer_norm(*inputs)), (2, 3, 4), (2, 3, 4), (4,), (4,))
case("residual_layer_norm", lambda *inputs: ops.residual_layer_norm(*inputs, eps=0.1)[1], (3, 4), (3, 4), (4,), (4,))
case("causal_self_attention", lambda x: ops.causal_self_attention(x, 2), (2, 3, 12))
case("causal_self_attention", lambda x: ops.causal_self_attention(x, 1, dropout=0.3, key=Key(3)), (2, 3, 6))
case("positional_embedding", lambda w, p: ops.positional_embedding([[0, 2, 0], [1, 0, 2]], w, p), (4, 3), (5, 3))

# Ops that have no gradient: their results are bools, integers or steps.
WITHOUT_GRADIENT = {
    "equal", "not_equal", "less", "less_equal", "greater", "greater_equal", "bitwise_and", "bitwise_or", "bitwise_xor", "invert",
    "argmax", "argmin", "any", "all", "one_hot", "step",
}  # fmt: skip


# -- the seven memory layouts: the same values, another way through memory ---------------------------------------------------------


def _permuted(x: Array) -> Array:
    """The last axis outermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0, -1) if x.ndim else x


def _every_other(x: Array) -> Array:
    """A step of 2 along each axis of a larger array, which holds NaN in between."""
    around = np.full(tuple(2 * n for n in x.shape), np.nan)
    inside = around[..., *(slice(None, None, 2),) * x.ndim]
    inside[...] = x
    return inside


def _backwards(x: Array) -> Array:
    """Stored in reverse, read with negative steps."""
    flip: Any = (slice(None, None, -1),) * x.ndim
    return x[..., *flip].copy()[..., *flip]


def _expanded(x: Array) -> Array:
    """One slice of the first axis, repeated by stride 0."""
    return np.broadcast_to(x[:1], x.shape) if x.ndim and x.shape[0] else x


def _offset(x: Array) -> Array:
    """A corner cut out of a larger array, which holds NaN around it."""
    around = np.full(tuple(n + 3 for n in x.shape), np.nan)
    corner: Any = tuple(slice(2, 2 + n) for n in x.shape)
    inside = around[..., *corner]
    inside[...] = x
    return inside


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": lambda x: np.array(x, order="C"),  # np.ascontiguousarray would make (1,) of a scalar
    "F": lambda x: np.array(x, order="F"),
    "permuted": _permuted,
    "step 2": _every_other,
    "negative step": _backwards,
    "expanded": _expanded,
    "offset slice": _offset,
}
