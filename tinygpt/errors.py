"""What a user can put right: shown as one or two lines, without a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Something given is wrong: a flag, a file, a run, a checkpoint. The message says what, and
    then what to do about it.
    """
