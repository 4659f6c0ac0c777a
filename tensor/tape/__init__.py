"""The tape: every op that runs while it is recorded, forward and backward, with what went in, what came out, what is kept and what it cost.

with tensor.record(implementation="reference") as tape:
    loss = model.loss(x, y)
    loss.backward()

print(tape.table())
tape["blocks.0.attention.weights"]     an array, by the name of the module and of what it is there

entries.py     what stands on a tape          recording.py   how it comes there      naming.py   and under which name
replay.py      an op, once more line by line  find.py        arrays by name          report.py   tables and files
"""

from tensor.tape.entries import Backward, Contribution, Entry, Forward, Saved, Value, Work
from tensor.tape.recording import Tape, record
from tensor.tape.replay import Moment, Source, replay, source_of
from tensor.tape.report import Total, in_bytes, totals

__all__ = [
    "Backward",
    "Contribution",
    "Entry",
    "Forward",
    "Moment",
    "Saved",
    "Source",
    "Tape",
    "Total",
    "Value",
    "Work",
    "in_bytes",
    "record",
    "replay",
    "source_of",
    "totals",
]
