"""The entries of a recording: one for each op that ran, forward and backward, with its arrays."""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from operator import attrgetter
from types import CodeType, FunctionType
from typing import Any, TypeAlias

import numpy as np

from tensor.memory.layout import Shape
from tensor.memory.storage import Line
from tensor.mode import Switch
from tensor.ops.op import FUSED, OPS
from tensor.recording.replay import Moment, replay
from tensor.tensor import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """An input or an output of an op, as it was when the op ran."""

    name: str  # of the op's parameter; of an output "y"
    source: str  # what made the array: the name of an op or of a parameter; "constant"
    shape: Shape
    strides: Shape  # in elements
    offset: int
    contiguous: bool
    dtype: str
    device: str
    bytes: int
    array: Any = field(repr=False)  # a NumPy copy; None where values are not recorded


def value_of(x: Tensor, name: str, source: str, array: Any) -> Value:
    """The Value of a tensor; `array` is the copy of its elements."""
    layout = x.shape, x.strides, x.offset, x.is_contiguous()
    size = x.size * x.dtype.itemsize
    return Value(name, source, *layout, x.dtype.name, x.device, size, array)


@dataclass(frozen=True, slots=True)
class Saved:
    """An array that an op keeps for backward."""

    name: str  # of the variable in the op's source
    source: str  # as of a Value; "" for an array that the op made for itself
    shape: Shape
    dtype: str
    bytes: int
    made: bool  # by an op, so kept for backward alone; a parameter or a constant lives anyway
    address: int  # two ops that keep one array have one address: its memory is counted once


