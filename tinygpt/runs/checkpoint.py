"""Checkpoints: arrays in safetensors, the rest in JSON, never pickle.

All files of a checkpoint change together, or none of them does.

    finish the save before, or remove what it left
    write model.safetensors.new, optimizer.safetensors.new    killed so far: the old files hold
    write state.json.new in one move                          from here on: the files it names hold
    move each .new over the old file, state.json last

state.json names each file with its size and SHA-256, its seal. So nothing passes for a file of the
checkpoint but what its save wrote: not what another save left, and not a file with a flipped bit.
Nothing is executed on loading: names, shapes and dtypes are compared with those of the model before
a value is used.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
from msgspec import Meta
from safetensors import SafetensorError, deserialize

from tensor.files import DTYPES, encoded
from tensor.memory.devices import Array
from tinygpt import files
from tinygpt.errors import InputError
from tinygpt.files import RESTORE, Missing, read_bytes
from tinygpt.terminal import shown

HostArray: TypeAlias = "np.ndarray[Any, Any]"
Arrays: TypeAlias = "dict[str, HostArray]"
Like: TypeAlias = "Mapping[str, Any]"  # {name: an array or a tensor of the shape and dtype to come}
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]

MODEL, OPTIMIZER, STATE, BEST, BASE = (
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "best.safetensors",
    "base.safetensors",
)
STAYING = BASE, BEST  # a save that does not write one leaves the one that is there
SNAPSHOTS = "snapshots"
# what a save leaves when it is cut short; the last is how the safetensors library names its own
LEFT = re.compile(r"(.+\.(safetensors|jsonl?)(\.new)?|loss\.png)\.(new|tmp)|\.tmp\w{6}")
LONGEST = 1 << 26  # bytes of a state.json: a count for each of a million parameters
ATTEMPTS = 100  # readings of a checkpoint that is replaced meanwhile
UNSEALED = "restore it from a copy, or remove it: sample and eval then read the weights unchecked"
EARLIER = "the run ended before its first checkpoint: train again, or name another run"


# -- state.json


@dataclass(frozen=True)
class Seal:
    """What a file must be to belong to a checkpoint."""

    size: Count
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

    @classmethod
    def of(cls, data: bytes) -> Seal:
        """The seal of a file with these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


UNKNOWN = Seal(0, "")  # fits no file


@dataclass(frozen=True)
class Scale:
    """The loss scale of float16."""

    value: Annotated[float, Meta(gt=0, le=2.0**128)]  # above, every step would overflow float32
    good: Count


@dataclass(frozen=True)
class Numbers:
    """What an optimiser keeps beside its arrays."""

    lr: Annotated[float, Meta(ge=0)]
    counts: dict[str, Count]
    loss_scale: Scale | None = None


@dataclass(frozen=True)
class Progress:
    """Where a training stands."""

    step: Count = 0  # steps taken
    loss: float | None = None  # the last measured, over the validation windows or all of the text
    best: float | None = None  # the lowest of these
    best_step: Count = 0  # when that was
    worse: Count = 0  # measurements since then
    price: Annotated[float, Meta(ge=0)] | None = None  # of a nat of KL, where PPO steers it

    @property
    def at_best(self) -> bool:
        """Whether the loss was measured at this very step, and is the lowest so far."""
        return self.best is not None and self.best_step == self.step


@dataclass(frozen=True)
class State(Progress):
    """state.json: all of a checkpoint that is no array."""

    optimizer: Numbers | None = None  # None: nothing was trained
    files: dict[str, Seal] | None = None  # None: written by a version that had no seals


def state_of(folder: Path) -> State | None:
    """What holds in that folder: state.json.new, where a save was killed before its last move, else
    state.json; None without either.
    """
    for path in (_new(folder, STATE), folder / STATE):
        with suppress(Missing):
            return files.read_json(path, State, LONGEST, UNSEALED)
    return None


# -- a whole checkpoint


