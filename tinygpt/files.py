"""Files, read and written with care: only regular files are opened, sizes are bounded, and a written file is whole or absent.

read_json(path, Kind)          a JSON file checked against a type, before anything is done with its content
write_atomically(path, text)   a reader sees the old file or the new one, also after a kill or a power cut
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from tinygpt.console import shown
from tinygpt.errors import InputError

T = TypeVar("T")

MOST = 1 << 26  # bytes of a JSON file, if the caller names no other bound: a vocabulary of a million tokens
LONGEST = 200  # characters of another program's message that are shown
RESTORE = "restore it from a copy, or train again"


# -- reading ----------------------------------------------------------------------------------------------------------


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read its bytes. Raises OSError for anything else: a FIFO would hang, a device would never end."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(None, "it is no regular file", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: str | os.PathLike[str], most: int = MOST, advice: str = RESTORE) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises InputError that ends with `advice` where there are none to be had."""
    try:
        with open_regular(path) as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise InputError(f"{shown(path)} is missing\n{advice}") from None
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read ({reason(error)})\n{advice}") from None
    if len(data) > most:
        raise InputError(f"{shown(path)} is larger than {most:,} bytes, the most that such a file can have\n{advice}")
    return data


def read_json(path: str | os.PathLike[str], kind: type[T], *, most: int = MOST, advice: str = RESTORE) -> T:
    """The content of a JSON file as a `kind`: a dataclass, a msgspec.Struct, or a type such as dict[str, int].

    Missing and unknown fields, wrong types, NaN, numbers out of range, deep nesting and broken UTF-8 raise InputError: one sentence, then
    `advice`.
    """
    return parse_json(read_bytes(path, most, advice), kind, name=shown(path), advice=advice)


def parse_json(data: bytes, kind: type[T], *, name: str, advice: str = RESTORE) -> T:
    """The same of bytes that were read already; `name` is what the error calls them."""
    try:
        content = msgspec.json.decode(data)
        value = msgspec.convert(content, kind)
        for field in unknown_fields(content, value):
            raise ValueError(f"it has a field {field!r}, which is not known here")
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise InputError(f"{name} is damaged ({reason(error)})\n{advice}") from None
    return value


def unknown_fields(content: Any, value: Any) -> Iterator[str]:
    """Names in the JSON objects that the dataclasses made of them do not have: an option of a later version must not be passed over."""
    if not isinstance(content, dict):
        return
    if is_dataclass(value):
        known = {field.name for field in fields(value)}
        yield from (name for name in content if name not in known)
    elif not isinstance(value, msgspec.Struct):
        return
    for name, part in content.items():
        yield from unknown_fields(part, getattr(value, name, None))


def reason(error: BaseException) -> str:
    """What another program's error says: one line, short, safe to show."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = shown(text)
    return line if len(line) <= LONGEST else line[:LONGEST] + " ..."


# -- writing ----------------------------------------------------------------------------------------------------------


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file in one move: a reader sees the old one or the new one."""
    write_atomically(path, json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Text into a temporary file beside `path`, flushed to the disk, then moved over it."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def replace(source: Path, target: Path) -> None:
    """os.replace that lasts: on POSIX the folder is flushed too, so that the new name survives a power cut.

    Windows cannot flush a folder, and refuses to replace a file that another program (a virus scanner, an editor) has open. There the
    move is tried again for a second.
    """
    if sys.platform == "win32":
        for pause in (0.05, 0.15, 0.3, 0.5):
            try:
                os.replace(source, target)
                return
            except PermissionError:
                time.sleep(pause)
    os.replace(source, target)
    if sys.platform != "win32":
        descriptor = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
