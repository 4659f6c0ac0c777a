"""Breakpoints: what a walk is to halt at. And the answer to "who made this NaN?"

    op=attention    module=blocks.0.attention    shape=4,32,64    nan

A shape is that of any array at the stop; nan halts at the first op whose result is not finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tensor.layout import Shape
from tensor.op import OPS
from tinygpt.cli import nearest
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.step.stops import Seen, Stop, value_of
from tinygpt.step.values import is_finite, statistics

INSIDE = {"softmax": ("attention", "weights")}  # ops that are a line of another one: which, and the variable that it makes
KINDS = "op=NAME, module=PATH, shape=4,32,64 or nan"


@dataclass(frozen=True)
class Condition:
    """One breakpoint."""

    kind: str  # op, module, shape, nan
    what: str = ""
    shape: Shape = ()

    def __str__(self) -> str:
        return f"{self.kind}={self.what}" if self.what else self.kind


def condition(text: str, stops: Sequence[Stop]) -> Condition:
    """The breakpoint that a text describes. Raises InputError for what none of the stops can ever meet, with what there is."""
    kind, _, what = (part.strip() for part in text.partition("="))
    if kind == "nan" and not what:
        return Condition("nan")
    if kind == "op" and what:
        known = list(dict.fromkeys(stop.op for stop in stops))
        if what in INSIDE and what not in known and (around := next((stop for stop in stops if stop.op == INSIDE[what][0]), None)):
            op, variable = INSIDE[what]
            name = f"{around.module}.{variable}"
            where = f"go there: --plain --show {name}; in the full-screen program g {name}"
            raise InputError(f"breakpoint op={what}: here that is a line inside {op}, which makes its variable {variable}\n{where}")
        if what not in known:
            exists = "is an op, but not of this walk" if what in OPS else "is no op"
            raise InputError(f"breakpoint op={shown(what)}: that {exists}{nearest(what, known)}\nits ops: {', '.join(known)}")
        return Condition("op", what)
    if kind == "module" and what:
        paths = [path for path in dict.fromkeys(path for stop in stops for path in _ancestors(stop.module)) if path]
        if what not in paths:
            raise InputError(f"breakpoint module={shown(what)}: no such module here{nearest(what, paths)}\nsome there are: {', '.join(paths[:6])}")
        return Condition("module", what)
    if kind == "shape" and what:
        sizes = [part.strip() for part in what.strip("()").split(",") if part.strip()]
        if not all(size.isdecimal() and len(size) < 19 for size in sizes):
            raise InputError(f"breakpoint shape={shown(what)}: whole numbers with commas between are needed, such as shape=4,32,64")
        shape = tuple(map(int, sizes))
        return Condition("shape", ",".join(map(str, shape)), shape)
    raise InputError(f"breakpoint {shown(text)!r} is none of {KINDS}\nsee: tinygpt step --help")


def _ancestors(path: str) -> list[str]:
    """a.b.c: a, a.b, a.b.c"""
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))]


def meets(wanted: Condition, stops: Sequence[Stop], i: int, bad: int | None) -> bool:
    """Whether a walk halts at its i-th stop. A module: where the walk enters it.   bad: where `first_bad` is."""
    stop = stops[i]
    if wanted.kind == "op":
        return stop.op == wanted.what
    if wanted.kind == "module":
        return stop.within(wanted.what) and (i == 0 or not stops[i - 1].within(wanted.what) or stops[i - 1].phase != stop.phase)
    if wanted.kind == "shape":
        return any(seen.value.shape == wanted.shape for seen in stop.seen)
    return i == bad


# -- not finite ---------------------------------------------------------------------------------------------------------


def first_bad(stops: Sequence[Stop]) -> int | None:
    """The first stop that makes something that is not finite."""
    return next((i for i, stop in enumerate(stops) if any(_is_bad(seen) for seen in stop.outputs)), None)


def _is_bad(seen: Seen) -> bool:
    return not is_finite(seen.value.array)


def blame(stop: Stop) -> list[str]:
    """Where what is not finite at a stop comes from: what held it before, or the op itself. Nothing where all is finite."""
    outputs = [seen for seen in stop.outputs if _is_bad(seen)]
    if not outputs:
        return []
    found = [f"{seen.value.name} {seen.value.shape}: {_count(seen)}" for seen in outputs]
    held = [seen for seen in stop.inputs if _is_bad(seen)]
    lines = [f"not finite: {', '.join(found)}"]
    if not held:
        return [*lines, f"all its inputs are finite: it is this {stop.op} that made it"]
    for seen in held:
        source = seen.value.source if stop.phase == "forward" else seen.note
        lines.append(f"held already by {seen.value.name}, {source or seen.value.name}: {_count(seen)}, {_where(seen)}")
    return lines


def holders(parameters: Iterable[tuple[str, object]]) -> list[str]:
    """A line for each parameter that is not finite before anything ran."""
    seen = [Seen("in", value_of(name, array), "") for name, array in parameters]
    return [f"{s.value.name} {s.value.shape} holds {_count(s)} before anything has run, {_where(s)}" for s in seen if _is_bad(s)]


def _count(seen: Seen) -> str:
    facts = statistics(seen.value.array)
    parts = [f"{facts.nans} NaN"] * bool(facts.nans) + [f"{facts.infinities} infinite"] * bool(facts.infinities)
    return f"{' and '.join(parts)} of {facts.size}"


def _where(seen: Seen) -> str:
    """first at [3, 7]"""
    values = np.asarray(seen.value.array).astype(np.float64)
    return f"first at [{', '.join(str(int(i)) for i in np.argwhere(~np.isfinite(values))[0])}]"
