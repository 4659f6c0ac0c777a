"""Copies of the weights along the way: of other steps after a break, or half there."""

from __future__ import annotations

from tests.zoo.bug import Bug

SNAPSHOTS = "tests/tinygpt/runs/test_snapshots.py::"

ZOO = [
    Bug(
        row=51,  # steps are counted from the start of the program
        file="tinygpt/training/loop.py",
        old="self.keep(record.step)",
        new="self.keep(record.step - first)",
        test=SNAPSHOTS + "test_bug_51_a_resumed_run_has_the_same_snapshots",
    ),
    Bug(
        row=51,  # that of the fresh weights is written anew when a run goes on
        file="tinygpt/training/loop.py",
        old="            if first == 0:\n                self.keep(0)\n",
        new="            self.keep(0)\n",
        test=SNAPSHOTS + "test_bug_51_a_resumed_run_has_the_same_snapshots",
    ),
    Bug(
        row=52,  # under its own name before it is whole
        file="tinygpt/runs/snapshots.py",
        old="checkpoint.write_arrays(temporary, state)",
        new="checkpoint.write_arrays(path, state)",
        test=SNAPSHOTS + "test_bug_52_a_snapshot_has_no_name_until_it_is_whole",
    ),
]
