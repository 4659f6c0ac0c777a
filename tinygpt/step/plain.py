"""A walk as text: `tinygpt step --plain`, for pipes and for reading from the top to the end."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

from tensor.layout import Shape
from tensor.tape import Value, in_bytes
from tinygpt.cli import nearest
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.step.conditions import blame
from tinygpt.step.stops import Seen, Stop, variables
from tinygpt.step.values import heat_map, plane, statistics, table
from tinygpt.step.walk import Walk

INDENT = "      "
Lines: TypeAlias = Mapping[str, Sequence[str]]  # by the name of a stop
NONE: Lines = {}
SMALL = 6  # rows and columns up to which an array is printed in numbers
MAP_ROWS = 8


class Style:
    """How much is printed of each stop, in how many columns."""

    def __init__(self, width: int = 80, values: bool = False, into: bool = False):
        self.width, self.values, self.into = max(width, 40), values, into
        self.told: set[str] = set()  # ops whose formula was given

    def lines(self, stop: Stop, number: int, count: int) -> Iterator[str]:
        """All that is said of a stop."""
        where = f"{stop.module}  {stop.label}" if stop.module else stop.label
        yield f"{number:>{len(str(count))}}/{count} {stop.phase:<8} {where}"
        for line in blame(stop):
            yield from self._parts("!", line.split(" "), joint=" ")
        if stop.formula and stop.op not in self.told:
            self.told.add(stop.op)
            yield from self._parts("", stop.formula.split(" "), joint=" ")
        for seen in stop.seen:
            yield from self.array(seen)
        if stop.phase == "forward":
            yield from self._parts("kept", kept(stop))
            yield from self._parts("by", [stop.by, *([stop.line.split(" `")[0]] if stop.line else [])])
        if self.into:
            yield from self._moments(stop)

    def array(self, seen: Seen) -> Iterator[str]:
        """Its facts, and with `values` its statistics and a small map."""
        value = seen.value
        yield from self._parts(seen.role, [f"{value.name} {sizes(value.shape)}", *facts(value), *([seen.note] if seen.note else [])])
        if self.values and value.array is not None:
            yield from self.contents(seen)

    def contents(self, seen: Seen) -> Iterator[str]:
        """Statistics, and the first plane: in numbers where it is small."""
        yield from self._parts("", str(statistics(seen.value.array)).split("  "), joint="  ")
        found = plane(seen.value.array)
        rows, columns = found.values.shape
        if found.values.size <= 1:
            return
        if rows <= SMALL and columns <= SMALL:
            yield from (f"{INDENT}       {line}"[: self.width] for line in table(found.values))
            return
        drawn = heat_map(found.values, MAP_ROWS, min(32, (self.width - 15) // 2))
        yield from self._parts("", [*([f"of {found.text}"] if found.text else []), drawn.legend])
        yield from (f"{INDENT}       {line}" for line in drawn.lines)

    def _moments(self, stop: Stop) -> Iterator[str]:
        """Line by line: the line, and what it made."""
        if stop.stands_in:
            yield from self._parts("", ["the reference of this kernel, line by line:"])
        for moment in stop.lines():
            yield fitted(f"{INDENT}{moment.number:>5}  {moment.text}", self.width).rstrip()
            arrays, others = variables(moment)
            parts = [f"{seen.value.name} {sizes(seen.value.shape)}" for seen in arrays] + [shown(text) for text in others]
            yield from self._parts("", parts, deeper=6)
            if self.values:
                for seen in arrays:
                    first, *others = str(statistics(seen.value.array)).split("  ")
                    yield from self._parts("", [f"{seen.value.name}: {first}", *others], joint="  ", deeper=6)

    def _parts(self, head: str, parts: Sequence[str], joint: str = ", ", deeper: int = 0) -> Iterator[str]:
        """head part, part, part: as many lines as it takes, none broken inside a part where it can be helped."""
        start, hang = f"{INDENT}{head:<6} ", INDENT + " " * (7 + deeper)
        line = start if not deeper else hang
        fresh = True
        for i, part in enumerate(parts):
            text = part + (joint.rstrip() if i + 1 < len(parts) else "")
            if not fresh and len(line) + len(joint) - len(joint.rstrip()) + len(text) > self.width:
                yield line.rstrip()
                line, fresh = hang, True
            line += text if fresh else joint[len(joint.rstrip()) :] + text
            fresh = False
            while len(line) > self.width:  # one part alone is wider
                cut = line.rfind(" ", len(hang) + 1, self.width + 1)
                cut = cut if cut > len(hang) else self.width
                yield line[:cut].rstrip()
                line = hang + line[cut:].lstrip()
        if not fresh:
            yield line.rstrip()


def wrapped(fact: str, width: int) -> list[str]:
    """A line of what is said beforehand, as many lines as it takes."""
    return textwrap.wrap(fact, width, subsequent_indent=" " * 9, break_on_hyphens=False) or [""]


def fitted(text: str, width: int) -> str:
    """Cut to a width, with a mark where something is left out."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def sizes(shape: Shape) -> str:
    """(4, 32, 64) as (4,32,64), which no line end breaks."""
    return str(shape).replace(" ", "")


