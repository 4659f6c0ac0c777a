"""What the full-screen program shows of a walk, as styled text: the module tree, the source, the arrays. No widgets here.

Every mark is a character, so that nothing is lost without colour. All of it is `rich.text.Text`, never markup: a name is never read as style.
"""

from __future__ import annotations

import inspect
import math
from dataclasses import dataclass
from types import CodeType

from rich.text import Text

from tensor.op import OPS
from tensor.tape import Forward
from tensor.tape.report import short
from tinygpt.console import shown
from tinygpt.step.conditions import blame
from tinygpt.step.plain import facts, kept, sizes
from tinygpt.step.stops import Seen, Stop
from tinygpt.step.values import NOT_FINITE, Map, first, heat_map, plane, statistics
from tinygpt.step.walk import Walk

HERE = "bold reverse"
FAINT = "dim"
POSITIVE, NEGATIVE, BROKEN = "#e69f00", "#56b4e9", "bold #ff6e9c"  # orange and sky blue of Okabe & Ito: told apart by all eyes


@dataclass
class View:
    """What of the arrays is looked at."""

    array: int = 0  # of those at the stop
    plane: int = 0  # of its leading axes


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


def fitted(text: str, width: int) -> str:
    """Cut to a width, with a mark where something is left out."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


# -- the source ---------------------------------------------------------------------------------------------------------


def source(walk: Walk, width: int, height: int) -> Text:
    """The op's own source; the line that has just run is marked."""
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
    start = max(0, min(at - (height // 2 if now is not None else 0), len(numbered) - height))
    text = Text(no_wrap=True)
    for number, line in numbered[start : start + max(height, 1)]:
        mark = "➤" if number == now else " "
        text.append(fitted(f"{mark}{number:>4}  {line}", width).ljust(width) + "\n", HERE if number == now else "")
    return text


def _body(stop: Stop) -> int:
    """The line where what runs here begins: below the docstring, or, going backward, the backward inside."""
    function = stop.function or (OPS[stop.op].reference if stop.op in OPS else None)  # type: ignore[attr-defined]
    if function is None:
        return 0
    code: CodeType = inspect.unwrap(function).__code__
    inner = [const for const in code.co_consts if isinstance(const, CodeType) and const.co_name not in ("<genexpr>", "<listcomp>")]
    if stop.phase == "backward" and inner:
        return min(const.co_firstlineno for const in inner)
    lines = sorted({line for _, _, line in code.co_lines() if line})
    return next((line for line in lines if line > code.co_firstlineno + 1), code.co_firstlineno)


# -- the arrays ---------------------------------------------------------------------------------------------------------


def arrays(walk: Walk, view: View, width: int, height: int) -> Text:
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
        text.append_text(contents(found[chosen], view.plane, width, height - used, brief=height < 16))
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


def contents(seen: Seen, which: int, width: int, height: int, brief: bool = False) -> Text:
    """Layout, statistics, the first numbers, a map of one plane. brief: without what can be seen elsewhere."""
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
    drawn = heat_map(found.values, max(3, min(height - used - 1, 24)), max(4, width // 2))
    turn = f"{found.text}, {which % found.places + 1} of {found.places} by [ ]: " if found.places > 1 else ""
    rows, columns = found.values.shape
    text.append(f"{turn}{rows} x {columns}, {drawn.legend}\n", FAINT)
    text.append_text(coloured(drawn))
    return text


def coloured(drawn: Map) -> Text:
    """The cells of a map: orange above zero, blue, with a minus, below."""
    text = Text(no_wrap=True)
    for row in drawn.rows:
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
        text.append(f"  keeps {short(total)}" if total else "", FAINT)
    if walk.halts(walk.at):
        text.append("  ● breakpoint", BROKEN)
    text.truncate(width, overflow="ellipsis")
    return text
