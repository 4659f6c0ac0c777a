"""Writes in place; hooks, checkpoints and backward."""

from __future__ import annotations

import torch

from tests.faults.programs.drawing import (
    Drawer,
    Drawn,
    Entry,
    UnfitError,
    array_key,
    broadcasts,
    in_a_graph,
    is_float,
    like,
    moderate,
    same,
    tensor_pair,
    view_key,
)
from tests.faults.programs.step import Op

# -- writes


def _may_write(x: torch.Tensor) -> bool:
    return is_float(x) and x.is_leaf


def _target(d: Drawer) -> str:
    return d.tensor(_may_write if d.chance(0.9) else is_float)


def written(d: Drawer) -> Drawn:
    name = _target(d)
    x = d.live[name]
    key = view_key(d, x.shape)
    try:
        part = eval(f"x[{key}]", {"x": x.detach()})
    except IndexError:
        part = x.detach()

    def fits(y: torch.Tensor) -> bool:
        alike = y.dtype == x.dtype and y.ndim <= part.ndim and broadcasts(part, y)
        free = not y.requires_grad or d.chance(0.1)
        return free and alike and (torch.broadcast_shapes(part.shape, y.shape) == part.shape)

    value = d.one(("0.0", "1.5", "-2", "np.float64(0.25)")) if d.chance(0.5) else d.tensor(fits)
    return [name, value], {"key": key, "sign": d.one("+-*")}


def written_at(d: Drawer) -> Drawn:
    name = _target(d)
    key, torch_key = array_key(d, d.live[name].shape)
    return [name], {"key": key, "torch": torch_key, "value": d.one((0.0, -1.5))}


def written_where(d: Drawer) -> Drawn:
    name = _target(d)
    shape = d.live[name].shape

    def fits(m: torch.Tensor) -> bool:
        return m.dtype == torch.bool and m.ndim > 0 and m.shape == shape[: m.ndim]

    return [name, d.tensor(fits)], {"value": d.one((0.0, 1.5))}


def updated(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: is_float(x) and bool((x.detach().abs() <= 8).all()))
    if "[" in name:
        raise UnfitError
    x = d.live[name]

    def fits(y: torch.Tensor) -> bool:
        return moderate(y) and broadcasts(x, y) and (y.dtype == x.dtype or d.chance(0.1))

    value = d.one(("0.5", "-2")) if d.chance(0.75) else d.tensor(fits)
    name_of = {"+": "add", "-": "sub", "*": "mul"}
    sign = d.one("+-*")
    return [name, value], {"sign": sign, "name": name_of[sign]}


def _all_or_nothing(key: str) -> str:
    """A write in PyTorch, which finds an index out of range only after it wrote some elements:
    reading finds one first.
    """
    return f"memory({{0}})[{key}]; memory({{0}})[{key}] = {{value}}"


def window(d: Drawer) -> Drawn:
    return [
        d.tensor(lambda x: is_float(x) and not x.requires_grad and x.dtype != torch.bfloat16)
    ], {"value": d.one((0.25, -1.0))}


# -- the graph


def in_graph(d: Drawer) -> Drawn:
    return [d.tensor(in_a_graph)], {"value": d.one((2.0, -0.5))}


def a_leaf(d: Drawer) -> Drawn:
    return [d.tensor(lambda x: x.requires_grad and x.is_leaf)], {}


def constant_alone(d: Drawer) -> Drawn:
    """A constant without views: in PyTorch they would enter the graph with it."""
    bases = {id(x._base) for x in d.live.values()}
    name = d.tensor(lambda x: is_float(x) and not x.requires_grad)
    if id(d.live[name]) in bases:
        raise UnfitError
    return [name], {}


def with_gradient(d: Drawer) -> Drawn:
    return [d.tensor(lambda x: x.requires_grad and x.is_leaf and x.grad is not None)], {}


def _body(d: Drawer) -> str:
    text = "a"
    for _ in range(d.number(1, 3)):
        text = d.one(
            ("({0} * a)", "{0}.tanh()", "{0}.sigmoid()", "({0} + 0.5)", "{0}.relu()")
        ).format(text)
    return text


def again(d: Drawer) -> Drawn:
    """With a tensor from around the function, now and then."""
    name = d.tensor(moderate)
    x = d.live[name]
    if not is_float(x):
        raise UnfitError
    alike = [n for n, y in d.live.items() if y.dtype == x.dtype and broadcasts(x, y)]
    around = d.one(alike) if d.chance(0.5) else "1.5"
    return [name], {"body": f"{_body(d)} * {around}"}


def again_two(d: Drawer) -> Drawn:
    inputs, _ = tensor_pair(d, lambda x: moderate(x) and x.dtype != torch.float16)
    x, y = (d.live[name] for name in inputs)
    if x.dtype != y.dtype or not is_float(x):
        raise UnfitError
    return inputs, {"body": _body(d)}


def root(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.requires_grad and not x.is_leaf)
    return [name], {"retain": d.chance(0.75)}


