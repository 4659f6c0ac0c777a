"""detect_anomaly: stop at the first op whose result is not finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensor.base import TensorBase
from tensor.dtypes import FLOATS
from tensor.errors import GradientError
from tensor.graph import behind, describe, op_of
from tensor.memory.devices import Array
from tensor.memory.storage import user_line


def check_finite(name: str, inputs: Sequence[Any], out: TensorBase) -> None:
    """Raise GradientError at a NaN, and at an infinity that no input or option held already (masks
    are made of -inf on purpose).
    """
    y, node = out.array, op_of(out.node)
    if y.dtype not in FLOATS or np.isfinite(y).all():
        return
    floats = [a for a in inputs if getattr(a, "dtype", None) in FLOATS]
    numbers = [a for a in inputs if type(a) is float]
    asked_for = any(np.isinf(a).any() for a in floats + numbers)
    if asked_for and not np.isnan(y).any():
        return
    shapes = ", ".join(str(getattr(a, "shape", a)) for a in inputs)
    what = describe(node) if node else f"`{name}` at {user_line(1)}, {y.shape} <- {shapes}"
    given = "; ".join(_span(a) for a in floats if a.size) or "no floats"
    raise GradientError(
        f"{int(y.size - np.isfinite(y).sum())} of {y.size} values not finite from {what}\n"
        f"it was given {given}{behind(node) if node else '; nothing recorded behind it'}"
    )


def _span(x: Array) -> str:
    """From the least value to the largest, and how many are not finite: `(2, 3) from -1 to 0`."""
    finite = x[np.isfinite(x)]
    text = str(x.shape)
    if finite.size:
        text += f" from {float(finite.min()):.4g} to {float(finite.max()):.4g}"
    if finite.size < x.size:
        text += f", {x.size - finite.size} of {x.size} not finite"
    return text
