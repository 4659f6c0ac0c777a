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

import ctypes
import functools
import re
import struct
import threading
from pathlib import Path
from typing import Any

import numpy as np

from tensor.dtypes import DType, bfloat16, float16, float32, float64, int8, int32, int64
from tensor.errors import DeviceError
from tensor.memory.devices import Array, cupy

# of the dtypes that kernels take as T
C_TYPES = {float32: "float", float64: "double", float16: "__half", bfloat16: "__nv_bfloat16"}
FURTHER_TYPES = {**C_TYPES, int8: "signed char"}  # those that a Source may name beside T
# a parameter's C type -> the dtype of its array, or the code of its number in `struct`; T and W are
# per dtype
NUMBERS = {"int": "i", "unsigned": "I", "long long": "q", "float": "f", "double": "d"}
POINTERS = {
    "float": float32,
    "double": float64,
    "int": int32,
    "long long": int64,
    "unsigned": np.dtype(np.uint32),
}
INCLUDES = "#include <cuda_bf16.h>\n#include <cuda_fp16.h>\n"
FOLDER = Path(__file__).parent


def wide(dtype: DType) -> DType:
    """The dtype of sums: W in the .cu files."""
    return float64 if dtype == float64 else float32


def width_of(columns: int, *arrays: Array) -> int:
    """V for rows of so many elements: the elements in 16 bytes where every row of every array
    starts on a multiple of 16 bytes, else 1.
    """
    width, together = 16 // arrays[0].dtype.itemsize, 0
    for array in arrays:
        together |= array.data.ptr
    return 1 if columns % width or together % 16 else width


def empty(shape: tuple[int, ...], dtype: DType) -> Array:
    """A row-major array of any values. `cupy.empty` looks at its arguments first."""
    return cupy().ndarray(shape, dtype)


def contiguous(array: Array) -> Array:
    """The array itself where it is row-major, else a copy that is."""
    # `flags` would make an object at each call
    return array if array._c_contiguous else cupy().ascontiguousarray(array)


def integers(ids: Array) -> tuple[Array | None, Array | None]:
    """(64-bit ids, 32-bit ids): one is the ids, as they are if they can, the other None."""
    if ids.dtype == int32:
        return None, contiguous(ids)
    return contiguous(ids.astype(int64, copy=False)), None


class Ready:
    """A compiled kernel, and memory for its arguments.

    The driver takes the address of each argument and copies what lies there, before the call
    returns. CuPy's own launch makes the same call from an object for each argument, in twice the
    time; a step launches more than a hundred kernels.
    """

    def __init__(self, function: Any, kinds: list[DType | None], codes: list[str]):
        """kinds: the dtypes of arrays, None for numbers   codes: of each argument, in `struct`; of
        a tuple more than one letter
        """
        self.function = function
        self.pointers = [(i, kind) for i, kind in enumerate(kinds) if kind is not None]
        # from the last: one becomes several numbers
        self.tuples = [i for i, code in reversed([*enumerate(codes)]) if len(code) > 1]
        self.most_shared = 48 * 1024  # bytes that a kernel gets without asking
        self._layout = struct.Struct("@" + "".join(codes))
        self._memory = ctypes.create_string_buffer(self._layout.size)
        ends = [struct.calcsize("@" + "".join(codes[: i + 1])) for i in range(len(codes))]
        places = [end - struct.calcsize(code) for end, code in zip(ends, codes, strict=True)]
        start = ctypes.addressof(self._memory)
        self._addresses = (ctypes.c_void_p * len(codes))(*(start + place for place in places))
        self._parameters = ctypes.addressof(self._addresses)
        self._one_at_a_time = threading.Lock()

    def allow(self, shared: int) -> None:
        """Let the kernel take so many bytes of shared memory."""
        self.function.max_dynamic_shared_size_bytes = self.most_shared = shared

    def run(self, sizes: tuple[int, ...], shared: int, values: list[Any], early: bool) -> None:
        """Queue the kernel on the current stream.   sizes: three of the grid, three of a block
        values: numbers, and addresses of arrays   early: before the kernel before it ends
        """
        cuda = cupy().cuda
        stream, pointer = cuda.get_current_stream().ptr, self.function.kernel.ptr
        start = launch_early if early else cuda.driver.launchKernel
        with self._one_at_a_time:
            self._layout.pack_into(self._memory, 0, *values)
            start(pointer, *sizes, shared, stream, self._parameters, 0)


class _Attribute(ctypes.Structure):
    """CUlaunchAttribute of cuda.h: a number of an attribute, and its value."""

    _fields_ = (("id", ctypes.c_int), ("padding", ctypes.c_int), ("value", ctypes.c_int * 16))


