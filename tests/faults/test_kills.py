"""The short form of tests/faults/kills.py: what it counts must be nothing."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from tests.faults.kills import (
    KINDS,
    run_adapters,
    run_aligning,
    run_full,
    run_kills,
    run_thread,
    run_together,
    run_tuning,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")


def test_bug_80_ten_kills() -> None:
    found = run_kills(10, seed=1)
    assert {kind: found[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert found["steps"] > 10


@pytest.mark.parametrize("work", [run_thread, run_tuning, run_adapters, run_aligning])
def test_kills_of_other_trainings(work: Callable[[int, int], Counter[str]]) -> None:
    found = work(3, 1)
    assert {kind: found[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
    assert found["steps"] > 3


def test_bug_80_a_disk_that_fills() -> None:
    try:
        found = run_full(3, seed=1)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no disk can be mounted here")
    assert {kind: found[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)


def test_bug_85_two_at_once() -> None:
    found = run_together(2, seed=1)
    assert {kind: found[kind] for kind in KINDS} == dict.fromkeys(KINDS, 0)
