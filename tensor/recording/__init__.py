"""Recording: every op that runs inside `record()`, forward and backward, with its inputs, its
outputs, the arrays that it keeps, and its cost.

    with tensor.record(implementation="reference") as recording:
        loss = model.loss(x, y)
        loss.backward()

    print(recording.table())
    recording["blocks.0.attention.weights"]     an array: the module, and the name of the array

entries.py     the entries of a recording     recording.py   ops and backwards make entries
naming.py      the names of ops and arrays    replay.py      an op once more, line by line
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
