"""Breakpoints: conditions at which a walk halts. And the answer to "who made this NaN?"

    op=attention    module=blocks.0.attention    shape=4,32,64    nan

A shape is that of any array at the stop; nan halts at the first op whose result is not finite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from tensor.ops.op import OPS
from tinygpt.errors import InputError
from tinygpt.inside.arrays import floats, is_finite, statistics, value_of
from tinygpt.inside.step.stops import Seen, Stop
from tinygpt.terminal import nearest, shown

# ops that are a line of another op: this op, and the variable that the line makes
INSIDE = {"softmax": ("attention", "weights")}
KINDS = "op=NAME, module=PATH, shape=4,32,64 or nan"


@dataclass(frozen=True)
class Condition:
    """One breakpoint."""

    kind: str  # op, module, shape, nan
    what: str = ""

    def __str__(self) -> str:
        return f"{self.kind}={self.what}" if self.what else self.kind


def condition(text: str, stops: Sequence[Stop]) -> Condition:
    """The breakpoint that a text describes. Raises InputError for a condition that no stop can
    meet, with the names that exist.
    """
    kind, _, what = (part.strip() for part in text.partition("="))
    if kind == "nan" and not what:
        return Condition("nan")
    if kind == "op" and what:
        _check_op(what, stops)
        return Condition("op", what)
    if kind == "module" and what:
        _check_module(what, stops)
        return Condition("module", what)
    if kind == "shape" and what:
        sizes = [part.strip() for part in what.strip("()").split(",") if part.strip()]
        if not all(size.isdecimal() and len(size) < 19 for size in sizes):
            needed = "whole numbers with commas between are needed, such as shape=4,32,64"
            raise InputError(f"breakpoint shape={shown(what)}: {needed}")
        return Condition("shape", _sizes(map(int, sizes)))
    raise InputError(f"breakpoint {shown(text)!r} is none of {KINDS}\nsee: tinygpt step --help")


def _check_op(what: str, stops: Sequence[Stop]) -> None:
    known = list(dict.fromkeys(stop.op for stop in stops))
    if what in known:
        return
    op, variable = INSIDE.get(what, ("", ""))
    around = next((stop for stop in stops if stop.op == op), None)
    if around is not None:
        name = f"{around.module}.{variable}"
        raise InputError(
            f"breakpoint op={what}: here that is a line inside {op}, "
            f"which makes its variable {variable}\n"
            f"go there: --plain --show {name}; in the full-screen program g {name}"
        )
    exists = "is an op, but not of this walk" if what in OPS else "is no op"
    raise InputError(
        f"breakpoint op={shown(what)}: that {exists}{nearest(what, known)}\n"
        f"its ops: {', '.join(known)}"
    )


def _check_module(what: str, stops: Sequence[Stop]) -> None:
    paths: dict[str, None] = {}
    for module in dict.fromkeys(stop.module for stop in stops if stop.module):
        parts = module.split(".")
        paths |= {".".join(parts[: i + 1]): None for i in range(len(parts))}
    if what not in paths:
        raise InputError(
            f"breakpoint module={shown(what)}: no such module here{nearest(what, paths)}\n"
            f"some there are: {', '.join(list(paths)[:6])}"
        )


def _sizes(shape: Iterable[int]) -> str:
    return ",".join(map(str, shape))


def meets(wanted: Condition, stops: Sequence[Stop], i: int, bad: int | None) -> bool:
    """Whether a walk halts at its i-th stop. A module: where the walk enters it.   bad: the result
    of `first_bad`.
    """
    stop = stops[i]
    if wanted.kind == "op":
        return stop.op == wanted.what
    if wanted.kind == "shape":
        return any(_sizes(seen.value.shape) == wanted.what for seen in stop.seen)
    if wanted.kind == "nan":
        return i == bad
    before = stops[i - 1] if i else None
    inside_before = before and before.within(wanted.what) and before.phase == stop.phase
    return stop.within(wanted.what) and not inside_before


# -- not finite


def first_bad(stops: Sequence[Stop]) -> int | None:
    """The first stop that makes an array that is not finite."""
    return next((i for i, stop in enumerate(stops) if any(map(_is_bad, stop.outputs))), None)


def _is_bad(seen: Seen) -> bool:
    return not is_finite(seen.value.array)


def blame(stop: Stop) -> list[str]:
    """The origin of what is not finite at a stop: the inputs that hold it already, or the op
    itself. Empty where all is finite.
    """
    made = [seen for seen in stop.outputs if _is_bad(seen)]
    if not made:
        return []
    found = ", ".join(f"{seen.value.name} {seen.value.shape}: {_count(seen)}" for seen in made)
    lines = [f"not finite: {found}"]
    for seen in filter(_is_bad, stop.inputs):
        source = (seen.value.source if stop.phase == "forward" else seen.note) or seen.value.name
        where = f"{_count(seen)}, {_first(seen)}"
        lines.append(f"held already by {seen.value.name}, {source}: {where}")
    if len(lines) == 1:
        lines.append(f"all its inputs are finite: it is this {stop.op} that made it")
    return lines


def holders(parameters: Iterable[tuple[str, object]]) -> list[str]:
    """A line for each parameter that is not finite before anything ran."""
    seen = [Seen("in", value_of(name, array)) for name, array in parameters]
    return [
        f"{s.value.name} {s.value.shape} holds {_count(s)} before anything has run, {_first(s)}"
        for s in filter(_is_bad, seen)
    ]


def _count(seen: Seen) -> str:
    facts = statistics(seen.value.array)
    return f"{' and '.join(facts.broken)} of {facts.size}"


def _first(seen: Seen) -> str:
    """first at [3, 7]"""
    return f"first at {np.argwhere(~np.isfinite(floats(seen.value.array)))[0].tolist()}"
