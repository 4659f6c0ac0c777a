"""What the terminal shows: text with control characters escaped, one live line while training,
nothing where nobody looks.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shlex
import signal
import sys
import threading
import time
import unicodedata
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, Self, TextIO, cast

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table


# Characters that reorder what stands around them: a name shown with one could read as another.
BIDIRECTIONAL = frozenset(
    "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)

MOST = 280  # characters of an error that are shown, at most

LIKENESS = 0.7  # share of the letters of two names, from which one may be meant for the other

# seconds between two drawings of the live line, at least: drawing it must not slow the training
REFRESH = 0.1


# -- text


def visible(text: str, *, lines: bool = True) -> str:
    r"""Text that a model or a file made, safe to show: an escape character comes out as the four
    characters \x1b and clears no screen.

    Control characters, lone surrogates and those that reverse the direction are escaped; newline
    and tab stay, unless `lines` is False.
    """
    return "".join(
        c if _harmless(c) or (lines and c in "\n\t") else c.encode("unicode_escape").decode()
        for c in text
    )


def _harmless(character: str) -> bool:
    return character.isprintable() or (
        unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        and character not in BIDIRECTIONAL
    )


def shown(what: object) -> str:
    """A path, a name, another program's error: its text in one line, safe to show."""
    return visible(str(what), lines=False)


def brief(problem: str) -> str:
    """An error's text in two lines of at most MOST characters together, safe to show; a line that
    is too long loses its middle.

    What is wrong stands at the ends of a line: `--layers: 'a very long ... word' is not a whole
    number`.
    """
    # cut first: escaping looks at each character, and there may be hundreds of millions
    lines = _fitting(problem.split("\n", 1))
    return "\n".join(_fitting([shown(line) for line in lines]))


def _fitting(lines: list[str]) -> list[str]:
    """The lines, without their middles where they are longer than MOST together."""
    fit = sum(map(len, lines)) <= MOST
    return lines if fit else [_without_middle(line) for line in lines]


def _without_middle(line: str) -> str:
    half = MOST // 4 - len(" ... ")
    return line if len(line) <= MOST // 2 else f"{line[:half]} ... {line[-half:]}"


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean --layers?` for --lyers and --lay, nothing where nothing is near. Names that
    begin with the word win over names that look like it, if they are few. The dashes before a flag
    make no two flags alike.
    """
    names = {name.lstrip("-"): name for name in known}
    bare = word.lstrip("-")
    longer = [name for name in names.values() if name.startswith(word)]
    few = bare and 1 <= len(longer) <= 4
    alike = difflib.get_close_matches(bare, names, n=1, cutoff=LIKENESS)
    close = longer if few else [names[name] for name in alike]
    return f"; did you mean {' or '.join(close)}?" if close else ""


def command(*words: object) -> str:
    """A command line of tinygpt that can be pasted into a shell:
    command("sample", "my run") -> tinygpt sample 'my run'
    """
    return shown(shlex.join(map(str, ("tinygpt", *words))))


def say(text: str = "", end: str = "\n") -> None:
    """Print at once: a pipe must not keep back a sample that is being written."""
    print(text, end=end, flush=True)


class _Outliving:
    """A stream whose reader may end. What can then not be written is dropped, and the program goes
    on.
    """

    def __init__(self, stream: IO[str]):
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError:
            let_go(self._stream)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError:
            let_go(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def let_go(stream: IO[str]) -> None:
    """Send what is written to the stream's file from here on, also at the end of the program,
    nowhere.
    """
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def outliving() -> Iterator[None]:
    """A training outlives its pipes and its terminal: inside this `with`, output that nobody reads
    is no error.
    """
    with (
        contextlib.redirect_stdout(cast("TextIO", _Outliving(sys.stdout))),
        contextlib.redirect_stderr(cast("TextIO", _Outliving(sys.stderr))),
    ):
        yield


def duration(seconds: float) -> str:
    """7 s, 1:05, 2:03:20"""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    if whole < 60:
        return f"{whole} s"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def number_of(number: int, thing: str) -> str:
    """1 step, 2,000 steps"""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def short(number: float) -> str:
    """950, 12.3k, 4.5M: three digits are enough to follow a speed."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


# -- the live line


class Bar:
    """The last line of the terminal, which shows how far something is; nothing where stderr is no
    terminal.

    412/767 ━━━━━━━━━━ pairs merged
    """

    def __init__(self) -> None:
        self._live: Live | None = None
        self._drawn = 0.0
        if sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            from rich.console import Console
            from rich.live import Live

            # it knows the width of the terminal, NO_COLOR and old Windows consoles
            self._live = Live(
                console=Console(stderr=True),
                auto_refresh=False,
                redirect_stdout=False,
                redirect_stderr=False,
            )

    def __enter__(self) -> Self:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def draw(self, done: int, total: int, text: str, count: str | None = None) -> None:
        """Bring the line up to date. count: the text before the bar, by default `done/total`."""
        if self._live and (time.monotonic() - self._drawn > REFRESH or done == total):
            self._drawn = time.monotonic()
            if count is None:
                count = f"{done}/{total}".rjust(2 * len(str(total)) + 1)
            self._live.update(_row(done, total, count, text), refresh=True)

    def note(self, text: str) -> None:
        """A line that stays, above the live one; on stderr in any case."""
        if self._live:
            self._live.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _row(done: int, total: int, count: str, text: str) -> Table:
    """420/1000 ━━━━━━ text, the bar as long as there is space; three columns stay free, where a
    terminal writes ^C.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    row = Table.grid(padding=(0, 1))
    row.add_column(no_wrap=True, min_width=len(count))  # a narrow terminal keeps the count
    row.add_column()
    row.add_column(no_wrap=True)
    row.add_row(count, ProgressBar(total, done), text + "   ")
    return row


# -- signals


class Signals:
    """`with`: these signals call `handle`, at the end what they called before."""

    def __init__(self, *numbers: int):
        # Python runs handlers there only, and lets no other thread set them
        main = threading.current_thread() is threading.main_thread()
        self._numbers = numbers if main else ()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """End the program as an error would, so that what is half done is removed: temporary
        folders, a run without weights.
        """
        sys.exit(128 + number)

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self.handle) for number in self._numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def stop_signals() -> tuple[int, ...]:
    """What asks a program to end: Ctrl-C everywhere; Ctrl-Break on Windows; elsewhere SIGTERM and,
    unless it runs under nohup, SIGHUP.
    """
    if sys.platform == "win32":
        return signal.SIGINT, signal.SIGBREAK
    hangup = () if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else (signal.SIGHUP,)
    return signal.SIGINT, signal.SIGTERM, *hangup
