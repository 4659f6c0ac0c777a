"""A tape as text, as totals and as files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from tensor.dtypes import bfloat16
from tensor.tape import find
from tensor.tape.entries import Backward, Entry, Forward, Value, Work

if TYPE_CHECKING:
    from tensor.tape.recording import Tape


class Total(NamedTuple):
    """What a module, or an op, took in all."""

    name: str
    calls: int
    forward: float  # seconds
    backward: float
    bytes: int  # of outputs and of gradients handed on: what was written
    saved: int  # bytes kept for backward, an array that several ops keep counted once


# -- text -----------------------------------------------------------------------------------------------------------------


def table(entries: Sequence[Entry]) -> str:
    """One line an op: where, which, what came out, what it cost; `<-` marks a backward, with what it hands to whom."""
    rows: list[tuple[str, ...]] = [("", "module", "op", "output", "strides", "bytes", "kept", "us", "by, line; or gradients handed on")]
    rows += [tuple(cell if cell.isprintable() else cell.encode("unicode_escape").decode() for cell in _row(entry)) for entry in entries]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    numeric = (0, 5, 6, 7)
    lines = ["  ".join(cell.rjust(w) if i in numeric else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=False))) for row in rows]
    return "\n".join(f"{line}  {row[-1]}".rstrip() for line, row in zip(lines, rows, strict=True))


def _row(entry: Entry) -> tuple[str, ...]:
    number, time = str(entry.number), f"{entry.seconds * 1e6:.0f}"
    if isinstance(entry, Work):
        return number, "", entry.name, "", "", "", "", time, ""
    if isinstance(entry, Forward):
        shape, strides = (str(entry.outputs[0].shape), str(entry.outputs[0].strides)) if entry.outputs else ("none", "")
        kept = in_bytes(entry.saved_bytes) if entry.saved else ""
        size = "" if entry.implementation == "view" else in_bytes(sum(value.bytes for value in entry.outputs))
        return number, entry.module, entry.op, shape, strides, size, kept, time, f"{entry.implementation}, {entry.line.place}"
    dy = next(value for value in entry.upstream if value is not None)
    handed = ", ".join(f"{c.to} {c.number}/{c.count}" for c in entry.contributions)
    size = in_bytes(sum(c.value.bytes for c in entry.contributions))
    return number, entry.module, f"<- {entry.op}", str(dy.shape), str(dy.strides), size, "", time, handed


def in_bytes(amount: float) -> str:
    """512 B, 4.2 MiB"""
    for unit, least in (("PiB", 1 << 50), ("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if amount >= least:
            return f"{amount / least:.1f} {unit}"
    return f"{amount:.0f} B"


# -- totals ---------------------------------------------------------------------------------------------------------------


def totals(entries: Iterable[Entry], what: Literal["module", "op"]) -> list[Total]:
    """Sums for each module or op, the slowest first."""
    if what not in ("module", "op"):
        raise ValueError(f'by {what!r}: choose "module" or "op"')
    sums: dict[str, list[Any]] = {}
    memory: dict[str, dict[int, int]] = {}
    for entry in entries:
        name = entry.name if isinstance(entry, Work) else getattr(entry, what) or "(outside modules)"
        total = sums.setdefault(name, [0, 0.0, 0.0, 0])
        if isinstance(entry, Backward):
            total[2] += entry.seconds
            total[3] += sum(c.value.bytes for c in entry.contributions)
            continue
        total[0] += 1
        total[1] += entry.seconds
        if isinstance(entry, Forward):
            total[3] += 0 if entry.implementation == "view" else sum(value.bytes for value in entry.outputs)
            memory.setdefault(name, {}).update({kept.address: kept.bytes for kept in entry.saved if kept.made})
    rows = [Total(name, total[0], total[1], total[2], total[3], sum(memory.get(name, {}).values())) for name, total in sums.items()]
    return sorted(rows, key=lambda row: -(row.forward + row.backward))


# -- files ----------------------------------------------------------------------------------------------------------------


def save(tape: Tape, path: Path) -> None:
    """Write the tape as its suffix says; what is there is replaced only by a whole file."""
    writers = {".txt": _write_text, ".npz": _write_arrays, ".json": _write_trace}
    if path.suffix not in writers:
        raise ValueError(f"{path.name}: a tape is saved as .txt (the table), .npz (all arrays) or .json (a trace that Chrome opens)")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        writers[path.suffix](tape, temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(tape: Tape, path: Path) -> None:
    path.write_text(tape.table() + "\n", encoding="utf-8")


def _write_arrays(tape: Tape, path: Path) -> None:
    """Every output as its op's name, every gradient that arrived as that name and .grad, every parameter as its own, when first used.

    bfloat16, which NumPy cannot read, is written as float32.
    """
    if not tape.values:
        raise ValueError("this tape holds no arrays: record(values=True) keeps them")
    arrays: dict[str, Any] = {}
    for value in (value for entry in tape.forwards for value in (*entry.inputs, *entry.outputs) if value.source != "constant"):
        arrays.setdefault(value.source, value.array)
    for step in tape.backwards:
        arrays |= {f"{y.source}.grad": dy.array for y, dy in zip(step.of.outputs if step.of else (), step.upstream, strict=False) if dy}
    arrays |= {f"{name}.grad": total for name, total in find.arrived(tape, tape.leaves).items()}
    with zipfile.ZipFile(path, "w") as archive:  # as np.savez, which has no room for an array called `file`
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array.astype(np.float32) if array.dtype == bfloat16 else array)


def _write_trace(tape: Tape, path: Path) -> None:
    """The Trace Event Format: a bar for each op, as long as it took, with all that is known of it in its `args`."""
    events = [
        {
            "name": entry.name if isinstance(entry, Work) else ("<- " if isinstance(entry, Backward) else "") + entry.op,
            "cat": type(entry).__name__.lower(),
            "ph": "X",
            "ts": entry.start * 1e6,
            "dur": entry.seconds * 1e6,
            "pid": 0,
            "tid": 0,
            "args": facts(entry),
        }
        for entry in tape.entries
    ]
    path.write_text(json.dumps({"traceEvents": events, "displayTimeUnit": "ms"}), encoding="utf-8")


def facts(entry: Entry) -> dict[str, Any]:
    """What is known of an entry, but the arrays' values, as JSON can hold it."""
    if isinstance(entry, Work):
        return {"number": entry.number}
    known: dict[str, Any] = {"number": entry.number, "name": entry.name, "module": entry.module}
    if isinstance(entry, Backward):
        known["upstream"] = [None if value is None else _facts_of(value) for value in entry.upstream]
        known["contributions"] = [{"input": c.input, "to": c.to, "number": c.number, "count": c.count, **_facts_of(c.value)} for c in entry.contributions]
        return known
    known |= {"within": entry.within, "implementation": entry.implementation, "reason": entry.reason, "line": str(entry.line), "formula": entry.formula}
    known |= {"settings": {name: repr(value) for name, value in entry.settings.items()}}
    known |= {"inputs": [_facts_of(value) for value in entry.inputs], "outputs": [_facts_of(value) for value in entry.outputs]}
    known["saved"] = [{"name": kept.name, "source": kept.source, "shape": kept.shape, "dtype": kept.dtype, "bytes": kept.bytes} for kept in entry.saved]
    return known


def _facts_of(value: Value) -> dict[str, Any]:
    names = ("name", "source", "shape", "strides", "offset", "contiguous", "dtype", "device", "bytes")
    return {name: getattr(value, name) for name in names}
