"""Where the time and the memory of a training step go: `tinygpt train --profile N`.

The steps themselves are recorded (tensor.record, without values): what ran, as it ran. The same
layer of every block is one row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import tensor
from tensor.recording import Entry, Recording, Total, in_bytes, totals
from tinygpt.terminal import number_of
from tinygpt.training.step import StepRecord

# steps before the first that is recorded: the first of all make the kernels' memory, and caches,
# warm
WARM = 3
MOST = 1000  # steps that can be recorded: the trace of 1,000 story steps has 50 MB
TRACE = "trace.json"


class Profile:
    """Records some steps of a training, and tells what they did."""

    def __init__(self, count: int):
        self.count = count
        self.seconds: list[float] = []  # of each recorded step
        self.others: list[float] = []  # of the steps after them
        self._recorder = tensor.record(values=False)
        self._ends = [0]  # how many entries there are after each step
        self.recording = Recording()

    def watch(self, records: Iterator[StepRecord]) -> Iterator[StepRecord]:
        """The same records; after the first WARM steps, `count` of them are recorded."""
        yield from islice(records, WARM)
        for _ in range(self.count):
            with self._recorder as self.recording:
                record = next(records, None)
            if record is None:
                return
            self.seconds.append(record.seconds)
            self._ends.append(len(self.recording.entries))
            yield record
        for record in records:
            self.others.append(record.seconds)
            yield record

    def save(self, folder: Path) -> Path:
        """Write the trace, which Chrome opens (chrome://tracing) and Perfetto too."""
        path = folder / TRACE
        self.recording.save(path)
        return path

    def lines(self) -> list[str]:
        """The table: by module, by op, and what no op took."""
        if not self.seconds:
            return [f"nothing was profiled: recording begins after {WARM} steps"]
        steps = len(self.seconds)
        # an unfinished step is left out
        entries = self.recording.entries[: self._ends[-1]]
        ops = sum(entry.seconds for entry in entries)
        took = ""
        if self.others:
            took = f", {sum(self.others) / len(self.others) * 1e3:.2f} ms without the recording"
        return [
            f"profile of {number_of(steps, 'step')}: {sum(self.seconds) / steps * 1e3:.2f} ms "
            f"a step{took}; the ops, {ops / steps * 1e3:.2f} ms:",
            "",
            *self._table("module", entries, ops),
            "",
            *self._table("op", entries, ops),
            "",
            "kept: for backward, in the last of these steps. written: results, and gradients "
            "passed back.",
        ]

    def _table(
        self, what: Literal["module", "op"], entries: list[Entry], ops: float
    ) -> Iterator[str]:
        """A line for each, with its share of the seconds of all ops."""
        yield (
            f"{'ms':>8}  {'':4}  {'forward':>8} {'backward':>8} {'calls':>6} {'written':>9} "
            f"{'kept':>9}  {what}"
        )
        steps = len(self.seconds)
        last = _folded(totals(entries[self._ends[-2] :], what))
        kept = {row.name: row.saved for row in last}
        for row in _folded(totals(entries, what)):
            both, each = row.forward + row.backward, 1e3 / steps
            yield (
                f"{both * each:8.2f}  {both / ops:4.0%}  {row.forward * each:8.2f} "
                f"{row.backward * each:8.2f} {row.calls / steps:6.3g} "
                f"{in_bytes(row.bytes / steps):>9} {in_bytes(kept.get(row.name, 0)):>9}  {row.name}"
            )


def _folded(rows: list[Total]) -> list[Total]:
    """blocks.0.attention, blocks.1.attention, ... as one row blocks.*.attention; slowest first."""
    sums: dict[str, Total] = {}
    for row in rows:
        name = re.sub(r"\.\d+(?=\.|$)", ".*", row.name)
        have = sums.get(name, Total(name, 0, 0.0, 0.0, 0, 0))
        added: Any = [a + b for a, b in zip(have[1:], row[1:], strict=True)]
        sums[name] = Total(name, *added)
    return sorted(sums.values(), key=lambda row: -(row.forward + row.backward))
