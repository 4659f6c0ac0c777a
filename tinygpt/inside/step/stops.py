"""Stops: the positions where a walk can halt. A stop is an op forward or an op backward; in a step
of training also the clipping and the update of each parameter.

All stops have the same fields: names, the arrays that are seen there, source and lines.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from tensor import kernels
from tensor.ops.op import OPS
from tensor.recording import (
    Backward,
    Contribution,
    Forward,
    Moment,
    Recording,
    Saved,
    Source,
    Value,
    source_of,
)
from tinygpt.inside.arrays import floats, norm, value_of

Phase: TypeAlias = Literal["forward", "backward", "clip", "update"]


@dataclass(frozen=True)
class Seen:
    """An array at a stop."""

    role: str  # "in", "out"; of a parameter's update also "before", "after"
    value: Value
    note: str = ""  # where the array comes from, or where it goes


@dataclass(frozen=True)
class Stop:
    """One of the walk's stops."""

    phase: Phase
    module: str  # the path; "" outside all modules
    op: str
    name: str  # module.op, with #2 for the second such op of that module
    formula: str
    seen: list[Seen]
    by: str = ""  # the implementation, and why it was chosen
    entry: Forward | Backward | None = None
    # of a stop that is no op: runs its function line by line
    again: Callable[[], list[Moment]] | None = None
    function: Any = None  # and that function

    @property
    def ran(self) -> Forward | None:
        """The op forward; of a backward the op that it belongs to."""
        return self.entry.of if isinstance(self.entry, Backward) else self.entry

    @property
    def saved(self) -> tuple[Saved, ...]:
        """What the op saves for backward."""
        return self.ran.saved if self.ran else ()

    @property
    def line(self) -> str:
        """The line of the user's code that called the op."""
        return str(self.ran.line) if self.ran else ""

    def lines(self) -> list[Moment]:
        """The source run once more line by line. Empty for the backward of a fused op and for
        clipping, which have no source to run.
        """
        if self.entry is not None:
            return self.entry.lines()
        return self.again() if self.again else []

    def source(self) -> Source:
        """The function of those lines."""
        if self.function is not None:
            return _source(self.function)
        return _source(OPS[self.op].reference) if self.op in OPS else Source("", 0, ())  # type: ignore[attr-defined]

    def within(self, path: str) -> bool:
        """Whether the stop is in the module of that path, or in one below it."""
        return self.module == path or self.module.startswith(path + ".")

    def contributes(self, parameter: str) -> bool:
        """Whether a contribution to the gradient of that parameter is made here."""
        return any(seen.note.startswith(f"to {parameter}: ") for seen in self.outputs)

    @property
    def label(self) -> str:
        """The op's name in its module: add#2."""
        name = self.name.removesuffix(".backward").removesuffix(".update")
        return name.removeprefix(self.module).lstrip(".")

    @property
    def stands_in(self) -> bool:
        """Whether the source is the reference of the kernel that ran."""
        return isinstance(self.entry, Forward) and "kernel" in self.entry.implementation

    @property
    def outputs(self) -> list[Seen]:
        """The arrays that are made here."""
        return [seen for seen in self.seen if seen.role in ("out", "after")]

    @property
    def inputs(self) -> list[Seen]:
        """The arrays that are read here."""
        return [seen for seen in self.seen if seen.role not in ("out", "after")]


_source = functools.cache(source_of)  # reads the file and looks for the end of the function


def stops_of(recording: Recording) -> list[Stop]:
    """A stop for each op of a recording with values, in the order in which the ops ran."""
    arrivals = Arrivals()
    off = recording.implementation == "reference" and not kernels.disabled()
    stops = []
    for entry in recording.entries:
        if isinstance(entry, Forward):
            stops.append(_forward(entry, off))
        elif isinstance(entry, Backward):
            stops.append(_backward(entry, arrivals))
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
    formula = _one_line(entry.formula) + (f"   with {settings}" if settings else "")
    reason = entry.reason
    if off and reason == "kernels are off":
        reason = "walked op by op; --as-run shows the kernel"
    by = f"{entry.implementation}: {reason}"
    return Stop("forward", entry.module, entry.op, entry.name, formula, seen, by, entry)


def _one_line(formula: str) -> str:
    """The formula in one line, its parts three spaces apart."""
    return re.sub(r" {3,}", "   ", re.sub(r"\s*\n\s*", " ", formula))


def _backward(entry: Backward, arrivals: Arrivals) -> Stop:
    seen = []
    several = len(entry.upstream) > 1
    for i, value in enumerate(entry.upstream):
        if value is not None:
            index = f"[{i}]" if several else ""
            target = f"{entry.of.name}{index}" if entry.of else _expand(entry)
            dy = replace(value, name=f"dy{index}")
            seen.append(Seen("in", dy, arrivals.origin(target)))
    seen.extend(Seen("out", c.value, arrivals.arrived(c, entry.name)) for c in entry.contributions)
    expand = "broadcasting, backwards: the gradients of what was repeated are summed"
    formula = _one_line(entry.formula) or expand
    return Stop("backward", entry.module, entry.op, entry.name, formula, seen, entry=entry)


def _expand(entry: Backward) -> str:
    """The name under which the gradient of broadcasting's expand was contributed."""
    name = entry.contributions[0].value.name if entry.contributions else "dx"
    return f"expand of {name[1:]}"


class Arrivals:
    """The contributions to each gradient so far."""

    def __init__(self) -> None:
        self._so_far: dict[str, tuple[list[str], Any]] = {}  # who contributed, and the sum

    def arrived(self, c: Contribution, by: str) -> str:
        """Note a contribution; what is known of its target then."""
        before, so_far = ([], 0.0) if c.number == 1 else self._so_far[c.to]
        so_far = so_far + floats(c.value.array)
        # a complete sum is not needed any more
        self._so_far[c.to] = [*before, by], so_far if c.number < c.count else None
        total = f", norm of the sum {norm(so_far):.4g}" if c.count > 1 else ""
        return f"to {c.to}: {c.number} of {c.count}, norm {norm(c.value.array):.4g}{total}"

    def origin(self, target: str) -> str:
        """The contributions to the gradient of an output. Backward begins at the loss, whose
        gradient has none.
        """
        if target not in self._so_far:
            return "backward starts here: dL/dL = 1"
        found = [name.removesuffix(".backward") for name in self._so_far[target][0]]
        return f"{len(found)} of {len(found)} arrived, from {', '.join(found)}"


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