def facts(value: Value) -> list[str]:
    """Strides, offset, contiguity, dtype, bytes."""
    at = f" from {value.offset}" if value.offset else ""
    contiguous = "contiguous" if value.contiguous else "not contiguous"
    return [f"strides {sizes(value.strides)}{at}", contiguous, value.dtype, in_bytes(value.bytes)]


def kept(stop: Stop) -> list[str]:
    """What is saved for backward, an array each, and the bytes that only backward keeps alive."""
    if not stop.saved:
        return ["nothing is saved for backward"]
    parts = []
    for saved in stop.saved:
        what = " = ".join(dict.fromkeys(name for name in (saved.name, saved.source) if name)) or "an array of its own"
        parts.append(f"{what} {sizes(saved.shape)} {in_bytes(saved.bytes)}{'' if saved.made else ' (lives anyway)'}")
    total = sum(saved.bytes for saved in stop.saved if saved.made)
    return [*parts, f"{in_bytes(total)} for backward alone"]


# -- a whole walk -------------------------------------------------------------------------------------------------------


def chosen(walk: Walk, pattern: str | None) -> list[int]:
    """The stops that are printed: of an op, a module and those below it, or a name, or the end of one: qkv.

    * and ? stand for what may vary. Raises InputError where none fits.
    """
    if pattern is None:
        return list(range(len(walk.stops)))
    found: list[int] = []
    for wanted in (pattern, f"*.{pattern}"):  # the last parts of a path where nothing else is called so
        found = found or [i for i, stop in enumerate(walk.stops) if _fits(stop, wanted)]
    if not found:
        near = nearest(pattern, walk.names())
        raise InputError(f"--only {shown(pattern)}: no stop has such an op, module or name{near}\nsee them all: tinygpt step --plain")
    return found


def _fits(stop: Stop, pattern: str) -> bool:
    names = stop.phase, stop.op, stop.module, stop.name
    return any(fnmatchcase(name, pattern) for name in names) or fnmatchcase(stop.module, pattern + ".*")


def text(walk: Walk, numbers: Sequence[int], style: Style, instead: Lines = NONE, after: Lines = NONE) -> Iterator[str]:
    """The stops of those numbers, with a line where forward ends and backward begins.   instead, after: lines for stops of those names."""
    phase = ""
    for i in numbers:
        stop = walk.stops[i]
        if stop.phase != phase:
            phase = stop.phase
            yield ""
            yield HEADINGS[phase]
        if stop.name not in instead:
            yield ""
            yield from style.lines(stop, i + 1, len(walk.stops))
        for line in [*instead.get(stop.name, ()), *after.get(stop.name, ())]:
            yield from wrapped(line, style.width)


HEADINGS = {
    "forward": "forward: from the ids to the loss",
    "backward": "backward: dL/d of everything, from the loss to the parameters",
    "clip": "clip: gradients that are too long together are shortened",
    "update": "update: what the optimiser does with each parameter's gradient",
}
