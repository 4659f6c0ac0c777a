"""class Tensor: flat storage + layout + a place in the graph.

    storage   1-D memory, shared by every view of it
    layout    shape, strides, offset: where in that memory each element lives
    node      what made this tensor (graph.py); None for a constant

A result of an op *holds its array*; its Storage and Layout are made when first asked for, because most never are. A view is the
other way round: it holds storage and layout, and its array, a window on the storage, is built when first computed with.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tensor import autograd, devices, graph, interop, ops
from tensor.devices import Array, to_host
from tensor.dtypes import FLOATS, DType, DTypeLike, as_dtype, bfloat16
from tensor.errors import DTypeError, GraphError, MutationError, ShapeError
from tensor.graph import Accumulator
from tensor.layout import Layout, Shape
from tensor.mode import MODE
from tensor.storage import Storage, user_line


def _reflected(op: Callable[..., Tensor]) -> Callable[[Tensor, Any], Tensor]:
    """What Python calls for `2.0 - x`: the op with its sides swapped."""
    return lambda self, other: op(other, self)


def _in_place(ufunc: np.ufunc) -> Callable[[Tensor, Any], Tensor]:
    """What Python calls for `x += value`: the ufunc, into x's own memory."""
    return lambda self, value: self._update(ufunc, value)


