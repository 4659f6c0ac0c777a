"""CPU or GPU: the one file that imports CuPy, and only when a GPU is asked for or a CuPy array is
met.

The data decides. An op is written once, with NumPy's names; a CuPy array answers them itself (NEP
13 and 18: `np.exp(x)` calls `cupy.exp` when x lives on the GPU), so an op file never names a
device. What the protocols do not cover is here.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Annotated, Any, TypeAlias

import numpy as np

from tensor.dtypes import KNOWN, DType, DTypeLike, as_dtype
from tensor.errors import DeviceError, GraphError, RangeError, ShapeError, ViewError
from tensor.memory.layout import Layout, Shape, contiguous_strides

# numpy.ndarray or cupy.ndarray: the two share their methods, and no static type
Array: TypeAlias = Annotated[Any, "Array"]

INSTALL = (
    "install the extra that fits your driver: pip install -e '.[cuda13]' (or cuda12) in the top "
    "folder of the repository"
)
OLDEST = 14  # version of CuPy, as in pyproject.toml
# functions that are called when CuPy is first used
WHEN_CUPY_IS_USED: list[Callable[[], None]] = []


@functools.cache
def cupy() -> ModuleType:
    """The cupy module. Raises DeviceError with what to install when it, or a GPU, is missing."""
    try:
        import cupy

        module: ModuleType = cupy
        version = module.__version__
    except Exception as error:  # also of a library that CuPy loads
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            problem = "needs CuPy, which is not installed"
        else:
            cause = " ".join(str(error.__cause__ or error).split())
            problem = f"needs CuPy, which fails to load ({cause:.200})"
        raise DeviceError(f"device 'cuda' {problem}: {INSTALL}") from None
    if int(version.split(".")[0]) < OLDEST:
        raise DeviceError(f"device 'cuda' needs CuPy {OLDEST}, and {version} is here: {INSTALL}")
    try:
        count = module.cuda.runtime.getDeviceCount()
    except Exception as error:  # CuPy's own error class cannot be named where CuPy may be missing
        raise DeviceError(
            f"device 'cuda': CuPy {version} finds no usable GPU ({error}); run on device='cpu'"
        ) from None
    if count == 0:
        raise DeviceError("device 'cuda': this machine has no GPU; run on device='cpu'")
    for call in WHEN_CUPY_IS_USED:
        call()
    return module


def is_cuda(array: Array) -> bool:
    """Whether an array is on the GPU. Never imports CuPy: before CuPy is loaded, no array is."""
    kind: Any = type(array)
    return _is_of_cupy(kind)


@functools.cache
def _is_of_cupy(kind: type) -> bool:
    """`is_cuda` for all arrays of a class: a look at a dict from the second one on."""
    # a folder that is named cupy has no ndarray
    found = issubclass(kind, getattr(sys.modules.get("cupy"), "ndarray", ()))
    if found:
        cupy()  # the array may be the user's own
    return found


def array_module(device: str) -> ModuleType:
    """numpy for "cpu", cupy for "cuda" and "cuda:N". Raises DeviceError for other names."""
    if device == "cpu":
        return np
    if re.fullmatch("cuda(:[0-9]{1,9})?", device):
        module = cupy()
        count = module.cuda.runtime.getDeviceCount()
        if int(device[5:] or 0) >= count:
            all_ = f"{count} GPUs, cuda:0 to cuda:{count - 1}" if count > 1 else "1 GPU, cuda:0"
            raise DeviceError(f"device {device!r}: this machine has {all_}")
        return module
    raise DeviceError(f"no device is named {device!r}; use 'cpu', 'cuda' or 'cuda:N'")


def device_of(array: Array) -> str:
    """ "cpu", or "cuda:N" of the GPU that holds the array."""
    return f"cuda:{array.device.id}" if is_cuda(array) else "cpu"


def move(array: Array, device: str) -> Array:
    """A copy of the array on another device; the array itself where it is there already."""
    module = array_module(device)
    if device_of(array) == (device if device != "cuda" else f"cuda:{module.cuda.Device().id}"):
        return array
    if device == "cpu":
        return array.get()
    with module.cuda.Device(int(device[5:] or 0)):
        return module.asarray(array)


def to_host(array: Array) -> np.ndarray[Any, Any]:
    """The array's values in NumPy: a copy from the GPU, the array itself on the CPU."""
    host: np.ndarray[Any, Any] = array.get() if is_cuda(array) else array
    return host


def as_array(value: Any) -> Array:
    """A result as a plain array of its device. NumPy returns a 0-d result as a scalar, and a
    memory map as a subclass.
    """
    return value if is_cuda(value) else np.asarray(value)


def of_known_dtype(array: Array) -> Array:
    """The array with the dtype object of dtypes.py: that of an unpickled array only equals it."""
    known = KNOWN.get(array.dtype, array.dtype)
    return array if array.dtype is known else array.view(known)


