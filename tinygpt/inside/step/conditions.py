"""Breakpoints: conditions at which a walk halts. And the answer to "who made this NaN?"

    op=attention    module=blocks.0.attention    shape=4,32,64    nan

A shape is that of any array at the stop; nan halts at the first op whose result is not finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import numpy as np

from tensor.memory.layout import Shape
from tensor.ops.op import OPS
from tinygpt.errors import InputError
from tinygpt.inside.arrays import floats, is_finite, statistics
from tinygpt.inside.step.stops import Seen, Stop
from tinygpt.terminal import nearest, shown

# ops that are a line of another op: this op, and the variable that the line makes
INSIDE = {"softmax": ("attention", "weights")}
KINDS = "op=NAME, module=PATH, shape=4,32,64 or nan"


def condition(text: str, stops: Sequence[Stop]) -> tuple[str, set[int]]:
    """The breakpoint that a text describes, and the numbers of the stops at which it halts. At a
    module these are the stops where the walk enters the module.

    Raises InputError for an op or a module that no stop has, with the names that exist.
    """
    kind, _, what = (part.strip() for part in text.partition("="))
    if kind == "nan" and not what:
        bad = (i for i, stop in enumerate(stops) if any(map(_is_bad, stop.outputs)))
        return kind, set(islice(bad, 1))
    if kind not in ("op", "module", "shape") or not what:
        raise InputError(f"breakpoint {shown(text)!r} is none of {KINDS}\nsee: tinygpt step --help")
    if kind == "shape":
        what = _shape(what)
    found = {i for i, stop in enumerate(stops) if _fits(stop, kind, what)}
    if kind == "module":
        found = {i for i in found if i - 1 not in found or stops[i - 1].phase != stops[i].phase}
    if kind == "op" and not found:
        raise InputError(f"breakpoint op={shown(what)}: {_no_op(what, stops)}")
    if kind == "module" and not found:
        modules = list(dict.fromkeys(stop.module for stop in stops if stop.module))
        raise InputError(
            f"breakpoint module={shown(what)}: no such module here{nearest(what, modules)}\n"
            f"some there are: {', '.join(modules[:6])}"
        )
    return f"{kind}={what}", found


def _fits(stop: Stop, kind: str, what: str) -> bool:
    if kind == "op":
        return stop.op == what
    if kind == "module":
        return stop.within(what)
    return any(_sizes(seen.value.shape) == what for seen in stop.seen)


def _shape(text: str) -> str:
    sizes = [part.strip() for part in text.strip("()").split(",") if part.strip()]
    if not all(size.isdecimal() and len(size) < 19 for size in sizes):
        needed = "whole numbers with commas between are needed, such as shape=4,32,64"
        raise InputError(f"breakpoint shape={shown(text)}: {needed}")
    return _sizes(tuple(map(int, sizes)))


def _sizes(shape: Shape) -> str:
    return ",".join(map(str, shape))


def _no_op(what: str, stops: Sequence[Stop]) -> str:
    """Why no stop has that op, and which ops there are."""
    op, variable = INSIDE.get(what, ("", ""))
    around = next((stop for stop in stops if stop.op == op), None)
    if around is not None:
        name = f"{around.module}.{variable}"
        return (
            f"here that is a line inside {op}, which makes its variable {variable}\n"
            f"go there: --plain --show {name}; in the full-screen program g {name}"
        )
    known = list(dict.fromkeys(stop.op for stop in stops))
    exists = "is an op, but not of this walk" if what in OPS else "is no op"
    return f"that {exists}{nearest(what, known)}\nits ops: {', '.join(known)}"


# -- not finite


def _is_bad(seen: Seen) -> bool:
    return not is_finite(seen.value.array)


def blame(stop: Stop) -> list[str]:
    """The origin of what is not finite at a stop: the inputs that hold it already, or the op
    itself. Empty where all is finite.
    """
    made = [seen for seen in stop.outputs if _is_bad(seen)]
    if not made:
        return []
    found = ", ".join(
        f"{seen.value.name} {seen.value.shape}: {_count(seen.value.array)}" for seen in made
    )
    lines = [f"not finite: {found}"]
    for seen in filter(_is_bad, stop.inputs):
        source = (seen.value.source if stop.phase == "forward" else seen.note) or seen.value.name
        where = f"{_count(seen.value.array)}, {_first(seen.value.array)}"
        lines.append(f"held already by {seen.value.name}, {source}: {where}")
    if len(lines) == 1:
        lines.append(f"all its inputs are finite: it is this {stop.op} that made it")
    return lines


def holders(parameters: Iterable[tuple[str, Any]]) -> list[str]:
    """A line for each parameter that is not finite before anything ran."""
    return [
        f"{name} {array.shape} holds {_count(array)} before anything has run, {_first(array)}"
        for name, array in parameters
        if not is_finite(array)
    ]


def _count(array: Any) -> str:
    facts = statistics(array)
    return f"{' and '.join(facts.broken)} of {facts.size}"


def _first(array: Any) -> str:
    """first at [3, 7]"""
    return f"first at {np.argwhere(~np.isfinite(floats(array)))[0].tolist()}"
