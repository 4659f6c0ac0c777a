"""A model of what a save does to a disk: its file operations are recorded, and every state that a
kill between two of them leaves is built.

    make a.new        an empty file, or a folder
    write a.new       bytes at its end; a kill may leave half of them
    flush a.new       what was written outlasts a power cut
    move a.new a      in one step
    remove a

`states(before, operations)` gives the states after each of them as {name: bytes}; `Disk(folder)`
records them, and can be full.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

Tree = dict[str, bytes]  # {path below the folder: content}; what has no file in it is not there


class Operation(NamedTuple):
    """One change of the folder."""

    kind: str
    name: str
    data: bytes = b""
    target: str = ""


class Disk:
    """`with Disk(folder) as disk:` what is done to the files of that folder is noted in
    `disk.operations`.

    full: from the operation of that number on nothing can be written: half of the first write
    arrives. A power cut is for `unflushed`.
    """

    def __init__(self, folder: Path, full: int | None = None):
        self.folder = folder.resolve()
        self.full = full
        self.operations: list[Operation] = []
        self._names: dict[int, str] = {}  # of open descriptors
        self._real = {
            "open": io.open,
            "os_open": os.open,
            "fsync": os.fsync,
            "replace": os.replace,
            "unlink": os.unlink,
            "mkdir": os.mkdir,
        }
        self._patches = [
            mock.patch.object(io, "open", self._open),
            mock.patch.object(os, "open", self._os_open),
            mock.patch.object(os, "fsync", self._fsync),
            mock.patch.object(os, "replace", self._replace),
            mock.patch.object(os, "unlink", self._unlink),
            mock.patch.object(os, "mkdir", self._mkdir),
        ]

    def __enter__(self) -> Disk:
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in self._patches:
            patch.stop()

    def note(self, kind: str, path: Any, data: bytes = b"", target: Any = "") -> bool:
        """Count the operation.

        False for one outside the folder; raises OSError where the disk is full, and the operation
        needs room.
        """
        name, goal = (self.name_of(place) if place != "" else "" for place in (path, target))
        if name is None or goal is None:
            return False
        last = self.operations[-1] if self.operations else None
        # one buffer, one operation
        if last is not None and (last.kind, last.name, kind) == ("write", name, "write"):
            self.operations[-1] = last._replace(data=last.data + data)
        else:
            self.operations.append(Operation(kind, name, data, goal))
        if (
            self.full is not None
            and kind != "remove"
            and len(self.operations) > self.full
            and (kind != "move" or len(self.operations) == self.full + 1)
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), os.fspath(path))
        return True

    def name_of(self, path: Any) -> str | None:
        """The path below the folder; None for one elsewhere."""
        place = Path(os.path.abspath(path))
        return (
            place.relative_to(self.folder).as_posix() if place.is_relative_to(self.folder) else None
        )

    def _open(self, path: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        if isinstance(path, int) or not set(mode) & set("wxa+") or not self.note("make", path):
            return self._real["open"](path, mode, *arguments, **options)
        file = self._real["open"](path, mode, *arguments, **options)
        self._names[file.fileno()] = os.fspath(path)
        return _Written(self, path, file)

    def _os_open(self, path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        descriptor: int = self._real["os_open"](path, flags, *arguments, **options)
        self._names[descriptor] = os.fspath(path)
        return descriptor

    def _fsync(self, descriptor: int) -> None:
        self.note("flush", self._names[descriptor])  # not done: it takes longer than all the rest

    def _replace(self, source: Any, target: Any) -> None:
        self.note("move", source, target=target)
        self._real["replace"](source, target)

    def _unlink(self, path: Any, **options: Any) -> None:
        if os.path.lexists(path):
            self.note("remove", path)
        self._real["unlink"](path, **options)

    def _mkdir(self, path: Any, *arguments: Any, **options: Any) -> None:
        if not os.path.lexists(path):
            self.note("make", path)
        self._real["mkdir"](path, *arguments, **options)


class _Written:
    """An open file that notes what is written to it."""

    def __init__(self, disk: Disk, path: Any, file: Any):
        self._disk, self._path, self._file = disk, path, file

    def write(self, data: Any) -> None:
        content = data.encode() if isinstance(data, str) else bytes(data)
        try:
            self._disk.note("write", self._path, content)
        except OSError:
            self._file.write(data[: len(data) // 2])
            raise
        self._file.write(data)

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


# -- states


def tree(folder: Path) -> Tree:
    """The files below the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def put(folder: Path, files: Tree) -> None:
    """Make the folder hold exactly these files."""
    for name in tree(folder):
        if name not in files:
            (folder / name).unlink()
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def states(before: Tree, operations: list[Operation]) -> Iterator[tuple[int, Tree]]:
    """(operations done, files) for each moment at which a kill may come: before each, in the middle
    of a write, and at the end.
    """
    files = dict(before)
    for count, operation in enumerate(operations):
        yield count, dict(files)
        if operation.kind == "write":
            yield (
                count,
                {
                    **files,
                    operation.name: files[operation.name]
                    + operation.data[: len(operation.data) // 2],
                },
            )
        apply(files, operation)
    yield len(operations), files


def apply(files: Tree, operation: Operation) -> None:
    """Do it to the files."""
    if operation.kind == "make" and Path(operation.name).suffix:
        files[operation.name] = b""
    elif operation.kind == "write":
        files[operation.name] += operation.data
    elif operation.kind == "move":
        files[operation.target] = files.pop(operation.name)
    elif operation.kind == "remove":
        del files[operation.name]


def unflushed(operations: list[Operation]) -> list[Operation]:
    """The moves that a power cut could keep while it loses what was written to the file, or that a
    later operation could overtake.
    """
    written: set[str] = set()
    moved: Operation | None = None
    found = []
    for operation in operations:
        if moved is not None and (operation.kind, operation.name) != ("flush", "."):
            found.append(moved)
        moved = None
        if operation.kind == "write":
            written.add(operation.name)
        elif operation.kind == "flush":
            written.discard(operation.name)
        elif operation.kind == "move":
            moved = operation
            found += [operation] if operation.name in written else []
    return found + ([moved] if moved else [])