class Tensor:
    """An n-dimensional array with explicit strides and reverse-mode gradients.

    Tensor(data) copies; Tensor.from_array(array) shares. Python floats become float32, ints int64, bools bool; arrays keep their dtype.
    Raises DTypeError for requires_grad on anything but floats, and ShapeError for ragged lists.
    """

    __slots__ = ("__weakref__", "_array", "_layout", "_storage", "node")
    __array_priority__ = 1000  # CuPy asks this before it tries to multiply itself with us

    def __init__(self, data: Any, *, dtype: DTypeLike | None = None, device: str | None = None, requires_grad: bool = False):
        if isinstance(data, Tensor):
            if not data.is_leaf and MODE.get().recording:
                raise GraphError(f"Tensor(...) of a result ({graph.describe(data.node)}) would drop its graph: use .clone() to keep it, .detach() not to")
            data = data.array
        if not hasattr(data, "dtype") or not hasattr(data, "strides"):
            data = interop.from_python(data)
        array = devices.move(data, device) if device else data
        wanted = array.dtype if dtype is None else dtype
        self._array: Array = devices.as_array(array.astype(as_dtype(wanted), copy=array is data))
        self._storage: Storage | None = None
        self._layout: Layout | None = None
        self.node: Any = None
        if requires_grad:
            self.requires_grad = True

    @classmethod
    def from_array(cls, array: Array, requires_grad: bool = False) -> Tensor:
        """A tensor on the very memory of an array. Writes to that array go unseen by the graph: write through the tensor."""
        self = cls.__new__(cls)
        self._array = array if type(array) is np.ndarray else devices.as_array(array)
        self._storage = self._layout = self.node = None
        if requires_grad:
            self.requires_grad = True
        return self

    @classmethod
    def wrap(cls, value: Any) -> Tensor:
        """A tensor as it is; anything else as a constant (a copy, so that later changes to it go unnoticed by no graph)."""
        return value if isinstance(value, Tensor) else cls(value)

    @classmethod
    def over(cls, storage: Storage, layout: Layout) -> Tensor:
        """A tensor on a storage that exists: a view."""
        self = cls.__new__(cls)
        self._array = self.node = None
        self._storage, self._layout = storage, layout
        return self

    # -- memory ---------------------------------------------------------------------------------------------------

    @property
    def array(self) -> Array:
        """The ndarray window on the storage: what ops compute through. Writing to it goes unseen by the graph."""
        if self._array is None:
            self._array = devices.window(self.storage.flat, self.layout)
        return self._array

    @property
    def storage(self) -> Storage:
        """The flat memory, with its version."""
        if self._storage is None:
            with _making_storage:  # two threads that save one leaf must meet in one storage: writes are counted there
                self._storage = self._storage or Storage(self._array)
        return self._storage

    @property
    def layout(self) -> Layout:
        """Shape, strides and offset in the storage."""
        if self._layout is None:
            self._layout = devices.flatten(self._array)[1]
        return self._layout

    def relocate(self, storage: Storage, layout: Layout) -> None:
        """Become a view of another storage, keeping identity, node and gradient: what `pack` does to parameters."""
        self._storage, self._layout, self._array = storage, layout, None

    @property
    def shape(self) -> Shape:
        return self._array.shape if self._array is not None else self.layout.shape

    @property
    def strides(self) -> Shape:
        """Elements, not bytes, to step for the next index of each axis."""
        return self.layout.strides

    @property
    def offset(self) -> int:
        """Where in the storage element [0, ..., 0] lives, in elements."""
        return self.layout.offset

    @property
    def dtype(self) -> DType:
        return self._array.dtype if self._array is not None else self.storage.dtype

    @property
    def device(self) -> str:
        return devices.device_of(self._array) if self._array is not None else self.storage.device

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.layout.size if self._array is None else int(self._array.size)

    def is_contiguous(self) -> bool:
        """Row-major and gapless (strides of size-1 axes do not matter)."""
        return self.layout.is_contiguous

    # -- the graph ------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow here: a tensor is in the graph exactly when it has a node."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if self.node is not None and not self.is_leaf:
            raise GraphError("requires_grad of a result cannot be set: it has it from its inputs; use .detach()")
        if value and self.dtype not in FLOATS:
            raise DTypeError(f"only floats have gradients, not {self.dtype}: use .to('float32') first")
        if value and self.node is None:
            self.node = Accumulator(self.shape, self.dtype)
        elif not value:
            self.node = None

    @property
    def is_leaf(self) -> bool:
        """Whether no op made it (or none that was recorded)."""
        return self.node is None or type(self.node) is Accumulator

    @property
    def grad(self) -> Tensor | None:
        """The gradient accumulated so far; None before the first backward, and on what is no leaf."""
        return self.node.gradient if type(self.node) is Accumulator else None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if type(self.node) is not Accumulator:
            raise GraphError(f"{self.describe()} accumulates no gradient: only leaves with requires_grad=True do")
        if value is not None and (value.shape != self.shape or value.dtype != self.dtype):
            raise ShapeError(f".grad of a tensor {self.shape} {self.dtype} cannot be {value.shape} {value.dtype}")
        place = self.node.place
        if value is not None and place is not None and value is not place:
            place.bump()
            place.array[...] = Tensor.wrap(value).array
            value = place
        elif value is not None and place is None and value is not self.node.gradient:
            value = Tensor(value, device=self.device)  # a copy: backward adds into it
        self.node.gradient = value

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add dL/dx into `.grad` of every leaf behind this; `gradient` is dL/dself, needed unless this is a scalar."""
        autograd.backward(self, gradient, retain_graph)

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Callable[[], None]:
        """Call `hook(gradient)` when this tensor's gradient is complete; what it returns, if not None, replaces it. Returns the remover."""
        if self.node is None:
            raise GraphError("register_hook: this tensor is in no graph, so no gradient will come")
        return graph.add_hook(self.node, hook)

    def detach(self) -> Tensor:
        """The same memory, outside the graph. A write through it is still seen by what saved the memory."""
        return Tensor.over(self.storage, self.layout)

    # -- NumPy, Python and other libraries ----------------------------------------------------------------------------

    def numpy(self) -> np.ndarray[Any, Any]:
        """A NumPy window on this memory (a copy, from a GPU); read-only where a graph has kept the memory, or may."""
        if devices.is_cuda(self.array):
            return to_host(self.array)
        view = self.array.view()
        view.flags.writeable &= self.node is None and not self.storage.saved
        self.storage.exported |= view.flags.writeable
        return view  # type: ignore[no-any-return]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        window = to_host(self.array).view()
        window.flags.writeable = False  # handed out without being asked for by name, so never to write through
        return np.array(window, dtype=dtype, copy=copy)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        """np.exp(tensor), ndarray * tensor: the op of that name."""
        return interop.call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """np.sum(tensor), np.concatenate([tensor, ...]): the op of that name."""
        return interop.call_function(function, args, kwargs)

    def __dlpack__(self, **options: Any) -> Any:
        if self.dtype == bfloat16 and not devices.is_cuda(self.array):
            raise DTypeError("NumPy exports no bfloat16 by DLPack: use .to('float32')")
        return (self.array if devices.is_cuda(self.array) else self.numpy()).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()  # type: ignore[no-any-return]

    def item(self) -> Any:
        """The one value, as a Python number. Raises ShapeError unless there is exactly one."""
        if self.size != 1:
            raise ShapeError(f"item() of a tensor of shape {self.shape}, which holds {self.size} values, not one")
        return to_host(self.array).astype(np.float32).item() if self.dtype == bfloat16 else to_host(self.array).item()

    def tolist(self) -> Any:
        """The values as nested lists of Python numbers."""
        return to_host(self.array).astype(np.float32).tolist() if self.dtype == bfloat16 else to_host(self.array).tolist()

    def __float__(self) -> float:
        return float(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec and self.size == 1 else str(self)

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.size != 1:
            raise TypeError(f"only a single integer can be an index, not {self.shape} {self.dtype}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.size != 1:
            raise ShapeError(f"the truth of {self.size} values is ambiguous: use .any() or .all()")
        return bool(self.item())

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a scalar tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    __hash__ = object.__hash__  # == compares elements, so identity is what dictionaries go by

    # -- writing --------------------------------------------------------------------------------------------------------

    def __setitem__(self, key: Any, value: Any) -> None:
        """x[key] = value, in place. Raises, before a byte changes, IndexError, ShapeError, or MutationError (see `writable`)."""
        basic, key = ops.split_key(key)
        region = self.layout.index(key) if basic else self.layout
        value = self.writable(region, value)
        try:
            ops.write(self.array, key, value)
            self.bump(region)
        except KeyboardInterrupt:  # between the two, perhaps: a write must be counted
            self.bump(region)
            raise

    def writable(self, region: Layout, value: Any = None) -> Any:
        """Check that `region` may be written with `value`, which comes back as an array or scalar.

        Raises MutationError for a result of an op, a leaf outside no_grad(), a value that carries a graph, and a region in which one
        element has two indices.
        """
        if self.node is not None and not self.is_leaf and not graph.freed(self.node):
            raise MutationError(
                f"this tensor {self.shape} is part of a live graph ({graph.describe(self.node)}): "
                "write to a .clone(), or build it with where, stack or concatenate"
            )
        recording = MODE.get().recording
        if self.node is not None and self.is_leaf and recording:
            raise MutationError(f"a leaf {self.shape} with requires_grad=True is written outside no_grad(): wrap the write in `with no_grad():`")
        if region.self_overlaps:
            raise MutationError(f"write to {region.shape} with strides {region.strides}, where one element has several indices: write to a .clone()")
        if isinstance(value, Tensor):
            if value.node is not None and recording:
                raise MutationError(
                    "writing a tensor that carries a graph would lose its gradient: write its .detach(), or build with where, stack or concatenate"
                )
            value = value.array
        return value

    def bump(self, region: Layout | None = None) -> None:
        """Count a write to `region` (all of this tensor by default), so that graphs which kept that memory notice."""
        storage = self._storage
        if storage is not None and storage.saved:
            storage.wrote(region or self.layout, user_line(1))
        elif storage is not None:  # no graph ever kept this memory, so none will ask what was written before it does
            storage.version += 1

    def _update(self, ufunc: np.ufunc, value: Any) -> Tensor:
        """x += value and its like: through the ufunc, into this very memory."""
        if not self.is_leaf and not graph.freed(self.node):
            raise MutationError(f"in-place {ufunc.__name__} on a result ({graph.describe(self.node)}): write x = x + ..., or use where, stack or concatenate")
        value = self.writable(self.layout, value)
        try:
            ufunc(self.array, value, out=self.array, casting="same_kind")
            self.bump()
        except KeyboardInterrupt:  # between the two, perhaps
            self.bump()
            raise
        except ValueError:
            ops.fitting(np.shape(value), self.shape, drop_ones=False)  # raises, with both shapes
            raise
        return self

    # -- showing itself ---------------------------------------------------------------------------------------------------

    def describe(self) -> str:
        """One line: shape, dtype, and what made it."""
        made = f"made by `{self.node.op}`" if not self.is_leaf else ("a leaf" if self.requires_grad else "a constant")
        return f"tensor {self.shape} {self.dtype}, {made}"

    def __repr__(self) -> str:
        from tensor.explain import in_short

        return in_short(self)

    def explain(self) -> str:
        """Storage, layout as a diagram, who shares the storage, and whether it is contiguous and why; returned, and readable by print()."""
        from tensor.explain import explain

        return explain(self, [t for t in gc.get_referrers(self.storage) if isinstance(t, Tensor) and t is not self])

    # -- operations: every op whose first argument is a tensor is a method of the same name ---------------------------------

    add, subtract, multiply, divide, negative, power = ops.add, ops.subtract, ops.multiply, ops.divide, ops.negative, ops.power
    exp, log, sqrt, abs, sin, cos, tanh, erf = ops.exp, ops.log, ops.sqrt, ops.abs, ops.sin, ops.cos, ops.tanh, ops.erf
    sigmoid, relu, gelu, silu, step = ops.sigmoid, ops.relu, ops.gelu, ops.silu, ops.step
    maximum, minimum, clip, masked_fill = ops.maximum, ops.minimum, ops.clip, ops.masked_fill
    sum, mean, var, std, cumsum = ops.sum, ops.mean, ops.var, ops.std, ops.cumsum
    max, min, argmax, argmin, logsumexp = ops.max, ops.min, ops.argmax, ops.argmin, ops.logsumexp
    any, all = ops.any, ops.all
    softmax, log_softmax, layer_norm = ops.softmax, ops.log_softmax, ops.layer_norm
    matmul, gather, pad, one_hot = ops.matmul, ops.gather, ops.pad, ops.one_hot
    view, reshape, flatten, contiguous = ops.view, ops.reshape, ops.flatten, ops.contiguous
    transpose, permute, expand, squeeze, unsqueeze = ops.transpose, ops.permute, ops.expand, ops.squeeze, ops.unsqueeze
    split, chunk, to, clone = ops.split, ops.chunk, ops.to, ops.clone

    __add__, __sub__, __mul__, __truediv__, __pow__, __matmul__ = add, subtract, multiply, divide, power, matmul
    __neg__, __abs__, __getitem__ = negative, abs, ops.getitem
    __eq__, __ne__, __lt__, __le__, __gt__, __ge__ = ops.equal, ops.not_equal, ops.less, ops.less_equal, ops.greater, ops.greater_equal
    __and__, __or__, __xor__, __invert__ = ops.bitwise_and, ops.bitwise_or, ops.bitwise_xor, ops.invert
    __rand__, __ror__, __rxor__ = ops.bitwise_and, ops.bitwise_or, ops.bitwise_xor

    __radd__, __rsub__, __rmul__ = _reflected(ops.add), _reflected(ops.subtract), _reflected(ops.multiply)
    __rtruediv__, __rpow__, __rmatmul__ = _reflected(ops.divide), _reflected(ops.power), _reflected(ops.matmul)
    __iadd__, __isub__, __imul__, __itruediv__ = (_in_place(ufunc) for ufunc in (np.add, np.subtract, np.multiply, np.divide))

    @property
    def T(self) -> Tensor:
        """All axes reversed."""
        return self.permute(*reversed(range(self.ndim)))  # type: ignore[no-any-return]

    @property
    def mT(self) -> Tensor:
        """The last two axes swapped: each matrix of a batch transposed."""
        return self.transpose(-2, -1)  # type: ignore[no-any-return]


_making_storage = threading.Lock()
if hasattr(os, "register_at_fork"):  # a child forked while another thread holds it would wait for ever
    os.register_at_fork(after_in_child=_making_storage._at_fork_reinit)  # type: ignore[attr-defined]
