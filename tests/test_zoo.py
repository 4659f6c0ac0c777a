"""The bug zoo fits the code: every snippet occurs once and every row has a bug. (`python -m
tests.zoo` shows that each is killed.)
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.zoo.__main__ import bugs, copied, unfit
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


def test_the_copy_has_every_folder_of_the_project(tmp_path: Path) -> None:
    files = [file for kind in ("py", "md") for file in ROOT.glob(f"[!.]*/*.{kind}")]
    names = {file.parent.name for file in files}
    assert {"tensor", "benchmarks"} <= names
    assert names <= {path.name for path in copied(tmp_path).iterdir()}


def test_a_test_that_does_not_pass_without_a_bug_proves_nothing(tmp_path: Path) -> None:
    """One that fails, is skipped, or is in a file that cannot be read."""
    (tmp_path / "conftest.py").write_text(
        "def pytest_addoption(parser):\n    parser.addoption('--device')\n"
    )
    (tmp_path / "test_a.py").write_text(
        """
import pytest

@pytest.mark.parametrize("x", ["of two words", "b"])
def test_passes(x): pass

@pytest.mark.parametrize("x", [1, 0])
def test_fails(x): assert x

def test_fails_not(): pass

@pytest.mark.skip(reason="no such package")
def test_skipped(): assert False
"""
    )
    (tmp_path / "test_b.py").write_text("import no_such_module\ndef test_unread(): pass\n")
    names = ("passes", "passes[of two words]", "fails", "fails[1]", "fails_not", "skipped")
    found = unfit(tmp_path, "cpu", [f"test_a.py::test_{name}" for name in names])
    assert found.pop("test_a.py::test_skipped").endswith("no such package")
    assert found == {"test_a.py::test_fails": "ALIVE: its test fails without the bug too"}
    found = unfit(tmp_path, "cpu", ["test_b.py::test_unread"])
    assert found["test_b.py::test_unread"].startswith("ALIVE: its test does not run")
