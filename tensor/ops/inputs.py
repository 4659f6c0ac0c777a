"""The inputs of an op: which arguments are inputs, which are options, and how inputs are made
ready.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from inspect import Parameter
from types import NoneType
from typing import Any, TypeAlias

import numpy as np
from numpy.exceptions import AxisError

from tensor.arguments import is_operand, kind_of, signature_of
from tensor.base import TensorBase
from tensor.dtypes import FLOATS, KNOWN, float32, float64, promote
from tensor.errors import (
    ArgumentError,
    DeviceError,
    DTypeError,
    GraphError,
    RangeError,
    ShapeError,
    refused,
)
from tensor.kernels import KERNELS
from tensor.memory.devices import device_of, is_cuda, move
from tensor.memory.layout import broadcast_shape
from tensor.mode import MODE
from tensor.names import Count
from tensor.random import Key

# Annotations of parameters that are inputs.
INPUTS = frozenset(
    ("Array", "Array | None", "Mask", "Mask | None", "Ids", "TensorBase", "TensorBase | None")
)
OF_ANY_DTYPE = frozenset(("Mask", "Mask | None", "Ids"))  # inputs that are no operands
REALS = frozenset((bool, int, float, Count))  # Python's numbers
# classes of options that are no arrays; each dtype has its own
PLAIN = frozenset((int, float, bool, str, tuple, Key, type(None), *map(type, KNOWN)))
Options: TypeAlias = dict[str, Any]
BY_FLOAT32 = "each op of the composition goes by float32"
# op -> check(device, *inputs, **options) of inputs as they are given, before any is converted or
# moved to the device
LOOK_FIRST: dict[str, Callable[..., None]] = {}


class Signature:
    """What the parameters of a reference say. Inputs are annotated Array, Mask or Ids and come
    first; all others are options.

    elementwise: a Python number may stand for an operand.   exact: values only move, so that any
    dtype is ready.
    """

    def __init__(
        self, reference: Callable[..., Any], elementwise: bool = False, exact: bool = False
    ):
        self.name = reference.__name__.lstrip("_")
        self.elementwise, self.exact = elementwise, exact
        self.kernels = KERNELS.setdefault(self.name, [])
        self.signature = signature_of(reference)
        parameters = list(self.signature.parameters.values())
        arrays = [p for p in parameters if kind_of(p) in INPUTS and p.kind is not p.KEYWORD_ONLY]
        if not arrays:
            raise TypeError(f"op `{self.name}` has no parameter annotated Array, Mask or Ids")
        endless = arrays[-1].kind is Parameter.VAR_POSITIONAL
        self.count = sys.maxsize if endless else len(arrays)
        required = [p for p in arrays if p.default is p.empty]
        self.needed = len(required) - endless
        self.names = tuple(p.name for p in arrays)
        self.options = [p.name for p in parameters if p not in arrays]
        # positions of inputs that are no operands
        self.others: Any = [i for i, p in enumerate(arrays) if kind_of(p) in OF_ANY_DTYPE]
        if endless and self.others:
            self.others = range(self.others[0], self.count)
        self.is_of_two = self.count == 2 == self.needed and not self.options and not self.others

    def completed(self, inputs: tuple[Any, ...], options: Options) -> tuple[Any, Options]:
        """The same call with inputs by position, options by name, and None for optional inputs
        that were left out. Raises TypeError for a call that does not fit the signature.
        """
        if self.count == sys.maxsize:
            return inputs, options
        excess = len(inputs) > self.count + len(self.options)
        if len(inputs) < self.needed or excess or not options.keys().isdisjoint(self.names):
            options = dict(self.signature.bind(*inputs, **options).arguments)
            inputs = tuple(options.pop(name, None) for name in self.names)
        given = dict(zip(self.options, inputs[self.count :], strict=False))
        return inputs[: self.count] + (None,) * (self.count - len(inputs)), {**given, **options}

    def glance(
        self, inputs: Sequence[Any], options: Options, parents: list[Any]
    ) -> list[Any] | str:
        """The arrays of ready inputs: tensors of one dtype, all on the CPU or all on a GPU. 16-bit
        floats, ids and masks are ready on a GPU alone, and where the op has a kernel for the GPU;
        any dtype is where values only move. Else why the inputs are not ready.

        The nodes of the inputs are appended to `parents`.
        """
        arrays: list[Any] = []
        first, dtype, others, away = None, None, self.others, False
        for x in inputs:
            if isinstance(x, TensorBase):
                array = x._array
                if array is None:
                    array = x.array
                if others and len(arrays) in others:  # of any dtype
                    if type(array) is not np.ndarray:
                        away = True
                        if not self.runs_on_gpu():
                            return "ids or a mask on a GPU"
                elif first is None:
                    first, dtype = array, array.dtype
                    if dtype is not float32 and dtype is not float64 and not self.exact:
                        if dtype not in FLOATS:
                            return "an input holds no floats"  # a dtype's name takes 5 us
                        if type(array) is np.ndarray or not self.runs_on_gpu():
                            return f"dtype {dtype}: {BY_FLOAT32}"
                elif array.dtype is not dtype or type(array) is not type(first):
                    return "inputs of several dtypes or devices"
                arrays.append(array)
                parents.append(x.node)
            elif x is None or (self.elementwise and type(x) in REALS):
                arrays.append(x)
                parents.append(None)
            else:
                return f"an input is a {type(x).__name__}"
        if first is None:
            return "no input is a tensor"
        if others and (away or type(first) is not np.ndarray) and _apart(arrays, first):
            return "inputs of several devices"
        for name, value in options.items() if options else ():
            if name not in self.options:
                return f"{name} is no option"
            if type(value) not in PLAIN:
                return f"option {name} is a {type(value).__name__}"
        return arrays

    def runs_on_gpu(self) -> bool:
        """Whether the op has a kernel for the GPU."""
        return "cuda" in [kernel.device for kernel in self.kernels]

    def prepare(self, inputs: Sequence[Any], options: Options) -> tuple[Any, ...]:
        """Inputs as tensors on one device, operands of one dtype, tensor options as arrays. None
        stays, and so do the scalars of elementwise ops.
        """
        name = self.name
        if not options.keys() <= set(self.options):
            self.signature.bind(*inputs, **options)  # raises: a kernel might overlook the name
        device = one_device(name, inputs)
        if name in LOOK_FIRST:
            LOOK_FIRST[name](device, *inputs, **options)
        operands = as_operands(self.operands(inputs), device, self.elementwise)
        others = [_as_tensor(x, device) for i, x in enumerate(inputs) if i in self.others]
        tensors = [(others if i in self.others else operands).pop(0) for i in range(len(inputs))]
        for key, value in options.items():
            if isinstance(value, TensorBase):
                mode = MODE.get()
                if mode.reads is not None:  # a checkpoint reads it again
                    mode.reads(value)
                if value.node is not None and mode.recording:
                    raise GraphError(
                        f"option {key!r} of `{name}` is a constant, and this tensor carries a "
                        "graph: pass its .detach()"
                    )
                # copies: backward may keep them, where later writes would change them
                options[key] = value.array.copy()
            elif isinstance(value, np.ndarray):
                options[key] = move(value.copy(), device)
        if tensors and not any(isinstance(x, TensorBase) for x in tensors):
            tensors[0] = TensorBase.kind(tensors[0])
        return tuple(tensors)

    def plain(self, inputs: Sequence[Any], options: Options) -> tuple[tuple[Any, ...], Options]:
        """The same call with ids and masks as tensors, and scalars of NumPy as Python's numbers."""
        device = one_device(self.name, inputs)
        if self.name in LOOK_FIRST:
            LOOK_FIRST[self.name](device, *inputs, **options)
        tensors = [_as_tensor(x, device) if i in self.others else x for i, x in enumerate(inputs)]
        numbers = {k: x.item() if isinstance(x, np.generic) else x for k, x in options.items()}
        return tuple(tensors), numbers

    def operands(self, inputs: Sequence[Any]) -> list[Any]:
        """The inputs that are no masks and no ids."""
        return [x for i, x in enumerate(inputs) if i not in self.others]


