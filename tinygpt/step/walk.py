"""The walk: a list of stops and a position. No terminal in it: the full-screen program and `--plain` both move and read one of these.

Going back costs nothing, since all that ran is on the tape: it is the position less one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from tensor.tape import Moment, Tape
from tensor.tape.entries import codes_of
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.step.conditions import Condition, condition, first_bad, meets
from tinygpt.step.names import array_of
from tinygpt.step.stops import Seen, Stop, value_of, variables

PHASES = "forward", "backward", "clip", "update"


class Walk:
    """Where somebody stands among the stops: at one of them, or, after `into`, at a line of its source."""

    def __init__(self, stops: Sequence[Stop], tape: Tape):
        self.stops, self.tape = stops, tape
        self.at = 0
        self.lines: list[Moment] = []  # of the stop that was stepped into, else none
        self.line = 0
        self.breaks: list[Condition] = []
        self.bad = first_bad(stops)
        self.modules = _modules(stops)

    @property
    def stop(self) -> Stop:
        """The stop where the walk stands."""
        return self.stops[self.at]

    @property
    def moment(self) -> Moment | None:
        """The line that has just run, after `into`."""
        return self.lines[self.line] if self.lines else None

    # -- moving; each says "" or why it could not --

    def next(self) -> str:
        """The next line where lines are shown, then the next stop."""
        if self.lines and self.line + 1 < len(self.lines):
            self.line += 1
            return ""
        if self.at + 1 == len(self.stops):
            return "this is the last stop"
        self.go(self.at + 1)
        return ""

    def back(self) -> str:
        """The line before, out of the first one; the stop before."""
        if self.lines:
            if self.line:
                self.line -= 1
            else:
                self.lines = []
            return ""
        if self.at == 0:
            return "this is the first stop"
        self.go(self.at - 1)
        return ""

    def into(self) -> str:
        """To the first line of the stop's own source."""
        if self.lines:
            return "already inside: n goes line by line, o leaves"
        with np.errstate(all="ignore"):
            self.lines, self.line = self.stop.lines(), 0
        if not self.lines and self.stop.phase == "backward":
            return "a fused op's backward is a kernel's: no source to step through (without --as-run there is)"
        return "" if self.lines else "there are no lines to step through here"

    def out(self) -> str:
        """Out of the lines; else to the last stop of this module, or beyond it from there."""
        if self.lines:
            self.lines = []
            return ""
        here = self.stop
        end = self._first(lambda i: not self.stops[i].within(here.module) or self.stops[i].phase != here.phase, len(self.stops))
        self.go(end - 1 if end - 1 > self.at else min(end, len(self.stops) - 1))
        return ""

    def module(self) -> str:
        """To the first stop in another module."""
        here = self.stop
        found = self._first(lambda i: self.stops[i].module != here.module or self.stops[i].phase != here.phase, None)
        if found is None:
            return "no other module comes after this one"
        self.go(found)
        return ""

    def backward(self) -> str:
        """To where backward starts: at the loss."""
        found = next((i for i, stop in enumerate(self.stops) if stop.phase == "backward"), None)
        if found is None:
            return "this walk has no backward"
        self.go(found)
        return ""

    def resume(self) -> str:
        """To the next stop that a breakpoint halts at; to the last one if none does."""
        found = self._first(self.halts, None)
        self.go(len(self.stops) - 1 if found is None else found)
        if found is not None:
            return ""
        return "no breakpoint on the way: this is the last stop" if self.breaks else "there is no breakpoint (x makes one): this is the last stop"

    def go(self, at: int) -> None:
        """To that stop."""
        self.at, self.lines, self.line = at, [], 0

    def _first(self, wanted: Callable[[int], bool], otherwise: Any) -> Any:
        return next((i for i in range(self.at + 1, len(self.stops)) if wanted(i)), otherwise)

    # -- breakpoints --

    def halts(self, i: int) -> bool:
        """Whether a breakpoint is met at the i-th stop."""
        return any(meets(wanted, self.stops, i, self.bad) for wanted in self.breaks)

    def met(self) -> str:
        """The breakpoints that are met where the walk stands."""
        return ", ".join(str(wanted) for wanted in self.breaks if meets(wanted, self.stops, self.at, self.bad))

    def halt_at(self, text: str) -> Condition:
        """A new breakpoint. Raises InputError for one that no stop can meet."""
        wanted = condition(text, self.stops)
        if wanted not in self.breaks:
            self.breaks.append(wanted)
        return wanted

    # -- names --

    def names(self) -> list[str]:
        """All that `find` finds, but numbers and `.grad`."""
        found: dict[str, None] = {}
        for stop in self.stops:
            found |= dict.fromkeys(name for name in (stop.module, stop.name, stop.op) if name)
        for entry in self.tape.forwards:
            found |= {value.source: None for value in entry.inputs if "." in value.source}
        for stop in self.stops:
            if stop.module and stop.phase == "forward":
                found |= {f"{stop.module}.{name}": None for code in codes_of(stop.op)[:1] for name in (*code.co_varnames, *code.co_cellvars)}
        return list(found)

    def find(self, name: str) -> None:
        """Go to a stop by number (from 1), name, module or op, the next one of several; to the line that makes a variable; to what uses a parameter.

        forward, backward, clip and update are the first such stop. Where nothing has the name, what ends in it: weights. InputError where there is none.
        """
        name = name.strip()
        if name.isdecimal() and len(name) < 19:
            if not 1 <= int(name) <= len(self.stops):
                raise InputError(f"stop {shown(name)}: there are stops 1 to {len(self.stops)}")
            return self.go(int(name) - 1)
        if name in PHASES:
            start = next((i for i, stop in enumerate(self.stops) if stop.phase == name), None)
            if start is None:
                raise InputError(f"this walk has no {name}: a step of training has one, tinygpt step --train")
            return self.go(start)
        order = [*range(self.at + 1, len(self.stops)), *range(self.at + 1)]
        for fits in (self._is_named, self._is_op_or_module, self._takes):
            found = next((i for i in order if fits(self.stops[i], name)), None)
            if found is not None:
                return self.go(found)
        if self._to_variable(name, range(len(self.stops))):
            return None
        end = next((i for i in order if any(path.endswith(f".{name}") for path in (self.stops[i].name, self.stops[i].module))), None)
        if end is not None:
            return self.go(end)
        if self._to_variable(name, order, ending=True):
            return None
        close = difflib.get_close_matches(name, self.names(), n=3, cutoff=0.4)
        raise InputError(f"nothing here is named {shown(name)!r}" + (f"; near it: {', '.join(close)}" if close else ""))

    def _is_named(self, stop: Stop, name: str) -> bool:
        return stop.name == name

    def _is_op_or_module(self, stop: Stop, name: str) -> bool:
        return stop.op == name or stop.within(name)

    def _takes(self, stop: Stop, name: str) -> bool:
        """A parameter: the ops that use it. Its gradient: where a contribution to it is made."""
        if name.endswith(".grad"):
            return any(seen.note.startswith(f"to {name.removesuffix('.grad')}: ") for seen in stop.outputs)
        return stop.phase == "forward" and any(seen.value.source == name for seen in stop.inputs)

    def _to_variable(self, name: str, order: Iterable[int], ending: bool = False) -> bool:
        """MODULE.VARIABLE: to the line that binds it.   ending: of the module's path the last parts, or none, are enough."""
        module, _, variable = name.rpartition(".")
        for i in order:
            stop = self.stops[i]
            there = module in (stop.module, stop.name) or (ending and (not module or any(f".{p}".endswith(f".{module}") for p in (stop.module, stop.name))))
            if there and any(variable in (*code.co_varnames, *code.co_cellvars) for code in codes_of(stop.op)):
                with np.errstate(all="ignore"):
                    lines = stop.lines()
                bound = [n for n, moment in enumerate(lines) if variable in moment.values]
                if bound:
                    self.at, self.lines, self.line = i, lines, bound[0]
                    return True
        return False

    def array(self, name: str) -> Seen:
        """An array of the whole walk by its name, to be watched, with a place in brackets as --show takes it. Raises InputError where there is none."""
        update = next((stop for stop in self.stops if stop.phase == "update" and stop.name.removesuffix(".update") == name), None)
        if update is not None:
            return update.outputs[0]
        with np.errstate(all="ignore"):
            return Seen("watched", value_of(name, array_of(self.tape, name)), "")

    # -- what is shown --

    def order(self, path: str) -> int:
        """Where a module first has a stop: in this phase, or if it has none there, at all."""
        inside = [i for i, stop in enumerate(self.stops) if stop.within(path)]
        return next((i for i in inside if self.stops[i].phase == self.stop.phase), inside[0])

    def seen(self) -> tuple[list[Seen], list[str]]:
        """The arrays where the walk stands, and the variables that are none."""
        return variables(self.moment) if self.moment else (list(self.stop.seen), [])


def _modules(stops: Sequence[Stop]) -> dict[str, list[str]]:
    """The path of each module, and of those around it, in the order in which forward enters them; with its parts: blocks.0 is one."""
    found: dict[str, list[str]] = {}
    for stop in stops:
        parts: list[str] = []
        for part in stop.module.split(".") if stop.module and stop.phase == "forward" else []:
            if part.isdecimal() and parts:
                parts[-1] += f".{part}"
            else:
                parts.append(part)
        for depth in range(len(parts)):
            found.setdefault(".".join(parts[: depth + 1]), parts[: depth + 1])
    return found
