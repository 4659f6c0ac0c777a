"""A walk: a list of stops and a position. It needs no terminal: the full-screen program and
`--plain` both move and read one.

Going back costs nothing, since the recording holds all that ran: the position decreases by one.

Breakpoints are conditions at which a walk halts:

    op=attention    module=blocks.0.attention    shape=4,32,64    nan

A shape is that of any array at the stop; nan halts at the first op whose result is not finite.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate, chain, islice, takewhile
from typing import TypeAlias, get_args

import numpy as np

from tensor.ops.op import OPS
from tensor.recording import Moment, Recording
from tensor.recording.entries import codes_of
from tensor.recording.find import nearest as alike
from tinygpt.errors import InputError
from tinygpt.inside.arrays import value_of
from tinygpt.inside.step.names import array_of
from tinygpt.inside.step.stops import Phase, Seen, Stop, blame, variables
from tinygpt.terminal import nearest, shown

# ops that are a line of another op: this op, and the variable that the line makes
INSIDE = {"softmax": ("attention", "weights")}
KINDS = "op=NAME, module=PATH, shape=4,32,64 or nan"
# name -> stops, each with the variable in its source that has the name, or ""
Table: TypeAlias = dict[str, list[tuple[int, str]]]


class Walk:
    """A position among the stops, or, after `into`, at a line of a stop's source."""

    def __init__(self, stops: Sequence[Stop], recording: Recording):
        self.stops, self.recording = stops, recording
        self.at = 0
        self.lines: list[Moment] = []  # of the stop that was stepped into, else none
        self.line = 0
        # breakpoint -> the stops at which it halts
        self.breaks: dict[str, set[int]] = {}
        self.modules = _modules(stops)
        self.called = _called(stops)

    @property
    def stop(self) -> Stop:
        """The stop at the position."""
        return self.stops[self.at]

    @property
    def moment(self) -> Moment | None:
        """The line that has just run, after `into`."""
        return self.lines[self.line] if self.lines else None

    # -- moves; each returns "" or why it was not possible --

    def next(self) -> str:
        """The next line where lines are shown, then the next stop."""
        if self.line + 1 < len(self.lines):
            self.line += 1
            return ""
        if self.at + 1 == len(self.stops):
            return "this is the last stop"
        self.go(self.at + 1)
        return ""

    def back(self) -> str:
        """The line before; from the first line out to the stop; from a stop the one before."""
        if self.line:
            self.line -= 1
        elif self.lines:
            self.lines = []
        elif self.at:
            self.go(self.at - 1)
        else:
            return "this is the first stop"
        return ""

    def into(self) -> str:
        """To the first line of the stop's own source."""
        if self.lines:
            return "already inside: n goes line by line, o leaves"
        with np.errstate(all="ignore"):
            self.go(self.at, self.stop.lines())
        if self.lines:
            return ""
        if self.stop.phase == "backward":
            why = "a fused op's backward is a kernel's: no source to step through"
            return f"{why} (without --as-run there is)"
        return "there are no lines to step through here"

    def out(self) -> str:
        """Out of the lines; else to the last stop of this module, or from that stop beyond it."""
        if self.lines:
            self.go(self.at)
            return ""
        here = self.stop

        def inside(i: int) -> bool:
            return self.stops[i].within(here.module) and self.stops[i].phase == here.phase

        last = max(takewhile(inside, self._after()), default=self.at + 1)
        self.go(min(last, len(self.stops) - 1))
        return ""

    def module(self) -> str:
        """To the first stop in another module."""
        here = self.stop.module, self.stop.phase
        for i in self._after():
            if (self.stops[i].module, self.stops[i].phase) != here:
                self.go(i)
                return ""
        return "no other module comes after this one"

    def resume(self) -> str:
        """To the next stop that a breakpoint halts at; to the last stop if none does."""
        found = next(filter(self.halts, self._after()), None)
        if found is not None:
            self.go(found)
            return ""
        self.go(len(self.stops) - 1)
        if self.breaks:
            return "no breakpoint on the way: this is the last stop"
        return "there is no breakpoint (x makes one): this is the last stop"

    def go(self, at: int, lines: Sequence[Moment] = (), line: int = 0) -> None:
        """To that stop, or to a line of it."""
        self.at, self.lines, self.line = at, list(lines), line

    def _after(self) -> range:
        return range(self.at + 1, len(self.stops))

    # -- breakpoints --

    def halts(self, i: int) -> str:
        """The breakpoints that halt at the i-th stop."""
        return ", ".join(text for text, stops in self.breaks.items() if i in stops)

    def halt_at(self, text: str) -> str:
        """A new breakpoint. Raises InputError for a condition that no stop can meet."""
        text, stops = condition(text, self.stops)
        self.breaks[text] = stops
        return text

    # -- names --

    def names(self) -> list[str]:
        """All names that `find` finds, without numbers and `.grad`, those of variables last."""
        hidden = re.compile(r"\d+$|.*\.grad$")
        found = [name for name in self.called if not hidden.match(name)]
        return sorted(found, key=lambda name: self.called[name][0][1] > "")

    def find(self, name: str) -> None:
        """Go to a stop by its number (from 1), name, module or op, to the next one of several; to
        the op that uses a parameter; to the line that makes a variable.

        forward, backward, clip and update are the first such stop. Where nothing has the name, the
        end of a name is enough: weights. Raises InputError where nothing has such an end.
        """
        name = name.strip()
        if name.isdecimal() and name not in self.called:
            raise InputError(f"stop {shown(name)}: there are stops 1 to {len(self.stops)}")
        if name in get_args(Phase) and name not in self.called:
            step = "a step of training has one, tinygpt step --train"
            raise InputError(f"this walk has no {name}: {step}")

        def order(place: tuple[int, str]) -> tuple[bool, int]:
            return place[0] <= self.at, place[0]

        exact = self.called.get(name, [])
        ends = [places for key, places in self.called.items() if key.endswith(f".{name}")]
        for found in exact, sorted(chain(*ends), key=order):
            wholes = [place for place in found if not place[1]]
            if wholes:
                return self.go(min(wholes, key=order)[0])
            for i, variable in found:
                if self._to_variable(i, variable):
                    return None
        near = ", ".join(alike(self.recording, name))
        raise InputError(f"nothing here is named {shown(name)!r}; near it: {near}")

    def _to_variable(self, i: int, variable: str) -> bool:
        """To the line of the i-th stop that binds the variable, if there is one."""
        with np.errstate(all="ignore"):
            lines = self.stops[i].lines()
        found = next((n for n, moment in enumerate(lines) if variable in moment.values), None)
        if found is None:
            return False
        self.go(i, lines, found)
        return True

    def array(self, name: str) -> Seen:
        """An array of the whole walk by its name, with an index in brackets as --show takes it.
        Raises InputError where there is none.
        """
        for i, _ in self.called.get(f"{name}.update", []):
            return self.stops[i].outputs[0]
        with np.errstate(all="ignore"):
            return Seen("watched", value_of(name, array_of(self.recording, name)))

    # -- what is shown --

    def order(self, path: str) -> int:
        """The first stop of a module in this phase; if it has none in this phase, in any."""
        inside = [i for i, stop in enumerate(self.stops) if stop.within(path)]
        return next((i for i in inside if self.stops[i].phase == self.stop.phase), inside[0])

    def seen(self) -> tuple[list[Seen], list[str]]:
        """The arrays at the position, and the variables that are no arrays."""
        return variables(self.moment) if self.moment else (self.stop.seen, [])