class _Launch(ctypes.Structure):
    """CUlaunchConfig of cuda.h."""

    _fields_ = (
        ("sizes", ctypes.c_uint * 6),
        ("shared", ctypes.c_uint),
        ("stream", ctypes.c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("count", ctypes.c_uint),
    )


PROGRAMMATIC = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION


@functools.cache
def _launch_kernel() -> Any:
    return ctypes.CDLL("libcuda.so.1").cuLaunchKernelEx


def launch_early(pointer: int, *rest: int) -> None:
    """As CuPy's launchKernel, but the kernel may start while the one before still runs: the kernel
    itself waits, as early.cuh says.
    """
    *sizes, shared, stream, parameters, extra = rest
    attribute = _Attribute(PROGRAMMATIC, 0, (ctypes.c_int * 16)(1))
    config = _Launch((ctypes.c_uint * 6)(*sizes), shared, stream, ctypes.pointer(attribute), 1)
    status = _launch_kernel()(
        ctypes.byref(config), *map(ctypes.c_void_p, (pointer, parameters, extra))
    )
    if status:
        raise DeviceError(f"cuLaunchKernelEx failed with status {status}")


class Source:
    """The kernels of one `.cu` file. The headers that it needs stand between common.cuh and it.

    structs: types of parameters that the headers define, and the codes of their members, in
    `struct`. Such an argument is a tuple of numbers.   types: names of further types of elements
    constants: whole numbers that stand before everything
    """

    def __init__(
        self,
        file: str,
        *headers: str,
        structs: dict[str, str] | None = None,
        types: dict[str, DType] | None = None,
        **constants: int,
    ):
        self.files = "common.cuh", *headers, file
        self.structs, self.types, self.constants = structs or {}, types or {}, constants
        self._modules: dict[tuple[DType, int], Any] = {}
        self._ready: dict[tuple[str, DType, int], Ready] = {}

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
        early: bool = False,
    ) -> None:
        """Run a kernel. T is `dtype`, by default that of the first argument; V is `width`.

        shared: bytes of dynamic shared memory. An argument None is a null pointer.   early: of a
        kernel that waits for the one before by itself (early.cuh)
        Raises TypeError for an array of another dtype than the .cu file declares, and for an array
        that is not contiguous.
        """
        dtype = dtype or arguments[0].dtype
        ready = self._ready.get((kernel, dtype, width)) or self._prepare(kernel, dtype, width)
        values = list(arguments)
        for i, kind in ready.pointers:
            value = arguments[i]
            if value is None:
                values[i] = 0
            elif value.dtype == kind and value._c_contiguous:
                values[i] = value.data.ptr
            else:
                name = self.parameters[kernel][i][2]
                raise TypeError(
                    f"kernel {kernel}: {name} must be {kind} and contiguous, not {value.dtype} "
                    f"with strides {value.strides}"
                )
        for i in ready.tuples:
            values[i : i + 1] = arguments[i]
        if shared > ready.most_shared:
            ready.allow(shared)
        ready.run((*grid, 1, 1)[:3] + (*block, 1, 1)[:3], shared, values, early)

    def _prepare(self, kernel: str, dtype: DType, width: int) -> Ready:
        own = self._types(dtype)
        kinds: list[Any] = []
        codes: list[str] = []
        for c_type, is_pointer, _ in self.parameters[kernel]:
            if is_pointer:
                kinds.append(own.get(c_type) or POINTERS[c_type])
                codes.append("Q")
            else:
                kinds.append(None)
                code = NUMBERS.get(c_type) or self.structs.get(c_type)
                codes.append(code or str(own[c_type].char))
        ready = Ready(self._module(dtype, width).get_function(kernel), kinds, codes)
        self._ready[kernel, dtype, width] = ready
        return ready

    def _types(self, dtype: DType) -> dict[str, DType]:
        return {"T": dtype, "W": wide(dtype), **self.types}

    def _module(self, dtype: DType, width: int) -> Any:
        if (dtype, width) not in self._modules:
            own = self._types(dtype).items()
            types = [f"using {name} = {FURTHER_TYPES[of]};" for name, of in own]
            numbers = {"V": width, **self.constants}
            lines = [f"constexpr int {name} = {int(value)};\n" for name, value in numbers.items()]
            code = f"{INCLUDES}{' '.join(types)}\n{''.join(lines)}{self.text}"
            self._modules[dtype, width] = cupy().RawModule(code=code, options=("--std=c++17",))
        return self._modules[dtype, width]
