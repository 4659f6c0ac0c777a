"""dtypes: the NumPy ones plus bfloat16, and NumPy 2's promotion taught to include it.

Tensors are strong. They promote each other as in NumPy 2:

    float32 op float64 -> float64      int64 op float32 -> float64      bfloat16 op float32 ->
    float32

What is no Tensor is weak: numbers, lists and arrays of Python and NumPy take the float dtype of the
Tensors they meet. Integers that become floats become float32:

    float32 * 2.0, float32 * np.ones(3) -> float32      int64 * 2.0, int64 / int64 -> float32

bfloat16 is float32 cut after 16 bits: the same range, 8 bits of precision. NumPy has no such dtype;
`ml_dtypes` adds it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import ml_dtypes
import numpy as np

from tensor.errors import DTypeError

DType: TypeAlias = "np.dtype[Any]"
DTypeLike: TypeAlias = "str | type | np.dtype[Any]"

float64, float32, float16 = np.dtype("float64"), np.dtype("float32"), np.dtype("float16")
bfloat16 = np.dtype(ml_dtypes.bfloat16)
int64, int32, int16, int8, uint8 = map(np.dtype, ("int64", "int32", "int16", "int8", "uint8"))
bool_ = np.dtype("bool")

# a dtype -> the object above that equals it. pickle makes others, and ops compare by identity
KNOWN = {
    dtype: dtype
    for dtype in (float64, float32, float16, bfloat16, int64, int32, int16, int8, uint8, bool_)
}
FLOATS = frozenset((float64, float32, float16, bfloat16))
# arithmetic in these runs in float32 and is rounded once, at the end
NARROW = frozenset((float16, bfloat16))

# kinds of dtypes that no tensor has
_NO_NUMBERS = {
    "c": "complex numbers: take .real and .imag",
    "U": "text",
    "S": "text",
    "O": "Python objects",
    "M": "dates",
    "m": "times",
    "V": "records: take one field",
}


def as_dtype(dtype: DTypeLike | None, default: DType = float32) -> DType:
    """The dtype of that name: "float32", np.float32, "bfloat16"; None is the default. Raises
    DTypeError for what no array here may hold.
    """
    try:
        found = default if dtype is None else np.dtype(dtype)
    except TypeError:
        raise DTypeError(
            f"no dtype is named {dtype!r}; use float64, float32, float16, bfloat16, "
            "an integer or bool"
        ) from None
    native = found if found.isnative else np.dtype(found.type)
    if native not in FLOATS and native.kind not in "iub":
        kind = _NO_NUMBERS.get(native.kind, str(native))
        raise DTypeError(f"tensors hold floats, integers and bools, not {kind}")
    return KNOWN.get(native, native)


def promote(*dtypes: DType) -> DType:
    """The dtype that holds a mix of `dtypes` in NumPy 2; bfloat16 stands where float16 would, and
    the two meet in float32.
    """
    if bfloat16 not in dtypes:
        return np.result_type(*dtypes)
    if float16 in dtypes:
        return promote(*(float32 if dtype in NARROW else dtype for dtype in dtypes))
    mixed = np.result_type(*(float16 if dtype == bfloat16 else dtype for dtype in dtypes))
    return bfloat16 if mixed == float16 else mixed
