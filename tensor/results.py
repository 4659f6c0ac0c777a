"""Putting an op into the graph: the result as a tensor, its node, and the versions of what its backward holds on to.

This runs once an op, whether the op takes microseconds or seconds: what is done here for every result is counted in nanoseconds.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FunctionType
from typing import Any

import numpy as np

import tensor.core as core
from tensor.devices import Array, as_array, extent, is_cuda
from tensor.dtypes import FLOATS, NARROW, float32
from tensor.graph import Node, Output, Saved
from tensor.layout import Layout, Shape
from tensor.mode import Mode
from tensor.storage import Line, Storage, user_place

_PLAIN = frozenset((int, float, bool, str, type(None), np.dtype, type(np.dtype("float32"))))  # values that hold no array
_new = object.__new__
_NOWHERE = Storage(np.empty(0))  # of an array that a rule made for itself: no tensor writes there


def as_result(name: str, inputs: Sequence[Any], arrays: Sequence[Any], parents: list[Any], y: Any, backward: Any, mode: Mode, broadcasts: bool) -> Any:
    """Wrap what a rule returned, and put a node into the graph when an input asks for gradients.

    parents: the inputs' nodes.   broadcasts: an input smaller than y was expanded by NumPy, and gets the `expand` node whose backward sums.
    """
    if type(y) is tuple:
        return _several_results(name, inputs, arrays, parents, y, backward, mode)
    if type(y) is not np.ndarray:
        y = as_array(y)
    out = _new(core.Tensor)
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
                parents[i] = Node("expand", (parent,), (sum_to(parent.shape),), (), shape, parent.dtype, line)
    out.node = Node(name, tuple(parents), backward, _saved(name, backward, inputs, arrays, (out,)), shape, y.dtype, line)
    return out


def _several_results(
    name: str, inputs: Sequence[Any], arrays: Sequence[Any], parents: list[Any], ys: tuple[Any, ...], backward: Any, mode: Mode
) -> tuple[Any, ...]:
    """The same for an op with several outputs: one node, and an `Output` for each that holds floats."""
    outs = tuple(core.Tensor.from_array(as_array(y)) for y in ys)
    if backward is not None and mode.recording and any(parents):
        if type(backward) is tuple:
            backward = _wanted(backward, parents)
        node = Node(name, tuple(parents), backward, _saved(name, backward, inputs, arrays, outs), outs[0].shape, outs[0].dtype, user_place(3))
        node.outputs = len(outs)
        for index, out in enumerate(outs):
            if out.dtype in FLOATS:
                out.node = Output(node, index, out.shape, out.dtype)
    return outs


def _wanted(backward: tuple[Any, ...], parents: list[Any]) -> tuple[Any, ...]:
    """Of a rule with one function for each input, those whose input wants a gradient: the others would only hold memory."""
    if len(parents) == 2 == len(backward):  # most ops: `x * 2.0`
        return (backward[0] if parents[0] is not None else None, backward[1] if parents[1] is not None else None)
    return tuple([rule if parent is not None else None for rule, parent in zip(backward, parents, strict=True)])


# -- what backward holds on to ----------------------------------------------------------------------------------------------


# id of a rule's code -> the positions of the inputs it names, if it names nothing else, and the code: kept, so that no other gets its id
_INPUTS_HELD: dict[int, tuple[tuple[int, ...], CodeType]] = {}
UNSTUDIED: dict[str, tuple[Callable[..., Any], int]] = {}  # op -> what `study` takes; done when first recorded, not at import


def study(reference: Callable[..., Any], count: int) -> None:
    """Note which rules inside an op's function name only its parameters, never assigned again: for them nothing need be searched.

    The first `count` parameters are the inputs; the others are options, which hold constants or copies.
    """
    code = reference.__code__
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    assigned = {i.argval for i in dis.get_instructions(reference) if i.opname in ("STORE_DEREF", "STORE_FAST", "DELETE_DEREF", "DELETE_FAST")}
    for rule in code.co_consts:
        if isinstance(rule, CodeType) and all(name in parameters and name not in assigned for name in rule.co_freevars):
            places = [parameters.index(name) for name in rule.co_freevars]
            _INPUTS_HELD[id(rule)] = tuple(place for place in places if place < count), rule


def _saved(name: str, backward: Any, inputs: Sequence[Any], arrays: Sequence[Any], outs: tuple[Any, ...]) -> tuple[Saved, ...]:
    """Storage and version of every input and output that the closures of `backward` hold."""
    saved: list[Saved] = []
    unknown = []
    if name in UNSTUDIED and (op := UNSTUDIED.get(name)):  # another thread may be done first
        study(*op)
        UNSTUDIED.pop(name, None)  # last: an interrupted study must be done again
    for rule in backward if type(backward) is tuple else (backward,):
        if rule is None:
            continue
        held = _INPUTS_HELD.get(id(rule.__code__))
        if held is None:
            unknown.append(rule)
            continue
        for i in held[0]:
            x = inputs[i]
            if isinstance(x, core.Tensor):
                storage = x._storage or x.storage
                if storage.exported:
                    saved.append(keep(x, arrays[i]))
                else:
                    storage.saved = True
                    saved.append((storage, storage.version, arrays[i]))
    if unknown:
        saved += _searched(unknown, inputs, arrays, outs)
    return tuple(saved)


def _searched(rules: list[Any], inputs: Sequence[Any], arrays: Sequence[Any], outs: tuple[Any, ...]) -> list[Saved]:
    """The same for any rules: each value their closures name is compared with the inputs and outputs, by identity, then by memory."""
    saved: list[Saved] = []
    known = {id(array): x for array, x in zip(arrays, inputs, strict=True) if type(array) is np.ndarray}
    own = True  # whether an array that has no base, and is none of these, is the rule's own memory
    for out in outs:
        known[id(out._array)] = out
        own = own and out._array.base is None
    for cell in [cell for rule in rules for cell in rule.__closure__ or ()]:
        value = cell.cell_contents
        kind = type(value)
        if kind in _PLAIN:
            continue
        if kind is np.ndarray:
            owner = known.get(id(value))
            if owner is not None:
                saved.append(keep(owner, value))
            elif own and value.base is None:
                saved.append((_NOWHERE, 0, value))
            else:
                saved += _by_memory(value, inputs, outs)
        elif kind is not tuple or not _PLAIN.issuperset(map(type, value)):
            for held in _held(value):
                saved += _by_memory(held, inputs, outs)
    return saved


def _by_memory(held: Array, inputs: Sequence[Any], outs: tuple[Any, ...]) -> list[Saved]:
    """What is kept of a held array: the tensor that it is, those whose memory it may share, or none."""
    tensors = [x for x in (*inputs, *outs) if isinstance(x, core.Tensor)]
    owners = [x for x in tensors if held is x._array][:1]
    if not owners and held.base is not None:
        owners = [x for x in tensors if shares_memory(x.array, held)]
    elif not owners:  # memory of its own, unless an output is a view of it
        owners = [out for out in outs if out.array.base is held]
        if not owners:
            return [(_NOWHERE, 0, held)]
    return [keep(x, held) for x in owners]


def keep(x: Any, held: Array) -> Saved:
    """Note that a tensor's array is held for backward, and with which version: a write from now on is found out."""
    storage = x._storage or x.storage
    if storage.exported:
        storage = Exported(storage, held)
    storage.saved = True
    return storage, storage.version, held


