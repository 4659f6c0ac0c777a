"""The full-screen program: keys move a walk, panes show where it stands. What they show is made in panes.py."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Grid, VerticalScroll
from textual.widgets import Static

from tensor.layout import Shape
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.step import panes, picture
from tinygpt.step.conditions import KINDS
from tinygpt.step.dialogs import Ask, Help, matches
from tinygpt.step.panes import View
from tinygpt.step.plain import sizes
from tinygpt.step.recorded import Session
from tinygpt.step.stops import Seen
from tinygpt.step.values import is_plain, plane, written
from tinygpt.step.walk import Walk

INTERRUPTED = 130
WIDE = 116  # columns from which the arrays stand beside the source
KEYS = "? help,q quit,n next,p back,i into,o out,m module,b backward,/ go,x break,c cont,a array,[] head,d draw,w watch"
HELP = """A stop is one op: first forward, from the ids to the loss, then
backward, from the loss to each weight.

n  Right   next stop, or line         p  Left    one back
i  Enter   into the op's source       o          out of it, or the module
m          next module                b          to where backward starts
/  g       go to a stop, module, op, variable, number; Tab completes
x          breakpoint: op=gelu  module=blocks.0  shape=1,17,64  nan
c          continue to the next       q  Ctrl-C  quit
a  A       next array, one before     [  ]       its next head or batch
d          draw it, as a PNG file     w          keep one in sight by name
Up  Down   scroll the arrays          with Shift scroll the source

