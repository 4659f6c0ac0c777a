"""Where the time and the memory of a training step go: `tinygpt train --profile N`.

The steps themselves are recorded (tensor.record, without values): what ran, as it ran. The same
layer of every block is one row.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import tensor
from tensor.recording import Entry, Recording, Total, in_bytes, totals
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
        self._recording = tensor.record(values=False)
        self._ends: list[int] = []  # where on the tape each step ends
        self.tape: Recording | None = None

    def watch(self, records: Iterator[StepRecord]) -> Iterator[StepRecord]:
        """The same records; the steps after the first WARM run on the tape, `count` of them."""
        for _ in range(WARM):
            if (record := next(records, None)) is None:
                return
            yield record
        for _ in range(self.count):
            with self._recording as self.tape:
                record = next(records, None)
            if record is None:
                return
            self.seconds.append(record.seconds)
            self._ends.append(len(self.tape.entries))
            yield record
        for record in records:
            self.others.append(record.seconds)
            yield record

    def save(self, folder: Path) -> Path:
        """Write the trace, which Chrome opens (chrome://tracing) and Perfetto too."""
        path = folder / TRACE
        (self.tape or Recording()).save(path)
        return path

    def lines(self) -> list[str]:
        """The table: by module, by op, and what no op took."""
        if self.tape is None or not self.seconds:
            return [f"nothing was profiled: recording begins after {WARM} steps"]
        steps = len(self.seconds)
        ops = sum(entry.seconds for entry in self._entries()) / steps
        took = ""
        if self.others:
            took = f", {sum(self.others) / len(self.others) * 1e3:.2f} ms without the recording"
        return [
            f"profile of {steps} step{'s' * (steps > 1)}: {sum(self.seconds) / steps * 1e3:.2f} ms "
            f"a step{took}; the ops, {ops * 1e3:.2f} ms:",
            "",
            *self._table("module", ops),
            "",
            *self._table("op", ops),
            "",
            "kept: for backward, in the last of these steps. written: results, and gradients "
            "handed on.",
        ]

    def _entries(self, steps: int | None = None) -> list[Entry]:
        """The entries of the last `steps` steps, all by default; an unfinished step is left out."""
        assert self.tape is not None
        start = 0 if steps is None or steps >= len(self._ends) else self._ends[-1 - steps]
        return self.tape.entries[start : self._ends[-1]]

    def _table(self, what: Literal["module", "op"], ops: float) -> list[str]:
        """A line for each, with its share of the time in all ops."""
        steps = len(self.seconds)
        kept = {row.name: row.saved for row in _folded(totals(self._entries(1), what))}
        lines = [
            f"{'ms':>8}  {'':4}  {'forward':>8} {'backward':>8} {'calls':>6} {'written':>9} "
            f"{'kept':>9}  {what}"
        ]
        for row in _folded(totals(self._entries(), what)):
            forward, backward = row.forward / steps * 1e3, row.backward / steps * 1e3
            both = forward + backward
            lines.append(
                f"{both:8.2f}  {both / ops / 1e3:4.0%}  {forward:8.2f} {backward:8.2f} "
                f"{row.calls / steps:6.3g} {in_bytes(row.bytes / steps):>9} "
                f"{in_bytes(kept.get(row.name, 0)):>9}  {row.name}"
            )
        return lines


def _folded(rows: list[Total]) -> list[Total]:
    """blocks.0.attention, blocks.1.attention, ... as one row blocks.*.attention; slowest first."""
    sums: dict[str, Total] = {}
    for row in rows:
        name = re.sub(r"\.\d+(?=\.|$)", ".*", row.name)
        have = sums.get(name, Total(name, 0, 0.0, 0.0, 0, 0))
        sums[name] = Total(name, *(a + b for a, b in zip(have[1:], row[1:], strict=True)))  # type: ignore[arg-type]
    return sorted(sums.values(), key=lambda row: -(row.forward + row.backward))
