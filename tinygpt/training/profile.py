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
        self.recorded: list[StepRecord] = []
        self.others: list[float] = []  # the seconds of the steps after them
        self._latest: list[StepRecord] = []  # the last of them, which may be under way on a GPU
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
            self.recorded.append(record)
            self._ends.append(len(self.recording.entries))
            yield record
        for record in records:
            self.others += [earlier.seconds for earlier in self._latest]
            self._latest = [record]
            yield record

    def save(self, folder: Path) -> Path:
        """Write the trace, which Chrome opens (chrome://tracing) and Perfetto too."""
        path = folder / TRACE
        self.recording.save(path)
        return path

    def lines(self) -> list[str]:
        """The table: by module, by op, and what no op took."""
        if not self.recorded:
            return [f"nothing was profiled: recording begins after {WARM} steps"]
        steps = len(self.recorded)
        # an unfinished step is left out
        entries = self.recording.entries[: self._ends[-1]]
        ops = sum(entry.seconds for entry in entries)
        recorded = [record.seconds for record in self.recorded]
        others = [*self.others, *(record.seconds for record in self._latest)]
        took = f", {_mean_ms(others):.2f} ms without the recording" if others else ""
        return [
            f"profile of {number_of(steps, 'step')}: {_mean_ms(recorded):.2f} ms "
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
        steps = len(self.recorded)
        last = _folded(totals(entries[self._ends[-2] :], what))
        kept = {row.name: row.saved for row in last}
        for row in _folded(totals(entries, what)):
            both, each = row.forward + row.backward, 1e3 / steps
            yield (
                f"{both * each:8.2f}  {both / ops:4.0%}  {row.forward * each:8.2f} "
                f"{row.backward * each:8.2f} {row.calls / steps:6.3g} "
                f"{in_bytes(row.bytes / steps):>9} {in_bytes(kept.get(row.name, 0)):>9}  {row.name}"
            )


def _mean_ms(seconds: list[float]) -> float:
    return sum(seconds) / len(seconds) * 1e3


def _folded(rows: list[Total]) -> list[Total]:
    """blocks.0.attention, blocks.1.attention, ... as one row blocks.*.attention; slowest first."""
    sums: dict[str, Total] = {}
    for row in rows:
        name = re.sub(r"\.\d+(?=\.|$)", ".*", row.name)
        have = sums.get(name, Total(name, 0, 0.0, 0.0, 0, 0))
        added: Any = [a + b for a, b in zip(have[1:], row[1:], strict=True)]
        sums[name] = Total(name, *added)
    return sorted(sums.values(), key=lambda row: -(row.forward + row.backward))
