"""The tensors of a model in a folder of Hugging Face: one safetensors file, or several with an
index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
import numpy as np
from safetensors import SafetensorError, safe_open

from tensor.dtypes import FLOATS
from tensor.files import DTYPES
from tensor.memory.devices import Array
from tinygpt.errors import InputError
from tinygpt.files import brief, open_regular, parse_json, read_json, reason, refuse_pointer
from tinygpt.runs.checkpoint import Arrays, HostArray
from tinygpt.terminal import shown
from tinygpt.tokenizers.gpt2_files import RESTORE

CONFIG, WEIGHTS = "config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"  # which tensor is in which file, where there are several
HEADER = 1 << 21  # bytes of the header of a safetensors file, at most: 20,000 tensors
# the prefixes that torch.compile and data-parallel training put before all names
WRAPPERS = r"((_orig_mod|module)\.)*"

# Pickles, which can run code, and the lines of Python that turn one into files that are read here.
PICKLES = {
    "pytorch_model.bin": (
        'w = torch.load("pytorch_model.bin", map_location="cpu", weights_only=True)',
        'safetensors.torch.save_file({k: v.clone() for k, v in w.items()}, "model.safetensors")',
    ),
    # of nanoGPT: Linear layers, which keep (outputs, inputs), and the exact GELU
    "ckpt.pt": (
        'c = torch.load("ckpt.pt", map_location="cpu", weights_only=True); a = c["model_args"]; '
        'pathlib.Path("config.json").write_text(json.dumps('
        '{**a, "n_positions": a["block_size"], "activation_function": "gelu"}))',
        "safetensors.torch.save_file({k: (v.t() if '.c_' in k else v).contiguous().clone() "
        'for k, v in c["model"].items()}, "model.safetensors")',
    ),
}


def refuse_pickle(path: Path) -> None:
    """Raise InputError for a pickle, or for a folder with a pickle and without safetensors."""
    folder = path.parent if path.name in PICKLES else path
    for name, lines in PICKLES.items():
        if (folder / name).is_file() and not any((folder / x).exists() for x in (WEIGHTS, INDEX)):
            error = InputError(
                f"{shown(folder / name)} is a pickle, which can run code: it is not opened\n"
                "convert it there in Python: import json, pathlib, safetensors.torch, torch"
            )
            for line in lines:
                error.add_note(line)
            raise error


def read_tensors(folder: Path, plain: Callable[[str], str | None], files: str) -> Arrays:
    """Every tensor of one file or of several, by its plain name: windows on the files, which are
    not read before they are used.

    plain: the plain name for a name in the file; None for a tensor that is left out. files: for
    people, what the folder should hold.
    """
    names = [WEIGHTS]
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        names = sorted(set(read_json(folder / INDEX, Index, advice=RESTORE).weight_map.values()))
    found: Arrays = {}
    for name, array in (pair for file in names for pair in _windows(folder / file, plain, files)):
        if name in found:
            raise InputError(
                f"{brief(name)} stands twice in the weights of {shown(folder)}\n{RESTORE}"
            )
        found[name] = array
    return found


def taken(left: Arrays, name: str, shape: tuple[int, ...]) -> Array:
    """The tensor of that name, which leaves `left`. Raises InputError where it is missing or has
    another shape.
    """
    array = left.pop(name, None)
    if array is None or array.shape != shape:
        problem = f"of shape {shape} is missing in {WEIGHTS}"
        if array is not None:
            problem = f"has shape {array.shape}, not {shape}"
        raise InputError(f"{name} {problem}\n{CONFIG} and {WEIGHTS} must be of one model")
    return array


def refuse_twins(left: Arrays, name: str, twin: str, array: Array) -> None:
    """Take out of `left` a tensor that some files store twice. Raises InputError where it differs
    from its twin.
    """
    if not np.array_equal(left.pop(name, array), array, equal_nan=True):
        raise InputError(
            f"{name} differs from {twin}, which {CONFIG} ties it to\n"
            "set tie_word_embeddings to false there, if the head is its own"
        )


def refuse_unknown(left: Arrays) -> None:
    """Raise InputError for a tensor that nothing has taken."""
    for name, array in left.items():
        raise InputError(
            f"{brief(name)} of shape {array.shape} is in {WEIGHTS}, and the model of {CONFIG} has "
            "no such tensor"
        )


FileName: TypeAlias = Annotated[
    str, msgspec.Meta(pattern=r"\A[^/\\:\x00-\x1f]{1,200}\.safetensors\Z")
]


class Index(msgspec.Struct):
    """Which tensor is in which file. A name that is a path could lead anywhere."""

    weight_map: Annotated[dict[str, FileName], msgspec.Meta(min_length=1)]


class Entry(msgspec.Struct):
    """A tensor, as the header of a safetensors file tells of it."""

    dtype: str = ""
    # beyond, NumPy cannot hold it
    shape: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1)], ...], msgspec.Meta(max_length=8)
    ] = ()
    data_offsets: tuple[int, int] = (0, 0)


def _windows(
    path: Path, plain: Callable[[str], str | None], files: str
) -> Iterator[tuple[str, HostArray]]:
    try:
        with open_regular(path) as file:
            start = file.read(64)
            refuse_pointer(path, start)
            length = int.from_bytes(start[:8], "little")
            if length > HEADER:
                raise SafetensorError(
                    f"its header has {length:,} bytes, and {HEADER:,} are the most"
                )
            file.seek(8)
            header = file.read(length)
            # the library's checks: the header is sound, and its offsets fill the file
            with safe_open(path, framework="numpy"):
                data = np.memmap(file, np.uint8, mode="r")
    except FileNotFoundError:
        raise InputError(f"{shown(path)} is missing\n{files}") from None
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{shown(path)} is damaged or no safetensors file ({reason(error)})\n{RESTORE}"
        ) from None
    entries = parse_json(header, dict[str, Entry], f"the header of {path}", RESTORE)
    for name, entry in entries.items():
        known = None if name == "__metadata__" else plain(name)
        if known is None:
            continue
        dtype: Any = DTYPES.get(entry.dtype)
        if dtype not in FLOATS:
            raise InputError(
                f"{brief(name)} is {entry.dtype}: tensors of F64, F32, F16 and BF16 can be read"
            )
        first, end = entry.data_offsets
        part = np.asarray(data[8 + length :][first:end])
        yield known, part.view(dtype).reshape(entry.shape)
