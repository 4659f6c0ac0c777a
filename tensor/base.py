"""What a tensor is: flat storage, layout and node. What a tensor can do is in tensor.py: there the
methods are the ops.

    storage   1-D memory, shared by every view of it
    layout    shape, strides, offset: where in that memory each element lives
    node      what made this tensor (graph.py); None for a constant

A result of an op *holds its array*; its Storage and Layout are made when first asked for, because
most never are. A view is the other way round: it holds storage and layout, and its array, a window
on the storage, is built when first computed with.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from tensor.dtypes import FLOATS, KNOWN, DType, DTypeLike, as_dtype, bfloat16
from tensor.errors import DTypeError, GraphError, ShapeError, brief
from tensor.graph import Hooks, describe, next_order, retained, retainer
from tensor.memory import devices
from tensor.memory.devices import Array, to_host
from tensor.memory.layout import Layout, Shape
from tensor.memory.storage import Storage, user_line
from tensor.mode import MODE

_new = object.__new__


class TensorBase:
    """Memory, layout and node. `kind`: the class that ops make, Tensor (tensor.py)."""

    __slots__ = ("__weakref__", "_array", "_frozen", "_layout", "_storage", "node")
    __array_priority__ = 1000  # CuPy asks this before it tries to multiply itself with us
    kind: ClassVar[Any]

    @brief
    def __init__(
        self,
        data: Any,
        *,
        dtype: DTypeLike | None = None,
        device: str | None = None,
        requires_grad: bool = False,
    ):
        if isinstance(data, TensorBase):
            if not data.is_leaf and MODE.get().recording:
                raise GraphError(
                    f"Tensor(...) of a result ({describe(data.node)}) would drop its graph: "
                    "use .clone() to keep it, .detach() not to"
                )
            data = data.array
        if not hasattr(data, "dtype") or not hasattr(data, "strides"):
            data = devices.from_python(data, dtype)
        wanted = as_dtype(dtype, as_dtype(data.dtype))
        array = devices.move(data, device) if device else data
        self._array: Array = devices.as_array(array.astype(wanted, copy=array is data))
        self._storage: Storage | None = None
        self._layout: Layout | None = None
        self.node: Any = None
        if requires_grad:
            self.requires_grad = True

    @classmethod
    @brief
    def from_array(cls, array: Array, requires_grad: bool = False) -> Any:
        """A tensor on the memory of an array. The graph sees no writes to that array. Raises
        DTypeError for text, complex numbers and bytes in another order than this machine's.
        """
        self = cls.holding(devices.of_known_dtype(devices.as_array(array)))
        if self.dtype not in KNOWN and as_dtype(self.dtype) != self.dtype:
            raise DTypeError(f"{self.dtype} has its bytes in another order: Tensor(array) copies")
        if requires_grad:
            self.requires_grad = True
        return self

    @classmethod
    def holding(cls, array: Array) -> Any:
        """`from_array` without its checks, for results of ops."""
        self = _new(cls.kind)
        self._array = array if type(array) is np.ndarray else devices.as_array(array)
        self._storage = self._layout = self.node = None
        return self

    @classmethod
    def wrap(cls, value: Any) -> Any:
        """A tensor as it is; anything else as a constant, a copy."""
        return value if isinstance(value, TensorBase) else cls.kind(value)

    @classmethod
    def over(cls, storage: Storage, layout: Layout) -> Any:
        """A view of a storage, outside the graph as after `detach()`."""
        self = _new(cls.kind)
        self._array = self.node = None
        self._storage, self._layout = storage, layout
        return self

    # -- memory

    @property
    def array(self) -> Array:
        """The ndarray window on the storage, for ops. The graph sees no writes to it."""
        if self._array is None:
            self._array = devices.window(self.storage.flat, self.layout)
        return self._array

    @property
    def storage(self) -> Storage:
        """The flat memory, with its version."""
        if self._storage is None:
            # two threads that save one leaf must meet in one storage: writes are counted there
            with _making_storage:
                self._storage = self._storage or Storage(self._array)
        return self._storage

    @property
    def layout(self) -> Layout:
        """Shape, strides and offset in the storage."""
        if self._layout is None:
            self._layout = devices.flatten(self._array)[1]
        return self._layout

    def relocate(self, storage: Storage, layout: Layout) -> None:
        """Become a view of another storage, with the same node and gradient (for `pack`)."""
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
        return math.prod(self.shape)

    def is_contiguous(self) -> bool:
        """Row-major and gapless (strides of size-1 axes do not matter)."""
        return self.layout.is_contiguous

    # -- the graph

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow here: a tensor is in the graph exactly when it has a node."""
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if not self.is_leaf:
            raise GraphError(
                "requires_grad of a result cannot be set: it has it from its inputs; use .detach()"
            )
        if value and self.dtype not in FLOATS:
            raise DTypeError(f"only floats have gradients, not {self.dtype}: use .to('float32')")
        if value and self.node is None:
            self.node = self.leaf or Accumulator(self.shape, self.dtype)
            self.node.frozen = False
        elif not value and self.node is not None:
            self._frozen, self.node = self.node, None
            self._frozen.frozen = True

    @property
    def is_leaf(self) -> bool:
        """Whether no op made it (or none that was recorded)."""
        return self.node is None or type(self.node) is Accumulator

    @property
    def leaf(self) -> Accumulator | None:
        """The node of a leaf, with its gradient and hooks, also while requires_grad is off."""
        if self.node is None:
            return getattr(self, "_frozen", None)
        return self.node if type(self.node) is Accumulator else None

    @property
    def grad(self) -> Any:
        """The gradient accumulated so far; None before the first backward. A result has one after
        `retain_grad()`.
        """
        if type(self.node) is Accumulator:
            return self.node.gradient
        if self.node is not None:
            return retained(self.node)
        return None if self.leaf is None else self.leaf.gradient

    @grad.setter
    @brief
    def grad(self, value: Any) -> None:
        if value is None:
            holder = self.leaf or retainer(self.node)
            if holder is not None:
                holder.gradient = None
            return
        if type(self.node) is not Accumulator:
            raise GraphError(
                f"{self.describe()} accumulates no gradient: only leaves with requires_grad=True do"
            )
        if not isinstance(value, TensorBase):
            raise GraphError(f".grad is a tensor {self.shape} {self.dtype} or None, not {value!r}")
        if value.shape != self.shape or value.dtype != self.dtype:
            raise ShapeError(
                f".grad of a tensor {self.shape} {self.dtype} cannot be {value.shape} {value.dtype}"
            )
        if value is self.node.gradient:
            return
        self.node.gradient = None
        array = devices.move(value.array, self.device)
        self.node.accumulate(array, fresh=False)

    def detach(self) -> Any:
        """The same memory, outside the graph. Nodes that saved the memory see writes to it."""
        return TensorBase.over(self.storage, self.layout)

    # -- NumPy, Python and other libraries

    def numpy(self) -> np.ndarray[Any, Any]:
        """A NumPy window on this memory (a copy, from a GPU); read-only if a graph may keep it."""
        if devices.is_cuda(self.array):
            return to_host(self.array)
        view = self.array.view()
        view.flags.writeable &= self.node is None and not self.storage.saved
        self.storage.exported |= view.flags.writeable
        return view

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        if self.node is not None and MODE.get().recording:
            raise GraphError(
                f"NumPy asks for the values of a {self.describe()}: the gradient would be lost. "
                "Say x.numpy() for the values, or use an op of `tensor`"
            )
        window = to_host(self.array).view()
        window.flags.writeable = False  # NumPy asked for the window, not the user
        return np.array(window, dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        if self.dtype == bfloat16 and not devices.is_cuda(self.array):
            raise DTypeError("NumPy exports no bfloat16 by DLPack: use .to('float32')")
        self.storage.give_out()
        return (self.array if devices.is_cuda(self.array) else self.numpy()).__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.size != 1:
            raise DTypeError(f"an index is a single integer, not {self.shape} {self.dtype}")
        return int(self.array.item())

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("a tensor of shape () has no length, and no elements to iterate over")
        return self.shape[0]

    # -- writing

    def bump(self, region: Layout | None = None) -> None:
        """Count a write to `region` (by default all of this tensor), for graphs that kept it."""
        storage = self._storage
        if storage is not None and storage.saved:
            storage.wrote(region or self.layout, user_line(1))
        elif storage is not None:  # no graph kept this memory: none will ask what was written
            storage.version += 1

    # -- copies

    def __getstate__(self) -> Any:
        """For `copy` and `pickle`: the storage and the layout. The array is a window on the
        storage, so a copy makes its own.
        """
        if not self.is_leaf:
            raise GraphError(
                f"copy of a result ({describe(self.node)}): use .clone() to keep the graph, "
                ".detach() not to"
            )
        state: Any = super().__getstate__()  # the attributes of a subclass, and the slots
        memory = {"_storage": self.storage, "_layout": self.layout, "_array": None}
        return state[0], {**state[1], **memory}

    # -- showing itself

    def describe(self) -> str:
        """One line: shape, dtype, and what made it."""
        made = "a leaf" if self.requires_grad else "a constant"
        if not self.is_leaf:
            made = f"made by `{self.node.op}`"
        return f"tensor {self.shape} {self.dtype}, {made}"


# -- leaves --


class Accumulator:
    """The node of a leaf: sums gradients into `.grad`, an array that nobody else holds.

    `buffer`, once parameters are packed, is the leaf's stretch of the flat gradients: the first
    gradient of a step overwrites the buffer, further ones are added. `frozen`: requires_grad went
    off, and what an older graph sends is dropped.
    """

    __slots__ = ("__weakref__", "buffer", "dtype", "frozen", "gradient", "hooks", "order", "shape")
    parents: tuple[Any, ...] = ()
    op = "leaf"

    def __init__(self, shape: Shape, dtype: DType):
        self.shape, self.dtype = shape, dtype
        self.order = next_order()
        self.gradient: Any = None  # a Tensor
        self.buffer: Any = None  # a Tensor
        self.hooks: Hooks | None = None
        self.frozen = False

    def become(self, dtype: DType) -> None:
        """Take gradients of another dtype or device from now on: what there was is dropped."""
        self.dtype, self.gradient, self.buffer = dtype, None, None

    def __reduce__(self) -> Any:
        """For `copy` and `pickle`: a new node. In another process the numbers of nodes start at 0,
        and a leaf must be older than its results.
        """
        state = {"gradient": self.gradient, "buffer": self.buffer, "hooks": self.hooks}
        return Accumulator, (self.shape, self.dtype), (None, state)

    def accumulate(self, dx: Array, fresh: bool) -> None:
        """Add dx. `fresh`: nobody else holds that array, so `.grad` may take it as it is."""
        if self.frozen:
            return
        if self.gradient is not None:
            total = self.gradient.array
            self.gradient.bump()  # first: an interrupt must leave no write uncounted
            np.add(total, dx, out=total)
        elif self.buffer is not None:
            self.buffer.bump()
            self.buffer.array[...] = dx
            self.gradient = self.buffer
        else:
            self.gradient = TensorBase.holding(dx if fresh else dx.copy())

    def offer(self, inputs: Sequence[Any]) -> tuple[Array | None, bool]:
        """(the buffer for a backward function to write into, whether to add to what is there).

        None where the function may not: a hook must see the gradient, the leaf is two inputs of one
        op, or an op has kept the `.grad`, which its backward may read while it writes.
        """
        buffer, gradient = self.buffer, self.gradient
        taken = self.frozen or (gradient is not None and gradient is not buffer)
        if self.hooks or taken or inputs.count(self) > 1 or buffer.storage.saved:
            return None, False
        return buffer.array, gradient is not None

    def written(self) -> None:
        """A backward function has written its gradient into the buffer."""
        self.gradient = self.buffer
        self.buffer.bump()

    def __repr__(self) -> str:
        return f"Accumulator({self.shape}, {self.dtype})"


_making_storage = threading.Lock()
# a child forked while another thread holds it would wait for ever
if hasattr(os, "register_at_fork"):
    renew: Any = _making_storage
    os.register_at_fork(after_in_child=renew._at_fork_reinit)
