"""A check for after any backward: no two gradients share memory, nor does one with data, an
upstream gradient or a saved array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from tensor import Tensor
from tensor.graph import Node, reachable

Array = Any


def bounds(array: Array) -> tuple[int, int]:
    """The half-open range of addresses that an array on either device lies in."""
    address = array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr
    steps = (
        [(n - 1) * s for n, s in zip(array.shape, array.strides, strict=True)]
        if array.size
        else [0]
    )
    return address + sum(s for s in steps if s < 0), address + sum(
        s for s in steps if s > 0
    ) + array.itemsize * bool(array.size)


def assert_nothing_shared(gradients: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Raise AssertionError naming the pair when a gradient lies where another array does."""
    places = [
        (name, *bounds(value.array if isinstance(value, Tensor) else value))
        for name, value in (*gradients.items(), *others.items())
    ]
    for i, (name, low, high) in enumerate(places[: len(gradients)]):
        for other, other_low, other_high in places[i + 1 :]:
            assert high <= other_low or other_high <= low, f"{name} shares memory with {other}"


def saved_arrays(*outputs: Tensor) -> dict[str, Array]:
    """Every array that the graph behind the outputs keeps for backward."""
    nodes = [node for node in reachable(y.node for y in outputs) if type(node) is Node]
    return {
        f"array {i} kept by {node!r}": array
        for node in nodes
        for i, array in enumerate(_arrays(node.backward, set()))
    }


def _arrays(value: Any, seen: set[int]) -> Iterator[Array]:
    """Arrays in closures, also in tuples and inner functions."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if hasattr(value, "strides") and hasattr(value, "flags") and not isinstance(value, np.generic):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _arrays(part, seen)
    elif callable(value):
        for cell in getattr(value, "__closure__", None) or ():
            yield from _arrays(cell.cell_contents, seen)
