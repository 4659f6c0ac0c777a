"""The launcher: every `.cu` file compiled as one module, and each argument checked before a kernel
sees it.

A kernel reads memory in order and ignores strides, so `m.T` would silently be read as `m`; and it
trusts its pointer's type.
"""

from __future__ import annotations

import functools
from importlib import resources
from typing import Any

import numpy as np

from tensor.dtypes import DType, bfloat16, float16, float32, float64
from tensor.memory.devices import Array, cupy

C_TYPES = {float32: "float", float64: "double", float16: "__half", bfloat16: "__nv_bfloat16"}
KERNEL_NAMES = ("layer_norm_forward", "layer_norm_backward", "layer_norm_columns")


@functools.cache
def module() -> Any:
    """All kernels, compiled on first use and cached on disk by CuPy."""
    folder = resources.files("tensor.kernels.cuda")
    sources = [
        entry.read_text()
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if entry.name.endswith(".cu")
    ]
    names = [f"{kernel}<{c_type}>" for kernel in KERNEL_NAMES for c_type in C_TYPES.values()]
    return cupy().RawModule(
        code="\n".join(sources), options=("--std=c++17",), name_expressions=names
    )


@functools.cache
def _function(kernel: str, dtype: DType) -> Any:
    return module().get_function(f"{kernel}<{C_TYPES[dtype]}>")


def launch(
    kernel: str,
    dtype: DType,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    arguments: dict[str, Any],
    dtypes: dict[str, DType],
) -> None:
    """Run `kernel<dtype>` on arrays and integers by name, in the order of the .cu file.

    Arrays must have `dtype`, or what `dtypes` says for that name. Raises TypeError for another one,
    ValueError where one is not contiguous.
    """
    for name, value in arguments.items():
        if isinstance(value, int):
            continue
        if value.dtype != dtypes.get(name, dtype):
            raise TypeError(
                f"kernel {kernel}: {name} is {value.dtype}, declared {dtypes.get(name, dtype)}"
            )
        if not value.flags.c_contiguous:
            raise ValueError(
                f"kernel {kernel}: {name} {value.shape} is not contiguous, "
                "and kernels ignore strides"
            )
    _function(kernel, dtype)(
        grid, block, tuple(np.int32(v) if isinstance(v, int) else v for v in arguments.values())
    )


def contiguous(array: Array) -> Array:
    """The array itself where it is row-major, else a copy that is."""
    return cupy().ascontiguousarray(array)
