"""The launcher: every `.cu` file compiled as one module, and each argument checked before a kernel
sees it.

A kernel reads memory in order and ignores strides, so `m.T` would silently be read as `m`; and it
trusts its pointer's type.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np

from tensor.dtypes import DType, bfloat16, float16, float32, float64
from tensor.memory.devices import Array, cupy

C_TYPES = {float32: "float", float64: "double", float16: "__half", bfloat16: "__nv_bfloat16"}


@functools.cache
def _source() -> str:
    return "\n".join(path.read_text() for path in sorted(Path(__file__).parent.glob("*.cu")))


@functools.cache
def parameters() -> dict[str, list[tuple[str, str]]]:
    """Each kernel's parameters: ("T", name) for a T*, ("type", name) for a Wide<T>::type*, ("int",
    name).
    """
    found = re.findall(r"__global__ void (\w+)\(([^)]*)\)", _source())
    return {kernel: re.findall(r"\b(T|type|int)[ *]+(\w+)", text) for kernel, text in found}


@functools.cache
def _module() -> Any:
    """All kernels, compiled on first use and cached on disk by CuPy."""
    names = [f"{kernel}<{c_type}>" for kernel in parameters() for c_type in C_TYPES.values()]
    return cupy().RawModule(code=_source(), options=("--std=c++17",), name_expressions=names)


@functools.cache
def _function(kernel: str, dtype: DType) -> Any:
    return _module().get_function(f"{kernel}<{C_TYPES[dtype]}>")


def wide(dtype: DType) -> DType:
    """The dtype of sums: Wide<T>::type in the .cu files."""
    return float64 if dtype == float64 else float32


def launch(kernel: str, grid: tuple[int, ...], block: tuple[int, ...], *arguments: Any) -> None:
    """Run a kernel on arrays and integers, T being the dtype of the first array.

    Raises TypeError for an array of another dtype than the .cu file declares, and for one that is
    not contiguous.
    """
    dtype = arguments[0].dtype
    declared = {"T": dtype, "type": wide(dtype)}
    for (kind, name), value in zip(parameters()[kernel], arguments, strict=True):
        if kind == "int":
            continue
        if value.dtype != declared[kind] or not value.flags.c_contiguous:
            raise TypeError(
                f"kernel {kernel}: {name} must be {declared[kind]} and contiguous, not "
                f"{value.dtype} with strides {value.strides}"
            )
    given = tuple(np.int32(v) if isinstance(v, int) else v for v in arguments)
    _function(kernel, dtype)(grid, block, given)


def contiguous(array: Array) -> Array:
    """The array itself where it is row-major, else a copy that is."""
    return cupy().ascontiguousarray(array)