def flatten(array: Array) -> tuple[Array, Layout]:
    """(the memory under an array as a 1-D array, the layout of the array in that memory). Nothing
    is copied.
    """
    itemsize = array.dtype.itemsize
    if array.flags.c_contiguous:
        return array.reshape(-1), Layout(array.shape, contiguous_strides(array.shape))
    if any(
        stride % itemsize for stride, n in zip(array.strides, array.shape, strict=True) if n > 1
    ):
        raise ViewError(
            f"strides of {array.strides} bytes are no multiples of the {itemsize} bytes of "
            f"{array.dtype}: make a Tensor(array), which copies"
        )
    layout = Layout(array.shape, tuple(stride // itemsize for stride in array.strides))
    low, high = layout.span()
    corner = tuple(slice(-1, None) if stride < 0 else slice(1) for stride in layout.strides)
    first = array[corner]  # the one-element view at the lowest address
    if is_cuda(array):
        flat = cupy().ndarray((high - low,), array.dtype, first.data)
    else:
        flat = np.lib.stride_tricks.as_strided(
            first, (high - low,), (itemsize,), writeable=array.flags.writeable
        )
    return flat, Layout(layout.shape, layout.strides, -low)


def window(flat: Array, layout: Layout) -> Array:
    """The ndarray over `flat` that a layout describes: the same memory, no copy."""
    dtype, itemsize = flat.dtype, flat.dtype.itemsize
    if layout.size == 0:
        return flat[:0].reshape(layout.shape)
    strides = tuple(stride * itemsize for stride in layout.strides)
    if type(flat) is np.ndarray:
        # bytes, because a dtype that NumPy did not define (bfloat16) has no buffer interface
        return np.ndarray(
            layout.shape, dtype, flat.view(np.uint8), layout.offset * itemsize, strides
        )
    return cupy().ndarray(layout.shape, dtype, flat.data + layout.offset * itemsize, strides)


def address(array: Array) -> int:
    """The address of an array's first element, [0, ..., 0]."""
    return int(array.ctypes.data if type(array) is np.ndarray else array.data.ptr)


def extent(array: Array) -> tuple[int, int]:
    """The half-open range of addresses that an array lies in."""
    low, high = Layout(array.shape, array.strides).span()  # strides in bytes, so the span too
    start = address(array)
    return start + low, start + high - 1 + array.dtype.itemsize if array.size else start


def synchronize(array: Array) -> None:
    """Wait until the GPU that holds the array has finished its work. On the CPU, do nothing."""
    if is_cuda(array):
        with array.device:
            cupy().cuda.get_current_stream().synchronize()


def add_at(target: Array, key: Any, values: Array) -> None:
    """target[key] += values, where an index that occurs twice counts twice."""
    (cupy() if is_cuda(target) else np).add.at(target, key, values)


def zeros_like(array: Array, shape: Shape) -> Array:
    """Row-major zeros of the array's dtype and device. (CuPy's zeros_like ignores shape=().)"""
    return (cupy() if is_cuda(array) else np).zeros(shape, array.dtype)


def from_python(data: Any, dtype: DTypeLike | None = None) -> Array:
    """Numbers, lists of them, lists of tensors: floats as float32, ints as int64, or all in a
    dtype.

    Raises ShapeError for ragged lists, OverflowError for a number that an integer dtype cannot
    hold.
    """
    for part in data if isinstance(data, (list, tuple)) else ():
        if getattr(part, "node", None) is not None:
            raise GraphError("Tensor([...]) of tensors that carry a graph would drop it: use stack")
    try:
        array = np.asarray(data)
    except ValueError:
        raise ShapeError("lists of unequal lengths make no tensor: pad them") from None
    if dtype is not None:
        return exactly(array, as_dtype(dtype))
    if array.dtype == np.float64 and not _holds_arrays(data):
        return array.astype(np.float32)
    return array


def exactly(array: Array, dtype: DType) -> Array:
    """The array in another dtype. Raises OverflowError for a number that an integer dtype cannot
    hold: NumPy would keep its last bits.
    """
    given = as_dtype(array.dtype)  # raises for text, complex numbers and objects
    if dtype.kind in "iu" and given != dtype and array.size:
        bounds = np.iinfo(dtype)
        for number in (array.min().item(), array.max().item()):
            if not bounds.min <= number <= bounds.max:
                raise RangeError(f"{dtype} holds {bounds.min} to {bounds.max}, not {number}")
    return array.astype(dtype)


def _holds_arrays(data: Any) -> bool:
    """Whether some number in nested lists has a dtype of its own, which is then kept."""
    if isinstance(data, (list, tuple)):
        return any(_holds_arrays(part) for part in data)
    return hasattr(data, "dtype")