def several_roots(d: Drawer) -> Drawn:
    """The sum of many results, each with a weight: what they share is reached on many paths. A term
    may be a sum of two results, whose gradients are then one array.
    """
    names = [name for name, x in d.live.items() if x.requires_grad]
    if not names:
        raise UnfitError
    terms = []
    for name in d.rng.permutation(names)[: d.number(2, 8)].tolist():
        x = d.live[name]
        alike = [n for n in names if (d.live[n].shape, d.live[n].dtype) == (x.shape, x.dtype)]
        both = f"({name} + {d.one(alike)})" if d.chance(0.5) else name
        terms.append(f"({both} * {d.one((2.0, 0.5, -1.5))}).sum()")
    return [], {"terms": " + ".join(terms), "retain": d.chance(0.75)}


def _seed(d: Drawer, name: str) -> str:
    x = d.live[name]
    return like(d, x, *x.shape) + (".detach()" if d.chance(0.5) else "")


def root_and_seed(d: Drawer) -> Drawn:
    (name,), options = root(d)
    return [name, _seed(d, name)], options


def _hooked(d: Drawer, x: torch.Tensor) -> bool:
    """Whether it has hooks, or another part of the same split has some.

    PyTorch gives the gradient of a result before its hooks or after them: that depends on the other
    inputs of grad(). It calls the hooks of an output, and of all parts, even if no input is behind.
    """
    parts = [y for y in d.live.values() if y.grad_fn is not None and y.grad_fn is x.grad_fn]
    return any(y._backward_hooks or (not y.is_leaf and y.retains_grad) for y in [x, *parts])


def root_and_inputs(d: Drawer) -> Drawn:
    (name,), options = root(d)
    inputs = [name, d.tensor(in_a_graph), d.tensor(in_a_graph)]
    if any(_hooked(d, d.live[x]) for x in inputs):
        raise UnfitError
    return inputs, options


def root_inputs_and_seed(d: Drawer) -> Drawn:
    inputs, options = root_and_inputs(d)
    return [*inputs, _seed(d, inputs[0])], options


# -- the tables

WRITES = {
    "write": Entry(
        Op("{0}[{key}] = {1}", "memory({0})[{key}] = clone({1})", "write"), written, 2.5
    ),
    "write at ids": Entry(
        Op("{0}[{key}] = {value}", _all_or_nothing("{torch}"), "write"), written_at, 0.7
    ),
    "write where": Entry(
        Op("{0}[{1}] = {value}", _all_or_nothing("{1}"), "write"), written_where, 0.5
    ),
    "update a part": Entry(
        Op("{0}[{key}] {sign}= {1}", "memory({0})[{key}] {sign}= clone({1})", "write"),
        written,
        0.7,
    ),
    "update": Entry(
        Op("{0} {sign}= {1}", "{0} = updated({0}, operator.{name}, {1})", "write"),
        updated,
        2.0,
    ),
    "numpy": Entry(same("{0}.numpy()[...] = {value}", "write"), window, 0.4),
}

GRAPH = {
    "hook": Entry(
        # PyTorch shows None for a part that is not used, and adds to a gradient that it shows
        Op(
            "{0}.register_hook(lambda g: seen['{out}'].append(g))",
            "{0}.register_hook(lambda g: None if g is None else seen['{out}'].append(clone(g)))",
            "act",
        ),
        in_graph,
        1.0,
    ),
    "changing hook": Entry(
        Op(
            "{0}.register_hook(lambda g: g * {value})",
            "{0}.register_hook(lambda g: g if g is None else g * {value})",
            "act",
        ),
        in_graph,
        0.7,
    ),
    "retain_grad": Entry(same("{0}.retain_grad()", "act"), in_graph, 0.7),
    "checkpoint": Entry(same("checkpoint(lambda a: {body}, {0})"), again, 0.8),
    "checkpoint of two": Entry(
        same("checkpoint(lambda a, b: (a * b.sin(), {body}), {0}, {1})"), again_two, 0.5
    ),
    "backward of sum": Entry(same("{0}.sum().backward(retain_graph={retain})", "act"), root, 2.0),
    "backward of several": Entry(
        same("({terms}).backward(retain_graph={retain})", "act"), several_roots, 2.5
    ),
    "backward": Entry(
        Op(
            "{0}.backward({1}, retain_graph={retain})",
            "{0}.backward(clone({1}), retain_graph={retain})",
            "act",
        ),
        root_and_seed,
        1.5,
    ),
    "grad()": Entry(
        same("grad({0}.sum(), [{1}, {2}], retain_graph={retain})"), root_and_inputs, 1.0
    ),
    "grad() with a gradient": Entry(
        same("grad({0}, [{1}, {2}], {3}, retain_graph={retain})"),
        root_inputs_and_seed,
        0.5,
    ),
    "freeze": Entry(same("{0}.requires_grad = False", "act"), a_leaf, 0.3),
    "thaw": Entry(same("{0}.requires_grad = True", "act"), constant_alone, 0.5),
    "grad": Entry(same("{0}.grad"), with_gradient, 0.5),
    "forget gradient": Entry(same("{0}.grad = None", "act"), with_gradient, 0.3),
}
