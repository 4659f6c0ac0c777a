"""One caged bug."""

from __future__ import annotations

from typing import NamedTuple


class Bug(NamedTuple):
    """Replacing `old` (which occurs once in `file`) by `new` puts the bug back, and `test` must
    then fail.
    """

    row: int  # of the table of known bugs; its number is in the name of the test
    file: str
    old: str
    new: str
    test: str
    device: str = "cpu"  # where the test must run to see it: "cuda" for a bug that only a GPU has