def save(folder: Path, arrays: Mapping[str, Mapping[str, Array]], state: State) -> None:
    """Replace the checkpoint in `folder` by one of these files, {file name: {array name: array}},
    and this state with their seals.

    The best weights of the checkpoint before belong to this one too, unless `arrays` has new ones;
    so do the weights that do not learn. Raises OSError; what was there then holds.
    """
    before = settle(folder)
    kept = _kept(folder, before, [name for name in STAYING if name not in arrays])
    try:
        written = {
            name: write_arrays(_new(folder, name), content) for name, content in arrays.items()
        }
        # from this moment on the new files are the checkpoint
        sealed = replace(state, files=kept | written)
        files.write_json(_new(folder, STATE), asdict(sealed), LONGEST)
    except BaseException:
        with suppress(OSError, InputError):
            settle(folder)
        raise
    _move(folder, written)


def settle(folder: Path) -> State | None:
    """Finish a save that was killed after its state.json.new; remove what other saves left. Returns
    the state of the checkpoint; None if no state can be read.

    Only files that this save had written are moved: a .new file that does not fit its seal is of
    another save.
    """
    try:
        state = state_of(folder)
    except InputError:
        state = None
    if state is not None and _new(folder, STATE).exists():
        _move(folder, _unmoved(folder, state))
    for path in (*folder.glob("*"), *folder.glob(f"{SNAPSHOTS}/*")):
        if LEFT.fullmatch(path.name) and (path.is_symlink() or not path.is_dir()):
            path.unlink(missing_ok=True)
    return state


def current(folder: Path, name: str) -> Path:
    """Where that file of the checkpoint is: under its own name, or still under .new when a save was
    killed before the last move.
    """
    if _new(folder, STATE).exists():
        with suppress(InputError):
            state = state_of(folder)
            if state is not None and name in _unmoved(folder, state):
                return _new(folder, name)
    return folder / name


def _unmoved(folder: Path, state: State) -> list[str]:
    """The files that the save with that state.json.new wrote, as far as they have not got their
    names yet.
    """
    if state.files is None:
        written = [MODEL, OPTIMIZER] + [BEST] * state.at_best
        return [name for name in written if _new(folder, name).exists()]
    return [
        name for name, seal in state.files.items() if _sealed(_new(folder, name), seal) is not None
    ]


def _move(folder: Path, names: Collection[str]) -> None:
    """Give the .new files their names; state.json last, so that a kill in between is finished by
    the next save.
    """
    for name in (*names, STATE):
        files.replace(_new(folder, name), folder / name)


def _kept(folder: Path, before: State | None, names: Collection[str]) -> dict[str, Seal]:
    """Those of these files that are there, with their seals: as they were, or made now for files of
    a version without seals.
    """
    paths = {name: folder / name for name in names if (folder / name).is_file()}
    if before is None or before.files is None:
        return {
            name: Seal.of(read_bytes(path, path.stat().st_size)) for name, path in paths.items()
        }
    return {name: seal for name, seal in before.files.items() if name in paths}


def _sealed(path: Path, seal: Seal) -> bytes | None:
    """The bytes of that file; None where it is missing, or another one than was sealed."""
    with suppress(FileNotFoundError, Missing):
        if path.stat().st_size == seal.size:
            data = read_bytes(path, seal.size)
            return data if Seal.of(data) == seal else None
    return None


def _new(folder: Path, name: str) -> Path:
    return folder / f"{name}.new"


# -- loading it


def load(folder: Path, expected: Mapping[str, Like]) -> tuple[State | None, dict[str, Arrays]]:
    """The state, and the arrays of these files, all of one checkpoint. expected: {file name: arrays
    of the names, shapes and dtypes that the file must hold}.

    Raises InputError for a file that is missing, damaged or not of this checkpoint, and for a name,
    shape or dtype that differs.
    """
    state, data = contents(folder, {name: _most(like) for name, like in expected.items()})
    return state, {
        name: _arrays(data[name], like, folder / name) for name, like in expected.items()
    }


