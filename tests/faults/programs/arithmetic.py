"""Ops that make tensors, compute element by element, or reduce axes."""

from __future__ import annotations

import torch

from tests.faults.programs.drawing import (
    FLOATS,
    Drawer,
    Drawn,
    Entry,
    UnfitError,
    any_tensor,
    basic,
    binary,
    broadcasts,
    is_float,
    moderate,
    same,
    tensor_pair,
)
from tests.faults.programs.step import Op

# -- making


def leaf(d: Drawer) -> Drawn:
    dtype = d.one(FLOATS) if d.chance(0.06) else d.dtype
    return [], {
        "seed": d.seed(),
        "shape": d.shape(4 if d.chance(0.1) else 3),
        "dtype": dtype,
        "kind": "ties" if d.chance(0.2) else "normal",
        "turned": d.chance(0.2),
    }


constant = leaf


def integers(d: Drawer) -> Drawn:
    kind = d.one(("ids", "flags"))
    dtype = "bool" if kind == "flags" else d.one(("int64", "int64", "int32"))
    return [], {"seed": d.seed(), "shape": d.shape(), "dtype": dtype, "kind": kind}


# -- element by element


def small(d: Drawer) -> Drawn:
    return [d.tensor(lambda x: moderate(x) and x.ndim > 0)], {}


def limits(d: Drawer) -> Drawn:
    low, high = d.one((None, -1.0, -0.5)), d.one((0.5, 1.0, 2))
    return [d.tensor(is_float)], {"low": low, "high": high}


def dtype(d: Drawer) -> Drawn:
    return [d.tensor()], {"dtype": d.one((*FLOATS, d.dtype, d.dtype, "int64", "bool"))}


def pair(d: Drawer) -> Drawn:
    if d.chance(0.2):
        return [d.tensor(moderate), d.one(("2.0", "0.5", "-1.5", "3", "0"))], {}
    return tensor_pair(d, moderate if d.chance(0.9) else lambda x: not is_float(x) or moderate(x))


def small_pair(d: Drawer) -> Drawn:
    def fits(x: torch.Tensor) -> bool:
        return is_float(x) and bool((x.detach().abs() <= 3).all())

    if d.chance(0.3):
        return [d.tensor(fits), d.one(("2", "0.5", "-1", "3.0", "0"))], {}
    return tensor_pair(d, fits)


def _mask(d: Drawer, x: torch.Tensor) -> str:
    return d.tensor(lambda m: m.dtype == torch.bool and broadcasts(m, x))


def choice(d: Drawer) -> Drawn:
    (a, b), _ = tensor_pair(d)
    return [_mask(d, d.live[a]), a, b], {}


def masked(d: Drawer) -> Drawn:
    x = d.tensor(is_float)
    if not is_float(d.live[x]):
        raise UnfitError
    return [x, _mask(d, d.live[x])], {"value": d.one((0.0, 2.5))}


def product(d: Drawer) -> Drawn:
    a = d.tensor(lambda x: moderate(x) and x.ndim > 0)
    x = d.live[a]

    def fits(y: torch.Tensor) -> bool:
        inner = y.ndim and y.shape[-2 if y.ndim > 1 else 0] == x.shape[-1]
        alike = y.dtype == x.dtype
        return bool(inner) and alike and moderate(y) and broadcasts(x[..., 0, 0:1], y[..., 0:1, 0])

    def plain(y: torch.Tensor) -> bool:
        return bool(y.ndim == 1 or x.ndim == 1 or fits(y))

    return [a, d.tensor(lambda y: y.ndim > 0 and y.numel() > 0 and _inner(x, y) and plain(y))], {}


def _inner(x: torch.Tensor, y: torch.Tensor) -> bool:
    return moderate(y) and y.dtype == x.dtype and y.shape[-2 if y.ndim > 1 else 0] == x.shape[-1]


# -- reductions


def axes(d: Drawer) -> Drawn:
    name = d.tensor(moderate)
    x = d.live[name]
    axis = d.axis(x)
    several = d.rng.permutation(x.ndim)[: d.number(1, 2)].tolist()
    drawn = d.one((None, axis, tuple(several) if several else None))
    every = tuple(range(x.ndim))
    return [name], {
        "axis": axis,
        "axes": drawn,
        "dims": () if drawn is None else drawn,
        "all": every if drawn is None else drawn,
        "keep": d.chance(0.4),
        "less": int(d.chance(0.2)),
    }


# -- the tables

MAKING = {
    "leaf": Entry(
        same("new({seed}, {shape}, '{dtype}', '{kind}', {turned}, leaf=True)"), leaf, 1.5
    ),
    "constant": Entry(same("new({seed}, {shape}, '{dtype}', '{kind}', {turned})"), constant, 1.5),
    "ids": Entry(same("new({seed}, {shape}, '{dtype}', '{kind}')"), integers, 0.7),
    "leaf on memory of others": Entry(
        same("{out} = {0}[{key}].detach(); {out}.requires_grad = True", "act"), basic, 1.0
    ),
}

