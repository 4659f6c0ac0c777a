"""cuDNN's attention by its plans, through the package nvidia-cudnn-frontend.

cuDNN runs a plan. A plan is built once for each set of shapes and strides, and takes addresses.
Arrays of queries, keys, values and gradients are described by `Heads`, so packed arrays are read
and written in place, without a copy.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from tensor.dtypes import DType, float16, uint8
from tensor.kernels import NOTES
from tensor.kernels.cuda.launch import empty
from tensor.memory.devices import cupy
from tensor.memory.layout import contiguous_strides

INSTALL = "pip install -e '.[cudnn]'"
NOTE = (
    "attention by cuDNN: its backward adds in no fixed order, so two equal runs differ in their "
    "last bits; `with kernels.deterministic():` or `tinygpt train --deterministic` gives equal "
    "bits, and takes longer"
)
ITEMSIZE = 2  # bytes of float16 and bfloat16


@functools.cache
def frontend() -> ModuleType | str:
    """The module cudnn, or a sentence that says why it cannot be used.

    cudnn imports PyTorch where PyTorch is installed, which takes seconds, for functions that are
    not used here. A None in sys.modules makes this import fail.
    """
    if importlib.util.find_spec("cudnn") is None:
        return f"nvidia-cudnn-frontend is not installed: {INSTALL}"
    unused = "torch" not in sys.modules
    try:
        if unused:
            sys.modules["torch"] = None  # type: ignore[assignment]
        import cudnn

        cudnn.backend_version()
    except Exception as error:  # of the loader, or cuDNN's own
        return f"nvidia-cudnn-frontend finds no cuDNN ({error}): {INSTALL}"
    finally:
        if unused:
            del sys.modules["torch"]
    module: ModuleType = cudnn
    return module


class Heads(NamedTuple):
    """(B, H, T, D) numbers somewhere in memory, the strides counted in numbers."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def in_rows(cls, shape: tuple[int, ...], strides: tuple[int, ...], H: int, D: int) -> Heads:
        """H heads side by side in the rows of an array (B, T, at least H D).   strides: in bytes"""
        return cls(
            (shape[0], H, shape[1], D), (strides[0] // ITEMSIZE, D, strides[1] // ITEMSIZE, 1)
        )

    @classmethod
    def row_major(cls, shape: tuple[int, ...]) -> Heads:
        return cls(shape, contiguous_strides(shape))


class Plan:
    """A graph of cuDNN that is ready to run on addresses, one for each of its tensors."""

    def __init__(self, cudnn: Any, graph: Any, tensors: Sequence[Any]):
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A])
        graph.check_support()
        graph.build_plans()
        self.cudnn, self.graph = cudnn, graph
        self.names = [tensor.get_uid() for tensor in tensors]
        self.workspace = graph.get_workspace_size()  # bytes

    def run(self, *addresses: int) -> None:
        place = Place.here()
        given = dict(zip(self.names, addresses, strict=True))
        self.graph.execute(given, place.memory(self.workspace), handle=place.handle)


class Plans(NamedTuple):
    forward: Plan
    backward: Plan


class Place:
    """What plans need of one stream of a GPU, in one thread: cuDNN's handle, and memory to work in.
    Plans that run one after the other share the memory.
    """

    def __init__(self, stream: int):
        cudnn: Any = frontend()
        self.handle = cudnn.create_handle()
        cudnn.set_stream(self.handle, stream)
        self._memory = empty((0,), uint8)

    @classmethod
    def here(cls) -> Place:
        cuda = cupy().cuda
        stream = cuda.get_current_stream().ptr
        return _place(threading.get_ident(), cuda.runtime.getDevice(), stream)

    def memory(self, size: int) -> int:
        """The address of so many bytes."""
        if self._memory.size < size:
            self._memory = empty((size,), uint8)
        return self._memory.data.ptr


@functools.cache
def _place(thread: int, device: int, stream: int) -> Place:
    return Place(stream)


class Case(NamedTuple):
    """What plans are built for. `y` also describes the gradient of y."""

    dtype: DType
    q: Heads
    k: Heads
    v: Heads
    y: Heads
    gradients: Sequence[Heads]  # of q, k and v
    causal: bool
    deterministic: bool
    scale: float

    def plans(self) -> Plans | str:
        """The plans of this case, or a sentence that says why there are none."""
        cudnn: Any = frontend()
        try:
            plans = Plans(self.forward(cudnn), self.backward(cudnn))
        except (cudnn.cudnnGraphNotSupportedError, RuntimeError) as error:
            return f"cuDNN has no plan for q {self.q.shape}, k {self.k.shape}: {error}"
        if not self.deterministic and NOTE not in NOTES:
            NOTES.append(NOTE)
        return plans

    def forward(self, cudnn: Any) -> Plan:
        """From the addresses of q, k, v to those of y and of the log-sum-exps."""
        graph = self.graph(cudnn)
        inputs = [self.tensor(graph, x) for x in (self.q, self.k, self.v)]
        outputs = graph.sdpa(*inputs, generate_stats=True, **self.options(cudnn))
        _describe(outputs, (self.y, self.log_sums))
        outputs[1].set_data_type(cudnn.data_type.FLOAT)
        return Plan(cudnn, graph, (*inputs, *outputs))

    def backward(self, cudnn: Any) -> Plan:
        """From the addresses of q, k, v, y, dy and the log-sum-exps to those of dq, dk, dv."""
        graph = self.graph(cudnn)
        inputs = [self.tensor(graph, x) for x in (self.q, self.k, self.v, self.y, self.y)]
        inputs.append(self.tensor(graph, self.log_sums, cudnn.data_type.FLOAT))
        options = self.options(cudnn) | {"use_deterministic_algorithm": self.deterministic}
        outputs = graph.sdpa_backward(*inputs, **options)
        _describe(outputs, self.gradients)
        return Plan(cudnn, graph, (*inputs, *outputs))

    def graph(self, cudnn: Any) -> Any:
        wide = cudnn.data_type.FLOAT
        narrow = cudnn.data_type.HALF if self.dtype == float16 else cudnn.data_type.BFLOAT16
        return cudnn.pygraph(
            io_data_type=narrow,
            intermediate_data_type=wide,
            compute_data_type=wide,
            handle=Place.here().handle,
        )

    def tensor(self, graph: Any, heads: Heads, *data_type: Any) -> Any:
        """An input of the graph, by default of the graph's dtype."""
        return graph.tensor(heads.shape, heads.strides, *data_type)

    @property
    def log_sums(self) -> Heads:
        return Heads.row_major((*self.q.shape[:3], 1))

    def options(self, cudnn: Any) -> dict[str, Any]:
        """Query t sees keys up to t + S - T: up to the diagonal that ends at the bottom right."""
        T, S = self.q.shape[2], self.k.shape[2]
        if not self.causal:
            return {"attn_scale": self.scale}
        ends = cudnn.diagonal_alignment
        end = ends.TOP_LEFT if S == T else ends.BOTTOM_RIGHT  # the same, for as many keys
        return {
            "attn_scale": self.scale,
            "diagonal_alignment": end,
            "diagonal_band_right_bound": 0,
        }


def _describe(outputs: Sequence[Any], wanted: Sequence[Heads]) -> None:
    for output, heads in zip(outputs, wanted, strict=True):
        output.set_output(True).set_dim(heads.shape).set_stride(heads.strides)
