"""A recording as a table, as totals and as files."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tensor.dtypes import bfloat16
from tensor.recording import find
from tensor.recording.entries import Backward, Entry, Forward, Recorded, Work

NUMERIC = (0, 5, 6, 7)  # columns of the table


class Total(NamedTuple):
    """The cost of a module or an op in all."""

    name: str
    calls: int
    forward: float  # seconds
    backward: float  # seconds
    bytes: int  # written: of outputs and of gradients
    saved: int  # bytes kept for backward; an array that several ops keep counts once


# -- text


def table(recording: Recorded) -> str:
    """One line an op: module, op, output and cost. `<-` marks a backward; its last column has the
    inputs that get gradients.
    """
    head = "|module|op|output|strides|bytes|kept|us|by, line; or gradients passed on"
    rows = [head.split("|"), *(list(map(visible, _row(entry))) for entry in recording.entries)]
    for i, column in enumerate(list(zip(*rows, strict=True))[:-1]):
        width = max(map(len, column))
        for row in rows:
            row[i] = row[i].rjust(width) if i in NUMERIC else row[i].ljust(width)
    return "\n".join("  ".join(row).rstrip() for row in rows)


def visible(text: str) -> str:
    """The text with escapes for letters that cannot be seen, or that turn the writing round."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _row(entry: Entry) -> tuple[str, ...]:
    number, time = str(entry.number), f"{entry.seconds * 1e6:.0f}"
    if isinstance(entry, Work):
        return number, "", entry.name, "", "", "", "", time, ""
    op, size, kept = entry.op, in_bytes(written(entry)), ""
    if isinstance(entry, Forward):
        y = next(iter(entry.outputs), None)
        size = "" if entry.implementation == "view" else size
        kept = in_bytes(entry.saved_bytes) if entry.saved else ""
        last = f"{entry.implementation}, {entry.line.place}"
    else:
        op = f"<- {op}"
        y = next(filter(None, entry.upstream))
        last = ", ".join(f"{c.to} {c.number}/{c.count}" for c in entry.contributions)
    shape, strides = (str(y.shape), str(y.strides)) if y else ("none", "")
    return number, entry.module, op, shape, strides, size, kept, time, last


def written(entry: Entry) -> int:
    """The bytes of an op's outputs, none for a view; of a backward, those of its gradients."""
    if isinstance(entry, Backward):
        return sum(c.value.bytes for c in entry.contributions)
    if isinstance(entry, Work) or entry.implementation == "view":
        return 0
    return sum(value.bytes for value in entry.outputs)


def in_bytes(amount: float) -> str:
    """512 B, 4.2 MiB"""
    for power, unit in zip((50, 40, 30, 20, 10), "PTGMK", strict=True):
        if amount >= 1 << power:
            return f"{amount / (1 << power):.1f} {unit}iB"
    return f"{amount:.0f} B"


# -- totals


def totals(entries: Iterable[Entry], what: Literal["module", "op"]) -> list[Total]:
    """Sums for each module or op, the slowest first."""
    if what not in ("module", "op"):
        raise ValueError(f'by {what!r}: choose "module" or "op"')
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(getattr(entry, what) or "(outside modules)", []).append(entry)
    rows = [_total(name, group) for name, group in groups.items()]
    return sorted(rows, key=lambda row: -(row.forward + row.backward))


def _total(name: str, group: Sequence[Entry]) -> Total:
    backward = [entry.seconds for entry in group if isinstance(entry, Backward)]
    forward = [entry.seconds for entry in group if not isinstance(entry, Backward)]
    kept: dict[int, int] = {}  # address -> bytes
    for entry in group:
        if isinstance(entry, Forward):
            kept.update({saved.address: saved.bytes for saved in entry.saved if saved.made})
    times = sum(forward, 0.0), sum(backward, 0.0)
    return Total(name, len(forward), *times, sum(map(written, group)), sum(kept.values()))


# -- files


def save(recording: Recorded, path: str | Path) -> None:
    """Write the table (.txt), all arrays by name (.npz) or a trace for chrome://tracing (.json)."""
    path = Path(path)
    writers = {".txt": _write_text, ".npz": _write_arrays, ".json": _write_trace}
    if path.suffix not in writers:
        raise ValueError(
            f"{path.name}: a recording is saved as .txt (the table), .npz (all arrays) "
            "or .json (a trace that Chrome opens)"
        )
    write_whole(path, partial(writers[path.suffix], recording))


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Call write(a temporary path), and put that file in the place of `path`; or change nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_text(recording: Recorded, path: Path) -> None:
    path.write_text(table(recording) + "\n", encoding="utf-8")


def _write_arrays(recording: Recorded, path: Path) -> None:
    """Every output by the name of its op, every parameter by its name as it was when first used,
    every gradient by such a name and .grad.

    NumPy cannot read bfloat16: these arrays are written as float32.
    """
    recording.check_values()
    arrays: dict[str, Any] = {}
    for entry in recording.forwards:
        for value in (*entry.inputs, *entry.outputs):
            if value.source != "constant":
                arrays.setdefault(value.source, value.array)
    for step in recording.backwards:
        for name, dy in zip(step.to, step.upstream, strict=True):
            if dy and name in arrays:
                arrays[f"{name}.grad"] = dy.array
    for name, total in find.arrived(recording, recording.leaves).items():
        arrays[f"{name}.grad"] = total
    # not np.savez, which takes no array of the name `file`
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            readable = array.astype(np.float32) if array.dtype == bfloat16 else array
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, readable)


def _write_trace(recording: Recorded, path: Path) -> None:
    """The Trace Event Format: a bar for each entry, as long as its time, with its facts."""
    events = []
    for entry in recording.entries:
        event = {
            "name": f"<- {entry.op}" if isinstance(entry, Backward) else entry.op,
            "cat": type(entry).__name__.lower(),
            "ph": "X",
            "ts": entry.start * 1e6,
            "dur": entry.seconds * 1e6,
            "pid": 0,
            "tid": 0,
            "args": facts(entry),
        }
        events.append(event)
    trace = {"traceEvents": events, "displayTimeUnit": "ms"}
    path.write_text(json.dumps(trace), encoding="utf-8")


def facts(thing: Any) -> Any:
    """An entry, or a part of one, without the values of arrays, as JSON can hold it."""
    if is_dataclass(thing):
        shown = {field.name: getattr(thing, field.name) for field in fields(thing) if field.repr}
        if isinstance(thing, Forward):
            shown |= {"formula": thing.formula, "settings": thing.settings}
        return {name: facts(value) for name, value in shown.items()}
    if type(thing) is tuple:
        return list(map(facts, thing))
    if type(thing) is dict:
        return {name: repr(value) for name, value in thing.items()}
    return thing if isinstance(thing, str | int | float | None) else str(thing)
