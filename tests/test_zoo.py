"""The bug zoo fits the code: every snippet occurs once and every row has a bug. (`python -m
tests.zoo` shows that each is killed.)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.zoo.__main__ import bugs
from tests.zoo.bug import Bug

ROOT = Path(__file__).resolve().parents[1]
ROWS = {*range(1, 61), 62, 63, 64, 65, 66, 72, 82, 86, 87, 88, 89}


@pytest.mark.parametrize("bug", bugs(), ids=lambda bug: f"{bug.row}-{bug.test.split('::')[-1]}")
def test_bug_can_be_put_back(bug: Bug) -> None:
    assert (ROOT / bug.file).read_text().count(bug.old) == 1
    assert bug.new != bug.old
    file, name = bug.test.split("::")
    assert f"def {name.split('[')[0]}(" in (ROOT / file).read_text()


def test_every_row_has_a_bug() -> None:
    # a test named after the row
    assert {bug.row for bug in bugs() if f"test_bug_{bug.row:02}_" in bug.test} >= ROWS
