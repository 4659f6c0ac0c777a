"""What is in a recording: an entry for each op that ran, forward and backward, and the arrays that
it met.
"""

from __future__ import annotations

import functools
import inspect
from dataclasses import dataclass, field
from types import CodeType
from typing import Any, TypeAlias

import numpy as np

from tensor.memory.layout import Layout, Shape
from tensor.memory.storage import Line
from tensor.mode import Switch
from tensor.ops.op import FUSED, OPS
from tensor.recording.replay import Moment, replay
from tensor.tensor import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """An array as an op met it."""

    name: str  # of the op's parameter; of an output "y"
    source: str  # what made it: the name of a forward entry or of a parameter; "constant"
    shape: Shape
    strides: Shape  # in elements
    offset: int
    contiguous: bool
    dtype: str
    device: str
    bytes: int
    array: Any = field(repr=False)  # a NumPy copy; None where values are not recorded

    @property
    def layout(self) -> Layout:
        return Layout(self.shape, self.strides, self.offset)


def value_of(x: Tensor, name: str, source: str, array: Any) -> Value:
    """The facts of a tensor, and a copy of its array."""
    return Value(
        name=name,
        source=source,
        shape=x.shape,
        strides=x.strides,
        offset=x.offset,
        contiguous=x.is_contiguous(),
        dtype=x.dtype.name,
        device=x.device,
        bytes=x.size * x.dtype.itemsize,
        array=array,
    )


@dataclass(frozen=True, slots=True)
class Saved:
    """An array that an op keeps for its backward."""

    name: str  # in the op's source
    source: str  # as of a Value; "" for one that the op made for itself
    shape: Shape
    dtype: str
    bytes: int
    made: bool  # by an op: it lives because backward needs it; a parameter or constant lives anyway
    address: int  # two ops that keep one array hold its memory once


@dataclass(frozen=True, slots=True, eq=False)
class Forward:
    """An op that ran."""

    number: int  # its position in the recording
    name: str  # module.op, with #2 for the second such op of that module
    module: str  # the path of the module that called it, "" outside all modules
    op: str
    within: tuple[str, ...]  # the fused ops of whose composition it is a part, the outermost first
    implementation: str  # "reference", "view", "kernel NAME" or "fused kernel NAME"
    reason: str
    line: Line
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    options: dict[str, Any]
    saved: tuple[Saved, ...]
    start: float  # seconds since the recording began
    seconds: float
    arguments: tuple[Any, ...] = field(repr=False)  # what the op's function takes, to run it again

    @property
    def saved_bytes(self) -> int:
        """What is kept for backward, without what lives anyway: parameters and constants."""
        return sum(kept.bytes for kept in self.saved if kept.made)

    @property
    def formula(self) -> str:
        """The op in mathematics: the first paragraph of its docstring."""
        return formula_of(self.op)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments that are no arrays, by name."""
        signature = inspect.signature(_reference(self.op))
        given = signature.bind_partial(*self.arguments, **self.options).arguments
        # shown elsewhere, or no choice of who calls
        inputs = len(self.arguments) if self.implementation != "view" else 1
        shown = {"itemsize", *list(signature.parameters)[:inputs]}
        return {name: value for name, value in given.items() if name not in shown}

    def lines(self) -> list[Moment]:
        """The op's own source, run once more line by line; of an op that a kernel did, its
        reference: that says what the kernel does.
        """
        return self.rerun()[1]

    def rerun(self) -> tuple[Any, list[Moment]]:
        """What the op's reference returns, result and backward, and the moments on the way.
        ValueError where no values were recorded.
        """
        if any(argument is UNKNOWN for argument in self.arguments):
            raise ValueError(
                f"{self.name} was recorded without values: "
                "record(values=True) keeps what it takes to run it again"
            )
        function = _reference(self.op)
        if function.__code__ not in FUSED:
            return replay(function, self.arguments, self.options)
        with Switch(recording=False, tape=None):  # a composition takes tensors
            tensors = [Tensor(a) if isinstance(a, np.ndarray) else a for a in self.arguments]
            result, moments = replay(function, tensors, self.options)
        return (result, None), moments


@dataclass(frozen=True, slots=True, eq=False)
class Contribution:
    """A gradient that a backward passes to one of its op's inputs."""

    input: str  # the name of the op's parameter
    to: str  # the parameter or forward entry that it belongs to
    number: int  # it is the number-th
    count: int  # of so many that arrive there in this backward pass
    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class Backward:
    """The backward of an op."""

    number: int
    name: str
    module: str
    op: str
    # None: of an op that ran outside this recording, or of the expand that broadcasting adds
    of: Forward | None
    upstream: tuple[Value | None, ...]  # dL/dy for each output
    contributions: tuple[Contribution, ...]
    start: float
    seconds: float

    @property
    def formula(self) -> str:
        """The op in mathematics, as of its Forward."""
        return formula_of(self.op) if self.op in OPS else ""

    def lines(self) -> list[Moment]:
        """The source of the op's backward, run once more on the recorded arrays; none where the op
        ran outside this recording, or is a fused one.
        """
        functions = self.of and self.of.rerun()[0][1]
        if not functions:
            return []
        dys = tuple(None if value is None else value.array for value in self.upstream)
        if not isinstance(functions, tuple):
            return replay(functions, dys, {})[1]
        wanted = {contribution.input for contribution in self.contributions}
        moments = []
        names = parameters_of(self.op, len(functions))
        for name, function in zip(names, functions, strict=True):
            if function and name in wanted:
                moments += replay(function, dys, {})[1]
        return moments


@dataclass(frozen=True, slots=True)
class Work:
    """What takes time and is no op: the optimiser's step, clipping."""

    number: int
    name: str
    start: float
    seconds: float


Entry: TypeAlias = Forward | Backward | Work


class Recorded:
    """What a recording holds, for those who read it: the entries in the order they ran."""

    def __init__(self, values: bool = True):
        self.values = values  # whether arrays were kept
        self.entries: list[Entry] = []
        self.leaves_by_order: dict[int, str] = {}  # the order of a leaf's node -> its name

    @property
    def leaves(self) -> set[str]:
        """The names of the leaves that were used: parameters, and tensors made with
        requires_grad=True.
        """
        return set(self.leaves_by_order.values())

    @property
    def forwards(self) -> list[Forward]:
        """The ops alone, without their backward."""
        return [entry for entry in self.entries if isinstance(entry, Forward)]

    @property
    def backwards(self) -> list[Backward]:
        """The backward of ops alone."""
        return [entry for entry in self.entries if isinstance(entry, Backward)]


UNKNOWN = object()  # stands for an array that was not recorded


# -- what ops are called and how they read


def _reference(op: str) -> Any:
    return OPS[op].reference  # type: ignore[attr-defined]


def formula_of(op: str) -> str:
    """The first paragraph of an op's docstring."""
    return (inspect.getdoc(_reference(op)) or "").split("\n\n")[0]


@functools.cache
def _signature(function: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(function).parameters.values())


def parameters_of(op: str, count: int) -> list[str]:
    """The names of an op's first `count` inputs: x, weight, bias; of concatenate arrays[0],
    arrays[1], ...
    """
    parameters = _signature(_reference(op))
    if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return [f"{parameters[0].name}[{i}]" for i in range(count)]
    return [parameter.name for parameter in parameters[:count]]


def codes_of(op: str) -> list[CodeType]:
    """The code of an op's function, and of the functions written inside it."""
    if op not in OPS:
        return []
    code = _reference(op).__code__
    return [code, *(inner for inner in code.co_consts if isinstance(inner, CodeType))]
