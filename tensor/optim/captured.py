"""Training steps as CUDA graphs. (What a CUDA graph is: tensor/kernels/cuda/graphs.py.)

    take = Captured(step, model, optimizer, check)
    loss, norm = take(x, y, key)        what step(x, y, key) does, and the same bits

The first step with some shapes of x and y runs as written. The second is captured, and from then on
each is one replay. Before a replay one copy brings x, y, the number of the step, the learning rate
and the step counts of the optimiser to the GPU, where the captured kernels read them.

`kernels.off("training_step")` captures nothing. `kernels.explain()` says why a step was no graph.
"""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tensor.kernels import kernel_for, passed_over, pick
from tensor.memory.devices import Array, cupy
from tensor.memory.pinned import Pinned
from tensor.mode import MODE
from tensor.nn.module import Module
from tensor.optim.adamw import AdamW
from tensor.optim.optimizer import Optimizer
from tensor.random import Key
from tensor.tensor import Tensor

# (x, y, key) -> the loss and the norm of the gradients
Step: TypeAlias = Callable[[Any, Any, Key], Any]
FIRST = "the first step of these shapes"  # why it is no graph
MOST = 4  # graphs: each keeps the results of its step
RING = 2  # host memories for inputs: one is filled while the GPU reads the other
ALIGNMENT = 256  # bytes


def _graphs() -> Any:
    """graphs.py, which loads all kernels of the GPU: only where there is one."""
    return importlib.import_module("tensor.kernels.cuda.graphs")


def _refusal(weights: Array, *, x: Any, y: Any, optimizer: Optimizer) -> str | None:
    """Why a step is not captured; None where it can be."""
    if not all(isinstance(ids, np.ndarray) and ids.dtype.kind == "i" for ids in (x, y)):
        return "the batch is not two arrays of ids"
    if not isinstance(optimizer, AdamW):
        return f"{type(optimizer).__name__} counts its steps on the host"
    if MODE.get().observed:
        return "each operation is looked at"
    parameters = [slot.parameter for flat in optimizer.flats for slot in flat.slots]
    if any(p.node is not None and p.node.hooks for p in parameters):
        return "a parameter has a hook"
    return None


@kernel_for("training_step", device="cuda", supports=_refusal)
def cuda_graph(take: Captured, x: Array, y: Array, key: Key) -> Any:
    """The step as a graph; NotImplemented where there is none for these shapes."""
    return take.replayed(x, y, key)


