"""A walk as text: `tinygpt step --plain`, for pipes and for reading from the top to the end. Or one
array of the walk: `tinygpt step --plain --show 'blocks.0.attention.weights[0, 2]'`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from itertools import chain
from typing import TypeAlias

import numpy as np
from rich.cells import cell_len, set_cell_size

from tensor.memory.layout import Shape
from tensor.recording import Value, in_bytes
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.sampling import distribution
from tinygpt.inside.arrays import Floats, heat_map, number, plane, statistics, table
from tinygpt.inside.step.names import WIDEST, Names, array_of, frame, quoted, right
from tinygpt.inside.step.stops import Seen, Stop, blame, variables
from tinygpt.inside.step.walk import Walk
from tinygpt.terminal import nearest, shown

INDENT = "      "
HANG = INDENT + " " * 7
Notes: TypeAlias = dict[str, list[str]]  # by the name of a stop
SMALL = 6  # rows and columns up to which an array is printed in numbers
MAP_ROWS = 8
LOGITS = "logits", "logits.linear"
LIKELIEST = 5  # next tokens that are shown for each position of the text
GLUE = "\0"  # a space at which no line ends; text that is shown holds none


@dataclass
class Style:
    """How much is printed of each stop, in how many columns."""

    width: int
    values: bool
    into: bool
    explained: set[str] = field(default_factory=set)  # ops whose formula was given

    def lines(self, stop: Stop, number: int, count: int) -> Iterator[str]:
        """All lines about a stop."""
        where = f"{stop.module}  {stop.label}".lstrip()
        yield f"{number:>{len(str(count))}}/{count} {stop.phase:<8} {where}"
        for line in blame(stop):
            yield from wrapped(line, self.width, f"{INDENT}!      ", HANG)
        if stop.op not in self.explained:
            self.explained.add(stop.op)
            yield from wrapped(stop.formula, self.width, HANG, HANG)
        for seen in stop.seen:
            yield from self.array(seen)
        for note in stop.notes:
            yield from wrapped(note, self.width, HANG, HANG)
        if stop.phase == "forward":
            yield from self._parts("kept", kept(stop))
            yield from self._parts("by", [stop.by, stop.line.split(" `")[0]])
        if self.into:
            yield from self._moments(stop)

    def array(self, seen: Seen) -> Iterator[str]:
        """Its facts, and with `values` its statistics and the first plane: as a map, or in numbers
        where it is small.
        """
        value = seen.value
        name = f"{value.name} {sizes(value.shape)}"
        yield from self._parts(seen.role, [name, *facts(value), seen.note])
        if not self.values:
            return
        yield from self._parts("", str(statistics(value.array)).split("  "), joint="  ")
        found = plane(value.array)
        if found.values.size <= 1:
            return
        if max(found.values.shape) <= SMALL:
            yield from (f"{HANG}{line}"[: self.width] for line in table(found.values))
            return
        drawn = heat_map(found.values, MAP_ROWS, min(32, (self.width - 15) // 2))
        of = f"of {found.text}" if found.text else ""
        yield from self._parts("", [of, drawn.legend])
        yield from (f"{HANG}{line}" for line in drawn.lines)

    def _moments(self, stop: Stop) -> Iterator[str]:
        """Line by line: the line, and the variables that it made."""
        if stop.stands_in:
            yield from self._parts("", ["the reference of this kernel, line by line:"])
        for moment in stop.lines():
            yield fitted(f"{INDENT}{moment.number:>5}  {moment.text}", self.width).rstrip()
            arrays, others = variables(moment)
            made = [f"{seen.value.name} {sizes(seen.value.shape)}" for seen in arrays]
            yield from self._parts("", [*made, *map(shown, others)], deeper=6)
            for seen in arrays if self.values else []:
                parts = f"{seen.value.name}: {statistics(seen.value.array)}".split("  ")
                yield from self._parts("", parts, joint="  ", deeper=6)

    def _parts(
        self, head: str, parts: Sequence[str], joint: str = ", ", deeper: int = 0
    ) -> Iterator[str]:
        """head part, part, part: as many lines as needed. A line ends inside a part only where the
        part alone is wider than a line.
        """
        hang = HANG + " " * deeper
        start = hang if deeper else f"{INDENT}{head:<6} "
        glued = joint.join(part.replace(" ", GLUE) for part in parts if part)
        for line in wrapped(glued, self.width, start, hang, long=False):
            yield from wrapped(line.replace(GLUE, " "), self.width, "", hang)


def wrapped(
    text: str, width: int, start: str = "", hang: str = " " * 9, long: bool = True
) -> list[str]:
    """A text in as many lines as needed, by default a fact about the walk.   start, hang: what
    stands before the first line and before the others.   long: a word longer than a line is broken.
    """
    return textwrap.wrap(
        text,
        width,
        initial_indent=start,
        subsequent_indent=hang,
        break_long_words=long,
        break_on_hyphens=False,
    )


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
    if not stop.ran:
        return []
    if not stop.ran.saved:
        return ["nothing is saved for backward"]
    parts = []
    for saved in stop.ran.saved:
        names = dict.fromkeys(filter(None, (saved.name, saved.source)))
        what = " = ".join(names) or "an array of its own"
        anyway = "" if saved.made else " (lives anyway)"
        parts.append(f"{what} {sizes(saved.shape)} {in_bytes(saved.bytes)}{anyway}")
    return [*parts, f"{in_bytes(stop.ran.saved_bytes)} for backward alone"]


# -- a whole walk


def chosen(walk: Walk, pattern: str | None) -> list[int]:
    """The stops of an op, of a module and those below it, of a name, or of the end of one: qkv.

    * and ? stand for what may vary. Raises InputError where no stop fits.
    """
    if pattern is None:
        return list(range(len(walk.stops)))
    for wanted in (pattern, f"*.{pattern}"):
        if found := [i for i, stop in enumerate(walk.stops) if _fits(stop, wanted)]:
            return found
    near = nearest(pattern, walk.names())
    raise InputError(
        f"--only {shown(pattern)}: no stop has such an op, module or name{near}\n"
        "see them all: tinygpt step --plain"
    )


def _fits(stop: Stop, pattern: str) -> bool:
    names = stop.phase, stop.op, stop.module, stop.name
    below = fnmatchcase(stop.module, f"{pattern}.*")
    return below or any(fnmatchcase(name, pattern) for name in names)


def text(
    walk: Walk, numbers: Sequence[int], style: Style, notes: Notes, instead: bool = False
) -> Iterator[str]:
    """The stops of those numbers, with a heading where a phase begins.   notes: lines after the
    stops of those names, or `instead` of the stops.
    """
    phase = ""
    for i in numbers:
        stop = walk.stops[i]
        if stop.phase != phase:
            phase = stop.phase
            yield from ("", HEADINGS[phase])
        noted = notes.get(stop.name, ())
        if not (instead and noted):
            yield ""
            yield from style.lines(stop, i + 1, len(walk.stops))
        for line in noted:
            yield from wrapped(line, style.width)


HEADINGS = {
    "rollout": "rollout: replies of the policy, and how much better than expected each token is",
    "forward": "forward: from the ids to the loss",
    "backward": "backward: dL/d of everything, from the loss to the parameters",
    "clip": "clip: gradients that are too long together are shortened",
    "update": "update: what the optimiser does with each parameter's gradient",
}


# -- one array


def show(walk: Walk, wanted: str, names: Names, width: int) -> Iterator[str]:
    """Name and shape, statistics, the contributions to a gradient, and the numbers of one plane
    where they fit, else a map.

    The tokens of the text stand beside an axis as long as the text. Logits are shown as the
    likeliest next tokens.   wanted: a name as in tensor/recording/find.py, with an index of the
    first axes in brackets.   Raises InputError with the nearest names.
    """
    array = array_of(walk.recording, wanted, "see the names: tinygpt step --plain")
    yield ""
    yield f"{shown(wanted)}: shape {array.shape}, {array.dtype}"
    yield f"{statistics(array)}"
    if wanted.endswith(".grad"):
        yield from arrivals(walk, wanted.removesuffix(".grad"))
    seen = plane(array)
    if seen.values.size <= 1:
        return
    if seen.text:
        yield f"of it {seen.text}:"
    yield ""
    down, across = names.of(wanted, array.shape)
    is_logits = wanted.partition("[")[0] in LOGITS and array.shape[-1] == names.vocabulary
    if is_logits and array.ndim > 1 and np.isfinite(seen.values).all():
        yield from likeliest(seen.values, down, names, width)
    else:
        yield from rows(seen.values, down, across, width)


def arrivals(walk: Walk, name: str) -> Iterator[str]:
    """Each contribution to a gradient in the order of arrival, with the norm of the sum so far."""
    for stop in walk.stops:
        for note in stop.contributions(name):
            number, _, norms = note.partition(", ")
            yield f"{number} from {stop.name} ({stop.op}): {norms}"


def likeliest(logits: Floats, heads: Sequence[str], names: Names, width: int) -> Iterator[str]:
    """For each position of the text the five likeliest next tokens, p = softmax(logits)."""
    heads = heads or [""] * len(logits)
    left = max(map(cell_len, heads))
    yield f"{'':>{left}}  likeliest next tokens, p = softmax of the row"
    for head, row in zip(heads, logits, strict=True):
        p = distribution(row, SampleConfig())
        best = np.argsort(-p, kind="stable")[:LIKELIEST]
        tokens = "  ".join(f"{quoted(names.token(int(i)))} {p[i]:.3f}" for i in best)
        line = f"{right(head, left)}  {tokens}"
        yield set_cell_size(line, min(cell_len(line), width)).rstrip()


def rows(values: Floats, down: Sequence[str], across: Sequence[str], width: int) -> Iterator[str]:
    """A plane in numbers, or as a map where the numbers are too wide.   down, across: names of its
    rows and columns, if they have any.
    """
    heads = down or [""] * len(values)
    cells = [list(map(number, row)) for row in values.round(3)]
    if across:
        heads, cells = ["", *heads], [list(across), *cells]
    left = max(map(cell_len, heads))
    column = max(map(cell_len, chain(*cells))) + 1
    if left + column * values.shape[1] <= width:
        for head, line in zip(heads, cells, strict=True):
            yield right(head, left) + "".join(right(cell, column) for cell in line)
        return
    drawn = heat_map(values, len(values) if down else 32, (width - min(left, WIDEST) - 1) // 2)
    top, names = frame(drawn, down, across)
    yield drawn.legend
    if top:
        yield top.rstrip()
    yield from (f"{name}{line}" for name, line in zip(names, drawn.lines, strict=True))
