"""What the full-screen program shows of a walk, as styled text: the module tree, the source, the arrays. No widgets here.

Every mark is a character, so that nothing is lost without colour. All of it is `rich.text.Text`, never markup: a name is never read as style.
"""

from __future__ import annotations

import ast
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.text import Text

from tensor.tape import Forward, in_bytes
from tinygpt.console import shown
from tinygpt.step.conditions import blame
from tinygpt.step.names import NAMELESS, WIDEST, Names, frame
from tinygpt.step.plain import facts, fitted, kept, sizes
from tinygpt.step.stops import Seen, Stop
from tinygpt.step.values import NOT_FINITE, Map, first, heat_map, plane, statistics
from tinygpt.step.walk import Walk

HERE = "bold reverse"
FAINT = "dim"
SCROLLED = 40  # rows of a plane up to which each is shown, if need be by scrolling
POSITIVE, NEGATIVE, BROKEN = "#e69f00", "#56b4e9", "bold #ff6e9c"  # orange and sky blue of Okabe & Ito: told apart by all eyes


@dataclass
class View:
    """What of the arrays is looked at."""

    array: int = 0  # of those at the stop
    plane: int = 0  # of its leading axes
    source: int = 0  # lines that the source was scrolled by


# -- the module tree ----------------------------------------------------------------------------------------------------


def tree(walk: Walk, width: int, height: int) -> Text:
    """The modules; those on the way to here are open, and of the one where we are, the ops too, in the order in which they run."""
    rows: list[tuple[str, str]] = []
    _branch(walk, "", rows)
    here = next((i for i, (_, style) in enumerate(rows) if style == HERE), 0)
    text = Text(no_wrap=True)
    for row, style in window(rows, here, height):
        text.append(fitted(row, width).ljust(width if style == HERE else 0) + "\n", style)
    return text


def _branch(walk: Walk, path: str, rows: list[tuple[str, str]]) -> None:
    """A row for each module right inside that one, and each op if we are there."""
    stop = walk.stop
    items: list[tuple[int, str, Stop | None]] = [(walk.order(child), child, None) for child in walk.modules if ".".join(walk.modules[child][:-1]) == path]
    if stop.module == path:
        items += [(i, other.label, other) for i, other in enumerate(walk.stops) if other.module == path and other.phase == stop.phase]
    depth = len(walk.modules.get(path, ()))
    for _, name, op in sorted(items, key=lambda item: item[0]):
        if op is not None:
            rows.append((f"{'  ' * depth}{'➤' if op is stop else '·'} {name}", HERE if op is stop else FAINT))
            continue
        inside = stop.within(name)
        inner = any(".".join(parts[:-1]) == name for parts in walk.modules.values())
        rows.append((f"{'  ' * depth}{('▾' if inside else '▸') if inner else ' '} {walk.modules[name][-1]}", "bold" if inside else ""))
        if inside:
            _branch(walk, name, rows)


