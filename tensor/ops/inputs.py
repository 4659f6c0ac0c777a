"""What an op is given: which arguments are inputs and which are options, and inputs made ready."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tensor.base import TensorBase
from tensor.dtypes import NARROW, float32, promote
from tensor.errors import DeviceError, GraphError, ShapeError
from tensor.memory.devices import device_of, is_cuda, move
from tensor.memory.layout import broadcast_shape
from tensor.mode import MODE

# Annotations of parameters that are inputs.
INPUTS = frozenset(("Array", "Array | None", "Mask", "Ids", "TensorBase", "TensorBase | None"))
REALS = frozenset((bool, int, float))  # Python's numbers
PLAIN = frozenset((int, float, bool, str, tuple, type(None)))  # options that are no arrays
# op -> a check of its inputs as they are given, before any is moved to a GPU
LOOK_FIRST: dict[str, Callable[..., None]] = {}


class Signature:
    """What a reference's parameters say: inputs, annotated Array, Mask or Ids, come first; all else
    is an option.
    """

    def __init__(self, reference: Callable[..., Any]):
        self.name = reference.__name__.lstrip("_")
        parameters = list(inspect.signature(reference).parameters.values())
        arrays = [p for p in parameters if p.annotation in INPUTS and p.kind is not p.KEYWORD_ONLY]
        if not arrays:
            raise TypeError(
                f"op `{self.name}` has no parameter annotated Array, Mask or Ids (as text: "
                "the file needs `from __future__ import annotations`)"
            )
        endless = arrays[-1].kind is inspect.Parameter.VAR_POSITIONAL
        self.count = sys.maxsize if endless else len(arrays)
        self.needed = sum(
            p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in arrays
        )
        self.options = [p.name for p in parameters if p not in arrays]
        self.operands = [p.annotation not in ("Mask", "Ids") for p in arrays]
        self.some_operands = None if all(self.operands) else self.operands
        self.is_of_two = (
            self.count == 2 == self.needed and not self.options and self.some_operands is None
        )

    def is_operand(self, position: int) -> bool:
        return self.operands[min(position, len(self.operands) - 1)]

    def completed(
        self, inputs: tuple[Any, ...], options: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments past the arrays put under the names of the options in order; None for optional
        arrays that were left out.
        """
        if len(inputs) < self.needed or len(inputs) > self.count + len(self.options):
            options_text = f" and the options {', '.join(self.options)}" if self.options else ""
            raise TypeError(
                f"`{self.name}` takes {self.needed} tensors{options_text}; "
                f"got {len(inputs)} arguments"
            )
        if self.count == sys.maxsize:
            return inputs, options
        given = dict(zip(self.options, inputs[self.count :], strict=False))
        return inputs[: self.count] + (None,) * (self.count - len(inputs)), {**given, **options}


def glance(
    inputs: Sequence[Any],
    options: dict[str, Any],
    elementwise: bool,
    ids: list[bool] | None,
    parents: list[Any],
) -> list[Any] | None:
    """The arrays of inputs that are ready as they are: tensors of one dtype, not a 16-bit one, and
    one kind of array. Else None.

    Their nodes are appended to `parents`.
    """
    arrays: list[Any] = []
    first = None
    for x in inputs:
        if isinstance(x, TensorBase):
            array = x._array
            if array is None:
                array = x.array
            # a mask, or indices: of any dtype
            if ids is not None and not ids[min(len(arrays), len(ids) - 1)]:
                if type(array) is not np.ndarray:
                    return None
            elif first is None:
                first = array
                if array.dtype is not float32 and array.dtype in NARROW:
                    return None
            elif array.dtype is not first.dtype or type(array) is not type(first):
                return None
            arrays.append(array)
            parents.append(x.node)
        elif x is None or (elementwise and type(x) in REALS):
            arrays.append(x)
            parents.append(None)
        else:
            return None
    if first is None:
        return None
    if options and (
        "dim" in options
        or "keepdim" in options
        or not all(type(value) in PLAIN for value in options.values())
    ):
        return None
    return arrays


def prepare(
    name: str,
    inputs: Sequence[Any],
    options: dict[str, Any],
    elementwise: bool,
    signature: Signature,
) -> tuple[Any, ...]:
    """Inputs as tensors (None, and scalars of elementwise ops, stay) on one device, operands of one
    dtype; tensor options as arrays.
    """
    if "dim" in options or "keepdim" in options:
        raise TypeError(f"`{name}` names it axis= (and keepdims=), as NumPy does, not dim=")
    device = _one_device(name, inputs)
    if device != "cpu" and name in LOOK_FIRST:
        LOOK_FIRST[name](*inputs, **options)
    tensors = [
        x
        if isinstance(x, TensorBase) or x is None or (elementwise and type(x) in REALS)
        else TensorBase.kind(x, device=device)
        for x in inputs
    ]
    for key, value in options.items():
        if isinstance(value, TensorBase):
            if value.node is not None and MODE.get().recording:
                raise GraphError(
                    f"option {key!r} of `{name}` is a constant, and this tensor carries a graph: "
                    "pass its .detach()"
                )
            # copies: backward may keep them, where later writes would change them
            options[key] = value.array.copy()
        elif isinstance(value, np.ndarray):
            options[key] = move(value.copy(), device)
    if tensors and not any(isinstance(x, TensorBase) for x in tensors):
        tensors[0] = TensorBase.kind(tensors[0])
    operands = [
        i for i, x in enumerate(tensors) if isinstance(x, TensorBase) and signature.is_operand(i)
    ]
    if len({tensors[i].dtype for i in operands}) > 1:
        dtype = promote(*(tensors[i].dtype for i in operands))
        for i in operands:
            tensors[i] = tensors[i].to(dtype)
    return tuple(tensors)


def _one_device(name: str, inputs: Sequence[Any]) -> str:
    devices = list(dict.fromkeys(x.device for x in inputs if isinstance(x, TensorBase)))
    devices += [
        d for d in dict.fromkeys(device_of(x) for x in inputs if is_cuda(x)) if d not in devices
    ]
    if len(devices) > 1:
        raise DeviceError(
            f"`{name}` got tensors on {' and '.join(devices)}: move one with .to('{devices[0]}')"
        )
    return devices[0] if devices else "cpu"


def misfit(inputs: Sequence[Any]) -> ShapeError | None:
    """The error that says on which axis these inputs do not broadcast; None where they do."""
    try:
        broadcast_shape(*(x.shape for x in inputs if isinstance(x, TensorBase)))
    except ShapeError as error:
        return error.with_traceback(None)
    return None