def contents(folder: Path, most: Mapping[str, int]) -> tuple[State | None, dict[str, bytes]]:
    """The state, and the bytes of these files {file name: the most it may hold}, all of one
    checkpoint, also while a training replaces it.
    """
    for _ in range(ATTEMPTS):
        state = state_of(folder)
        try:
            return state, {
                name: _content(folder, name, state, bound) for name, bound in most.items()
            }
        except InputError:
            if state == state_of(folder):  # nobody saved meanwhile
                raise
    raise InputError(
        f"{shown(folder)} is written again and again: something trains it\nwait until it has ended"
    )


def _content(folder: Path, name: str, state: State | None, most: int) -> bytes:
    """The bytes of a file of that state's checkpoint.

    Without seals, as older versions wrote them, what is there is taken.
    """
    if state is None or state.files is None:
        return read_bytes(current(folder, name), most, EARLIER)
    path = folder / name
    seal = state.files.get(name, UNKNOWN)
    if seal.size > most:
        raise InputError(
            f"{shown(path)} is too large for the model of config.json: one of them is damaged\n"
            f"{RESTORE}"
        )
    for file in (_new(folder, name), path):  # in this order: a save may move the file meanwhile
        if (data := _sealed(file, seal)) is not None:
            return data
    if not path.exists():
        advice = RESTORE if name in state.files else EARLIER
        raise InputError(f"{shown(path)} is missing\n{advice}")
    raise InputError(
        f"{shown(path)} is not the file that its {STATE} was written for: it was changed or is "
        f'damaged\nrestore it from a copy; if you changed it yourself, take "files" out of {STATE}'
    )


# -- arrays


def write_arrays(path: Path, arrays: Mapping[str, Array], form: str = "tinygpt") -> Seal:
    """A safetensors file of these arrays, from any device, flushed to the disk; its seal. `form` is
    what its header says of the names.

    Raises OSError.
    """
    digest, size = hashlib.sha256(), 0
    path.unlink(missing_ok=True)
    with path.open("xb") as file:  # a new one, never through a link
        for part in encoded(arrays, form):
            digest.update(part)
            file.write(part)
            size += len(part)
        file.flush()
        os.fsync(file.fileno())
    return Seal(size, digest.hexdigest())


def load_arrays(path: Path, expected: Like) -> Arrays:
    """The arrays of a safetensors file, which must have exactly the names, shapes and dtypes of
    `expected`.

    Raises InputError for a file that is missing or damaged, and for a name, shape or dtype that
    differs.
    """
    return _arrays(read_bytes(path, _most(expected), EARLIER), expected, path)


def _most(expected: Like) -> int:
    """How many bytes a file of these arrays may have, with its header."""
    numbers = sum(like.size * like.dtype.itemsize for like in expected.values())
    return numbers + (1 << 20) + 256 * len(expected)


def _arrays(data: bytes, expected: Like, path: Path) -> Arrays:
    try:
        parts = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise InputError(
            f"{shown(path)} is damaged or no safetensors file ({files.reason(error)})\n{RESTORE}"
        ) from None
    found = {
        name: f"{tuple(part['shape'])} {DTYPES.get(part['dtype'], part['dtype'])}"
        for name, part in parts
    }
    wanted = {name: f"{tuple(like.shape)} {like.dtype.name}" for name, like in expected.items()}
    if found != wanted:
        raise InputError(
            f"{shown(path)} does not fit the config.json beside it: {_difference(found, wanted)}\n"
            "put the two files of one run together, or train again"
        )
    return {
        name: np.frombuffer(part["data"], DTYPES[part["dtype"]]).reshape(part["shape"])
        for name, part in parts
    }


def _difference(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """The first way in which two headers {name: shape and dtype} differ."""
    for name, kind in wanted.items():
        if name not in found:
            return f"{name} is not in it"
        if found[name] != kind:
            return f"{name} is {found[name]}, not {kind}"
    unknown = next(name for name in found if name not in wanted)
    return f"it holds {shown(unknown):.60}, which the model has not"