def _as_tensor(x: Any, device: str) -> Any:
    """x as a tensor, one that is new on that device; None stays."""
    return x if isinstance(x, TensorBase) or x is None else TensorBase.kind(x, device=device)


def _apart(arrays: Sequence[Any], first: Any) -> bool:
    """Whether some of the arrays, or Nones, are on another device than the first."""
    return any(type(x) not in (type(first), NoneType) for x in arrays)


def as_operands(
    inputs: Sequence[Any], device: str | None = None, numbers: bool = False
) -> list[Any]:
    """The inputs as tensors of one dtype; None stays, and so do numbers if they may.

    Tensors promote each other. What is no tensor is weak: it takes the float dtype of the tensors,
    and beside integer tensors its floats become float32.
    """
    met = {x.dtype for x in inputs if isinstance(x, TensorBase)}
    floats = promote(*met) if FLOATS & met else float32
    tensors: list[Any] = []
    for x in inputs:
        if isinstance(x, TensorBase) or x is None or (numbers and type(x) in REALS):
            tensors.append(x)
        elif not is_operand(x):
            raise ArgumentError(f"a tensor, an array, a list or a number is needed, not {x!r}")
        else:
            dtype = floats if FLOATS & met else None
            tensors.append(TensorBase.kind(x, dtype=dtype, device=device))
    dtypes = {x.dtype for x in tensors if isinstance(x, TensorBase)}
    if len(dtypes) > 1:
        dtype = floats if met and FLOATS & dtypes else promote(*dtypes)
        tensors = [x.to(dtype) if isinstance(x, TensorBase.kind) else x for x in tensors]
    return tensors


