"""cuBLASLt, NVIDIA's library of matrix products, called through ctypes.

    D = epilogue(A B + beta D)     A: (m, k)   B: (k, n)   D: (m, n), all column-major

CuPy's own products go through cuBLAS, which has no epilogues, does not write float32 results of
16-bit operands, and refuses to be captured in a CUDA graph. The numbers below are those of NVIDIA's
headers library_types.h, cublas_api.h and cublasLt.h.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable
from ctypes import POINTER, byref, c_float, c_int, c_int64, c_size_t, c_uint64, c_void_p, sizeof
from typing import Any, NamedTuple

from tensor.dtypes import DType, bfloat16, float16, float32, float64
from tensor.errors import DeviceError
from tensor.memory.devices import cupy

DATA_TYPES = {float32: 0, float64: 1, float16: 2, bfloat16: 14}  # cudaDataType
FLOAT32, FLOAT64, TF32 = 68, 70, 77  # cublasComputeType_t: in which type a product is summed
# cublasLtMatmulDescAttributes_t
TRANSPOSED_A, TRANSPOSED_B, EPILOGUE, BIAS, BIAS_TYPE = 3, 4, 7, 8, 26
PLAIN, ADD_BIAS = 1, 4  # cublasLtEpilogue_t: nothing; D plus a vector
BATCH_COUNT, BATCH_STRIDE = 5, 6  # cublasLtMatrixLayoutAttribute_t
# cublasLtMatmulPreferenceAttributes_t
MOST_WORKSPACE, ALIGNMENTS = 1, (5, 6, 7, 8)
_ONE_AT_A_TIME = threading.Lock()
WORKSPACE = 32 << 20  # bytes; NVIDIA's advice for Hopper


class Heuristic(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t: an algorithm for a product."""

    _fields_ = (
        ("algorithm", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    )


class Shape(NamedTuple):
    """A product: sizes, layouts and types. Equal products have equal plans."""

    m: int
    n: int
    k: int
    transposed: tuple[bool, bool]  # A, B
    leading: tuple[int, int, int]  # elements from a column to the next one, of A, B, D
    dtype: DType  # of A and B
    result: DType  # of D
    compute: int
    epilogue: int
    alignment: int  # bytes that divide all addresses
    batch: int  # products side by side
    strides: tuple[int, int, int]  # elements from a product to the next one, of A, B, D


class Plan(NamedTuple):
    """What cuBLASLt is told beside addresses. The descriptors live as long as the process."""

    device: int
    handle: c_void_p
    description: c_void_p
    layouts: tuple[c_void_p, c_void_p, c_void_p]
    algorithm: Any  # a pointer to a Heuristic
    one: Any  # pointers to the numbers 1 and 0, in the type of the sums
    zero: Any


@functools.cache
def _library() -> Any:
    """The loaded library. Raises DeviceError where it is not installed."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
    except Exception as error:  # pathfinder's own classes, or none where the package is missing
        raise DeviceError(f"cuBLASLt, a part of CUDA, is not found: {error}") from None


@functools.cache
def unavailable() -> str | None:
    """Why there is no cuBLASLt here; None where there is."""
    try:
        _library()
    except DeviceError as error:
        return str(error)
    return None


@functools.cache
def _function(name: str, *kinds: Any) -> Callable[..., None]:
    """A function of the library that raises where the library returns an error."""
    function = getattr(_library(), f"cublasLt{name}")
    function.argtypes, function.restype = kinds, c_int

    def call(*arguments: Any) -> None:
        status = function(*arguments)
        if status:
            raise RuntimeError(f"cublasLt{name} failed with status {status}")

    return call


@functools.cache
def _handle(device: int) -> c_void_p:
    handle = c_void_p()
    _function("Create", POINTER(c_void_p))(byref(handle))
    return handle


@functools.cache
def _workspace(device: int, stream: int) -> Any:
    """Scratch memory for split sums: each stream has its own."""
    return cupy().empty(WORKSPACE, "uint8")


@functools.cache
def _setter(what: str) -> Callable[..., None]:
    return _function(f"{what}SetAttribute", c_void_p, c_int, c_void_p, c_size_t)


def _set(what: str, of: c_void_p, attribute: int, value: Any) -> None:
    """Set an attribute of a description, a layout or a preference."""
    _setter(what)(of, attribute, byref(value), sizeof(value))


def plan(device: int, shape: Shape) -> Plan:
    """The descriptors of a product, and the algorithm that cuBLASLt thinks fastest.

    The algorithm is chosen without timing: the same one in each run, so the same bits.
    """
    scale = DATA_TYPES[float64] if shape.compute == FLOAT64 else DATA_TYPES[float32]
    description = c_void_p()
    _function("MatmulDescCreate", POINTER(c_void_p), c_int, c_int)(
        byref(description), shape.compute, scale
    )
    for attribute, value in (
        (TRANSPOSED_A, int(shape.transposed[0])),
        (TRANSPOSED_B, int(shape.transposed[1])),
        (EPILOGUE, shape.epilogue),
    ):
        _set("MatmulDesc", description, attribute, c_int(value))
    if shape.epilogue != PLAIN:
        _set("MatmulDesc", description, BIAS_TYPE, c_int(DATA_TYPES[shape.dtype]))
        # some address: the search for an algorithm asks whether there is one
        _set("MatmulDesc", description, BIAS, c_uint64(_workspace(device, 0).data.ptr))
    layouts = _layouts(shape)
    preference, found, count = c_void_p(), Heuristic(), c_int()
    _function("MatmulPreferenceCreate", POINTER(c_void_p))(byref(preference))
    _set("MatmulPreference", preference, MOST_WORKSPACE, c_size_t(WORKSPACE))
    for attribute in ALIGNMENTS:
        _set("MatmulPreference", preference, attribute, ctypes.c_uint32(shape.alignment))
    search = _function(
        "MatmulAlgoGetHeuristic", *[c_void_p] * 7, c_int, POINTER(Heuristic), POINTER(c_int)
    )
    a, b, d = layouts
    arguments = _handle(device), description, a, b, d, d, preference
    search(*arguments, 1, byref(found), byref(count))
    if count.value == 0:
        raise RuntimeError(f"cuBLASLt has no algorithm for {shape}")
    number = ctypes.c_double if shape.compute == FLOAT64 else c_float
    numbers = byref(number(1)), byref(number(0))
    return Plan(device, _handle(device), description, layouts, byref(found), *numbers)


def _layouts(shape: Shape) -> tuple[c_void_p, c_void_p, c_void_p]:
    """The layouts of A, B and D as they lie in memory."""
    m, n, k = shape.m, shape.n, shape.k
    sizes = (
        (k, m) if shape.transposed[0] else (m, k),
        (n, k) if shape.transposed[1] else (k, n),
        (m, n),
    )
    dtypes = shape.dtype, shape.dtype, shape.result
    made = []
    create = _function("MatrixLayoutCreate", POINTER(c_void_p), c_int, c_uint64, c_uint64, c_int64)
    for i, ((rows, columns), dtype) in enumerate(zip(sizes, dtypes, strict=True)):
        layout = c_void_p()
        create(byref(layout), DATA_TYPES[dtype], rows, columns, shape.leading[i])
        if shape.batch > 1:
            _set("MatrixLayout", layout, BATCH_COUNT, c_int(shape.batch))
            _set("MatrixLayout", layout, BATCH_STRIDE, c_int64(shape.strides[i]))
        made.append(layout)
    a, b, d = made
    return a, b, d


@functools.cache
def _multiply() -> Callable[..., None]:
    return _function("Matmul", *[c_void_p] * 14, c_size_t, c_void_p)


def multiply(plan: Plan, a: int, b: int, d: int, add: bool, bias: int = 0) -> None:
    """Queue D = epilogue(A B), or D += A B, on the current stream. a, b, d, bias: addresses."""
    stream = cupy().cuda.get_current_stream().ptr
    a_layout, b_layout, d_layout = plan.layouts
    beta = plan.one if add else plan.zero
    operands = plan.one, a, a_layout, b, b_layout, beta, d, d_layout, d, d_layout
    scratch = _workspace(plan.device, stream).data.ptr
    with _ONE_AT_A_TIME:  # a description holds the address of one bias
        if bias:
            _set("MatmulDesc", plan.description, BIAS, c_uint64(bias))
        _multiply()(
            plan.handle, plan.description, *operands, plan.algorithm, scratch, WORKSPACE, stream
        )
