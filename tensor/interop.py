"""Meeting NumPy: its functions called on tensors.

A NumPy function that means the same as an op becomes that op, recorded as always. Any other runs on
the values, and raises GraphError where it would compute floats from a tensor in a graph: their
gradient would be silently lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tensor import numpy_shapes, ops  # noqa: F401 (numpy_shapes registers its functions)
from tensor.answers import HERE
from tensor.base import TensorBase
from tensor.errors import GraphError
from tensor.mode import MODE
from tensor.numpy_functions import FUNCTIONS, UFUNCS

# of an array, these ask for no more than shape and dtype
_OF_SHAPES = frozenset(["zeros_like", "ones_like", "empty_like", "full_like"])
# these write into an array that they are given
_WRITERS = frozenset(["copyto", "put", "putmask", "place", "put_along_axis"])
_DEFAULTS = {"out": None, "dtype": None, "casting": "same_kind", "order": "C"}
# functions of other modules mean something else, but for these
_MODULES = frozenset(("numpy", "numpy.linalg", "numpy.matrixlib", "numpy.lib"))


def call_ufunc(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What np.ufunc(...) does when an argument is a tensor."""
    op = UFUNCS.get(ufunc.__name__) or ops.OPS.get(ufunc.__name__)
    if method == "__call__" and not kwargs and op:
        return op(*inputs)
    name = ufunc.__name__ if method == "__call__" else f"{ufunc.__name__}.{method}"
    return _on_values(getattr(ufunc, method), inputs, kwargs, name, method == "at")


def call_function(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What np.function(...) does when an argument is, or holds, a tensor."""
    name = function.__name__
    if name in FUNCTIONS and function.__module__ in _MODULES:
        given = {key: value for key, value in kwargs.items() if not _is_default(key, value)}
        return FUNCTIONS[name](*args, **given)
    return _on_values(function, args, kwargs, name, name in _WRITERS)


def _is_default(name: str, value: Any) -> bool:
    """Whether an argument says no more than its absence: `out=None`."""
    return isinstance(value, (str, type(None))) and _DEFAULTS.get(name, 0) == value


def _on_values(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    writes: bool = False,
) -> Any:
    """The function of the values of the tensors. Raises GraphError, before anything is written,
    where a gradient would be lost.
    """
    tensors: list[TensorBase] = []
    values, options = _without_tensors((args, kwargs), tensors)
    if name in _OF_SHAPES:  # only what is filled in has a gradient to lose
        tensors.clear()
        _without_tensors((args[1:], kwargs.get("fill_value")), tensors)
    in_graph = MODE.get().recording and any(x.node is not None for x in tensors)
    if in_graph and (writes or kwargs.keys() & {"out", "where"}):
        raise _lost(name, "" if writes else "with out= or where= ")
    result = function(*values, **options)
    if in_graph and not _is_constant(result):
        raise _lost(name)
    return result


def _lost(name: str, how: str = "") -> GraphError:
    code = HERE.get(name)
    instead = f"Write this: {code}" if code else "Use ops of `tensor`, or x.detach() for the values"
    return GraphError(f"np.{name} {how}of a tensor in a graph would lose its gradient. {instead}")


def _is_constant(result: Any) -> bool:
    """Whether a result consists of integers, bools and text, which have no gradient."""
    if isinstance(result, (tuple, list)):
        return all(map(_is_constant, result))
    if hasattr(result, "dtype"):
        return np.dtype(result.dtype).kind in "iubUS"
    return result is None or isinstance(result, (int, str, np.dtype, type))


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