Strides: how many elements lie between two neighbours along each axis.
A map: ░▒▓█ is how large a value is against the largest; a minus means
below zero, a dot exactly 0, Na a NaN. Any key closes this."""


class StepApp(App[None]):
    """A walk on the screen."""

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #title { height: 1; background: $primary; color: $text; }
    #place { height: 1; }
    #panes { grid-size: 2 2; grid-columns: 24 1fr; grid-rows: 1fr 7; height: 1fr; }
    #panes > * { border-top: solid $primary; height: 100%; padding: 0; }
    #tree { border-right: solid $primary; }
    #source { column-span: 2; }
    .ascii #panes > *, .ascii #watch { border-top: ascii $primary; }
    .ascii #tree { border-right: ascii $primary; }
    .ascii #arrays { scrollbar-size-vertical: 0; }
    .ascii #dialog, .ascii #answer { border: ascii $primary; }
    .watching #panes { grid-rows: 1fr 5; }
    .wide #panes { grid-columns: 30 1fr; grid-rows: 3fr 2fr; }
    .wide #source { column-span: 1; }
    .wide #tree { row-span: 2; }
    #arrays { scrollbar-size-vertical: 1; }
    #watch { height: auto; max-height: 9; display: none; border-top: solid $primary; }
    #status { height: auto; min-height: 1; max-height: 2; padding: 0 1; color: $warning; }
    #keys { height: 1; background: $panel; }
    Ask, Help { align: center middle; }
    #dialog { width: 78; max-width: 100%; height: auto; border: solid $primary; background: $surface; padding: 0 1; }
    """
    BINDINGS = [
        Binding("n,right", "move('next')", "next"),
        Binding("p,left", "move('back')", "back"),
        Binding("i,enter", "move('into')", "into"),
        Binding("o", "move('out')", "out"),
        Binding("m", "move('module')", "module"),
        Binding("b", "move('backward')", "backward"),
        Binding("c", "move('resume')", "continue"),
        Binding("slash,g", "find", "go to"),
        Binding("x", "breakpoint", "breakpoints"),
        Binding("w", "watch", "watch"),
        Binding("d", "draw", "draw"),
        Binding("a", "array(1)", "next array"),
        Binding("A", "array(-1)", "array before"),
        Binding("right_square_bracket", "plane(1)", "next plane"),
        Binding("left_square_bracket", "plane(-1)", "plane before"),
        Binding("down", "scroll(1)", "scroll down"),
        Binding("up", "scroll(-1)", "scroll up"),
        Binding("shift+down", "source(1)", "scroll the source down"),
        Binding("shift+up", "source(-1)", "scroll the source up"),
        Binding("pagedown", "scroll(8)", "scroll down"),
        Binding("pageup", "scroll(-8)", "scroll up"),
        Binding("question_mark", "help", "help"),
        Binding("q", "quit", "quit"),
        Binding("ctrl+q", "quit", "quit", priority=True),
        Binding("ctrl+c", "interrupt", "quit", priority=True),  # in a dialog too
    ]

    def __init__(self, session: Session):
        super().__init__()
        self.walk, self.view = session.walk, self._made(session.walk)
        self.heading = session.title
        self.names, self.watched = session.names, ""
        self.planes: dict[Shape, int] = {}  # which plane of arrays of that shape is looked at
        bad = next((fact for fact in session.facts if fact.startswith(("NaN", "skipped"))), None)
        graph = next((fact[9:].split(";")[0] for fact in session.facts if fact.startswith("graph")), "")
        self.status = bad or self._halted() or f"{graph}; ? explains the screen"
        self.set_class(is_plain(), "ascii")

    def compose(self) -> ComposeResult:
        yield Static(Text(written(f" {self.heading}"), no_wrap=True, overflow="ellipsis"), id="title")
        yield Static(id="place")
        with Grid(id="panes"):
            yield Pane(self.show, id="tree")
            with Scroll(self.show, id="arrays", can_focus=False):
                yield Static(id="values")
            yield Pane(self.show, id="source")
        yield Pane(self.show, id="watch")
        yield Static(id="status")
        yield Static(id="keys")

    def on_resize(self, event: events.Resize) -> None:
        """Beside each other where there is room."""
        base = self.screen_stack[0]
        base.set_class(event.size.width >= WIDE, "wide")
        base.query_one("#keys", Static).update(keys(KEYS, event.size.width))

    # -- showing --

    def show(self) -> None:
        """Bring all panes up to date with the walk."""
        walk, base = self.walk, self.screen_stack[0]
        tree, source, values = (base.query_one(name, Static) for name in ("#tree", "#source", "#values"))
        scroll = base.query_one("#arrays", VerticalScroll)
        self.view.plane = self._plane()
        with np.errstate(all="ignore"):
            tree.update(plainly(panes.tree(walk, tree.size.width, tree.size.height)))
            source.update(plainly(panes.source(walk, source.size.width, source.size.height, self.view)))
            values.update(plainly(panes.arrays(walk, self.view, scroll.size.width - 1, scroll.size.height, self.names)))
            base.query_one("#place", Static).update(plainly(panes.place(walk, self.size.width)))
            self._show_watched(base.query_one("#watch", Static))
        tree.border_title, source.border_title = "where", f"{'reference' if walk.stop.stands_in else 'source'} of {walk.stop.op}"
        scroll.border_title = "what this line made" if walk.moment else "arrays"
        base.query_one("#status", Static).update(plainly(Text(self.status, overflow="fold")))

    def _show_watched(self, pane: Static) -> None:
        if self.watched:
            seen = self.walk.array(self.watched)
            when = " (after backward)" if self.watched.partition("[")[0].endswith(".grad") else ""
            pane.border_title = f"watched: {self.watched} {sizes(seen.value.shape)}{when}".replace("[", r"\[")
            height = 8 if self.size.height > 30 else 5
            which = self.planes.get(seen.value.shape, self.view.plane)
            pane.update(plainly(panes.contents(seen, which, self.size.width, height, self.names, brief=True)))

    # -- moving --

    def action_move(self, how: str) -> None:
        """One of the walk's own moves."""
        moves: dict[str, Callable[[], str]] = {name: getattr(self.walk, name) for name in ("next", "back", "into", "out", "module", "backward", "resume")}
        self._moved(moves[how]())

    def _moved(self, status: str) -> None:
        """Show the new place from its top."""
        self.view, self.status = self._made(self.walk), status or self._halted()
        self.screen_stack[0].query_one("#arrays", VerticalScroll).scroll_home(animate=False)
        self.show()

    def _made(self, walk: Walk) -> View:
        """What is made there: of a stop its first output, of a line its last array."""
        found, _ = walk.seen()
        made = [i for i, seen in enumerate(found) if seen.role in ("out", "after")]
        return View(made[0] if made else max(len(found) - 1, 0))

    def _halted(self) -> str:
        """Which breakpoints are met here."""
        met = self.walk.met()
        return f"halted at {met}" if met else ""

    def _chosen(self) -> Seen | None:
        """The array that is looked at."""
        found, _ = self.walk.seen()
        return found[self.view.array % len(found)] if found else None

    def _plane(self) -> int:
        """Which plane of it: the one that was chosen for its shape, elsewhere too."""
        seen = self._chosen()
        return self.planes.get(seen.value.shape, 0) if seen else 0

    def action_array(self, step: int) -> None:
        """Another array of the stop."""
        found, _ = self.walk.seen()
        self.view.array = (self.view.array + step) % max(len(found), 1)
        self.show()

    def action_plane(self, step: int) -> None:
        """Another head, or batch."""
        seen = self._chosen()
        if seen is None or math.prod(seen.value.shape[:-2]) <= 1:
            self.status = "there is one plane here: only an array with more than two axes has others"
        else:
            self.planes[seen.value.shape] = self._plane() + step
            self.status = ""
        self.show()

    def action_source(self, lines: int) -> None:
        """Scroll the source."""
        self.view.source += lines
        self.show()

    def action_interrupt(self) -> None:
        """Ctrl-C: end, with the exit code that says so."""
        self.exit(return_code=INTERRUPTED)

    def action_scroll(self, lines: int) -> None:
        """Scroll the arrays."""
        self.screen_stack[0].query_one("#arrays", VerticalScroll).scroll_relative(y=lines, animate=False)

    # -- asking --

    def action_find(self) -> None:
        """Go to a name."""
        self._ask("go to a stop's number, module, op, variable or parameter (Tab completes)", self.walk.names(), (), self._find)

    def _find(self, name: str) -> None:
        self.walk.find(name)
        self._moved("")

    def action_watch(self) -> None:
        """Keep an array in sight."""
        told = ("nothing: watch none", "a name with .grad behind it is its gradient")
        self._ask("watch an array, such as blocks.0.attention.weights", self.walk.names(), told, self._watch)

    def _watch(self, name: str) -> None:
        if name:
            self.walk.array(name)  # an InputError if there is none
        self.watched = name
        self.status = f"watching {shown(name)}" if name else "watching nothing"
        base = self.screen_stack[0]
        base.set_class(bool(name), "watching")
        base.query_one("#watch").display = bool(name)
        self.call_after_refresh(self.show)

    def action_breakpoint(self) -> None:
        """Make a breakpoint, or remove one by its number."""
        told = [f"{i + 1}  {wanted}" for i, wanted in enumerate(self.walk.breaks)] or ["there is none yet"]
        stops = self.walk.stops
        names = [f"op={op}" for op in dict.fromkeys(stop.op for stop in stops)] + [f"module={m}" for m in dict.fromkeys(s.module for s in stops) if m]
        self._ask(f"break at {KINDS}; a number removes that one", [*names, "nan"], told, self._break)

    def _break(self, text: str) -> None:
        breaks = self.walk.breaks
        if text.isdecimal() and len(text) < 19 and 1 <= int(text) <= len(breaks):
            self.status = f"removed {breaks.pop(int(text) - 1)}"
        elif text:
            self.status = f"breakpoint {self.walk.halt_at(text)}: c continues to it"
        self.show()

    def _ask(self, title: str, names: list[str], told: tuple[str, ...] | list[str], answer: Callable[[str], None]) -> None:
        def answered(text: str | None) -> None:
            if text is None:
                return
            try:
                first = self._answered(answer, text, names)
                self.status = self.status if first == text else f"nothing is named {text!r} alone: the first listed was taken, {first}"
            except InputError as error:
                self.status = shown(error).replace("\\n", "; ")
            self.show()

        self.push_screen(Ask(title, names, told), answered)

    def _answered(self, answer: Callable[[str], None], text: str, names: list[str]) -> str:
        """Do what was asked for; where it is no name itself, the first of those listed. What it was."""
        try:
            answer(text)
        except InputError:
            listed = matches(text, names)
            if not listed or text.isdecimal():
                raise
            answer(listed[0])
            return listed[0]
        return text

    def action_help(self) -> None:
        """The keys."""
        self.push_screen(Help(HELP))

    def action_draw(self) -> None:
        """The chosen array as a picture."""
        seen = self._chosen()
        if seen is None:
            self.status = "there is no array here to draw"
            return self.show()
        value = seen.value
        names = self.names.of(value.source or value.name, value.shape)
        try:
            path = picture.draw(plane(value.array, self._plane()), f"{self.walk.stop.name}.{value.name}", Path(), *names)
            self.status = f"drawn: {shown(path.resolve())}"
        except InputError as error:
            self.status = shown(error)
        return self.show()


class Pane(Static):
    """A part of the screen that is drawn anew when it has got another size: only then is its size known."""

    def __init__(self, drawn: Callable[[], None], id: str):
        super().__init__(id=id)
        self._drawn = drawn

    def on_resize(self) -> None:
        """Draw it."""
        self._drawn()


class Scroll(VerticalScroll):
    """The same around what can be longer than it."""

    def __init__(self, drawn: Callable[[], None], id: str, can_focus: bool):
        super().__init__(id=id, can_focus=can_focus)
        self._drawn = drawn

    def on_resize(self) -> None:
        """Draw it."""
        self._drawn()


def plainly(text: Text) -> Text:
    """As the output's encoding can write it."""
    text.plain = written(text.plain)
    return text


def keys(listed: str, width: int) -> Text:
    """The keys in bold, each with its word, as many as there is room for."""
    text = Text(no_wrap=True)
    for i, entry in enumerate(listed.split(",")):
        if len(text) + bool(i) + len(entry) > width:
            break
        key, _, word = entry.partition(" ")
        text.append(" " * bool(i) + key, "bold")
        text.append(f" {word}")
    return text
