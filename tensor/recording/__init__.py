"""Recording: every op that runs inside `record()`, forward and backward, with what went in, what
came out, what is kept and what it cost.

with tensor.record(implementation="reference") as tape:
    loss = model.loss(x, y)
    loss.backward()

print(tape.table())
tape["blocks.0.attention.weights"]     an array, by the name of the module and of what it is there

entries.py     what is in a recording         recording.py   how ops tell it
naming.py      the names of ops and arrays    replay.py      an op, once more line by line
find.py        arrays by name                 report.py      tables and files
"""

from tensor.recording.entries import Backward, Contribution, Entry, Forward, Saved, Value, Work
from tensor.recording.recording import Recording, record
from tensor.recording.replay import Moment, Source, replay, source_of
from tensor.recording.report import Total, in_bytes, totals

__all__ = [
    "Backward",
    "Contribution",
    "Entry",
    "Forward",
    "Moment",
    "Recording",
    "Saved",
    "Source",
    "Total",
    "Value",
    "Work",
    "in_bytes",
    "record",
    "replay",
    "source_of",
    "totals",
]
