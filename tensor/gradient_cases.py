"""One table of calls with which every op's gradient is checked: by `python -m tensor.gradcheck` and
by the tests.

Inputs are float64, drawn anew by seed; where an op has a kink or a tie, `draw` keeps every input at
least ten steps away from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from tensor import ops
from tensor.memory.layout import Shape
from tensor.random import Key

Array = Any


class Case(NamedTuple):
    """`call(*tensors)` for inputs of these shapes; `repeats` says whether equal values in one input
    are harmless (no ties).
    """

    op: str
    call: Callable[..., Any]
    shapes: tuple[Shape, ...]
    draw: Callable[[np.random.Generator, int], Array]
    repeats: bool = True

    def inputs(self, seed: int) -> list[Array]:
        """The drawn numbers, cut into one array for each shape."""
        sizes = list(map(math.prod, self.shapes))
        values = self.draw(np.random.default_rng(seed), sum(sizes))
        parts = np.split(values, np.cumsum(sizes))  # and an empty one behind them
        return [part.reshape(n).copy() for part, n in zip(parts, self.shapes, strict=False)]


def normal(rng: np.random.Generator, count: int) -> Array:
    """Any numbers."""
    return rng.standard_normal(count)


def positive(rng: np.random.Generator, count: int) -> Array:
    """Between 0.5 and 2: for log, sqrt, divisors and bases of powers."""
    return rng.uniform(0.5, 2, count)


def distinct(rng: np.random.Generator, count: int) -> Array:
    """No two numbers closer than 0.01, none closer than that to 0 or to -1 and 1: no kinks, no
    ties.
    """
    values = rng.permutation((np.arange(count) + 0.5 - count / 2 + 0.1) * 0.037)
    return np.where(np.abs(np.abs(values) - 1) < 0.01, values * 1.05, values)


CASES: list[Case] = []


def case(
    names: str,
    shapes: str,
    call: Callable[..., Any] | None = None,
    draw: Any = normal,
    repeats: bool = True,
    **options: Any,
) -> None:
    """Add lines to the table: one for each op named, and each group of shapes.

    shapes: of the inputs, as in "2 3 4, 4 5"; groups are apart by ";".   call: by default the op
    itself with these options.
    """
    for name in names.split():
        for group in shapes.split(";"):
            sizes = tuple(tuple(map(int, shape.split())) for shape in group.split(","))
            function = call or partial(ops.OPS[name], **options)
            CASES.append(Case(name, function, sizes, draw, repeats))


# -- elementwise: equal shapes, broadcasts of both sides, scalars on either side

_PAIRS = "3 4, 3 4; 3 1, 1 4; 4, 2 3 4; 2 3,; 1 3, 1 3; 0 3, 1 3"
case("add subtract multiply", _PAIRS)
case("divide power", _PAIRS, draw=positive)
case("maximum minimum", _PAIRS, draw=distinct, repeats=False)
case("add", "2 3", lambda x: 2.0 + x + 3)
case("subtract", "2 3", lambda x: 2.0 - x - 3)
case("multiply", "2 3", lambda x: 2.0 * x * 3)
case("divide", "2 3", lambda x: 2.0 / x / 3, positive)
case("power", "2 3", lambda x: 2.0**x)
for _exponent in (2, 3, 0, -1, 0.5):
    case("power", "2 3", lambda x, n=_exponent: x**n, positive)
case("negative exp sin cos tanh erf sigmoid silu", "3 4; 2 1 5;")
case("log sqrt", "3 4; 2 1 5;", draw=positive)
case("abs relu", "3 4; 2 1 5;", draw=distinct)
for _form in ("tanh", "erf"):
    case("gelu", "3 4", form=_form)
    case("gelu", "2 3 4", lambda x, form=_form: ops.gelu(3 * x, form))
case("clip", "3 4", low=-0.2, high=0.3, draw=distinct)
case("clip", "3 4", high=0.1, draw=distinct)
_DIAGONAL = np.eye(3, dtype=bool)
case("where", "3 4, 4", partial(ops.where, [[True], [False], [True]]))
case("where", "2 3 3", lambda a: ops.where(_DIAGONAL, a, 0.0))
case("masked_fill", "2 3 3", lambda x: x.masked_fill(_DIAGONAL, 5.0))
case("masked_fill", "2 3 3, ", lambda x, y: ops.masked_fill(x, _DIAGONAL, y))

# -- reductions: every form of axis

for _axis in (None, 0, -1, (0, 2), (-1, 1)):
    for _keep in (False, True):
        case("sum mean var logsumexp", "2 3 4", axis=_axis, keepdims=_keep)
        case("std", "2 3 4", axis=_axis, keepdims=_keep, repeats=False)
        case("max min", "2 3 4", axis=_axis, keepdims=_keep, draw=distinct, repeats=False)
case("sum", "")
case("sum", "3 0 2", axis=1)
case("var std", "3 4", axis=1, correction=1, repeats=False)
for _axis in (0, 1, -1):
    case("cumsum softmax log_softmax", "2 3 4", axis=_axis)

# -- products, positions, views

case("matmul", "3 4, 4 5; 2 3 4, 2 4 5; 2 1 3 4, 5 4 2; 2 3, 3 0; 4, 4; 3 4, 4; 4, 2 4 5; 2 3 4, 4")
case("matmul", "3 4", lambda x: x @ x.T)
case("linear", "3 4, 4 5, 5; 2 3 4, 4 5; 4, 4 2, 2")
case("linear", "2 3 4, 5 4, 5", transposed=True)
case("take", "3 4", lambda x: x[[0, 2, 0]])
case("take", "2 3 4", lambda x: x[[0, 1, 0], :, [2, 2, 2]])
case("take", "3 4", lambda x: x[np.arange(12).reshape(3, 4) % 3 == 0])
case("take", "2 3", lambda x: x[..., [[1, 0], [1, 1]]])
case("gather", "2 3", lambda x: ops.gather(x, [[0, 0], [2, 1]], axis=1))
case("gather", "2 3", lambda x: ops.gather(x, [[1, 0, 1]], axis=0))
_IDS = [[0, 3, 1], [2, 2, 0]]
case("embedding", "4 3", partial(ops.embedding, _IDS))
case("embedding", "4 3", partial(ops.embedding, np.zeros((0,), dtype=np.int64)))
case("concatenate", "2 3, 2 2", axis=1)
case("concatenate", "2 3", lambda a: ops.concatenate([a, a]))
case("concatenate", "2 3, 2 3", lambda a, b: ops.stack([a, b], axis=-1))
case("pad", "2 3", width=((1, 0), (0, 2)))
case("pad", "2 3", width=1, value=2.0)
case("clone", "2 3")
case("cast", "2 3", lambda x: x.to("float64") * 1.0)
case("cast", "2 3", dtype="float64")
case("transfer", "2 3", lambda x: ops.OPS["transfer"](x, device=x.device))
case("view", "2 3 4", lambda x: x.contiguous().view(4, -1))
case("permute", "2 3 4", lambda x: x.permute(2, 0, 1))
case("permute", "2 3 4", lambda x: x.T)
case("transpose", "2 3 4", i=0, j=-1)
case("expand", "2 1", lambda x: x.expand(4, 2, 3))
case("expand", "3", lambda x: x.expand(2, -1))
case("squeeze", "2 1 3 1")
case("squeeze", "2 1 3 1", axis=(1, -1))
case("unsqueeze", "2 3", axis=1)
case("index", "2 3", lambda x: x[1])
case("index", "2 4 3", lambda x: x[..., None, ::-2, 1:])
case("index", "2 3", lambda x: x[1:1])
case("split", "2 5", size=2, axis=1)
case("split", "2 5", lambda x: x.split([1, 3, 1], -1)[1])
case("split", "5 2", lambda x: x.chunk(3))

# -- layers and losses

case("layer_norm", "5, 5, 5", repeats=False)  # a constant row is a kink but for eps
case("layer_norm", "3 5, 5, 5; 2 3 5, 5, 5; 2 2 3 5, 5, 5")
case("layer_norm", "4 1", lambda x: ops.layer_norm(x, [1.0], [0.5]))
case("layer_norm", "3 4, 4, 4", eps=0.1)
for _options in (
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"ignore_index": 2},
    {"label_smoothing": 0.1},
    {"ignore_index": 0, "label_smoothing": 0.2, "reduction": "sum"},
):
    case("cross_entropy", "2 3 4", lambda x, o=_options: ops.cross_entropy(x, _IDS, **o))
    o = {name: value for name, value in _options.items() if name != "ignore_index"}
    case("cross_entropy", "2 3 4, 2 3 4", lambda x, q, o=o: ops.cross_entropy(x, q.softmax(), **o))
    _options = {**_options, "weight": [0.5, 1.0, 0.0, 2.0]}
    case("cross_entropy", "2 3 4", lambda x, o=_options: ops.cross_entropy(x, _IDS, **o))
case("cross_entropy", "2 4", lambda x: ops.cross_entropy(x, [1, 1], ignore_index=1))
for _reduction in ("mean", "sum", "none"):
    case("mean_squared_error", "2 3, 2 3", reduction=_reduction)
    case("l1_loss", "2 3, 2 3", reduction=_reduction, draw=distinct)
    case("huber_loss", "2 3, 2 3", reduction=_reduction, delta=0.05, draw=distinct)
    _loss = partial(ops.kl_divergence, reduction=_reduction)
    case("kl_divergence", "2 3, 2 3", lambda x, p, f=_loss: f(x.log_softmax(), p.softmax()))
    _loss = partial(ops.binary_cross_entropy_with_logits, reduction=_reduction)
    case("binary_cross_entropy_with_logits", "2 3, 2 3", lambda x, t, f=_loss: f(x, t.sigmoid()))
    _loss = partial(_loss, pos_weight=[0.5, 3.0, 1.0])
    case("binary_cross_entropy_with_logits", "2 3, 2 3", lambda x, t, f=_loss: f(x, t.sigmoid()))
    _loss = partial(ops.binary_cross_entropy, reduction=_reduction)
    case("binary_cross_entropy", "2 3, 2 3", lambda x, t, f=_loss: f(x.sigmoid(), t.sigmoid()))
for _p in (0.0, 0.4, 1.0):
    case("dropout", "3 4", p=_p, key=Key(7, 1, 2))
case("attention", "2 3 4, 2 5 4, 2 5 6")
case("attention", "2 3 4, 2 5 4, 2 5 4; 5 2, 3 2, 3 2", causal=True)
case("attention", "2 2 3 4, 2 2 3 4, 2 2 3 4, 2 1 1 3", causal=True, scale=0.3)
case("attention", "2 2 4, 2 3 4, 2 3 4", mask=[[True, False, True], [False, False, False]])
case("attention", "2 3 4, 2 3 4, 2 3 4", causal=True, dropout=0.3, key=Key(3))
case("attention", "2 3 4", lambda x: ops.attention(x, x, x, causal=True))
case("linear_gelu", "2 3 4, 4 5, 5; 3 4, 4 5")
for _options in ({}, {"ignore_index": 1, "label_smoothing": 0.2}, {"reduction": "sum"}):
    _loss = partial(ops.linear_cross_entropy, targets=_IDS, **_options)
    case("linear_cross_entropy", "2 3 5, 5 4", _loss)
    case("linear_cross_entropy", "2 3 5, 4 5", partial(_loss, transposed=True))
_SUM = "2 3 4, 2 3 4, 4, 4"
_PADDING = np.array([[True, True, False, True], [True, False, False, False]])[:, None, None]
case("residual_layer_norm", _SUM, lambda *xs: ops.concatenate(ops.residual_layer_norm(*xs)))
case("residual_layer_norm", "3 4, 3 4, 4, 4", lambda *xs: ops.residual_layer_norm(*xs, eps=0.1)[1])
case("multi_head_attention", "2 3 12", heads=2, causal=True)
case("multi_head_attention", "2 3 6", heads=1, dropout=0.3, key=Key(3))
case("multi_head_attention", "2 3 4, 2 4 8", heads=2)
case(
    "multi_head_attention",
    "2 3 4, 2 4 8",
    lambda q, kv: ops.multi_head_attention(q, kv, _PADDING, heads=2),
)
case("positional_embedding", "4 3, 5 3", partial(ops.positional_embedding, _IDS))
case("positional_embedding", "4 3, 5 3", partial(ops.positional_embedding, _IDS), scale=3.0)

# Ops that have no gradient: their results are bools, integers or steps.
_NAMES = """equal not_equal less less_equal greater greater_equal bitwise_and bitwise_or bitwise_xor
invert argmax argmin any all one_hot step"""
WITHOUT_GRADIENT = set(_NAMES.split())


# -- the seven memory layouts: the same values, another way through memory


def _permuted(x: Array) -> Array:
    """The last axis outermost in memory."""
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0, -1) if x.ndim else x


def _inside(x: Array, part: Callable[[int], slice]) -> Array:
    """A part of each axis of a larger array, which holds NaN elsewhere."""
    around = np.full(tuple(2 * n + 3 for n in x.shape), np.nan)
    parts: Any = map(part, x.shape)
    inside = around[..., *parts]
    inside[...] = x
    return inside


def _expanded(x: Array) -> Array:
    """One slice of the first axis, repeated by stride 0."""
    return np.broadcast_to(x[:1], x.shape) if x.ndim else x


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "C": lambda x: np.array(x, order="C"),  # np.ascontiguousarray would make (1,) of a scalar
    "F": lambda x: np.array(x, order="F"),
    "permuted": _permuted,
    "step 2": lambda x: _inside(x, lambda n: slice(None, 2 * n, 2)),
    "negative step": lambda x: np.asarray(np.flip(np.flip(x).copy())),
    "expanded": _expanded,
    "offset slice": lambda x: _inside(x, lambda n: slice(2, 2 + n)),
}