def _called(stops: Sequence[Stop]) -> Table:
    """The stops that each name means: a number; a module, with all that is in it; an op; the name
    of a stop; a parameter, at the ops that use it; NAME.grad, at the ops that contribute to it; a
    phase, at its first stop; MODULE.VARIABLE and OP.VARIABLE, at the ops in whose source it is.
    """
    table: Table = defaultdict(list)
    ops = {stop.name for stop in stops}
    for i, stop in enumerate(stops):
        modules = accumulate(stop.module.split("."), "{}.{}".format)
        names = [str(i + 1), *modules, stop.name, stop.op]
        names += [f"{seen.to}.grad" for seen in stop.seen if seen.to]
        if stop.phase == "forward":
            sources = [seen.value.source for seen in stop.inputs]
            names += [source for source in sources if "." in source and source not in ops]
        for name in dict.fromkeys(filter(None, names)):
            table[name].append((i, ""))
        table.setdefault(stop.phase, [(i, "")])
        for code in codes_of(stop.op):
            for variable in (*code.co_varnames, *code.co_cellvars):
                table[f"{stop.module}.{variable}"].append((i, variable))
                table[f"{stop.name}.{variable}"].append((i, variable))
    return table


def _modules(stops: Sequence[Stop]) -> dict[str, str]:
    """Each module and those around it, in the order in which the walk enters them, with the path
    of the module around it. blocks.0 is one module.
    """
    found: dict[str, str] = {}
    for stop in stops:
        paths = list(accumulate(re.split(r"\.(?!\d)", stop.module), "{}.{}".format))
        found |= zip(paths, ["", *paths], strict=False)
    found.pop("", None)
    return found


