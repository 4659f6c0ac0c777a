"""What can be compared of two tensors, one of each library, and of all tensors of two programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from tensor import Tensor

# the first look: results this close, in units of their dtype's precision and of the largest
# element, need no further reason
CLOSE = {"float64": 32, "float32": 32, "bfloat16": 2}
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7}


class Difference(NamedTuple):
    """kind: what differs, in a word; where: the expression; text: both sides."""

    kind: str
    where: str
    text: str

    @property
    def sort(self) -> tuple[str, str]:
        """The kind, and the op of an error."""
        return self.kind, self.where if self.kind == "error" else ""


def tensors(namespace: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every tensor of a program, by the expression that gives it."""
    for name, value in list(namespace.items()):
        if name[0] != "x" or not name[1:].isdigit():
            continue
        if isinstance(value, tuple):
            for i, part in enumerate(value):
                if part is not None:
                    yield f"{name}[{i}]", part
        elif value is not None:
            yield name, value


def of_torch(x: torch.Tensor) -> Any:
    x = x.detach()
    return (x.float() if x.dtype == torch.bfloat16 else x).numpy()


def of_here(x: Tensor) -> Any:
    return x.array.astype(np.float32) if x.dtype.name == "bfloat16" else x.array


def values_differ(where: str, found: Tensor, expected: torch.Tensor) -> Difference | None:
    """Shape, dtype and values."""
    if found.shape != tuple(expected.shape):
        return Difference("shape", where, f"{found.shape}, PyTorch {tuple(expected.shape)}")
    dtype = found.dtype.name
    if dtype != str(expected.dtype)[6:]:
        return Difference("dtype", where, f"{dtype}, PyTorch {expected.dtype}")
    a, b = of_here(found), of_torch(expected)
    if np.array_equal(a, b, equal_nan=dtype in EPS):
        return None
    if dtype in EPS:
        finite = np.isfinite(b)
        largest = np.abs(b[finite]).max(initial=0)
        close = np.abs(a[finite] - b[finite]) <= CLOSE[dtype] * EPS[dtype] * largest
        if np.array_equal(a[~finite], b[~finite], equal_nan=True) and close.all():
            return None
    return Difference("value", where, f"{_short(a)}\nPyTorch: {_short(b)}")


def _short(x: Any) -> str:
    return np.array2string(x.ravel(), threshold=24, edgeitems=3, max_line_width=100)


def flags_differ(where: str, found: Tensor, expected: torch.Tensor) -> Difference | None:
    """Whether it is in the graph, and a leaf."""
    for name, here, there in (
        ("requires_grad", found.requires_grad, expected.requires_grad),
        ("is_leaf", found.is_leaf, expected.is_leaf),
        ("is_contiguous()", found.is_contiguous(), expected.is_contiguous()),
    ):
        if here != there:
            return Difference("flag", where, f".{name} is {here}, PyTorch's {there}")
    return None


def layouts_differ(where: str, found: Tensor, expected: torch.Tensor) -> Difference | None:
    """Strides and offset in the memory; the stride of an axis of one element means nothing, and
    that of an empty tensor.
    """
    if 0 in found.shape:
        return None
    axes = [i for i, n in enumerate(found.shape) if n > 1]
    here = [found.strides[i] for i in axes], found.offset
    there = [expected.stride(i) for i in axes], expected.storage_offset()
    if here == there:
        return None
    text = f"{found.strides} at {found.offset}"
    return Difference(
        "layout", where, f"{text}, PyTorch {expected.stride()} at {expected.storage_offset()}"
    )


def memory_differs(
    where: str, here: dict[str, Tensor], there: dict[str, torch.Tensor]
) -> Difference | None:
    """Whether a tensor shares memory with the same tensors in both libraries."""
    x, y = here[where], there[where]
    if x.size == 0:
        return None
    pointer = y.untyped_storage().data_ptr()
    for name, other in here.items():
        if name == where or other.size == 0:
            continue
        shared = x.storage is other.storage
        if shared != (pointer == there[name].untyped_storage().data_ptr()):
            said = "shares" if shared else "does not share"
            return Difference("memory", where, f"{said} memory with {name}; not so in PyTorch")
        if not shared and np.may_share_memory(x.array, other.array):
            return Difference("memory", where, f"lies in the memory of {name}, and hides it")
    return None


def gradients(here: dict[str, Any], there: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(expression, gradient here, in PyTorch) of every tensor, and of what the hooks saw."""
    others = dict(tensors(there))
    for name, x in tensors(here):
        y = others[name]
        if x.requires_grad and y.requires_grad:
            yield f"{name}.grad", x.grad, y.grad
    for key in sorted({*here["seen"], *there["seen"]}):
        a, b = here["seen"][key], there["seen"][key]
        for i in range(max(len(a), len(b))):
            yield f"seen['{key}'][{i}]", *(g[i] if i < len(g) else None for g in (a, b))


def gradients_differ(here: dict[str, Any], there: dict[str, Any]) -> Iterator[Difference]:
    """Every gradient and every sight of a hook that is not the same."""
    for where, a, b in gradients(here, there):
        if (a is None) != (b is None):
            said = "None" if a is None else _short(of_here(a))
            expected = "None" if b is None else _short(of_torch(b))
            yield Difference("gradient", where, f"{said}, PyTorch {expected}")
        elif a is not None and (found := values_differ(where, a, b)):
            yield found


def elements_shared(there: dict[str, Any]) -> bool:
    """Whether the .grad of two leaves of PyTorch is the same element of memory."""
    leaves = {id(x): x for _, x in tensors(there) if x.requires_grad and x.is_leaf}
    grads = [x.grad.data_ptr() for x in leaves.values() if x.grad is not None and x.numel() == 1]
    return len(set(grads)) < len(grads)


def gradients_share(here: dict[str, Any]) -> Difference | None:
    """Whether two gradients, or a gradient and a value, lie in the same memory."""
    values = dict(tensors(here))
    nodes = {id(x.node): (f"{name}.grad", x.grad) for name, x in values.items() if x.requires_grad}
    grads = [(name, g) for name, g in nodes.values() if g is not None and g.size]
    for i, (name, g) in enumerate(grads):
        for other, h in grads[:i]:
            if np.may_share_memory(g.array, h.array):
                return Difference("memory", name, f"shares memory with {other}")
        for other, x in values.items():
            if x.storage is not g.storage and np.may_share_memory(g.array, x.array):
                return Difference("memory", name, f"shares memory with {other}")
    return None