def one_device(name: str, inputs: Sequence[Any]) -> str:
    """The device of the tensors among the inputs. Raises DeviceError for several."""
    arrays = [x for x in inputs if isinstance(x, TensorBase) or is_cuda(x)]
    devices = list(
        dict.fromkeys(x.device if isinstance(x, TensorBase) else device_of(x) for x in arrays)
    )
    if len(devices) > 1:
        raise DeviceError(
            f"`{name}` got tensors on {' and '.join(devices)}: move one with .to('{devices[0]}')"
        )
    return devices[0] if devices else "cpu"


def refusal(
    error: Exception,
    reference: Callable[..., Any],
    inputs: Sequence[Any],
    options: Options,
    elementwise: bool = False,
) -> Any:
    """What to tell the user about an error in a call of an op: a mistake in the call. None where
    there is none, so that the fault is in the op.
    """
    name = reference.__name__.lstrip("_")
    if isinstance(error, AxisError):
        return ShapeError(f"`{name}`: {error}")
    if type(error) is OverflowError and "out of bounds" in str(error):
        return RangeError(f"`{name}`: {error}. Use x.to('int64') first")
    told = refused(error, reference, inputs, options)
    if told is None and isinstance(error, (TypeError, ValueError)):
        told = (_misfit(inputs) if elementwise else None) or _undefined(error, name, inputs)
    return told


def _misfit(inputs: Sequence[Any]) -> ShapeError | None:
    """The error that says on which axis these inputs do not broadcast; None where they do."""
    try:
        broadcast_shape(*(x.shape for x in inputs if isinstance(x, TensorBase)))
    except ShapeError as error:
        return error.with_traceback(None)
    return None


def _undefined(error: Exception, name: str, inputs: Sequence[Any]) -> DTypeError | None:
    """The error of an op that NumPy or CuPy does not define for these dtypes; None if `error` is
    another one.
    """
    if not any(word in str(error) for word in ("ufunc", " boolean", "Wrong type")):
        return None
    dtypes = {x.dtype for x in inputs if hasattr(x, "dtype")}
    fix = "compare first, as in (x > 0) & (y > 0)" if FLOATS & dtypes else "use .to('int64')"
    names = " and ".join(sorted(map(str, dtypes)))
    return DTypeError(f"`{name}` is not defined for {names}: {fix}")
