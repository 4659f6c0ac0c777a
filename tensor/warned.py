"""NumPy's warnings name the user's line, not the line of an op that divided by zero.

train.py:12: RuntimeWarning: divide by zero encountered in divide
  y = x / weights
"""

from __future__ import annotations

import sys
import warnings
from types import FrameType
from typing import TextIO

from tensor.memory.storage import PACKAGE, user_frame


def name_users_lines() -> None:
    """From now on a warning that Python prints for a line of this package names the user's line."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        frame: FrameType | None = sys._getframe(1)
        while frame and not frame.f_code.co_filename.startswith(PACKAGE):  # frames of `warnings`
            frame = frame.f_back
        if frame and filename.startswith(PACKAGE):
            frame = user_frame(frame)
            filename, lineno = frame.f_code.co_filename, frame.f_lineno
        usual(message, category, filename, lineno, file, line)

    warnings.showwarning = show
