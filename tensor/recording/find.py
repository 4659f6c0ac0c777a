"""Arrays on a recording, by name. The first that fits of:

    blocks.0.attention            a module: the output of the last op that ran in it or below it,
    the first time (the second: with #2 behind it)
    blocks.0.attention.linear     an op of a module: its output (that of the second such op there:
    linear#2)
                                  of several outputs the last; each by itself: split[0]
    blocks.0.attention.weights    a local variable in the source of one of a module's ops: got by
    running that source again
    blocks.0.attention.qkv.bias   a parameter, as it was when first used

and with .grad behind it, the gradient that arrived there: of an array all of dL/dy, of a parameter
the sum; of several walks in the last.
"""

from __future__ import annotations

import difflib
import re
from typing import Any

import numpy as np

from tensor.recording.entries import Backward, Forward, Recorded, codes_of

Floats = np.ndarray[Any, Any]


def array(recording: Recorded, name: str) -> Floats:
    """The array of that name. Raises KeyError with the nearest names, ValueError where no values
    were recorded.
    """
    if not recording.values:
        raise ValueError("this recording holds no arrays: record(values=True) keeps them")
    found = (
        _gradient(recording, name.removesuffix(".grad"))
        if name.endswith(".grad")
        else _value(recording, name)
    )
    if found is None:
        raise KeyError(
            f"nothing in this recording is named {name!r}; near it: "
            f"{', '.join(nearest(recording, name))}"
        )
    return found


def nearest(recording: Recorded, name: str) -> list[str]:
    """At most three names in the recording, local variables of ops among them, that are like this
    one; else the first three.
    """
    known = names(recording)
    variables = (
        f"{entry.module}.{variable}"
        for entry in recording.forwards
        for variable in sorted(_locals_of(entry))
        if entry.module
    )
    return (
        difflib.get_close_matches(name, dict.fromkeys([*known, *variables]), n=3, cutoff=0.4)
        or known[:3]
    )


def names(recording: Recorded) -> list[str]:
    """Every module, op and parameter; the local variables of ops come on top."""
    found: list[str] = []
    for entry in recording.forwards:
        found += [entry.module, entry.name] if entry.module else [entry.name]
        found += [value.source for value in entry.inputs if value.source != "constant"]
    return list(dict.fromkeys(found))


def _value(recording: Recorded, name: str) -> Floats | None:
    entry = _entry(recording, name)
    if entry is not None and entry.outputs:
        return entry.outputs[-1].array
    for entry in recording.forwards:
        for value in (*entry.inputs, *entry.outputs):
            if value.source == name:
                return value.array
    module, _, variable = name.rpartition(".")
    steps: list[Forward | Backward] = [*recording.forwards, *recording.backwards]
    for step in steps:
        if module in (step.module, step.name) and (found := _variable(step, variable)) is not None:
            return found
    return None


def _entry(recording: Recorded, name: str) -> Forward | None:
    """The last op of a module's run; else the op of that name. A run is a stretch of the recording
    without ops of other modules.
    """
    numbered = re.fullmatch("(.*)#([0-9]{1,9})", name, re.DOTALL)
    module, run = (numbered[1], int(numbered[2])) if numbered else (name, 1)
    runs: list[Forward] = []  # the last op of each run
    inside = False  # whether the op before was in the module
    for entry in recording.forwards:
        was_inside, inside = inside, entry.module == module or entry.module.startswith(module + ".")
        if inside and was_inside:
            runs[-1] = entry
        elif inside:
            runs.append(entry)
    if 1 <= run <= len(runs):
        return runs[run - 1]
    return next((entry for entry in recording.forwards if entry.name == name), None)


def _variable(entry: Forward | Backward, name: str) -> Floats | None:
    """A local variable of an op's source, or of its backward's, as it was at the end."""
    if name not in _locals_of(entry):
        return None
    values = [moment.values[name] for moment in entry.lines() if name in moment.values]
    return values[-1] if values and isinstance(values[-1], np.ndarray) else None


def _locals_of(entry: Forward | Backward) -> set[str]:
    """The names in the source of an op and of the functions in it, so that few ops are run again to
    look for one.
    """
    return {name for code in codes_of(entry.op) for name in (*code.co_varnames, *code.co_cellvars)}


def _gradient(recording: Recorded, name: str) -> Floats | None:
    entry = _entry(recording, name)
    if entry is not None:
        step = next((step for step in reversed(recording.backwards) if step.of is entry), None)
        return step.upstream[-1].array if step and step.upstream[-1] else None
    return arrived(recording, {name}).get(name)


def arrived(recording: Recorded, names: set[str]) -> dict[str, Floats]:
    """What has arrived in all at each of these, leaves or outputs of ops, in the last walk that
    came there.
    """
    sums: dict[str, Any] = {}
    for step in recording.backwards:
        for c in (c for c in step.contributions if c.to in names):
            sums[c.to] = c.value.array if c.number == 1 else sums[c.to] + c.value.array
    return sums
