"""Stops: where a walk can halt. An op forward, an op backward; in a step of training also the clipping and each parameter's update.

All have the same face, so that what shows them need not know which it is: names, the arrays that are seen there, source and lines.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from tensor import kernels
from tensor.op import OPS
from tensor.tape import Backward, Contribution, Forward, Moment, Saved, Source, Tape, Value, source_of
from tinygpt.step.values import norm

Phase: TypeAlias = Literal["forward", "backward", "clip", "update"]


@dataclass(frozen=True)
class Seen:
    """An array at a stop."""

    role: str  # "in", "out"; of a parameter's update also "before", "after"
    value: Value
    note: str  # where it comes from, or where it goes


@dataclass(frozen=True)
class Stop:
    """One of the walk's stops."""

    phase: Phase
    module: str  # the path; "" outside all modules
    op: str
    name: str  # module.op, with #2 for the second such op of that module
    formula: str
    seen: tuple[Seen, ...]
    saved: tuple[Saved, ...] = ()
    by: str = ""  # what did it, and why that
    line: str = ""  # of the user's code
    entry: Forward | Backward | None = None
    again: Callable[[], list[Moment]] | None = None  # of what is no op of the tape: runs its function line by line
    function: Any = None  # and that function

    def lines(self) -> list[Moment]:
        """The source run once more line by line. Empty where there is none to run: a fused op's backward, clipping."""
        if self.entry is not None:
            return self.entry.lines()
        return self.again() if self.again else []

    def source(self) -> Source:
        """The function whose lines those are."""
        if self.function is not None:
            return _source(self.function)
        return _source(OPS[self.op].reference) if self.op in OPS else Source("", 0, ())  # type: ignore[attr-defined]

    def within(self, path: str) -> bool:
        """Whether this is in the module of that path, or in one below it."""
        return self.module == path or self.module.startswith(path + ".")

    def concerns(self, parameter: str) -> bool:
        """Whether a contribution to that parameter's gradient is made here, or its gradient is clipped, or it is updated."""
        return self.phase in ("clip", "update") or any(seen.note.startswith(f"to {parameter}: ") for seen in self.outputs)

    @property
    def label(self) -> str:
        """The op as it is called in its module: add#2."""
        return self.name.removeprefix(self.module).lstrip(".").removesuffix(".backward").removesuffix(".update")

    @property
    def stands_in(self) -> bool:
        """Whether the source is not what ran here but the reference of the kernel that did."""
        return isinstance(self.entry, Forward) and "kernel" in self.entry.implementation

    @property
    def outputs(self) -> list[Seen]:
        """What is made here."""
        return [seen for seen in self.seen if seen.role in ("out", "after")]

    @property
    def inputs(self) -> list[Seen]:
        """What it is made of."""
        return [seen for seen in self.seen if seen.role not in ("out", "after")]


_source = functools.cache(source_of)  # which reads the file and looks where the function ends


def stops_of(tape: Tape) -> list[Stop]:
    """A stop for each op on a tape with values, in the order they ran."""
    arrivals = Arrivals()
    off = tape.implementation == "reference" and not kernels.disabled()
    entries = [entry for entry in tape.entries if isinstance(entry, (Forward, Backward))]
    return [_forward(entry, off) if isinstance(entry, Forward) else _backward(entry, arrivals) for entry in entries]


def _forward(entry: Forward, off: bool) -> Stop:
    """off: it was the walk that turned the kernels off."""
    seen = [Seen("in", value, f"from {value.source}") for value in entry.inputs]
    seen += [Seen("out", value, "a view of its input's memory" if entry.implementation == "view" else "") for value in entry.outputs]
    settings = ", ".join(f"{name}={value!r:.60}" for name, value in entry.settings.items() if value is not None and not hasattr(value, "shape"))
    formula = _line(entry.formula) + (f"   with {settings}" if settings else "")
    reason = "walked op by op; --as-run shows the kernel" if off and entry.reason == "kernels are off" else entry.reason
    by = f"{entry.implementation}: {reason}"
    return Stop("forward", entry.module, entry.op, entry.name, formula, tuple(seen), entry.saved, by, str(entry.line), entry)


def _line(formula: str) -> str:
    """In one line, its parts three spaces apart."""
    return re.sub(r" {3,}", "   ", re.sub(r"\s*\n\s*", " ", formula))


def _backward(entry: Backward, arrivals: Arrivals) -> Stop:
    seen = []
    for i, value in enumerate(entry.upstream):
        if value is not None:
            several = len(entry.upstream) > 1
            name = f"dy[{i}]" if several else "dy"
            target = f"{entry.of.name}[{i}]" if entry.of and several else entry.of.name if entry.of else _expand(entry)
            seen.append(Seen("in", replace(value, name=name), arrivals.told(target)))
    seen.extend(Seen("out", c.value, arrivals.arrived(c, entry.name)) for c in entry.contributions)
    saved = entry.of.saved if entry.of else ()
    line = str(entry.of.line) if entry.of else ""
    formula = _line(entry.formula) or "broadcasting, backwards: the gradients of what was repeated are summed"
    return Stop("backward", entry.module, entry.op, entry.name, formula, tuple(seen), saved, "", line, entry)


def _expand(entry: Backward) -> str:
    """What the gradient of broadcasting's expand is called where it is handed on."""
    name = entry.contributions[0].value.name if entry.contributions else "dx"
    return f"expand of {name[1:]}"


class Arrivals:
    """Who has handed what to whom, as the walk goes on."""

    def __init__(self) -> None:
        self._from: dict[str, list[str]] = {}
        self._sums: dict[str, Any] = {}

    def arrived(self, c: Contribution, by: str) -> str:
        """Note a contribution; what is known of its target then."""
        if c.number == 1:
            self._from[c.to], self._sums[c.to] = [], np.zeros(c.value.shape)
        self._from[c.to].append(by)
        self._sums[c.to] += np.asarray(c.value.array).astype(np.float64)
        alone, so_far = norm(c.value.array), norm(self._sums[c.to])
        total = f", norm of the sum {so_far:.4g}" if c.count > 1 else ""
        if c.number == c.count:
            self._sums.pop(c.to)
        return f"to {c.to}: {c.number} of {c.count}, norm {alone:.4g}{total}"

    def told(self, target: str) -> str:
        """Where the gradient of an output came from; that of the loss is where backward begins."""
        found = self._from.get(target, [])
        if not found:
            return "backward starts here: dL/dL = 1"
        return f"{len(found)} of {len(found)} arrived, from {', '.join(name.removesuffix('.backward') for name in found)}"


# -- variables of a line ------------------------------------------------------------------------------------------------


def variables(moment: Moment) -> tuple[list[Seen], list[str]]:
    """The arrays that a line bound, and its other variables as text."""
    arrays: list[Seen] = []
    others: list[str] = []
    for name, value in moment.values.items():
        parts = [(f"{name}[{i}]", part) for i, part in enumerate(value)] if isinstance(value, tuple) and any(map(_is_array, value)) else [(name, value)]
        for key, part in parts:
            if _is_array(part):
                arrays.append(Seen("line", value_of(key, part), ""))
            else:
                others.append(f"{key} = {part!r:.60}")
    return arrays, others


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and value.dtype.kind not in "OSU"


def value_of(name: str, array: Any, source: str = "") -> Value:
    """A NumPy array that stands on no tape, with what is known of it."""
    array = np.asarray(array)
    strides = tuple(step // array.itemsize for step in array.strides)
    return Value(name, source, array.shape, strides, 0, bool(array.flags.c_contiguous), array.dtype.name, "cpu", array.nbytes, array)
