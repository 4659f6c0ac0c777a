"""The graph: the nodes that ops leave for the backward pass (autograd/backward.py).

A `Node` holds the backward functions of one op and its parents, the nodes of the op's inputs. Nodes
point to nodes, never to tensors: an array lives only as long as the user, or a backward function,
names it. A leaf's node is its `Accumulator`, which holds the `.grad`.
"""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np

from tensor.dtypes import DType
from tensor.errors import GradientError
from tensor.memory.devices import Array
from tensor.memory.layout import Shape
from tensor.memory.storage import Exported, Line, Storage

# The number of the next node. An input is older than its result, so the backward pass counts down.
next_order = itertools.count().__next__
_by_order = attrgetter("order")
Hook: TypeAlias = Callable[[Any], Any]  # takes a gradient; returns another, or None
Hooks: TypeAlias = dict[object, Hook]
# an array that a backward function keeps: its storage, the storage's version then, the array
Saved: TypeAlias = "tuple[Storage | Exported, int, Array]"


# -- nodes


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class Node:
    """One recorded op: where it was called, its parents, and how gradients go back through it.

    backward: one function that returns a gradient for each input, or a tuple with one function for
    each input (None where no gradient is wanted).
    """

    op: str
    parents: tuple[Any, ...]  # Node, Output or Accumulator; None where no gradient is wanted
    backward: Any  # None once freed
    saved: tuple[Saved, ...]
    shape: Shape
    dtype: DType
    called_at: Any  # the user's line, as (code, instruction)
    outputs: int = 1
    hooks: Hooks | None = None
    order: int = field(default_factory=next_order)
    buffer: ClassVar[None] = None  # only the gradient of a leaf has one

    @property
    def line(self) -> Line:
        """Where in the user's code the op was called."""
        return Line(*self.called_at)

    def gradients(
        self,
        *dys: Array | None,
        wanted: Collection[Any] | None = None,
        in_buffers: bool = False,
        sums: dict[Any, tuple[Any, bool]] | None = None,
    ) -> Sequence[Array | None]:
        """A gradient for each input, from those of the outputs; None where none is wanted.

        in_buffers: a function with the keyword `out` may write a leaf's gradient into its buffer.
        sums: node -> its gradient so far. A function with the keyword `plus` takes that of its
        first input out, and returns it with its own gradient added.
        """
        backward, parents = self.backward, self.parents
        if type(backward) is tuple:
            found: list[Array | None] = []
            for function, parent in zip(backward, parents, strict=True):
                if function is None or (wanted is not None and parent not in wanted):
                    found.append(None)
                elif in_buffers and parent.buffer is not None and takes_out(function):
                    out, add = parent.offer(parents)
                    found.append(function(*dys, out=out, add=add))
                else:
                    found.append(function(*dys))
            return found
        given: dict[str, Any] = {}
        if in_buffers and takes_out(backward):
            offers = [
                (None, False) if parent is None or parent.buffer is None else parent.offer(parents)
                for parent in parents
            ]
            given["out"], given["add"] = zip(*offers, strict=True)
        if sums is not None and "plus" in (backward.__kwdefaults__ or ()):
            given["plus"] = sums.pop(parents[0], (None,))[0]
        gradients = backward(*dys, **given)
        if type(gradients) is not tuple or len(gradients) != len(parents):
            raise GradientError(
                f"backward of `{self.op}` must return a tuple of {len(parents)} gradients, "
                f"one for each input; got {gradients!r:.80}"
            )
        return gradients

    def functions(self) -> list[Callable[..., Any]]:
        """The backward functions: one for each input that wants a gradient, or one for all."""
        functions = self.backward if type(self.backward) is tuple else (self.backward,)
        return [function for function in functions if function is not None]

    def writes_buffers(self) -> bool:
        """Whether a backward function may write the gradient of a leaf into its buffer."""
        packed = any(parent is not None and parent.buffer is not None for parent in self.parents)
        return packed and any(map(takes_out, self.functions()))

    def kept(self) -> dict[str, Any]:
        """What is kept for backward: the names that the closures mention, with their values."""
        if hasattr(self.backward, "kept"):  # of a checkpoint
            return self.backward.kept()
        kept: dict[str, Any] = {}
        for function in self.functions():
            kept |= inspect.getclosurevars(function).nonlocals
        return kept

    def give_outputs(self, outs: Sequence[Any]) -> None:
        """Give each of several results its `Output`; None for a result that has no gradient."""
        self.outputs = len(outs)
        for index, out in enumerate(outs):
            if out is not None:
                out.node = Output((self,), index, out.shape, out.dtype)

    def free(self) -> None:
        self.backward, self.saved, self.parents = None, (), ()

    def __repr__(self) -> str:
        return f"Node({self.op}, {self.shape}, {self.dtype}, {self.line})"


