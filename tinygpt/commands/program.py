"""What is around every command: open streams, signals, and errors as one or two lines on stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from tinygpt.commands import cli
from tinygpt.errors import InputError
from tinygpt.terminal import Signals, brief, let_go, shown, stop_signals


def run(argv: Sequence[str]) -> int:
    """Run a command line, without the program's name; its exit code."""
    _open_streams()
    notes: list[str] = []  # lines of code below an error
    # a handler that is there knows better
    ours = [number for number in stop_signals() if signal.getsignal(number) is signal.SIG_DFL]
    try:
        with Signals(*ours):
            return cli.run(argv)
    except InputError as error:
        problem, notes = str(error), getattr(error, "__notes__", [])
    except MemoryError as error:
        problem = f"out of memory ({error})\ntake a smaller --batch, --context, --width or --layers"
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        let_go(sys.stdout)  # or the flush at exit would fail once more
        return 0
    except OSError as error:  # a full disk, a folder that went away
        where = f": {shown(error.filename)}" if error.filename else ""
        problem = (
            f"{error.strerror or error}{where}\n"
            "see that there is space, and that the files may be read and written"
        )
    except SystemExit as stop:  # how argparse ends --help and --version, and SIGTERM the rest
        return int(stop.code or 0)
    lines = [f"tinygpt: error: {brief(problem)}", *map(shown, notes)]
    with contextlib.suppress(OSError):  # nobody reads it
        print(*lines, sep="\n", file=sys.stderr, flush=True)
    return 2


def _open_streams() -> None:
    """See that stdin can be read, and that stdout and stderr can be written to.

    The next file to be opened would take the number of one that is closed (`2>&-`).
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(descriptor)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: SIM115 (never closed)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            nowhere = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (never closed)
            setattr(sys, name, nowhere)
        stream = getattr(sys, name)
        # a character that the terminal's encoding lacks is escaped, not a crash
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
            try:
                "\u2501".encode(stream.encoding, stream.errors)
            except UnicodeError:  # of PYTHONIOENCODING=idna, an encoding that escapes nothing
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")
