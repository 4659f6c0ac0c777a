"""A stand-in for cuDNN and CuPy on the CPU: what the CUDA attention kernels tell cuDNN is done in
NumPy, on the very addresses, shapes and strides that cuDNN would be given.
"""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from tensor.ops.op import reference_of

DTYPES = {"BFLOAT16": ml_dtypes.bfloat16, "HALF": np.float16, "FLOAT": np.float32}


class OnGPU(np.ndarray[Any, Any]):
    """A NumPy array with the address that a CuPy array has."""

    @property
    def data(self) -> Any:
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def _c_contiguous(self) -> bool:
        return self.flags.c_contiguous


def on_gpu(array: Any) -> Any:
    return array.view(OnGPU)


def empty(shape: Any, dtype: Any) -> Any:
    """An array of bytes 0xff, which are NaN in every float type."""
    array = np.empty(shape, dtype).view(OnGPU)
    ctypes.memset(array.ctypes.data, 0xFF, array.nbytes)
    return array


class Described:
    """A tensor of a graph."""

    def __init__(self, number: int, dim: Any, stride: Any, data_type: str):
        self.number, self.dim, self.stride, self.data_type = number, dim, stride, data_type

    def get_uid(self) -> int:
        return self.number

    def set_output(self, _: bool) -> Described:
        return self

    def set_dim(self, dim: Any) -> Described:
        self.dim = dim
        return self

    def set_stride(self, stride: Any) -> Described:
        self.stride = stride
        return self

    def set_data_type(self, data_type: str) -> Described:
        self.data_type = data_type
        return self

    def at(self, address: int) -> Any:
        """The array at an address."""
        dtype = np.dtype(DTYPES[self.data_type])
        strides = [step * dtype.itemsize for step in self.stride]
        last = sum((n - 1) * step for n, step in zip(self.dim, strides, strict=True))
        memory = (ctypes.c_char * (last + dtype.itemsize)).from_address(address)
        flat = np.frombuffer(memory, np.uint8)
        return np.ndarray(tuple(self.dim), dtype, flat, 0, tuple(strides))


class Graph:
    def __init__(self, io_data_type: str, **_: Any):
        self.io_data_type, self.tensors = io_data_type, []  # type: ignore[var-annotated]
        self.options: dict[str, Any] = {}

    def tensor(self, dim: Any = None, stride: Any = None, data_type: str = "") -> Described:
        made = Described(len(self.tensors), dim, stride, data_type or self.io_data_type)
        self.tensors.append(made)
        return made

    def sdpa(self, *_: Described, generate_stats: bool, **options: Any) -> list[Described]:
        self.options = options
        return [self.tensor(), self.tensor()]

    def sdpa_backward(self, *_: Described, **options: Any) -> list[Described]:
        self.options = options
        return [self.tensor() for _ in range(3)]

    def validate(self, *_: Any) -> None: ...

    build_operation_graph = create_execution_plans = check_support = build_plans = validate

    def get_workspace_size(self) -> int:
        return 0

    def execute(self, addresses: dict[int, int], workspace: int, handle: int) -> None:
        arrays = [tensor.at(addresses[tensor.number]) for tensor in self.tensors]
        q, k, v = (np.asarray(x, np.float64) for x in arrays[:3])
        causal = self.options.get("diagonal_band_right_bound") == 0
        if causal and self.options["diagonal_alignment"] == "TOP_LEFT":
            assert q.shape[2] == k.shape[2]
        y, backward = reference_of("attention")(
            q, k, v, causal=causal, scale=self.options["attn_scale"]
        )
        if len(arrays) == 5:
            arrays[3][...] = y
            arrays[4][...] = 0.5
        else:
            np.testing.assert_allclose(np.asarray(arrays[3], np.float64), y, atol=0.02, rtol=0.02)
            assert (arrays[5] == 0.5).all()
            for out, gradient in zip(arrays[6:], backward(arrays[4]), strict=False):
                out[...] = gradient


class UnsupportedError(Exception):
    pass


CUDNN = SimpleNamespace(
    data_type=SimpleNamespace(**{name: name for name in DTYPES}),
    diagonal_alignment=SimpleNamespace(TOP_LEFT="TOP_LEFT", BOTTOM_RIGHT="BOTTOM_RIGHT"),
    heur_mode=SimpleNamespace(A="A"),
    cudnnGraphNotSupportedError=UnsupportedError,
    pygraph=Graph,
    create_handle=lambda: 7,
    set_stream=lambda handle, stream: None,  # of a handle
)
CUPY = SimpleNamespace(
    ndarray=empty,
    ascontiguousarray=lambda x: np.ascontiguousarray(x).view(OnGPU),
    cuda=SimpleNamespace(
        runtime=SimpleNamespace(getDevice=lambda: 0),
        get_current_stream=lambda: SimpleNamespace(ptr=0),
    ),
)
