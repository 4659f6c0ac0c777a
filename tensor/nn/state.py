"""State dicts, {name: array}: whether one fits a model or an optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tensor.errors import StateError

SHOWN = 8  # names in a line of an error


def check(kind: str, own: Mapping[str, Any], state: Mapping[str, Any]) -> None:
    """Raise StateError that says all at once: which names of `own` are missing in the state, which
    of the state's are unknown, which shapes differ. Raises TypeError for what is no dict.
    """
    if not isinstance(state, Mapping):
        word = type(state).__name__
        raise TypeError(
            f"load_state_dict takes a dict {{name: tensor}}, not a {word}; see load(path)"
        )
    different = [
        f"{name} {np.shape(state[name])}, not {np.shape(value)}"
        for name, value in own.items()
        if name in state and np.shape(state[name]) != np.shape(value)
    ]
    problems = {
        "missing": [name for name in own if name not in state],
        "unexpected": [str(name) for name in state if name not in own],
        "wrong shape": different,
    }
    lines = [f"  {problem}: {_listed(names)}" for problem, names in problems.items() if names]
    if lines:
        raise StateError("\n".join([f"the state does not fit this {kind}", *lines]))


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
