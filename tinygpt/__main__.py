"""`tinygpt COMMAND`, also `python -m tinygpt COMMAND`.

Exit codes: 0; 1 a check failed; 2 bad input, one or two lines on stderr; 130 Ctrl-C; 143 SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

from tinygpt.cli import run
from tinygpt.console import shown, visible
from tinygpt.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; the words after the program's name are taken from sys.argv by default."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a character that the terminal's encoding lacks is escaped, not a crash
            stream.reconfigure(errors="backslashreplace")
    try:
        with _terminated():
            return run(sys.argv[1:] if argv is None else argv)
    except InputError as error:
        problem = str(error)
    except MemoryError as error:
        problem = f"out of memory ({error})\ntake a smaller --batch, --context, --width or --layers"
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe (head, less) has seen enough
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would fail once more
        return 0
    except OSError as error:  # a full disk, a folder that went away
        where = f": {shown(error.filename)}" if error.filename else ""
        problem = f"{error.strerror or error}{where}\nsee that there is room, and that the files may be read and written"
    except SystemExit as stop:  # how argparse ends --help and --version
        return int(stop.code or 0)
    print(f"tinygpt: error: {visible(problem)}", file=sys.stderr)
    return 2


@contextlib.contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends the program as an error would, so that what is half done is removed: temporary folders, a run without weights."""

    def stop(number: int, frame: FrameType | None) -> None:
        sys.exit(128 + number)

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield  # only the main thread may set handlers; and one that is there knows better
        return
    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


if __name__ == "__main__":
    sys.exit(main())
