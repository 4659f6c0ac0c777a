"""Packing: a model's parameters as views of a few flat storages, and their gradients likewise.

    weights    | token_embedding ......... | pad | blocks.0.qkv.weight ........ | pad | ...
    gradients  | the same slots ......... |     | ............................ |     |

So AdamW, the global norm, an all-reduce and a checkpoint each go through one array. Every parameter
starts on a multiple of 256 bytes. The padding is zero and stays so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from tensor import creation
from tensor.dtypes import DType
from tensor.memory.layout import Layout, contiguous_strides
from tensor.tensor import Tensor

ALIGNMENT = 256  # bytes


class Slot(NamedTuple):
    """One parameter's stretch of a flat storage: elements start to stop, and padding from there to
    `end`, where the next one starts.
    """

    name: str
    parameter: Tensor
    start: int
    stop: int
    end: int


class Flat:
    """The parameters of one dtype and group side by side: `weights` and `gradients` are 1-D tensors
    over all of them.
    """

    def __init__(self, named: list[tuple[str, Tensor]], group: str, dtype: DType, device: str):
        self.group, self.dtype = group, dtype
        self.slots: list[Slot] = []
        end, step = 0, ALIGNMENT // dtype.itemsize
        for name, parameter in named:
            start, end = end, end + -(-parameter.size // step) * step
            self.slots.append(Slot(name, parameter, start, start + parameter.size, end))
        self.weights = creation.zeros(end, dtype=dtype, device=device)
        self.gradients = creation.zeros(end if group != "frozen" else 0, dtype=dtype, device=device)
        for slot in self.slots:
            self._adopt(slot)

    def _adopt(self, slot: Slot) -> None:
        """Move a parameter's values here and make the same object a view of them; so too its
        gradient.
        """
        parameter, storage = slot.parameter, self.weights.storage
        layout = Layout(parameter.shape, contiguous_strides(parameter.shape), slot.start)
        Tensor.over(storage, layout).array[...] = parameter.array
        parameter.relocate(storage, layout)
        self.attach(slot)

    def attach(self, slot: Slot) -> None:
        """Make a stretch of the flat gradients the slot of a parameter's gradient: when packed, and
        when it learns again after a freeze.
        """
        parameter, node = slot.parameter, slot.parameter.node
        storage = self.gradients.storage
        if node is None or (node.buffer is not None and node.buffer.storage is storage):
            return
        gradient, node.gradient = node.gradient, None
        node.buffer = Tensor.over(storage, parameter.layout)
        parameter.grad = gradient  # copied into its slot, where there is one

    @property
    def current(self) -> bool:
        """Whether the parameters still live here (not after a later pack()), and none that was
        packed as frozen learns now.
        """
        storage, parameters = self.weights.storage, [slot.parameter for slot in self.slots]
        here = all(p._storage is storage for p in parameters)
        return here and not (self.group == "frozen" and any(p.requires_grad for p in parameters))

    def grouped_by(self, group: Callable[[Tensor], str]) -> bool:
        """Whether the parameters here that learn are of this group for that function too."""
        learning = [slot.parameter for slot in self.slots if slot.parameter.requires_grad]
        return all(group(parameter) == self.group for parameter in learning)

    def reached(self) -> list[Slot]:
        """The parameters that learn and have a gradient now."""
        storage = self.gradients.storage
        learning = [slot for slot in self.slots if slot.parameter.node is not None]
        for slot in learning:
            buffer = slot.parameter.node.buffer
            if buffer is None or buffer._storage is not storage:
                self.attach(slot)
        return [slot for slot in learning if slot.parameter.node.gradient is not None]


def group_of(parameter: Tensor) -> str:
    """ "frozen" without gradients; "decayed" for matrices and tables; "not decayed" for gains and
    biases.
    """
    if not parameter.requires_grad:
        return "frozen"
    return "decayed" if parameter.ndim >= 2 else "not decayed"


def pack(
    named: Iterable[tuple[str, Tensor]], group: Callable[[Tensor], str] = group_of
) -> tuple[Flat, ...]:
    """One Flat for each (group, dtype, device) met, in order. The parameters stay the same objects,
    so tied ones stay tied.

    `group` says which lie side by side: an optimiser may have groups of its own. Views taken of a
    parameter before keep the old memory; an optimiser made before raises at its next step.
    """
    groups: dict[tuple[str, DType, str], list[tuple[str, Tensor]]] = {}
    for name, parameter in named:
        key = group(parameter), parameter.dtype, parameter.device
        groups.setdefault(key, []).append((name, parameter))
    return tuple(Flat(members, *key) for key, members in groups.items())
