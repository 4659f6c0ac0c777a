"""`python -m tests.faults.saving COMMAND ...`: tinygpt, whose trainings save after each step."""

from __future__ import annotations

import sys

from tinygpt.__main__ import main
from tinygpt.training import loop

if __name__ == "__main__":
    loop.SAVE_SECONDS = 0.0
    sys.exit(main())
