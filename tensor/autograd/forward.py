"""The result of an op: a tensor, its node in the graph, and the versions of the arrays that its
backward functions keep.

This runs at every op, and some ops take only a microsecond, so nanoseconds count here.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import FunctionType
from typing import Any, TypeAlias

import numpy as np

from tensor.autograd.broadcast import sum_to
from tensor.base import TensorBase
from tensor.dtypes import FLOATS
from tensor.graph import Node, Saved
from tensor.kept_inputs import KEPT_INPUTS
from tensor.memory.devices import Array, as_array, extent, is_cuda
from tensor.memory.storage import Exported, Storage, user_place
from tensor.mode import Mode

# a result of a fused op: the op of the composition that makes it; the positions of that op's inputs
# among the inputs of the fused op, then the results so far; the array; the backward
Step: TypeAlias = tuple[str, tuple[int, ...], Array, Any]

# values that hold no array
_PLAIN = frozenset((int, float, bool, str, type(None)))
_new = object.__new__
_NOWHERE = Storage(
    np.empty(0)
)  # of an array that an op made for its backward: no tensor writes there


def as_result(
    name: str,
    inputs: Sequence[Any],
    arrays: Sequence[Any],
    parents: list[Any],
    y: Any,
    backward: Any,
    mode: Mode,
    broadcasts: bool,
) -> Any:
    """Wrap what a reference returned, and put a node into the graph when an input asks for
    gradients.

    parents: the inputs' nodes.   broadcasts: NumPy expanded each input smaller than y; an `expand`
    node, whose backward sums, goes between.
    """
    several = type(y) is tuple
    if several:
        out: Any = tuple([TensorBase.holding(as_array(part)) for part in y])
        y = out[0]
    else:
        if type(y) is not np.ndarray:
            y = as_array(y)
        out = _new(TensorBase.kind)
        out._array = y
        out._storage = out._layout = out.node = None
    if backward is None or not mode.recording:
        return out
    if None in parents:
        if not any(parents):
            return out
        if type(backward) is tuple:
            backward = _wanted(backward, parents)
    shape, line = y.shape, user_place(2)
    if broadcasts:
        for i, parent in enumerate(parents):
            if parent is not None and parent.shape != shape:
                parents[i] = Node(
                    "expand", (parent,), (sum_to(parent.shape),), (), shape, parent.dtype, line
                )
    saved = _saved(backward, inputs, arrays, out if several else (out,))
    node = Node(name, tuple(parents), backward, saved, shape, y.dtype, line)
    if several:
        node.give_outputs([part if part.dtype in FLOATS else None for part in out])
    else:
        out.node = node
    return out


def as_results(steps: list[Step], inputs: Sequence[Any], arrays: Sequence[Any], mode: Mode) -> Any:
    """The results of a fused op, each with the node that the composition gives it: a result may be
    an input of the next one.
    """
    known, held = list(inputs), list(arrays)
    for op, positions, y, backward in steps:
        parents = [getattr(known[i], "node", None) for i in positions]
        known.append(as_result(op, known, held, parents, y, backward, mode, False))
        held.append(y)
    return tuple(known[len(inputs) :])


def _wanted(backward: tuple[Any, ...], parents: list[Any]) -> tuple[Any, ...]:
    """The functions whose input wants a gradient; the others would only hold memory: None."""
    if len(parents) == 2 == len(backward):  # most ops: `x * 2.0`
        a, b = parents
        return backward[0] if a is not None else None, backward[1] if b is not None else None
    pairs = zip(backward, parents, strict=True)
    return tuple([function if parent is not None else None for function, parent in pairs])


# -- what backward keeps
#
# A backward function is a closure, and keeps the arrays that it mentions. The graph notes each of
# them with its version, to find a write before backward. To search a closure takes microseconds:
# of the cells that hold inputs, kept_inputs.py knows which input.


def _saved(
    backward: Any, inputs: Sequence[Any], arrays: Sequence[Any], outs: tuple[Any, ...]
) -> tuple[Saved, ...]:
    """Storage and version of every input and output that the closures of `backward` mention."""
    saved: list[Saved] = []
    unknown: list[Any] = []  # values of cells that the table does not know
    for function in backward if type(backward) is tuple else (backward,):
        if function is None or not function.__closure__:
            continue
        kept = KEPT_INPUTS.get(id(function.__code__))
        if kept is None:
            unknown += [cell.cell_contents for cell in function.__closure__]
            continue
        for at in kept[1]:
            unknown.append(function.__closure__[at].cell_contents)
        for i in kept[0]:
            x = inputs[i]
            if isinstance(x, TensorBase):
                storage = x._storage or x.storage
                if storage.exported:
                    saved.append(keep(x, arrays[i]))
                else:
                    storage.saved = True
                    saved.append((storage, storage.version, arrays[i]))
    if unknown:
        saved += _searched(unknown, inputs, outs)
    return tuple(saved)


def _searched(values: list[Any], inputs: Sequence[Any], outs: tuple[Any, ...]) -> list[Saved]:
    """The same for any values: each array in them is compared with those of the inputs and outputs,
    by identity, then by memory. The others are the op's own.
    """
    saved: list[Saved] = []
    tensors = [x for x in (*inputs, *outs) if isinstance(x, TensorBase)]
    known = {id(x._array): x for x in tensors}
    views = [out for out in outs if out._array.base is not None]  # maybe of the op's own arrays
    array_kind = type(outs[0]._array)
    for value in values:
        kind = type(value)
        if kind in _PLAIN or (kind is tuple and _PLAIN.issuperset(map(type, value))):
            continue
        for array in (value,) if kind is array_kind else _arrays_in(value):
            if id(array) in known:
                saved.append(keep(known[id(array)], array))
            elif array.base is None and not views:
                saved.append((_NOWHERE, 0, array))
            else:
                sharing = [keep(x, array) for x in tensors if shares_memory(x._array, array)]
                saved += sharing or [(_NOWHERE, 0, array)]
    return saved


def keep(x: Any, array: Array) -> Saved:
    """Note that backward keeps a tensor's array, and its version: a later write is found out."""
    storage = x._storage or x.storage
    storage.saved = True
    if storage.exported:
        storage = Exported(storage, array)
    return storage, storage.version, array


def _arrays_in(value: Any) -> Sequence[Array]:
    """The arrays in what a closure names, also through tuples and inner functions."""
    if isinstance(value, FunctionType):
        value = [cell.cell_contents for cell in value.__closure__ or ()]
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in _arrays_in(part)]
    return (value,) if hasattr(value, "nbytes") else ()


def shares_memory(a: Array, b: Array) -> bool:
    """Whether two arrays may have memory in common, judged by their bounds."""
    if type(a) is not type(b):
        return False
    if is_cuda(a):
        (low, high), (other_low, other_high) = extent(a), extent(b)
        return low < other_high and other_low < high
    return np.may_share_memory(a, b)
