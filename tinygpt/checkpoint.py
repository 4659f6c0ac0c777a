"""Checkpoints: arrays in safetensors, the rest in JSON, never pickle; killed at any moment, one whole checkpoint is there.

    write model.safetensors.new, optimizer.safetensors.new, flush them to the disk     killed so far: the old files hold
    write state.json.new, flush, give it its name in one move                          from here on: the .new files hold
    move each .new over the old file, state.json last

So the files of one checkpoint always belong together: `state.json.new` is the mark that the `.new` files beside it are complete,
and `current` tells which of the two to read. Nothing is executed on loading: names, shapes and dtypes are compared with what the
model expects before a value is used.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save_file

from tensor import devices
from tensor.devices import Array
from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.files import replace, write_json

HostArray: TypeAlias = "np.ndarray[Any, Any]"

MARK = "state.json"
DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),  # the reader for NumPy does not know it
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
    "U8": np.dtype("uint8"),
    "BOOL": np.dtype("bool"),
}


# -- a whole checkpoint -----------------------------------------------------------------------------------------------


def save(folder: Path, arrays: Mapping[str, Mapping[str, Array]], state: Mapping[str, Any]) -> None:
    """Replace the checkpoint in `folder` by one of these files: {file name: {array name: array}}, and state.json."""
    _finish(folder)
    for name, content in arrays.items():
        write_arrays(_new(folder, name), content)
    write_json(_new(folder, MARK), state)  # from this moment on the new files are the checkpoint
    _finish(folder)


def current(folder: Path, name: str) -> Path:
    """Where that file of the checkpoint is: under its own name, or still under .new when a save was killed before the last move."""
    return _new(folder, name) if _new(folder, MARK).exists() and _new(folder, name).exists() else folder / name


def _finish(folder: Path) -> None:
    """Move complete .new files over the old ones; the mark goes last, so that a kill in between is finished by the next save."""
    if _new(folder, MARK).exists():
        for path in [*folder.glob("*.safetensors.new"), _new(folder, MARK)]:
            replace(path, path.with_suffix(""))


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}.new"


# -- arrays -----------------------------------------------------------------------------------------------------------


def write_arrays(path: Path, arrays: Mapping[str, Array], form: str = "tinygpt") -> None:
    """A safetensors file of these arrays, from any device, flushed to the disk. `form` is what its header says of their names; raises OSError."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode  # as the user wants new files; the library makes them readable by their owner alone
    try:
        save_file({name: np.asarray(devices.to_host(array), order="C") for name, array in arrays.items()}, path, metadata={"format": form})
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from None
    path.chmod(mode)
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def load_arrays(path: Path, expected: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, HostArray]:
    """The arrays of a safetensors file, which must be exactly those of `expected`: {name: (shape, dtype name)}.

    The header is read and compared first. Raises InputError for a file that is missing or damaged, and for a name, shape or dtype
    that differs.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            found = {name: (tuple(part.get_shape()), part.get_dtype()) for name in file.keys() for part in [file.get_slice(name)]}  # noqa: SIM118 (no mapping)
        problem = _difference({name: (shape, _dtype_name(code)) for name, (shape, code) in found.items()}, expected)
        if problem:
            raise InputError(f"{shown(path)} does not fit the config.json beside it: {problem}\nput the two files of one run together, or train again")
        return {name: np.frombuffer(part["data"], DTYPES[part["dtype"]]).reshape(part["shape"]) for name, part in deserialize(path.read_bytes())}  # type: ignore[no-untyped-call]
    except FileNotFoundError:
        if path.suffix == ".new":  # a training has just saved, and given it its name
            return load_arrays(path.with_suffix(""), expected)
        raise InputError(f"{shown(path)} is missing\nthe run ended before its first checkpoint: train again, or name another run") from None
    except (SafetensorError, OSError) as error:
        raise InputError(f"{shown(path)} is damaged or no safetensors file ({shown(error):.100})\nrestore it from a copy, or train again") from None


def _dtype_name(code: str) -> str:
    return DTYPES[code].name if code in DTYPES else code


def _difference(found: Mapping[str, tuple[tuple[int, ...], str]], expected: Mapping[str, tuple[tuple[int, ...], str]]) -> str | None:
    """The first way in which two headers differ, None when they agree."""
    for name, (shape, dtype) in expected.items():
        if name not in found:
            return f"{name} is not in it"
        if found[name] != (shape, dtype):
            return f"{name} is {found[name][0]} {found[name][1]}, not {shape} {dtype}"
    unknown = [name for name in found if name not in expected]
    return f"it holds {shown(unknown[0]):.60}, which the model has not" if unknown else None


# -- JSON -------------------------------------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises InputError when it is missing, or holds anything else."""
    try:
        content = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        if path.suffix == ".new":
            return read_json(path.with_suffix(""))
        raise InputError(f"{shown(path)} is missing\nrestore it from a copy, or name another run") from None
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{shown(path)} is damaged ({shown(error):.100})\nrestore it from a copy, or train again") from None
    if not isinstance(content, dict):
        raise InputError(f"{shown(path)} is damaged (it holds a {type(content).__name__}, not an object)\nrestore it from a copy, or train again")
    return content