UNARY = {
    name: Entry(Op(here, torch), small, share)
    for name, here, torch, share in (
        ("exp", "{0}.exp()", "{0}.exp()", 0.7),
        ("log", "({0}.abs() + 0.5).log()", "({0}.abs() + 0.5).log()", 0.5),
        ("sqrt", "({0}.abs() + 0.5).sqrt()", "({0}.abs() + 0.5).sqrt()", 0.5),
        ("sin", "{0}.sin()", "{0}.sin()", 0.5),
        ("cos", "{0}.cos()", "{0}.cos()", 0.5),
        ("tanh", "{0}.tanh()", "{0}.tanh()", 0.7),
        ("erf", "{0}.erf()", "erf({0})", 0.4),
        ("sigmoid", "{0}.sigmoid()", "{0}.sigmoid()", 0.7),
        ("relu", "{0}.relu()", "{0}.relu()", 0.7),
        ("silu", "{0}.silu()", "F.silu({0})", 0.4),
        ("gelu", "{0}.gelu()", "gelu({0})", 0.7),
        ("gelu erf", "{0}.gelu(form='erf')", "gelu({0}, 'erf')", 0.4),
        ("abs", "{0}.abs()", "{0}.abs()", 0.5),
        ("negative", "-{0}", "-{0}", 0.5),
        ("square", "{0} ** 2", "{0} ** 2", 0.5),
        ("inverse", "({0} * {0} + 1.0) ** -1", "({0} * {0} + 1.0) ** -1", 0.3),
        ("backwards in memory", "{0}[..., ::-1] * 1.5", "{0}.flip(-1) * 1.5", 0.5),
    )
} | {
    "clip": Entry(same("{0}.clip({low}, {high})"), limits, 0.5),
    "to": Entry(Op("{0}.to('{dtype}')", "{0}.to(torch.{dtype})"), dtype, 1.0),
    "clone": Entry(same("{0}.clone()"), any_tensor, 1.0),
}

BINARY = {
    "add": Entry(binary("+", "add"), pair, 2.0),
    "subtract": Entry(binary("-", "sub"), pair, 1.0),
    "multiply": Entry(binary("*", "mul"), pair, 2.0),
    "reflected": Entry(Op("{1} - {0}", "operator.sub(*met({1}, {0}))"), pair, 0.5),
    "divide": Entry(
        Op("{0} / ({1} * {1} + 0.5)", "operator.truediv(*met({0}, {1} * {1} + 0.5))"),
        pair,
        0.7,
    ),
    "power": Entry(
        Op("({0}.abs() + 0.5) ** {1}", "operator.pow(*met({0}.abs() + 0.5, {1}))"),
        small_pair,
        0.5,
    ),
    "maximum": Entry(
        Op("tensor.maximum({0}, {1})", "torch.maximum(*met({0}, {1}))"), tensor_pair, 0.6
    ),
    "minimum": Entry(
        Op("tensor.minimum({0}, {1})", "torch.minimum(*met({0}, {1}))"), tensor_pair, 0.6
    ),
    "where": Entry(
        Op("tensor.where({0}, {1}, {2})", "torch.where({0}, *met({1}, {2}))"), choice, 1.0
    ),
    "masked_fill": Entry(same("{0}.masked_fill({1}, {value})"), masked, 0.5),
    "greater": Entry(binary(">", "gt"), pair, 0.6),
    "equal": Entry(binary("==", "eq"), pair, 0.3),
    "matmul": Entry(Op("{0} @ {1}", "operator.matmul(*met({0}, {1}))"), product, 1.5),
}

REDUCTIONS = {
    name: Entry(Op("{0}." + here, torch), way, share)
    for name, here, torch, way, share in (
        ("sum", "sum({axes}, {keep})", "{0}.sum({axes}, {keep})", axes, 1.5),
        ("mean", "mean({axes}, {keep})", "{0}.mean({axes}, {keep})", axes, 1.0),
        ("max", "max({axes}, {keep})", "{0}.amax({dims}, {keep})", axes, 0.6),
        ("min", "min({axes}, {keep})", "{0}.amin({dims}, {keep})", axes, 0.6),
        (
            "var",
            "var({axes}, {keep}, correction={less})",
            "{0}.var({axes}, correction={less}, keepdim={keep})",
            axes,
            0.5,
        ),
        (
            "std",
            "std({axes}, {keep}, correction={less})",
            "{0}.std({axes}, correction={less}, keepdim={keep})",
            axes,
            0.5,
        ),
        (
            "logsumexp",
            "logsumexp({axes}, {keep})",
            "in_float32(lambda x: x.logsumexp({all}, {keep}), {0})",
            axes,
            0.5,
        ),
        ("argmax", "argmax({axis}, {keep})", "{0}.argmax({axis}, {keep})", axes, 0.2),
        ("any", "any({axis}, {keep})", "{0}.any({axis}, {keep})", axes, 0.1),
        ("cumsum", "cumsum({axis})", "{0}.cumsum({axis})", axes, 0.5),
        ("softmax", "softmax({axis})", "{0}.softmax({axis})", axes, 0.7),
        (
            "log_softmax",
            "log_softmax({axis})",
            "in_float32(lambda x: x.log_softmax({axis}), {0})",
            axes,
            0.5,
        ),
    )
}
