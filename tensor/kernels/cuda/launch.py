"""The launcher: a `.cu` file is one module for each dtype, compiled when one of its kernels first
runs. CuPy keeps what was compiled on disk.

    norms = Source("layer_norm.cu")
    norms.launch("layer_norm_forward", grid, block, x, gain, bias, y, rows, columns)

A `.cu` file is written for one float type T. Each compilation defines three names:

    T   the type of the elements: float, double, __half or __nv_bfloat16
    W   the wider type of sums: float, and double for double
    V   the elements that one thread reads at once, a `Pack`: 16 bytes, or 1 element

common.cuh stands before each file. A kernel reads memory in order and trusts its pointers. So the
launcher compares each argument with the kernel's parameter before a kernel sees the argument.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tensor.dtypes import DType, bfloat16, float16, float32, float64, int32, int64
from tensor.memory.devices import Array, cupy

C_TYPES = {float32: "float", float64: "double", float16: "__half", bfloat16: "__nv_bfloat16"}
# a parameter's C type -> the dtype of its array, or the type of its number; T and W are per dtype
NUMBERS = {
    "int": np.int32,
    "unsigned": np.uint32,
    "long long": np.int64,
    "float": np.float32,
    "double": np.float64,
}
POINTERS = {
    "float": float32,
    "double": float64,
    "int": int32,
    "long long": int64,
    "unsigned": np.dtype(np.uint32),
}
INCLUDES = "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n"
FOLDER = Path(__file__).parent
NO_ARRAY = np.uintp(0)  # a null pointer, for None


def wide(dtype: DType) -> DType:
    """The dtype of sums: W in the .cu files."""
    return float64 if dtype == float64 else float32


def width_of(columns: int, *arrays: Array) -> int:
    """V for rows of so many elements: the elements in 16 bytes where every row of every array
    starts on a multiple of 16 bytes, else 1.
    """
    width = 16 // arrays[0].dtype.itemsize
    aligned = columns % width == 0 and not any(array.data.ptr % 16 for array in arrays)
    return width if aligned else 1


def contiguous(array: Array) -> Array:
    """The array itself where it is row-major, else a copy that is."""
    return array if array.flags.c_contiguous else cupy().ascontiguousarray(array)


def integers(ids: Array) -> tuple[Array | None, Array | None]:
    """(64-bit ids, 32-bit ids): one is the ids, as they are if they can, the other None."""
    if ids.dtype == int32:
        return None, contiguous(ids)
    return contiguous(ids.astype(int64, copy=False)), None


class Source:
    """The kernels of one `.cu` file. The headers that it needs stand between common.cuh and it."""

    def __init__(self, file: str, *headers: str):
        self.files = "common.cuh", *headers, file
        self._modules: dict[tuple[DType, int], Any] = {}
        self._ready: dict[tuple[str, DType, int], tuple[Any, list[Any]]] = {}

    @functools.cached_property
    def text(self) -> str:
        """What is compiled after the definitions of T, W and V."""
        return "".join(f'#line 1 "{file}"\n{(FOLDER / file).read_text()}\n' for file in self.files)

    @functools.cached_property
    def parameters(self) -> dict[str, list[tuple[str, bool, str]]]:
        """Each kernel's parameters: (C type, whether it is a pointer, name)."""
        bounds = r"(?:__launch_bounds__\([^)]*\)\s*)?"
        found = re.findall(rf"^KERNEL\s+{bounds}(\w+)\(([^)]*)\)", self.text, re.MULTILINE)
        one = re.compile(r"(?:const\s+)?(long long|\w+)\s*(\*?)\s*(?:__restrict__\s+)?(\w+)")
        read: dict[str, list[tuple[str, bool, str]]] = {}
        for kernel, declared in found:
            parts = [one.fullmatch(part.strip()) for part in declared.split(",")]
            read[kernel] = [(part[1], part[2] == "*", part[3]) for part in parts if part]
        return read

    def launch(
        self,
        kernel: str,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        dtype: DType | None = None,
        width: int = 1,
        shared: int = 0,
    ) -> None:
        """Run a kernel. T is `dtype`, by default that of the first argument; V is `width`.

        shared: bytes of dynamic shared memory. An argument None is a null pointer.
        Raises TypeError for an array of another dtype than the .cu file declares, and for an array
        that is not contiguous.
        """
        dtype = dtype or arguments[0].dtype
        ready = self._ready.get((kernel, dtype, width)) or self._prepare(kernel, dtype, width)
        function, kinds = ready
        given = []
        for value, (kind, convert) in zip(arguments, kinds, strict=True):
            if convert is not None:
                given.append(convert(value))
            elif value is None:
                given.append(NO_ARRAY)
            elif value.dtype != kind or not value.flags.c_contiguous:
                name = self.parameters[kernel][len(given)][2]
                raise TypeError(
                    f"kernel {kernel}: {name} must be {kind} and contiguous, not {value.dtype} "
                    f"with strides {value.strides}"
                )
            else:
                given.append(value)
        if shared > 48 * 1024:  # the most that a kernel gets without asking
            function.max_dynamic_shared_size_bytes = shared
        function(grid, block, tuple(given), shared_mem=shared)

    def _prepare(self, kernel: str, dtype: DType, width: int) -> tuple[Any, list[Any]]:
        """(the compiled kernel, for each parameter the dtype of its array or the type of its
        number)
        """
        own = {"T": dtype, "W": wide(dtype)}
        kinds: list[tuple[Any, Callable[[Any], Any] | None]] = []
        for c_type, is_pointer, _ in self.parameters[kernel]:
            if is_pointer:
                kinds.append((own.get(c_type) or POINTERS[c_type], None))
            else:
                kinds.append((None, NUMBERS.get(c_type) or own[c_type].type))
        function = self._module(dtype, width).get_function(kernel)
        self._ready[kernel, dtype, width] = function, kinds
        return function, kinds

    def _module(self, dtype: DType, width: int) -> Any:
        if (dtype, width) not in self._modules:
            types = f"using T = {C_TYPES[dtype]}; using W = {C_TYPES[wide(dtype)]};"
            code = f"{INCLUDES}{types}\nconstexpr int V = {width};\n{self.text}"
            self._modules[dtype, width] = cupy().RawModule(code=code, options=("--std=c++17",))
        return self._modules[dtype, width]
