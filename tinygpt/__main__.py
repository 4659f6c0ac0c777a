"""`tinygpt COMMAND`, also `python -m tinygpt COMMAND`.

Exit codes: 0; 1 a check failed; 2 bad input, one or two lines on stderr; 129 SIGHUP; 130 Ctrl-C;
143 SIGTERM.

Everything is imported inside `main`: the imports are most of the start, and so Ctrl-C ends them as
it ends all else.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing has it, which takes longer to import than all that is here
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; the words after the program's name are taken
    from sys.argv by default.
    """
    try:
        from importlib import import_module

        program = import_module("tinygpt.commands.program")
        return int(program.run(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        from contextlib import suppress

        if argv is None:
            import signal

            # a second Ctrl-C while Python ends would print where in Python it came
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError):  # nobody reads it
            print("\ninterrupted", file=sys.stderr, flush=True)
        return 130


if __name__ == "__main__":
    sys.exit(main())