class Exported:
    """Stands for a storage that NumPy has a writable window on: writes through it are not counted, so the values are compared."""

    __slots__ = ("array", "copy", "storage")

    def __init__(self, storage: Storage, array: Array):
        self.storage, self.array, self.copy = storage, array, array.copy()

    @property
    def saved(self) -> bool:
        return self.storage.saved

    @saved.setter
    def saved(self, value: bool) -> None:
        self.storage.saved = value

    @property
    def flat(self) -> Array:
        return self.storage.flat

    @property
    def version(self) -> int:
        """That of the storage; -1 once the values are others."""
        return self.storage.version if np.array_equal(self.array, self.copy, equal_nan=True) else -1

    def written_since(self, version: int, region: Layout) -> Line | str | None:
        """The line of a counted write, or what is known of an uncounted one."""
        return self.storage.written_since(version, region) or ("an array that .numpy() gave out" if self.version == -1 else None)


def _held(value: Any) -> Iterator[Array]:
    """The arrays in what a closure names, also through tuples and inner functions."""
    if hasattr(value, "flags"):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from _held(part)
    elif isinstance(value, FunctionType):
        for cell in value.__closure__ or ():
            yield from _held(cell.cell_contents)


def shares_memory(a: Array, b: Array) -> bool:
    """Whether two arrays may have memory in common, judged by their bounds."""
    if type(a) is not type(b):
        return False
    if is_cuda(a):
        (low, high), (other_low, other_high) = extent(a), extent(b)
        return low < other_high and other_low < high
    return np.may_share_memory(a, b)


# -- the gradient of broadcasting ---------------------------------------------------------------------------------------------


def sum_to(shape: Shape) -> Callable[[Array], Array]:
    """Backward of expand: sum over the axes that were repeated. (2, 3, 4) -> (3, 1): over axis 0, and over 2 keeping it."""

    def backward(dy: Array) -> Array:
        new = dy.ndim - len(shape)
        if new:
            dy = accumulate(dy, tuple(range(new)), False)
        stretched = tuple(axis for axis, n in enumerate(shape) if n == 1 and dy.shape[axis] != 1)
        return accumulate(dy, stretched, True) if stretched else dy

    return backward


def accumulate(x: Array, axis: tuple[int, ...], keepdims: bool) -> Array:
    """x.sum, in float32 for the 16-bit floats: bfloat16 alone would stop counting ones at 256."""
    if x.dtype in NARROW:
        return x.astype(float32).sum(axis=axis, keepdims=keepdims).astype(x.dtype)
    return x.sum(axis=axis, keepdims=keepdims)
