"""The full-screen program: keys move a walk, panes show its position. panes.py makes their text."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Grid, VerticalScroll
from textual.events import Key
from textual.widgets import Static

from tinygpt.errors import InputError
from tinygpt.inside.arrays import is_plain, plane, written
from tinygpt.inside.step import panes, picture
from tinygpt.inside.step.dialogs import Ask, Help, matches
from tinygpt.inside.step.panes import View
from tinygpt.inside.step.plain import sizes
from tinygpt.inside.step.recorded import Session
from tinygpt.inside.step.stops import Seen
from tinygpt.inside.step.walk import KINDS
from tinygpt.terminal import shown

KEYS = (
    "? help,q quit,n next,p back,i into,o out,m module,b backward,/ go,x break,c cont,"
    "a array,[] head,d draw,w watch"
)


class StepApp(App[None]):
    """A walk on the screen."""

    ENABLE_COMMAND_PALETTE = False
    SCREENS = {"help": Help}
    HORIZONTAL_BREAKPOINTS = [(116, "wide")]  # the arrays stand beside the source
    CSS = """
    #title { height: 1; background: $primary; color: $text; }
    #position { height: 1; }
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
    #dialog { width: 78; max-width: 100%; height: auto; padding: 0 1; }
    #dialog { border: solid $primary; background: $surface; }
    """
    ACTIONS = {
        "n,right": "move('next')",
        "p,left": "move('back')",
        "i,enter": "move('into')",
        "o": "move('out')",
        "m": "move('module')",
        "b": "go('backward')",
        "c": "move('resume')",
        "slash,g": "find",
        "x": "breakpoint",
        "w": "watch",
        "d": "draw",
        "a": "array(1)",
        "A": "array(-1)",
        "right_square_bracket": "plane(1)",
        "left_square_bracket": "plane(-1)",
        "down": "scroll(1)",
        "up": "scroll(-1)",
        "shift+down": "source(1)",
        "shift+up": "source(-1)",
        "pagedown": "scroll(8)",
        "pageup": "scroll(-8)",
        "question_mark": "push_screen('help')",
        "q": "quit",
    }
    # Ctrl-C quits in a dialog too
    BINDINGS = [*ACTIONS.items(), Binding("ctrl+c", "interrupt", priority=True)]

    def __init__(self, session: Session):
        super().__init__()
        self.walk, self.names, self.heading = session.walk, session.names, session.title
        self.folder = session.folder
        self.view, self.watched = View(), ""
        self._look()
        graph = next(fact for fact in session.facts if fact.startswith("graph"))
        graph = graph.removeprefix("graph").partition(";")[0].strip()
        bad = [fact for fact in session.facts if fact.startswith(("NaN", "skipped"))]
        self.status = bad[0] if bad else self._halted() or f"{graph}; ? explains the screen"
        self.set_class(is_plain(), "ascii")

    def compose(self) -> ComposeResult:
        title = Text(written(f" {self.heading}"), no_wrap=True, overflow="ellipsis")
        yield Static(title, id="title")
        yield Static(id="position")
        with Grid(id="panes"):
            yield Pane(id="tree")
            with VerticalScroll(id="arrays", can_focus=False):
                yield Static(id="values")
            yield Pane(id="source")
        yield Static(id="watch")
        yield Static(id="status")
        yield Static(id="keys")

    # -- showing --

    def _pane(self, name: str) -> Any:
        return self.screen_stack[0].query_one(f"#{name}")

    def show(self) -> None:
        """Bring all panes up to date with the walk."""
        walk, view, width = self.walk, self.view, self.size.width
        tree, source, scroll = map(self._pane, ("tree", "source", "arrays"))
        size = scroll.size.width - 1, scroll.size.height
        with np.errstate(all="ignore"):
            drawn = {
                "tree": panes.tree(walk, *tree.size),
                "source": panes.source(walk, view, *source.size),
                "values": panes.arrays(walk, view, *size, self.names),
                "position": panes.position(walk, width),
                "keys": keys(KEYS, width),
                "status": Text(self.status, overflow="fold"),
                "watch": self._watching(),
            }
        for name, text in drawn.items():
            text.plain = written(text.plain)  # in characters that the output's encoding has
            self._pane(name).update(text)
        what = "reference" if walk.stop.stands_in else "source"
        tree.border_title = "where"
        source.border_title = f"{what} of {walk.stop.op}"
        scroll.border_title = "what this line made" if walk.moment else "arrays"

    def _watching(self) -> Text:
        if not self.watched:
            return Text()
        seen = self.walk.array(self.watched)
        shape = seen.value.shape
        when = " (after backward)" if self.watched.partition("[")[0].endswith(".grad") else ""
        title = f"watched: {self.watched} {sizes(shape)}{when}"
        self._pane("watch").border_title = title.replace("[", r"\[")
        height = 8 if self.size.height > 30 else 5
        return panes.contents(seen, self.view.planes, self.size.width, height, self.names)

    # -- moving --

    def action_move(self, how: str) -> None:
        """A move of the walk, by the name of its method."""
        self._moved(getattr(self.walk, how)())

    def _moved(self, status: str) -> None:
        """Show the new position from its top."""
        self._look()
        self.status = status or self._halted()
        self._pane("arrays").scroll_home(animate=False)
        self.show()

    def _look(self) -> None:
        """At the first output of a stop, the last array of a line, and the top of the source."""
        found, _ = self.walk.seen()
        made = (i for i, seen in enumerate(found) if seen.made)
        self.view.array, self.view.source = next(made, len(found) - 1), 0

    def _halted(self) -> str:
        """The breakpoints that halt here."""
        met = self.walk.halts(self.walk.at)
        return f"halted at {met}" if met else ""

    def _chosen(self) -> Seen | None:
        """The array that is looked at."""
        found, _ = self.walk.seen()
        return found[self.view.array % len(found)] if found else None

    def action_array(self, step: int) -> None:
        """Another array of the stop."""
        found, _ = self.walk.seen()
        self.view.array = (self.view.array + step) % max(len(found), 1)
        self.status = ""
        self.show()

    def action_plane(self, step: int) -> None:
        """Another head, or batch."""
        seen = self._chosen()
        if seen is None or math.prod(seen.value.shape[:-2]) <= 1:
            others = "only an array with more than two axes has others"
            self.status = f"there is one plane here: {others}"
        else:
            self.view.planes[seen.value.shape] += step
            self.status = ""
        self.show()

    def action_source(self, lines: int) -> None:
        """Scroll the source."""
        self.view.source += lines
        self.show()

    def on_key(self, event: Key) -> None:
        """A key that does nothing says so: `s` steps in Python's debugger."""
        if event.is_printable and event.key not in self.active_bindings:
            known = "n goes on, i into the op; ? lists the keys"
            self.status = f"{shown(event.character)} is no key here: {known}"
            self.show()

    def action_interrupt(self) -> None:
        """Ctrl-C: end, with the exit code that says so."""
        self.exit(return_code=130)

    def action_scroll(self, lines: int) -> None:
        """Scroll the arrays."""
        self._pane("arrays").scroll_relative(y=lines, animate=False)

    # -- asking --

    def action_find(self) -> None:
        """Go to a name."""
        what = "go to a stop's number, module, op, variable or parameter (Tab completes)"
        self._ask(what, self.walk.names(), (), self.action_go)

    def action_go(self, name: str) -> None:
        """Go to that name."""
        self.walk.find(name)
        self._moved("")

    def action_watch(self) -> None:
        """Keep an array in sight."""
        what = "watch an array, such as blocks.0.attention.weights"
        hints = "nothing: watch none", "a name with .grad behind it is its gradient"
        self._ask(what, self.walk.names(), hints, self._watch)

    def _watch(self, name: str) -> None:
        if name:
            self.walk.array(name)  # an InputError if there is none
        self.watched = name
        self.status = f"watching {shown(name)}" if name else "watching nothing"
        self.screen_stack[0].set_class(bool(name), "watching")
        self._pane("watch").display = bool(name)

    def action_breakpoint(self) -> None:
        """Make a breakpoint, or remove one by its number."""
        breaks = [f"{i}  {wanted}" for i, wanted in enumerate(self.walk.breaks, start=1)]
        names = [f"op={stop.op}" for stop in self.walk.stops]
        names += [f"module={stop.module}" for stop in self.walk.stops if stop.module]
        what = f"break at {KINDS}; a number removes that one"
        known = [*dict.fromkeys(names), "nan"]
        self._ask(what, known, breaks or ["there is none yet"], self._break)

    def _break(self, text: str) -> None:
        breaks = self.walk.breaks
        if text.isdecimal() and len(text) < 19 and 1 <= int(text) <= len(breaks):
            removed = list(breaks)[int(text) - 1]
            del breaks[removed]
            self.status = f"removed {removed}"
        elif text:
            self.status = f"breakpoint {self.walk.halt_at(text)}: c continues to it"

    def _ask(
        self, title: str, names: list[str], hints: Sequence[str], answer: Callable[[str], None]
    ) -> None:
        """Ask for a text and do what it says. Where no name is the text, the first name that is
        listed for it is taken.
        """

        def answered(text: str | None) -> None:
            if text is None:
                return
            listed = [] if text.isdecimal() else matches(text, names)[:1]
            for name in [text, *listed]:
                try:
                    answer(name)
                except InputError as error:
                    self._fail(error)
                    continue
                if name != text:
                    taken = f"the first listed was taken, {name}"
                    self.status = f"nothing is named {text!r} alone: {taken}"
                break
            self.show()

        self.push_screen(Ask(title, names, hints), answered)

    def _fail(self, error: InputError) -> None:
        self.status = shown(error).replace("\\n", "; ")

    def action_draw(self) -> None:
        """The chosen array as a picture."""
        seen = self._chosen()
        if seen is None:
            self.status = "there is no array here to draw"
        else:
            value, title = seen.value, f"{self.walk.stop.name}.{seen.value.name}"
            names = self.names.of(value.source or value.name, value.shape)
            try:
                path = picture.draw(
                    plane(value.array, self.view.planes[value.shape]), title, self.folder, *names
                )
                self.status = f"drawn: {shown(path.resolve())}"
            except InputError as error:
                self._fail(error)
        self.show()


class Pane(Static):
    """A part of the screen. All is drawn again when its size has changed: only then is the size
    known.
    """

    def on_resize(self) -> None:
        """Draw."""
        cast("StepApp", self.app).show()


def keys(listed: str, width: int) -> Text:
    """The keys in bold, each with its word, as many as fit."""
    text = Text()
    for entry in listed.split(","):
        key, word = entry.rsplit(" ", 1)
        gap = " " if text else ""
        longer = Text.assemble(text, gap, (key, "bold"), f" {word}", no_wrap=True)
        if len(longer) > width:
            break
        text = longer
    return text