@dataclass(slots=True, weakref_slot=True, eq=False, repr=False)
class Output:
    """Output `index` of an op with several results: passes its gradient to the op's node."""

    parents: tuple[Node]
    index: int
    shape: Shape
    dtype: DType
    hooks: Hooks | None = None
    order: int = field(default_factory=next_order)
    buffer: ClassVar[None] = None

    @property
    def op(self) -> str:
        return self.parents[0].op

    def __repr__(self) -> str:
        return f"Output({self.index} of {self.parents[0]!r})"


class Remover(NamedTuple):
    """Takes one hook away, by a call or by its method `remove`."""

    hooks: Hooks
    key: object

    def remove(self) -> None:
        self.hooks.pop(self.key, None)

    def __call__(self) -> None:
        self.remove()


def add_hook(node: Any, hook: Hook) -> Remover:
    """Call `hook` with the node's gradient when it is complete."""
    hooks = node.hooks = node.hooks or {}
    key = object()  # equal to no other: the remover removes this hook only
    hooks[key] = hook
    for other in [k for k, h in hooks.items() if type(h) is Retained]:
        hooks[other] = hooks.pop(other)  # the last: it keeps what the others make of the gradient
    return Remover(hooks, key)


# -- buffers of gradients


def takes_out(function: Callable[..., Any]) -> bool:
    """Whether a backward function can write into a given array: has the keywords `out` and `add`.

    `out` is the buffer of a leaf's gradient, or None; `add` says whether to add to it. A function
    for all inputs takes a tuple of each.
    """
    return "out" in (function.__kwdefaults__ or ())


def overwritable(out: Array | None, add: bool, shape: Shape, dtype: DType) -> Array:
    """Memory to overwrite with a gradient: the buffer, unless it must be added to."""
    return np.empty(shape, dtype) if out is None or add else out


# -- looking at it


def reachable(roots: Iterable[Any], since: int = 0) -> list[Any]:
    """Every node behind the roots that was made at `since` or later, in the order of their making.

    Iterative: 50,000 ops deep must not meet the recursion limit.
    """
    seen = set(roots)
    found = list(seen)
    for node in found:  # which grows meanwhile
        for parent in node.parents:
            if parent is not None and parent not in seen and parent.order >= since:
                seen.add(parent)
                found.append(parent)
    found.sort(key=_by_order)
    return found


def op_of(node: Any) -> Any:
    """The op's node: for one of several results the parent, else the node itself."""
    return node.parents[0] if type(node) is Output else node


class Retained:
    """A hook that keeps the gradient of a result, for `retain_grad()`; further ones are added."""

    gradient: Any = None  # a Tensor

    def __call__(self, dy: Any) -> None:
        self.gradient = dy if self.gradient is None else self.gradient + dy


def retainer(node: Any) -> Retained | None:
    """The hook of `retain_grad()` on a result; None where nobody called that."""
    hooks = () if node is None else (node.hooks or {}).values()
    return next((hook for hook in hooks if type(hook) is Retained), None)


def retained(node: Any) -> Any:
    """The gradient of a result that `retain_grad()` kept. Warns where nobody asked for one."""
    if (hook := retainer(node)) is not None:
        return hook.gradient
    op = op_of(node)
    warnings.warn(
        f"this tensor is a result of `{op.op}` at {op.line}, and backward keeps no .grad of "
        "results: call .retain_grad() before backward",
        stacklevel=3,
    )
    return None


def freed(node: Any) -> bool:
    """Whether backward has been through the node, so that nothing needs its values any more."""
    return op_of(node).backward is None


def describe(node: Any) -> str:
    """`multiply` at model.py:31 `y = x * w`, (2, 3) <- (2, 3), (2, 3)"""
    node = op_of(node)
    shapes = ["constant" if parent is None else str(parent.shape) for parent in node.parents]
    return f"`{node.op}` at {node.line}, {node.shape} <- {', '.join(shapes)}"


def behind(node: Any) -> str:
    """The end of a message: the last ops that led here, the nearest first, each on a line."""
    older = reachable(parent for parent in node.parents if parent is not None)
    lines = [describe(n) for n in reversed(older) if type(n) is Node][:5]
    return "\nbehind it: " + "\n           ".join(lines) if lines else "; behind it: leaves only"
