"""class Tensor: what a tensor can do. Every op whose first argument is a tensor is a method of the
same name.
"""

from __future__ import annotations

import gc
import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy as np

from tensor import graph, interop, ops
from tensor.arguments import is_foreign, is_operand
from tensor.autograd import backward as autograd
from tensor.base import TensorBase
from tensor.dtypes import bfloat16
from tensor.errors import (
    CALLERS,
    ArgumentError,
    DTypeError,
    GraphError,
    MutationError,
    ShapeError,
    brief,
)
from tensor.explain import explain, in_short
from tensor.memory.devices import address, to_host
from tensor.memory.layout import Layout
from tensor.mode import MODE
from tensor.names import Count, TensorNames, absent
from tensor.ops.indexing import fitting, getitem, split_key, write
from tensor.ops.op import operator_of


def _reflected(op: Callable[..., Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """What Python calls for `2.0 - x`: the op with its sides swapped."""
    return lambda self, other: op(other, self)


def _in_place(ufunc: np.ufunc, op: Callable[..., Any]) -> Callable[[Tensor, Any], Tensor]:
    """What Python calls for `x += value` and its like. A constant is written in place. For a
    result, and for a value that carries a graph, the op makes a new tensor, to which Python rebinds
    the name x.
    """

    @brief
    def update(x: Tensor, value: Any) -> Any:
        if is_foreign(value):
            return NotImplemented
        carries = isinstance(value, Tensor) and value.requires_grad and not x.requires_grad
        if MODE.get().recording and (carries or not x.is_leaf):
            return op(x, value)
        value = x.writable(x.layout, value)
        try:
            ufunc(x.array, value, out=x.array, casting="same_kind")
            x.bump()
        except KeyboardInterrupt:  # between the two, perhaps
            x.bump()
            raise
        except (TypeError, ValueError):
            result = op(x.detach(), value)  # raises where the operands do not fit each other
            fitting(result.shape, x.shape, drop_ones=False)
            raise DTypeError(
                f"{result.dtype} cannot be written into {x.dtype} without loss: "
                f"write x = x.{op.__name__}(value)"
            ) from None
        return x

    return update


class Tensor(TensorBase, TensorNames):
    """An n-dimensional array with explicit strides and reverse-mode gradients.

    Tensor(data) copies; Tensor.from_array(array) shares. Python floats become float32, ints int64,
    bools bool; arrays keep their dtype. Raises DTypeError for requires_grad on anything but floats,
    and ShapeError for ragged lists.
    """

    __slots__ = ()
    __hash__ = object.__hash__  # == compares elements, so identity is what dictionaries go by

    @brief
    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add dL/dx into `.grad` of every leaf behind this; `gradient` is dL/dself, needed unless
        this has one element.
        """
        autograd.backward(self, gradient, retain_graph)

    @brief
    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> graph.Remover:
        """Call `hook(gradient)` when this tensor's gradient is complete. The tensor that the hook
        returns replaces the gradient. The hook gets a copy: to change the copy in place changes no
        gradient, so write `return gradient * 0.5`. The result removes the hook:
        `handle = x.register_hook(hook)`, then `handle()` or `handle.remove()`.
        """
        if not callable(hook):
            raise ArgumentError(
                f"register_hook takes a function of the gradient, not a {type(hook).__name__}: "
                "x.register_hook(lambda gradient: gradient * 0.5)"
            )
        if self.node is None:
            raise GraphError("register_hook: this tensor is in no graph, so no gradient will come")
        return graph.add_hook(self.node, hook)

    @brief
    def retain_grad(self) -> None:
        """Keep the gradient of this result in `.grad`, as a leaf does. Raises GraphError for a
        constant.
        """
        if not self.is_leaf and graph.retainer(self.node) is None:
            self.register_hook(graph.Retained())
        elif self.node is None:
            raise GraphError("retain_grad: this tensor is in no graph, so no gradient will come")

    @brief
    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """np.exp(tensor), ndarray * tensor: the op of that name."""
        return interop.call_ufunc(ufunc, method, inputs, kwargs)

    @brief
    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        """np.sum(tensor), np.concatenate([tensor, ...]): the op of that name."""
        return interop.call_function(function, args, kwargs)

    # -- numbers of Python

    def item(self) -> Any:
        """The one value, as a Python number. Raises ShapeError unless there is exactly one."""
        if self.size != 1:
            raise ShapeError(f"item() of a tensor of shape {self.shape}: {self.size} values, not 1")
        value = self.array.item()
        return float(value) if self.dtype == bfloat16 else value

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        array = to_host(self.array)
        return (array.astype(np.float32) if array.dtype == bfloat16 else array).tolist()

    @brief
    def __float__(self) -> float:
        return float(self.item())

    @brief
    def __int__(self) -> int:
        return int(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else str(self)

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"the truth of {self.size} values is ambiguous: use .any() or .all()")
        return bool(self.item())

    @brief
    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    @property
    def size(self) -> Count:
        """The number of elements."""
        return Count(math.prod(self.shape))

    def data_ptr(self) -> int:
        """The address of element [0, ..., 0] in memory."""
        return address(self.array)

    # -- writing

    def writable(self, region: Layout, value: Any = None) -> Any:
        """Check that `region` may be written with `value`, which comes back as an array or scalar.

        Raises MutationError for a result of an op, a leaf outside no_grad(), a value that carries a
        graph, and a region in which one element has two indices.
        """
        if not self.is_leaf and not graph.freed(self.node):
            raise MutationError(
                f"this tensor {self.shape} is part of a live graph ({graph.describe(self.node)}): "
                "write to a .clone(), x = x + ... in full, or use where, stack or concatenate"
            )
        recording = MODE.get().recording
        if self.requires_grad and self.is_leaf and recording:
            raise MutationError(
                f"a leaf {self.shape} with requires_grad=True is written outside no_grad(): "
                "wrap the write in `with no_grad():`"
            )
        if region.self_overlaps:
            raise MutationError(
                f"write to {region.shape} with strides {region.strides}, "
                "where one element has several indices: write to a .clone()"
            )
        if isinstance(value, TensorBase):
            if value.node is not None and recording:
                raise MutationError(
                    "writing a tensor that carries a graph would lose its gradient: "
                    "write its .detach(), or build with where, stack or concatenate"
                )
            value = value.array
        return value

    @brief
    def __setitem__(self, key: Any, value: Any) -> None:
        """x[key] = value, in place. Raises, before a byte changes, IndexError for an index out
        of range, ShapeError for values that do not fit the key, and MutationError where a graph
        forbids the write (see `writable`).
        """
        if not is_operand(value):
            raise ArgumentError(f"a tensor holds numbers: {value!r} cannot be written into it")
        basic, key = split_key(key)
        region = self.layout.index(key) if basic else self.layout
        if (
            basic
            and isinstance(value, Tensor)
            and not MODE.get().recording
            and (value.storage, value.layout) == (self.storage, region)
        ):
            return  # x[key] += 1 has written into the view x[key], and now assigns that
        value = self.writable(region, value)
        try:
            write(self.array, key, value)
            self.bump(region)
        except KeyboardInterrupt:  # between the two, perhaps: a write must be counted
            self.bump(region)
            raise

    # -- showing itself
    def __repr__(self) -> str:
        return in_short(self)

    def explain(self) -> str:
        """Storage, layout as a diagram, who shares the storage, and whether it is contiguous and
        why; returned, and readable by print().
        """
        return explain(
            self,
            [t for t in gc.get_referrers(self.storage) if isinstance(t, Tensor) and t is not self],
        )

    # -- operations: every op whose first argument is a tensor is a method of the same name
    add = ops.add
    subtract = ops.subtract
    multiply = ops.multiply
    divide = ops.divide
    negative = ops.negative
    power = ops.power
    exp = ops.exp
    log = ops.log
    sqrt = ops.sqrt
    abs = ops.abs
    sin = ops.sin
    cos = ops.cos
    tanh = ops.tanh
    erf = ops.erf
    sigmoid = ops.sigmoid
    relu = ops.relu
    gelu = ops.gelu
    silu = ops.silu
    step = ops.step
    maximum = ops.maximum
    minimum = ops.minimum
    clip = ops.clip
    masked_fill = ops.masked_fill
    sum = ops.sum
    mean = ops.mean
    var = ops.var
    std = ops.std
    cumsum = ops.cumsum
    max = ops.max
    min = ops.min
    argmax = ops.argmax
    argmin = ops.argmin
    logsumexp = ops.logsumexp
    any = ops.any
    all = ops.all
    softmax = ops.softmax
    log_softmax = ops.log_softmax
    layer_norm = ops.layer_norm
    matmul = ops.matmul
    gather = ops.gather
    pad = ops.pad
    one_hot = ops.one_hot
    view = ops.view
    reshape = ops.reshape
    flatten = ops.flatten
    contiguous = ops.contiguous
    transpose = ops.transpose
    permute = ops.permute
    expand = ops.expand
    squeeze = ops.squeeze
    unsqueeze = ops.unsqueeze
    split = ops.split
    chunk = ops.chunk
    to = ops.to
    clone = ops.clone
    __add__ = operator_of(ops.add)
    __sub__ = operator_of(ops.subtract)
    __mul__ = operator_of(ops.multiply)
    __truediv__ = operator_of(ops.divide)
    __pow__ = operator_of(ops.power)
    __matmul__ = operator_of(ops.matmul, elementwise=False)
    __and__ = operator_of(ops.bitwise_and)
    __or__ = operator_of(ops.bitwise_or)
    __xor__ = operator_of(ops.bitwise_xor)
    __neg__ = negative
    __pos__ = ops.clone
    __abs__ = abs
    __invert__ = ops.invert
    __getitem__ = getitem
    __eq__ = operator_of(ops.equal)
    __ne__ = operator_of(ops.not_equal)
    __lt__ = operator_of(ops.less)
    __le__ = operator_of(ops.less_equal)
    __gt__ = operator_of(ops.greater)
    __ge__ = operator_of(ops.greater_equal)
    __radd__ = __add__
    __rmul__ = __mul__
    __rand__ = __and__
    __ror__ = __or__
    __rxor__ = __xor__
    __rsub__ = _reflected(__sub__)
    __rtruediv__ = _reflected(__truediv__)
    __rpow__ = _reflected(__pow__)
    __rmatmul__ = _reflected(__matmul__)
    __iadd__ = _in_place(np.add, __add__)
    __isub__ = _in_place(np.subtract, __sub__)
    __imul__ = _in_place(np.multiply, __mul__)
    __itruediv__ = _in_place(np.divide, __truediv__)
    __ipow__ = _in_place(np.power, __pow__)
    __imatmul__ = _in_place(np.matmul, __matmul__)
    __iand__ = _in_place(np.bitwise_and, __and__)
    __ior__ = _in_place(np.bitwise_or, __or__)
    __ixor__ = _in_place(np.bitwise_xor, __xor__)

    __floordiv__ = __rfloordiv__ = absent("//", "x.numpy() // 2")
    __mod__ = __rmod__ = absent("%", "x.numpy() % 2")
    __divmod__ = __rdivmod__ = absent("divmod", "divmod(x.numpy(), 2)")
    __lshift__ = __rlshift__ = absent("<<", "x.numpy() << 1")
    __rshift__ = __rrshift__ = absent(">>", "x.numpy() >> 1")
    __round__ = absent("round", "x.numpy().round(2)")

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        return self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped: each matrix of a batch transposed."""
        return self.transpose(-2, -1)


TensorBase.kind = Tensor
CALLERS.add(autograd._run_hooks.__code__)


class _Callable(ModuleType):
    """This module. PyTorch makes tensors by torch.tensor(...), and that name is a module here."""

    def __call__(self, data: Any, **options: Any) -> Tensor:
        return Tensor(data, **options)


sys.modules[__name__].__class__ = _Callable
