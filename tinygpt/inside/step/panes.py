"""What the full-screen program shows of a walk, as styled text: the module tree, the source, the
arrays. No widgets here.

Every mark is a character, so that nothing is lost without colour. All of it is `rich.text.Text`,
never markup: a name is never read as style.
"""

from __future__ import annotations

import ast
import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import cast

from rich.cells import cell_len
from rich.text import Text

from tensor.memory.layout import Shape
from tensor.recording import in_bytes
from tinygpt.inside.arrays import NOT_FINITE, Map, first, heat_map, plane, statistics
from tinygpt.inside.step.names import WIDEST, Names, frame
from tinygpt.inside.step.plain import facts, fitted, kept, sizes
from tinygpt.inside.step.stops import Seen, Stop, blame
from tinygpt.inside.step.walk import Walk
from tinygpt.terminal import shown

HERE = "bold reverse"
FAINT = "dim"
BAR = 10  # columns of the bar above the panes
KINDS = "Array", "Ids", "Layout", "Mask"  # annotations of the inputs of an op, not of its options
SCROLLED = 40  # rows of a plane up to which each is shown, if need be by scrolling
# orange and sky blue of Okabe & Ito: told apart by all eyes
POSITIVE, NEGATIVE, BROKEN = "#e69f00", "#56b4e9", "bold #ff6e9c"


@dataclass
class View:
    """The part of the arrays and the source that is looked at."""

    array: int = 0  # of those at the stop
    source: int = 0  # lines that the source was scrolled by
    # of arrays of a shape: the plane on their leading axes
    planes: Counter[Shape] = field(default_factory=Counter)


# -- the module tree


