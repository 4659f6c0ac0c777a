"""A warning of NumPy names the user's line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """\
import tensor
x = tensor.zeros(2)


def ratio(a, b):
    return a / b


ratio(x, x)
import warnings
warnings.warn("mine")
"""


def test_a_division_by_zero_names_the_line_that_divides(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    run = subprocess.run([sys.executable, program], capture_output=True, text=True, check=True)
    assert run.stderr.splitlines() == [
        f"{program}:6: RuntimeWarning: invalid value encountered in divide",
        "  return a / b",
        f"{program}:11: UserWarning: mine",
        '  warnings.warn("mine")',
    ]