class Captured:
    """step(x, y, key), which updates the model by the optimiser once.   x, y: arrays of ids, on the
    host

    step: a replay calls no Python, so what a step does must follow from x, y, key and the options
    of the optimiser alone.
    check(x): raises where an id is none of the model's; a graph does not look. The loss and the
    norm that a replay returns lie where the next replay writes.
    """

    def __init__(
        self, step: Step, model: Module, optimizer: Optimizer, check: Callable[[Array], None]
    ):
        self.step, self.model, self.check = step, model, check
        self.optimizer: Any = optimizer  # an AdamW where there are graphs
        # by what a graph was captured for; a sentence that says why there is none
        self.graphs: dict[Any, Replay | str] = {}
        self._memory: Any = None

    def __call__(self, x: Any, y: Any, key: Key) -> Any:
        weights = self.optimizer.flats[0].weights.array
        kernel = pick("training_step", weights, x=x, y=y, optimizer=self.optimizer)
        numbers = NotImplemented if kernel is None else kernel(self, x, y, key)
        return self.step(x, y, key) if numbers is NotImplemented else numbers

    def replayed(self, x: Array, y: Array, key: Key) -> Any:
        """The numbers of a step by its graph; NotImplemented where no graph can make it."""
        self.check(x)
        case, off = self._case(x, y, key), MODE.get().kernels_off
        found = self.graphs.get(case)
        if found is None and len(self.graphs) == MOST:
            found = f"{MOST} other shapes were met before"
        elif found is None:
            found = self.graphs[case] = FIRST
        elif found == FIRST:
            found = self.graphs[case] = self._capture(x, y, key)
            if isinstance(found, Replay):
                return found.run(x, y, key)
        if isinstance(found, str):
            passed_over("training_step", found, off)
            return NotImplemented
        self.optimizer.count_again()
        return found.run(x, y, key)

    def _case(self, x: Array, y: Array, key: Key) -> Any:
        """What is fixed in a graph."""
        mode, scale = MODE.get(), self.optimizer.loss_scale
        parameters = [slot.parameter for flat in self.optimizer.flats for slot in flat.slots]
        return (
            (x.shape, x.dtype, y.shape, y.dtype),
            (mode.kernels_off, mode.tf32, mode.deterministic, self.model.training),
            key._replace(step=0),
            tuple([parameter.node is not None for parameter in parameters]),
            None if scale is None else id(scale.numbers),
        )

    def _capture(self, x: Array, y: Array, key: Key) -> Replay | str:
        """The graph of a step, or a sentence that says why there is none."""
        if not self.optimizer.runs:
            return f"{type(self.optimizer).__name__} waits for the norm of the gradients"
        # what the steps so far have used, the graph needs again
        cupy().get_default_memory_pool().free_all_blocks()
        self._memory = self._memory or _graphs().Memory()
        try:
            return Replay(self.step, self.optimizer, x, y, key, self._memory)
        except Exception as error:  # whatever cannot be captured, and CuPy's classes have no names
            reason = " ".join(str(error).split())
            return f"the step cannot be captured: {type(error).__name__}: {reason:.200}"


class Replay:
    """The graph of a step, and what it reads. Capturing counts the step in the optimiser."""

    def __init__(self, step: Step, optimizer: AdamW, x: Array, y: Array, key: Key, memory: Any):
        self.optimizer, self.inputs = optimizer, Inputs(x, y, len(optimizer.runs))
        before = optimizer.taken, optimizer.counts.copy()
        there, targets = (Tensor.from_array(array) for array in (self.inputs.x, self.inputs.y))
        later = key._replace(step=_graphs().OnDevice(self.inputs.step))
        optimizer.later = self.inputs.later
        try:
            self.graph = _graphs().Graph(lambda: step(there, targets, later), memory)
        except BaseException:
            optimizer.taken, optimizer.counts = before
            raise
        finally:
            optimizer.later = None

    def run(self, x: Array, y: Array, key: Key) -> Any:
        """Queue the step, which is counted, and return its loss and its norm."""
        self.inputs.send(key.step, self.optimizer.latest, x, y)
        self.graph.replay()
        return self.graph.result


class Inputs:
    """Memory of the GPU that a graph reads, filled by one copy.

    step: (1,) int64   later: (updates, 3) float64   x, y: the ids
    """

    def __init__(self, x: Array, y: Array, updates: int):
        self._like = (np.zeros(1, np.int64), np.zeros((updates, 3)), x, y)
        ends = np.cumsum([-(-part.nbytes // ALIGNMENT) * ALIGNMENT for part in self._like])
        self._starts, self._size = [0, *ends[:-1].tolist()], int(ends[-1])
        self._memory = cupy().cuda.alloc(self._size)
        parts = zip(self._like, self._starts, strict=True)
        self.step, self.later, self.x, self.y = [
            cupy().ndarray(part.shape, part.dtype, self._memory + start) for part, start in parts
        ]
        self._ring = deque([Pinned(self._size) for _ in range(RING)])

    def send(self, *values: Any) -> None:
        """Queue the copy of step, later, x and y."""
        memory = self._ring[0]
        self._ring.rotate(-1)
        memory.event.synchronize()  # the GPU has read what was there
        there = np.asarray(memory)
        for like, start, value in zip(self._like, self._starts, values, strict=True):
            there[start : start + like.nbytes].view(like.dtype).reshape(like.shape)[...] = value
        self._memory.copy_from_host_async(there.ctypes.data, self._size)
        memory.event.record()
