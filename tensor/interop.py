"""Meeting NumPy: its functions called on tensors, and Python's numbers made into arrays.

A NumPy function that means the same as an op becomes that op, recorded as always. Any other runs on
the values, and raises GraphError where it would compute floats from a tensor in a graph: their
gradient would be silently lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensor import ops
from tensor.base import TensorBase
from tensor.dtypes import FLOATS
from tensor.errors import GraphError
from tensor.mode import MODE

_NAMES = "sum mean max min argmax argmin cumsum concatenate stack where squeeze any all"
_SAME = frozenset(_NAMES.split())
_OTHER_NAMES = {"absolute": "abs", "true_divide": "divide"}


def call_ufunc(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What np.ufunc(...) does when an argument is a tensor."""
    name = _OTHER_NAMES.get(ufunc.__name__, ufunc.__name__)
    if method == "__call__" and not kwargs and name in ops.OPS:
        return ops.OPS[name](*inputs)
    writes = bool(kwargs) or method == "at"
    return _on_values(getattr(ufunc, method), inputs, kwargs, ufunc.__name__, writes)


def call_function(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What np.function(...) does when an argument is, or holds, a tensor."""
    if function.__name__ in _SAME:
        return getattr(ops, function.__name__)(*args, **kwargs)
    return _on_values(function, args, kwargs, function.__name__)


def _on_values(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    writes: bool = False,
) -> Any:
    tensors: list[TensorBase] = []
    values, options = _without_tensors((args, kwargs), tensors)
    in_graph = MODE.get().recording and any(x.node is not None for x in tensors)
    result = None if in_graph and writes else function(*values, **options)
    if in_graph and (writes or getattr(result, "dtype", None) in FLOATS):
        raise GraphError(
            f"np.{name} of a tensor in a graph would lose its gradient: "
            "use an op of `tensor`, or .detach() first"
        )
    return result


def _without_tensors(value: Any, found: list[TensorBase]) -> Any:
    """Arguments with each tensor, also inside tuples, lists and dicts, replaced by its array; the
    tensors are added to `found`.
    """
    if isinstance(value, TensorBase):
        found.append(value)
        return value.numpy()
    if isinstance(value, (tuple, list)):
        return type(value)(_without_tensors(part, found) for part in value)
    if isinstance(value, dict):
        return {key: _without_tensors(part, found) for key, part in value.items()}
    return value
