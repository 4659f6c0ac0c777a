"""Arrays of a recording, by name. The first that fits of:

    blocks.0.attention            a module: the output of the last op that ran in the module or
                                  below it, the first time (#2 behind the name: the second time)
    blocks.0.attention.linear     an op of a module: its output (linear#2: of the second such op
                                  there). Of several outputs the last; each by itself: split[0]
    blocks.0.attention.weights    a local variable in the source of one of a module's ops: the
                                  source runs again for the variable
    blocks.0.attention.qkv.bias   a parameter, as it was when first used

With .grad behind the name, the gradient that arrived there in the last backward pass: of an array
dL/dy, of a parameter the sum.
"""

from __future__ import annotations

import difflib
import re
from itertools import groupby
from typing import Any

import numpy as np

from tensor.recording.entries import Backward, Forward, Recorded, codes_of

Floats = np.ndarray[Any, Any]


def array(recording: Recorded, name: str) -> Floats:
    """The array of that name; find.py says what a name can be. Raises KeyError with the nearest
    names, ValueError where no values were recorded.
    """
    recording.check_values()
    find = _gradient if name.endswith(".grad") else _value
    found = find(recording, name.removesuffix(".grad"))
    if found is None:
        near = ", ".join(nearest(recording, name))
        raise KeyError(f"nothing in this recording is named {name!r}; near it: {near}")
    return found


def nearest(recording: Recorded, name: str) -> list[str]:
    """At most three names that are like this one, of modules, ops, parameters and local variables
    of ops; else the first three of the recording.
    """
    known: dict[str, None] = {}  # in the order in which they came
    variables: dict[str, None] = {}
    for entry in recording.forwards:
        if entry.module:
            known[entry.module] = None
            variables |= dict.fromkeys(f"{entry.module}.{v}" for v in sorted(_locals_of(entry)))
        sources = [value.source for value in entry.inputs if value.source != "constant"]
        known |= dict.fromkeys([entry.name, *sources])
    near = difflib.get_close_matches(name, known | variables, n=3, cutoff=0.4)
    return near or list(known)[:3]


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
    stretches = groupby(recording.forwards, lambda op: f"{op.module}.".startswith(f"{module}."))
    runs = [list(ops) for inside, ops in stretches if inside]
    if 1 <= run <= len(runs):
        return runs[run - 1][-1]
    return next((entry for entry in recording.forwards if entry.name == name), None)


def _variable(entry: Forward | Backward, name: str) -> Floats | None:
    """A local variable of an op's source, or of its backward's source, as it was at the end."""
    if name not in _locals_of(entry):
        return None
    values = [moment.values[name] for moment in entry.lines() if name in moment.values]
    return values[-1] if values and isinstance(values[-1], np.ndarray) else None


def _locals_of(entry: Forward | Backward) -> set[str]:
    """The local variables of an op's source and of the functions in the source. An op without the
    variable need not run again.
    """
    return {name for code in codes_of(entry.op) for name in (*code.co_varnames, *code.co_cellvars)}


def _gradient(recording: Recorded, name: str) -> Floats | None:
    entry = _entry(recording, name)
    if entry is not None:
        step = next((step for step in reversed(recording.backwards) if step.of is entry), None)
        return step.upstream[-1].array if step and step.upstream[-1] else None
    return arrived(recording, {name}).get(name)


def arrived(recording: Recorded, names: set[str]) -> dict[str, Floats]:
    """The sum of the gradients that arrived at each of these leaves or outputs of ops, in the last
    backward pass that came there.
    """
    sums: dict[str, Any] = {}
    for step in recording.backwards:
        for c in step.contributions:
            if c.to in names:
                sums[c.to] = c.value.array if c.number == 1 else sums[c.to] + c.value.array
    return sums