def window(rows: list[tuple[str, str]], here: int, height: int) -> list[tuple[str, str]]:
    """As many rows as fit, the current one among them."""
    start = max(0, min(here - height // 2, len(rows) - height))
    return rows[start : start + max(height, 1)]


# -- the source ---------------------------------------------------------------------------------------------------------


def source(walk: Walk, width: int, height: int, view: View | None = None) -> Text:
    """The op's own source; the line that has just run is marked. A view that was scrolled too far is put right."""
    found = walk.stop.source()
    numbered = list(enumerate(found.lines, found.first))
    moment = walk.moment
    if moment is not None and not any(number == moment.number and line.strip() == moment.text for number, line in numbered):
        numbered = list(dict.fromkeys((m.number, m.text) for m in walk.lines))  # a rule that stands elsewhere
    if not numbered:
        return Text("no source: this is done by a kernel", FAINT)
    now = moment.number if moment is not None else None
    focus = now if now is not None else _body(walk.stop)
    at = next((i for i, (number, _) in enumerate(numbered) if number == focus), 0)
    first = max(0, min(at - (height // 2 if now is not None else 0), len(numbered) - height))
    start = first
    if view is not None:
        start = max(0, min(first + view.source, len(numbered) - height))
        view.source = start - first
    text = Text(no_wrap=True)
    for number, line in numbered[start : start + max(height, 1)]:
        mark = "➤" if number == now else " "
        text.append(fitted(f"{mark}{number:>4}  {line}", width).ljust(width) + "\n", HERE if number == now else "")
    return text


def _body(stop: Stop) -> int:
    """The line where what runs here begins: below the docstring and the checks of arguments, or, going backward, the backward inside."""
    found = stop.source()
    try:
        function = ast.parse(textwrap.dedent("\n".join(found.lines))).body[0]
    except (SyntaxError, IndexError):
        return found.first
    if not isinstance(function, ast.FunctionDef):
        return found.first
    inner = [node.lineno for node in ast.walk(function) if isinstance(node, (ast.FunctionDef, ast.Lambda)) and node is not function]
    if stop.phase == "backward" and inner:
        return found.first + min(inner) - 1
    body = function.body
    while len(body) > 1 and (_checks(body[0]) or (isinstance(body[0], ast.Assign) and _checks(body[1]))):  # a size is named to be checked
        body = body[1:]
    return found.first + body[0].lineno - 1


def _checks(part: ast.stmt) -> bool:
    """Whether a statement is a docstring, a call that makes nothing, or only raises."""
    if isinstance(part, ast.If):
        return not part.orelse and isinstance(part.body[-1], ast.Raise)
    return isinstance(part, ast.Expr)


# -- the arrays ---------------------------------------------------------------------------------------------------------


def arrays(walk: Walk, view: View, width: int, height: int, names: Names = NAMELESS) -> Text:
    """Formula, arrays, the chosen one with its values, what is saved, what did it."""
    stop, text = walk.stop, Text()
    found, others = walk.seen()
    for line in [] if walk.moment else blame(stop):
        text.append(f"! {line}\n", BROKEN)
    if walk.moment is None and stop.formula:
        text.append(f"{fitted(stop.formula, (2 if height < 20 else 6) * width - 8)}\n", "italic")
    if others:
        text.append(shown("   ".join(others)) + "\n", "italic")
    chosen = view.array % len(found) if found else 0
    for i, seen in enumerate(found):
        text.append(_row(seen, i == chosen, width) + "\n", HERE if i == chosen else "")
    if not found and walk.moment is not None:
        text.append("this line makes no array\n", FAINT)
    used = sum(math.ceil(max(len(line), 1) / max(width, 1)) for line in text.plain.splitlines())
    if found:
        text.append_text(contents(found[chosen], view.plane, width, height - used, names, brief=height < 16, rows=SCROLLED))
    if walk.moment is None:
        text.append_text(_told(stop))
    return text


def _row(seen: Seen, here: bool, width: int) -> str:
    """role name shape bytes; of a gradient that is handed on, who gets it and how many have arrived."""
    value = seen.value
    note = seen.note
    if note.startswith("to "):
        target, _, rest = note[3:].partition(": ")
        note = f"{rest.split(',')[0]} to {target}"
    role = "" if seen.role == "line" else f"{seen.role:<6} "
    return fitted(f"{'➤' if here else ' '} {role}{value.name:<10} {sizes(value.shape):<14} {note}", width).ljust(width)


def contents(seen: Seen, which: int, width: int, height: int, names: Names, *, brief: bool = False, rows: int = 0) -> Text:
    """Layout, statistics, the first numbers, a map of one plane. brief: without what can be seen elsewhere.   rows: so many are shown in any height."""
    value, text = seen.value, Text()
    if seen.role != "watched":
        layout = facts(value) if seen.role != "line" else facts(value)[2:]  # a line's array was copied: its strides say nothing
        text.append(f"{', '.join(layout)}\n", "bold")
    if seen.note and not (brief and len(seen.note) < width - 35):
        text.append(f"{seen.note}\n")
    text.append(f"{statistics(value.array)}\n")
    found = plane(value.array, which)
    if found.values.size <= 1:
        return text
    row = "" if brief else first(found.values[0], width - 12)
    text.append(f"starts with {row}\n" if row else "", FAINT)
    used = sum(math.ceil(max(len(line), 1) / max(width, 1)) for line in text.plain.splitlines())
    down, across = names.of(value.source or value.name, value.shape)
    left = min(max(map(cell_len, down), default=-1), WIDEST) + 1
    fitting = len(found.values) if len(found.values) <= rows else max(3, min(height - used - 1, 24))
    drawn = heat_map(found.values, fitting, max(4, (width - left) // 2))
    turn = f"{found.text}, {which % found.places + 1} of {found.places} by [ ]: " if found.places > 1 else ""
    text.append(f"{turn}{found.values.shape[0]} x {found.values.shape[1]}, {drawn.legend}\n", FAINT)
    text.append_text(coloured(drawn, *frame(drawn, down, across)))
    return text


def coloured(drawn: Map, top: str, lefts: Sequence[str]) -> Text:
    """The cells of a map: orange above zero, blue, with a minus, below.   top, lefts: what its columns and rows are called."""
    text = Text(no_wrap=True)
    text.append(f"{top}\n" if top else "", FAINT)
    for left, row in zip(lefts, drawn.rows, strict=True):
        text.append(left, FAINT)
        for cell, level in row:
            text.append(cell, BROKEN if level == NOT_FINITE else POSITIVE if level > 0 else NEGATIVE if level < 0 else FAINT)
        text.append("\n")
    return text


def _told(stop: Stop) -> Text:
    """What is saved, what did it, whose line called it."""
    text = Text()
    if stop.phase in ("forward", "backward"):
        heading = "kept for backward" if stop.phase == "forward" else "was kept for this"
        text.append(f"{heading}  ", "bold")
        text.append(f"{', '.join(kept(stop))}\n")
    if stop.by:
        text.append("done by  ", "bold")
        text.append(f"{stop.by}\n")
    if stop.line:
        text.append("called at  ", "bold")
        text.append(f"{shown(stop.line)}\n")
    return text


def place(walk: Walk, width: int) -> Text:
    """forward 12 of 93, with a bar; module and op; the line, inside one; breakpoints."""
    stop, count = walk.stop, len(walk.stops)
    text = Text(no_wrap=True)
    text.append(f" {stop.phase} ", HERE)
    text.append(f" {walk.at + 1} of {count} ", "bold")
    size = 10
    done = round(size * (walk.at + 1) / count)
    text.append("━" * done + "─" * (size - done) + "  ")
    text.append(f"{stop.module} " if stop.module else "")
    text.append(stop.label, "bold")
    if walk.moment is not None:
        text.append(f"  line {walk.line + 1} of {len(walk.lines)}")
    elif isinstance(stop.entry, Forward) and stop.saved:
        total = sum(saved.bytes for saved in stop.saved if saved.made)
        text.append(f"  keeps {in_bytes(total)}" if total else "", FAINT)
    if walk.halts(walk.at):
        text.append("  ● breakpoint", BROKEN)
    text.truncate(width, overflow="ellipsis")
    return text
