"""What is around every command: open streams, signals, and errors as one or two lines on stderr."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from tinygpt.commands import cli
from tinygpt.errors import InputError
from tinygpt.terminal import brief, let_go, shown


def run(argv: Sequence[str]) -> int:
    """Run a command line, without the program's name; its exit code."""
    _open_streams()
    try:
        with _terminated():
            return cli.run(argv)
    except InputError as error:
        problem = str(error)
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
    with contextlib.suppress(OSError):  # nobody reads it
        print(f"tinygpt: error: {brief(problem)}", file=sys.stderr, flush=True)
    return 2


def _open_streams() -> None:
    """See that stdout and stderr can be written to.

    The next file to be opened would take the number of one that is closed (`2>&-`).
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) < 3:
            pass
        os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (to the end of the program)
        stream = getattr(sys, name)
        # a character that the terminal's encoding lacks is escaped, not a crash
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
            try:
                "\u2501".encode(stream.encoding, stream.errors)
            except UnicodeError:  # of PYTHONIOENCODING=idna, an encoding that escapes nothing
                stream.reconfigure(encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM and SIGHUP end the program as an error would, so that what is half done is removed:
    temporary folders, a run without weights.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    names = [name for name in ("SIGTERM", "SIGHUP") if main and hasattr(signal, name)]
    numbers = [getattr(signal, name) for name in names]
    # a handler that is there knows better
    ours = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in ours:
            signal.signal(number, stop)
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