def _formula(entry: Any) -> str:
    """The formula of the op: the first paragraph of its docstring."""
    text = inspect.getdoc(_reference(entry.op)) if entry.op in OPS else None
    return (text or "").split("\n\n")[0]


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """An op that ran."""

    number: int  # its position in the recording
    name: str  # module.op, with #2 for the second such op of that module
    module: str  # the path of the module that called it, "" outside all modules
    op: str
    within: tuple[str, ...]  # the fused ops that called the op, the outermost first
    implementation: str  # "reference", "view", "kernel NAME" or "fused kernel NAME"
    reason: str
    line: Line
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    options: dict[str, Any]
    saved: tuple[Saved, ...]
    start: float  # seconds since the recording began
    seconds: float
    arguments: tuple[Any, ...] = field(repr=False)  # of the op's function, to run it again

    formula = property(_formula)

    @property
    def saved_bytes(self) -> int:
        """The bytes that are kept for backward alone: no parameters, no constants."""
        return sum(kept.bytes for kept in self.saved if kept.made)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that are no arrays, by name."""
        signature = inspect.signature(_reference(self.op))
        given = signature.bind_partial(*self.arguments, **self.options).arguments
        arrays = 1 if self.implementation == "view" else len(self.arguments)
        hidden = {"itemsize", *list(signature.parameters)[:arrays]}  # the engine sets itemsize
        return {name: value for name, value in given.items() if name not in hidden}

    def lines(self) -> list[Moment]:
        """The moments of the op's source, which runs again line by line. Where a kernel ran, the
        source is that of the reference: the reference says what the kernel computes.
        """
        return self.rerun()[1]

    def rerun(self) -> tuple[Any, list[Moment]]:
        """((result, backward) of the op's reference, the moments). Raises ValueError where no
        values were recorded.
        """
        if any(argument is UNKNOWN for argument in self.arguments):
            raise ValueError(
                f"{self.name} was recorded without values: "
                "record(values=True) keeps what it takes to run it again"
            )
        function = _reference(self.op)
        if function.__code__ not in FUSED:
            return replay(function, self.arguments, self.options)
        with Switch(recording=False, tape=None):  # the source of a fused op works on tensors
            tensors = [Tensor(a) if isinstance(a, np.ndarray) else a for a in self.arguments]
            result, moments = replay(function, tensors, self.options)
        return (result, None), moments


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """A gradient that the backward of an op passes to one of the op's inputs."""

    input: str  # the name of the op's parameter
    to: str  # the parameter or the op that the gradient belongs to
    number: int  # 2: the second gradient that arrives there in this backward pass
    count: int  # the number of all that arrive there
    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """The backward of an op."""

    number: int
    name: str
    module: str
    op: str
    # None for an op outside this recording, and for another node of an op than the last
    of: Forward | None = field(repr=False)
    upstream: tuple[Value | None, ...]  # dL/dy for each output
    to: tuple[str, ...]  # what each of them belongs to
    contributions: tuple[Contribution, ...]
    start: float
    seconds: float

    formula = property(_formula)

    def lines(self) -> list[Moment]:
        """The moments of the op's backward functions, which run again on the recorded arrays. None
        where the op ran outside this recording, or is a fused op.
        """
        functions = self.of and self.of.rerun()[0][1]
        dys = tuple(None if value is None else value.array for value in self.upstream)
        if not isinstance(functions, tuple):
            return replay(functions, dys, {})[1] if functions else []
        moments = []
        names = inputs_of(self.op, len(functions))
        wanted = {contribution.input for contribution in self.contributions}
        for name, function in zip(names, functions, strict=True):
            if function and name in wanted:
                moments += replay(function, dys, {})[1]
        return moments


@dataclass(frozen=True, slots=True)
class Work:
    """A function that is no op and takes time: the optimiser's step, clipping."""

    number: int
    name: str
    start: float
    seconds: float

    module = op = property(attrgetter("name"))  # in a table of modules, or of ops


Entry: TypeAlias = Forward | Backward | Work


class Recorded:
    """The entries of a recording, in the order in which they ran."""

    def __init__(self, values: bool = True):
        self.values = values  # whether arrays were kept
        self.entries: list[Entry] = []
        self.leaves_by_order: dict[int, str] = {}  # the order of a leaf's node -> its name

    @property
    def leaves(self) -> set[str]:
        """The names of the leaves: parameters, and tensors made with requires_grad=True."""
        return set(self.leaves_by_order.values())

    @property
    def forwards(self) -> list[Forward]:
        """The ops alone."""
        return [entry for entry in self.entries if isinstance(entry, Forward)]

    @property
    def backwards(self) -> list[Backward]:
        """The backwards of the ops alone."""
        return [entry for entry in self.entries if isinstance(entry, Backward)]

    def check_values(self) -> None:
        """Raise ValueError where the arrays were not kept."""
        if not self.values:
            raise ValueError("this recording holds no arrays: record(values=True) keeps them")


UNKNOWN = object()  # stands for an array that was not recorded


# -- the source of ops


def _reference(op: str) -> Any:
    return OPS[op].reference  # type: ignore[attr-defined]


@functools.cache
def _positional(function: Any) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [parameter for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]


def input_of(op: str, position: int) -> tuple[str, bool]:
    """(the op's name for an input, whether the op needs the input). The inputs of concatenate are
    arrays[0], arrays[1], ...
    """
    if op not in OPS:
        return f"input {position}", True
    parameters = _positional(_reference(op))
    index = min(position, len(parameters) - 1)
    parameter = parameters[index]
    if parameter.kind is parameter.VAR_POSITIONAL:
        return f"{parameter.name}[{position - index}]", True
    return parameter.name, parameter.default is parameter.empty


def inputs_of(op: str, count: int) -> list[str]:
    """The names of an op's first `count` inputs: x, weight, bias."""
    return [input_of(op, position)[0] for position in range(count)]


def codes_of(op: str) -> list[CodeType]:
    """The code of an op's function, and of the functions written inside it, or inside a function of
    the same file that it calls (attention's backward is one).
    """
    if op not in OPS:
        return []
    function = inspect.unwrap(_reference(op))
    used = [function, *map(function.__globals__.get, function.__code__.co_names)]
    functions = [f for f in used if isinstance(f, FunctionType)]
    outer = [f.__code__ for f in functions if f.__module__ == function.__module__]
    inner = [code for o in outer for code in o.co_consts if isinstance(code, CodeType)]
    return [outer[0], *inner]
