"""Tensors in files, in the format safetensors: a header of names, dtypes and shapes, then the
numbers. To load such a file executes nothing.

    tensor.save("weights.safetensors", {"w": w})
    w = tensor.load("weights.safetensors")["w"]
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensor.base import TensorBase
from tensor.dtypes import as_dtype
from tensor.errors import ArgumentError, FileError, brief
from tensor.memory.devices import Array, is_cuda, to_host
from tensor.tensor import Tensor

_NAMES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
DTYPES = {code: as_dtype(name) for code, name in _NAMES.items()}  # the format's names of dtypes
CODES = {dtype: code for code, dtype in DTYPES.items()}


@brief
def save(path: str | os.PathLike[str], tensors: Mapping[str, Any]) -> None:
    """Write {name: tensor} to a file, which is whole or absent. The values alone are written, no
    graph and no strides: a view is stored as what it shows.

    Raises TypeError for anything else than a dict of tensors or arrays, and OSError.
    """
    if not isinstance(tensors, Mapping):
        raise ArgumentError(f"save writes {{name: tensor}}, not a {type(tensors).__name__}")
    for name, value in tensors.items():
        if not isinstance(name, str) or name == "__metadata__":
            raise ArgumentError(f"save: {name!r} cannot be the name of a tensor")
        if not (isinstance(value, (TensorBase, np.ndarray)) or is_cuda(value)):
            raise ArgumentError(f"save writes tensors, and {name!r} is a {type(value).__name__}")
    arrays = {name: Tensor.wrap(value).array for name, value in tensors.items()}
    target = Path(path)
    temporary = target.with_name(target.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)  # may be a link
        with temporary.open("xb") as file:
            for part in encoded(arrays, "tensor"):
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):  # it names the temporary file
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


def encoded(arrays: Mapping[str, Array], form: str) -> Iterator[Any]:
    """The bytes of a safetensors file of these arrays, from any device, in parts.

    8 bytes     N, the smallest first
    N bytes     a header in JSON; `form` is what it says of the names
    the rest    the numbers, wide ones first, so that all lie at multiples of their size
    """
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    header: dict[str, Any] = {"__metadata__": {"format": form}}
    end = 0
    for name, array in ordered:
        start, end = end, end + array.nbytes
        code = CODES[np.dtype(array.dtype)]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little")
    yield text
    for _, array in ordered:
        yield np.ascontiguousarray(to_host(array)).reshape(-1).view(np.uint8)


@brief
def load(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name, on the CPU. Raises OSError, and FileError for a
    file of another kind or a damaged one.
    """
    from safetensors import SafetensorError, deserialize  # 5 ms

    if Path(path).exists() and not Path(path).is_file():
        raise FileError(f"{path} is no regular file")
    try:
        parts = deserialize(Path(path).read_bytes())  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise FileError(
            f"{path} is damaged or no safetensors file ({error}); a file of torch.save becomes one "
            "by safetensors.torch.save_file(torch.load(FILE), NEW)"
        ) from None
    for name, part in parts:
        if part["dtype"] not in DTYPES:
            raise FileError(
                f"{path}: {name} has the dtype {part['dtype']}, which is not known here"
            )
    return {
        name: Tensor.from_array(
            np.frombuffer(part["data"], DTYPES[part["dtype"]]).reshape(part["shape"])
        )
        for name, part in sorted(parts)
    }