# -- a breakpoint from its text


def condition(text: str, stops: Sequence[Stop]) -> tuple[str, set[int]]:
    """The breakpoint that a text describes, and the numbers of the stops at which it halts. At a
    module these are the stops where the walk enters the module.

    Raises InputError for an op or a module that no stop has, with the names that exist.
    """
    kind, _, what = (part.strip() for part in text.partition("="))
    if kind == "nan" and not what:
        return kind, set(islice((i for i, stop in enumerate(stops) if blame(stop)), 1))
    if kind not in ("op", "module", "shape") or not what:
        raise InputError(f"breakpoint {shown(text)!r} is none of {KINDS}\nsee: tinygpt step --help")
    where, numbered = f"breakpoint {kind}={shown(what)}", list(enumerate(stops))
    if kind == "shape":
        sizes = [part.strip() for part in what.strip("()").split(",") if part.strip()]
        if not all(size.isdecimal() and len(size) < 19 for size in sizes):
            needed = "whole numbers with commas between are needed, such as shape=4,32,64"
            raise InputError(f"{where}: {needed}")
        shape = tuple(map(int, sizes))
        found = {i for i, stop in numbered for seen in stop.seen if seen.value.shape == shape}
        return f"shape={','.join(map(str, shape))}", found
    if kind == "op":
        found, wrong = {i for i, stop in numbered if stop.op == what}, _no_op
    else:
        inside = {i for i, stop in numbered if stop.within(what)}
        found = {i for i in inside if i - 1 not in inside or stops[i - 1].phase != stops[i].phase}
        wrong = _no_module
    if not found:
        raise InputError(f"{where}: {wrong(what, stops)}")
    return f"{kind}={what}", found


def _no_module(what: str, stops: Sequence[Stop]) -> str:
    modules = list(dict.fromkeys(stop.module for stop in stops if stop.module))
    near = nearest(what, modules)
    return f"no such module here{near}\nsome there are: {', '.join(modules[:6])}"


def _no_op(what: str, stops: Sequence[Stop]) -> str:
    """Why no stop has that op, and which ops there are."""
    op, variable = INSIDE.get(what, ("", ""))
    around = next((stop for stop in stops if stop.op == op), None)
    if around is not None:
        name = f"{around.module}.{variable}"
        return (
            f"here a line inside {op} computes {what}, as the variable {variable}\n"
            f"go there: g {name} on the screen; --plain --show {name} in text"
        )
    known = list(dict.fromkeys(stop.op for stop in stops))
    exists = "is an op, but not of this walk" if what in OPS else "is no op"
    return f"that {exists}{nearest(what, known)}\nits ops: {', '.join(known)}"
