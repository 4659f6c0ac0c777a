"""The small windows of the full-screen program: one asks for a name or a condition, one explains
the keys.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tinygpt.inside.arrays import written

MATCHES = 8
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


def matches(text: str, names: Sequence[str]) -> list[str]:
    """The names that begin with the text, then those that hold it."""
    if not text:
        return []
    found = [name for name in names if text in name]
    return sorted(found, key=lambda name: not name.startswith(text))[:MATCHES]


def _lines(texts: Sequence[str]) -> str:
    return written("\n".join(texts))


class Ask(ModalScreen[str | None]):
    """Asks for one line of text. Below stand the names that fit; Tab takes the first of these, as
    does Enter where the text alone is no name.

    Escape gives None.
    """

    BINDINGS = [
        Binding("escape", "dismiss", "close"),
        Binding("tab", "complete", "complete", priority=True),
    ]

    def __init__(self, title: str, names: Sequence[str], hints: Sequence[str] = ()):
        super().__init__()
        self._title, self._names, self._hints = title, names, hints

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(Text(written(self._title), "bold"))
            yield Input(id="answer")
            yield Static(Text(_lines(self._hints or self._names[:MATCHES])), id="matches")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Show what the text could become."""
        found = matches(event.value, self._names)
        self.query_one("#matches", Static).update(Text(_lines(found or self._hints)))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Done."""
        self.dismiss(event.value.strip())

    def action_complete(self) -> None:
        """The first match that is another text."""
        answer = self.query_one("#answer", Input)
        found = matches(answer.value, self._names)
        answer.value = next((name for name in found if name != answer.value), answer.value)
        answer.cursor_position = len(answer.value)


class Help(ModalScreen[None]):
    """The keys, and how to read the screen. Any key closes it."""

    def compose(self) -> ComposeResult:
        with Vertical(id="dialog"):
            yield Static(Text(written(HELP)))

    def on_key(self, event: Key) -> None:
        """Close. The key does nothing else."""
        event.stop()
        self.dismiss(None)
