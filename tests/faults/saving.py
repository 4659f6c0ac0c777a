"""`python -m tests.faults.saving COMMAND ...`: tinygpt, whose trainings save after each step; with
the variable ON_THREAD set, as on a GPU: a thread writes while they go on.
"""

from __future__ import annotations

import os
import sys

from tests.helpers.on_thread import OnThread
from tinygpt.__main__ import main
from tinygpt.training import loop

ON_THREAD = "ON_THREAD"

if __name__ == "__main__":
    loop.SAVE_SECONDS = 0.0
    if ON_THREAD in os.environ:
        setattr(loop, "Meanwhile", OnThread)  # noqa: B010 (mypy refuses an assignment to a class)
    sys.exit(main())
