"""Stops: the positions where a walk can halt. A stop is an op forward or an op backward; in a step
of training also the clipping and the update of each parameter, and of PPO, before all, what is made
of a rollout.

All stops have the same fields: names, the arrays that are seen there, source and lines.
"""

from __future__ import annotations

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from tensor import kernels
from tensor.ops.op import OPS
from tensor.recording import (
    Backward,
    Forward,
    Moment,
    Recording,
    Source,
    Value,
    source_of,
)
from tinygpt.inside.arrays import floats, is_finite, norm, statistics, value_of

Phase: TypeAlias = Literal["rollout", "forward", "backward", "clip", "update"]
# gradient -> the ops that have contributed to it in this backward pass, and the sum so far
Arrived: TypeAlias = dict[str, tuple[list[str], Any]]


@dataclass(frozen=True)
class Seen:
    """An array at a stop."""

    role: str  # "in", "out"; of a parameter's update also "before", "after"
    value: Value
    note: str = ""  # where the array comes from, or where it goes
    to: str = ""  # whose gradient the array is a contribution to

    @property
    def made(self) -> bool:
        """Whether the array is made at the stop, and not read."""
        return self.role in ("out", "after")

    @property
    def is_bad(self) -> bool:
        """Whether the array holds NaN or infinity."""
        return not is_finite(self.value.array)


@dataclass(frozen=True)
class Stop:
    """One of the walk's stops."""

    phase: Phase
    module: str  # the path; "" outside all modules
    op: str
    name: str  # module.op, with #2 for the second such op of that module
    formula: str
    seen: list[Seen]
    # runs the source once more, line by line; gives no lines for the backward of a fused op
    lines: Callable[[], Sequence[Moment]] = tuple
    by: str = ""  # the implementation, and why it was chosen
    ran: Forward | None = None  # the op forward; of a backward the op that it belongs to
    function: Any = None  # whose source is shown; None: the op's reference
    notes: Sequence[str] = ()  # its arithmetic by hand

    @property
    def line(self) -> str:
        """The line of the user's code that called the op."""
        return str(self.ran.line) if self.ran else ""

    def source(self) -> Source:
        """The function of those lines."""
        return _source(self.function or OPS[self.op].reference)  # type: ignore[attr-defined]

    def within(self, path: str) -> bool:
        """Whether the stop is in the module of that path, or in one below it."""
        return f"{self.module}.".startswith(f"{path}.")

    def contributions(self, parameter: str) -> list[str]:
        """What is known of each contribution to the gradient of that parameter."""
        to = f"to {parameter}: "
        return [seen.note.removeprefix(to) for seen in self.seen if seen.to == parameter]

    @property
    def label(self) -> str:
        """The op's name in its module: add#2."""
        name = self.name.removesuffix(".backward").removesuffix(".update")
        return name.removeprefix(self.module).lstrip(".")

    @property
    def stands_in(self) -> bool:
        """Whether the source is the reference of the kernel that ran."""
        return self.phase == "forward" and "kernel" in self.by.partition(":")[0]

    @property
    def outputs(self) -> list[Seen]:
        """The arrays that are made here."""
        return [seen for seen in self.seen if seen.made]

    @property
    def inputs(self) -> list[Seen]:
        """The arrays that are read here."""
        return [seen for seen in self.seen if not seen.made]


_source = functools.cache(source_of)  # reads the file and looks for the end of the function


def stops_of(recording: Recording) -> list[Stop]:
    """A stop for each op of a recording with values, in the order in which the ops ran."""
    arrived: Arrived = defaultdict(lambda: ([], None))
    off = recording.implementation == "reference" and not kernels.disabled()
    stops = []
    for entry in recording.entries:
        if isinstance(entry, Forward):
            stops.append(_forward(entry, off))
        elif isinstance(entry, Backward):
            stops.append(_backward(entry, arrived))
    return stops


def _forward(entry: Forward, off: bool) -> Stop:
    """off: the walk itself turned the kernels off."""
    seen = [Seen("in", value, f"from {value.source}") for value in entry.inputs]
    note = "a view of its input's memory" if entry.implementation == "view" else ""
    seen += [Seen("out", value, note) for value in entry.outputs]
    settings = ", ".join(
        f"{name}={value!r:.60}"
        for name, value in entry.settings.items()
        if value is not None and not hasattr(value, "shape")
    )
    by = f"{entry.implementation}: {entry.reason}"
    if off:
        by = by.replace("kernels are off", "walked op by op; --as-run shows the kernel")
    formula = _one_line(entry.formula) + (f"   with {settings}" if settings else "")
    names = entry.module, entry.op, entry.name, formula
    return Stop("forward", *names, seen, entry.lines, by, entry)


def _backward(entry: Backward, arrived: Arrived) -> Stop:
    seen = []
    for i, (value, name) in enumerate(zip(entry.upstream, entry.to, strict=True)):
        if value is not None:
            index = f"[{i}]" if len(entry.upstream) > 1 else ""
            # backward begins at the loss, to whose gradient nobody contributes
            note, (found, _) = "backward starts here: dL/dL = 1", arrived[name]
            if found:
                note = f"{len(found)} of {len(found)} arrived, from {', '.join(found)}"
            seen.append(Seen("in", replace(value, name=f"dy{index}"), note))
    for c in entry.contributions:
        found, total = arrived[c.to] if c.number > 1 else ([], 0.0)
        total = total + floats(c.value.array)
        note = f"to {c.to}: {c.number} of {c.count}, norm {norm(c.value.array):.4g}"
        if c.number > 1:
            note += f", the sum so far {norm(total):.4g}"
        seen.append(Seen("out", c.value, note, c.to))
        # a complete sum is not needed any more
        total = total if c.number < c.count else None
        arrived[c.to] = [*found, entry.name.removesuffix(".backward")], total
    names = entry.module, entry.op, entry.name, _one_line(entry.formula)
    return Stop("backward", *names, seen, entry.lines, ran=entry.of)


def _one_line(formula: str) -> str:
    """The formula in one line, its parts three spaces apart."""
    return re.sub(r" {3,}", "   ", re.sub(r"\s*\n\s*", " ", formula))


def variables(moment: Moment) -> tuple[list[Seen], list[str]]:
    """The arrays that a line bound, and its other variables as text."""
    arrays: list[Seen] = []
    others: list[str] = []
    for name, value in moment.values.items():
        parts = {name: value}
        if isinstance(value, tuple) and any(map(_is_array, value)):
            parts = {f"{name}[{i}]": part for i, part in enumerate(value)}
        for key, part in parts.items():
            if _is_array(part):
                arrays.append(Seen("line", value_of(key, part)))
            else:
                others.append(f"{key} = {part!r:.60}")
    return arrays, others


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and value.dtype.kind not in "OSU"


# -- not finite


def blame(stop: Stop) -> list[str]:
    """The origin of what is not finite at a stop: the inputs that hold it already, or the op
    itself. Empty where all is finite.
    """
    made = [seen for seen in stop.outputs if seen.is_bad]
    if not made:
        return []
    found = [f"{seen.value.name} {seen.value.shape}: {_count(seen.value.array)}" for seen in made]
    held = []
    for seen in [seen for seen in stop.inputs if seen.is_bad]:
        value = seen.value
        source = (value.source if stop.phase == "forward" else seen.note) or value.name
        where = f"{_count(value.array)}, {_first(value.array)}"
        held.append(f"held already by {value.name}, {source}: {where}")
    own = f"all its inputs are finite: it is this {stop.op} that made it"
    return [f"not finite: {', '.join(found)}", *(held or [own])]


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