def tree(walk: Walk, width: int, height: int) -> Text:
    """The modules. Those around the position are open; the innermost shows its ops too, in the
    order in which they run.
    """
    rows = list(_branch(walk, "", ""))
    here = next((i for i, (_, style) in enumerate(rows) if style == HERE), 0)
    start = max(0, min(here - height // 2, len(rows) - height))
    return _lines(rows[start : start + max(height, 1)], width)


def _branch(walk: Walk, path: str, indent: str) -> Iterator[tuple[str, str]]:
    """A row for each module directly inside that one, and each of its ops if the walk is there."""
    stop = walk.stop
    children = [child for child, around in walk.modules.items() if around == path]
    items: dict[int, str | Stop] = {walk.order(child): child for child in children}
    if stop.module == path:
        ops = enumerate(walk.stops)
        items |= {i: op for i, op in ops if (op.module, op.phase) == (path, stop.phase)}
    for _, item in sorted(items.items()):
        if isinstance(item, Stop):
            mark, style = ("➤", HERE) if item is stop else ("·", FAINT)
            yield f"{indent}{mark} {item.label}", style
            continue
        inside, mark = stop.within(item), " "
        if item in walk.modules.values():
            mark = "▾" if inside else "▸"
        yield f"{indent}{mark} {item.removeprefix(f'{path}.')}", "bold" if inside else ""
        if inside:
            yield from _branch(walk, item, indent + "  ")


def _lines(rows: Iterable[tuple[str, str]], width: int) -> Text:
    """Each row, with its style over the whole width."""
    text = Text(no_wrap=True)
    for row, style in rows:
        text.append(fitted(row, width).ljust(width) + "\n", style)
    return text


# -- the source


def source(walk: Walk, view: View, width: int, height: int) -> Text:
    """The op's own source, with a mark at the line that has just run, or at a stop where the work
    begins. A view that was scrolled too far is set back.
    """
    found, moment = walk.stop.source(), walk.moment
    lines = dict(enumerate(found.lines, found.first))
    if moment is not None and lines.get(moment.number, "").strip() != moment.text:
        # the function of these lines stands elsewhere
        lines = {m.number: m.text for m in walk.lines}
    if not lines:
        return Text("no source: this is done by a kernel", FAINT)
    focus = moment.number if moment is not None else _body(walk.stop)
    top, last = list(lines).index(focus), len(lines) - height
    if moment is not None:
        top -= height // 2
    top = max(0, min(top, last))
    start = max(0, min(top + view.source, last))
    view.source = start - top
    rows = []
    for number, line in islice(lines.items(), start, start + max(height, 1)):
        mark, style = ("➤", HERE) if number == focus else (" ", "")
        rows.append((f"{mark}{number:>4}  {line}", style))
    return _lines(rows, width)


def _body(stop: Stop) -> int:
    """The line where the work begins: forward, the first that reads the elements of an input, below
    docstring, checks and the functions inside; backward, the function inside.
    """
    found = stop.source()
    function = cast("ast.FunctionDef", ast.parse(textwrap.dedent("\n".join(found.lines))).body[0])
    functions = [n for n in ast.walk(function) if isinstance(n, ast.FunctionDef | ast.Lambda)]
    arguments = [*function.args.args, *([function.args.vararg] if function.args.vararg else [])]
    inputs = {argument.arg for argument in arguments if _kind(argument) in KINDS}
    work = [part for part in function.body if not _checks(part) and _reads(part, inputs)]
    inner = functions[1:] if stop.phase == "backward" else []
    begin = min(node.lineno for node in inner or work[:1] or function.body[-1:])
    return found.first + begin - 1


def _kind(argument: ast.arg) -> str:
    """The annotation of an argument, without `| None`."""
    return "" if argument.annotation is None else ast.unparse(argument.annotation).split(" ")[0]


def _reads(part: ast.stmt, inputs: set[str]) -> bool:
    """Whether a statement that is no function uses more of these variables than their facts."""
    if isinstance(part, ast.FunctionDef):
        return False
    facts = {
        id(node.value)
        for node in ast.walk(part)
        if isinstance(node, ast.Attribute) and node.attr in ("shape", "ndim", "dtype", "size")
    }
    names = (node for node in ast.walk(part) if isinstance(node, ast.Name))
    return any(name.id in inputs and id(name) not in facts for name in names)


def _checks(part: ast.stmt) -> bool:
    """Whether a statement is a docstring, a call without a result, or only raises."""
    if isinstance(part, ast.If):
        return not part.orelse and isinstance(part.body[-1], ast.Raise)
    return isinstance(part, ast.Expr)


# -- the arrays


def arrays(walk: Walk, view: View, width: int, height: int, names: Names) -> Text:
    """Formula, arrays, the chosen one with its values, what is saved, the implementation."""
    stop, at_stop, text = walk.stop, walk.moment is None, Text()
    found, others = walk.seen()
    if at_stop:
        text.append("".join(f"! {line}\n" for line in blame(stop)), BROKEN)
        if stop.formula:
            lines = 2 if height < 20 else 6
            text.append(f"{fitted(stop.formula, lines * width - 8)}\n", "italic")
        text.append("".join(f"{line}\n" for line in stop.notes))
    if others:
        text.append(shown("   ".join(others)) + "\n", "italic")
    chosen = view.array % max(len(found), 1)
    rows = [(f"  {_row(seen)}", "") for seen in found]
    if found:
        rows[chosen] = f"➤ {_row(found[chosen])}", HERE
        text.append_text(_lines(rows, width))
        left = height - _height(text, width)
        text.append_text(contents(found[chosen], view.planes, width, left, names, height < 16))
    elif not at_stop:
        text.append("this line makes no array\n", FAINT)
    if at_stop:
        text.append_text(_origin(stop))
    return text


def _height(text: Text, width: int) -> int:
    """The lines that a text takes in that width."""
    return sum(math.ceil(max(len(line), 1) / max(width, 1)) for line in text.plain.splitlines())


def _row(seen: Seen) -> str:
    """role name shape note. The note of a contribution says how many have arrived, and where."""
    value, note = seen.value, seen.note
    if seen.to:
        note = note.removeprefix(f"to {seen.to}: ").split(",")[0] + f" to {seen.to}"
    role = "" if seen.role == "line" else f"{seen.role:<6} "
    return f"{role}{value.name:<10} {sizes(value.shape):<14} {note}"


def contents(
    seen: Seen,
    planes: Counter[Shape],
    width: int,
    height: int,
    names: Names,
    brief: bool = True,
) -> Text:
    """Layout, statistics, the first numbers, a map of one plane. brief: without what can be seen
    elsewhere.
    """
    value, text = seen.value, Text()
    if seen.role != "watched":
        # a line's array was copied: its strides say nothing
        layout = facts(value) if seen.role != "line" else facts(value)[2:]
        text.append(f"{', '.join(layout)}\n", "bold")
    if seen.note and not (brief and len(seen.note) < width - 35):
        text.append(f"{seen.note}\n")
    text.append(f"{statistics(value.array)}\n")
    which = planes[value.shape]
    found = plane(value.array, which)
    if found.values.size <= 1:
        return text
    row = "" if brief else first(found.values[0], width - 12)
    text.append(f"starts with {row}\n" if row else "", FAINT)
    down, across = names.of(value.source or value.name, value.shape)
    left = min(max(map(cell_len, down), default=-1), WIDEST) + 1
    lines = len(found.values)
    if seen.role == "watched" or lines > SCROLLED:
        lines = max(3, min(height - _height(text, width) - 1, 24))
    drawn = heat_map(found.values, lines, max(4, (width - left) // 2))
    turn = ""
    if found.planes > 1:
        turn = f"{found.text}, {which % found.planes + 1} of {found.planes} by [ ]: "
    text.append(f"{turn}{found.values.shape[0]} x {found.values.shape[1]}, {drawn.legend}\n", FAINT)
    text.append_text(coloured(drawn, *frame(drawn, down, across)))
    return text


def coloured(drawn: Map, top: str, lefts: Sequence[str]) -> Text:
    """The cells of a map: orange above zero; blue, with a minus, below.   top, lefts: names of its
    columns and rows.
    """
    text = Text(no_wrap=True)
    text.append(f"{top}\n" if top else "", FAINT)
    for left, row in zip(lefts, drawn.rows, strict=True):
        text.append(left, FAINT)
        for cell, level in row:
            text.append(cell, _colour(level))
        text.append("\n")
    return text


def _colour(level: int) -> str:
    signed = POSITIVE if level > 0 else NEGATIVE
    return {NOT_FINITE: BROKEN, 0: FAINT}.get(level, signed)


def _origin(stop: Stop) -> Text:
    """What is saved, the implementation, the line that called it."""
    heading = "kept for backward" if stop.phase == "forward" else "was kept for this"
    saved = ", ".join(kept(stop))
    text = Text()
    for head, fact in ((heading, saved), ("done by", stop.by), ("called at", shown(stop.line))):
        if fact:
            text.append(f"{head}  ", "bold")
            text.append(f"{fact}\n")
    return text


def position(walk: Walk, width: int) -> Text:
    """forward 12 of 93, with a bar; module and op; the line, inside an op; breakpoints."""
    stop, ran, count = walk.stop, walk.stop.ran, len(walk.stops)
    done = round(BAR * (walk.at + 1) / count)
    text = Text.assemble(
        (f" {stop.phase} ", HERE),
        (f" {walk.at + 1} of {count} ", "bold"),
        "━" * done + "─" * (BAR - done),
        f"  {stop.module} " if stop.module else "  ",
        (stop.label, "bold"),
        no_wrap=True,
    )
    if walk.moment is not None:
        text.append(f"  line {walk.line + 1} of {len(walk.lines)}")
    elif stop.phase == "forward" and ran and ran.saved_bytes:
        text.append(f"  keeps {in_bytes(ran.saved_bytes)}", FAINT)
    if walk.halts(walk.at):
        text.append("  ● breakpoint", BROKEN)
    text.truncate(width, overflow="ellipsis")
    return text
