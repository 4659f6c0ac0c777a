"""Files, read and written with care: only regular files are opened, sizes are bounded, and a
written file is whole or absent.

    read_json(path, Kind)          a JSON file, its content checked against a type
    write_atomically(path, text)   a reader sees the old file or the new one, also after a kill or
                                   a power cut
"""

from __future__ import annotations

import errno
import io
import json
import logging
import os
import stat
import sys
import time
import warnings
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeAlias, TypeVar

import msgspec

from tinygpt.errors import InputError
from tinygpt.terminal import shown

try:
    import fcntl
except ImportError:  # Windows knows no such locks, and renames no folder in which a file is open
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T")
FilePath: TypeAlias = "str | os.PathLike[str]"

# bytes of a JSON file, if the caller names no other bound: choices and numbers take a thousandth
MOST = 1 << 20
VOCABULARY = 1 << 23  # bytes of a file with the tokens of a tokenizer
TOKENS = 1 << 17  # of a tokenizer that has a file, at most: more than twice GPT-2's
LONGEST = 200  # characters of a file's text, or of another program's message, that an error shows
SILENT = logging.NullHandler()  # without a handler, warnings of matplotlib go to stderr
RESTORE = "restore it from a copy, or train again"
POINTER = b"version https://git-lfs.github.com/spec/"  # how a pointer of Git LFS begins

SCALAR: Any = None | bool | Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)] | float | str
VALUE: Any = SCALAR
for _ in range(6):  # so deep may lists and objects be nested
    VALUE = SCALAR | list[VALUE] | dict[str, VALUE]
# a JSON object in which any key may stand
KEYS: Any = dict[str, VALUE]


class Missing(InputError):  # noqa: N818 (what it says, as InputError's others do)
    """No file has that name."""


# -- reading


def open_regular(path: FilePath) -> BinaryIO:
    """Open a regular file to read its bytes. Raises OSError for anything else: a FIFO would hang, a
    device would never end.
    """
    # a FIFO waits for a writer, if it is not opened so
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(path))
        if not stat.S_ISREG(mode):
            raise OSError(None, "it is no regular file", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_bytes(path: FilePath, most: int = MOST, advice: str = RESTORE) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises InputError that ends with
    `advice` where there are none to be had.
    """
    with reading(path, advice), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise InputError(f"{_too_large(path, size, most)}\n{advice}")
        data = file.read(size)
    refuse_pointer(path, data)
    return data


def refuse_pointer(path: FilePath, start: bytes) -> None:
    """Raise InputError for a file that begins as a pointer of Git LFS: the repository was fetched
    without its large files.
    """
    if start.startswith(POINTER):
        raise InputError(
            f"{shown(path)} is a pointer of Git LFS, not the file itself\n"
            "fetch the file: git lfs pull, in the repository that it came from"
        )


def _too_large(path: FilePath, size: int, most: int) -> str:
    return f"{shown(path)} has {size:,} bytes, and {most:,} are the most that such a file can have"


@contextmanager
def reading(path: FilePath, advice: str = RESTORE) -> Iterator[None]:
    """Turn an OSError of reading that file into an InputError with its path and the reason.

    Not every OSError knows its file: that of a read has no name.
    """
    try:
        yield
    except FileNotFoundError:
        raise Missing(f"{shown(path)} is missing\n{advice}") from None
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be read ({reason(error)})\n{advice}") from None


def read_json(path: FilePath, kind: type[T], most: int = MOST, advice: str = RESTORE) -> T:
    """The content of a JSON file as a `kind`: a dataclass, a msgspec.Struct, or a type such as
    dict[str, int].

    Raises InputError, one sentence and then `advice`, for: missing and unknown fields, a name that
    stands twice in one object, wrong types, NaN, numbers out of range, deep nesting, half of a
    surrogate pair, broken UTF-8.
    """
    return parse_json(read_bytes(path, most, advice), kind, path, advice)


def parse_json(data: bytes, kind: type[T], path: FilePath, advice: str) -> T:
    """The same of bytes that were read already; `path` is what the error calls them."""
    try:
        # before anything else: a wrong type is found before memory is taken
        value: T = _decoder(kind).decode(data)  # type: ignore[arg-type]
        content = json.loads(data, object_pairs_hook=_once)
        if is_dataclass(value):
            for field in unknown_fields(content, msgspec.to_builtins(value)):
                raise ValueError(f"it has a field {field!r}, which is not known here")
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise InputError(f"{shown(path)} is damaged ({reason(error)})\n{advice}") from None
    return value


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    """The reader of a type: to make one for a dataclass takes a millisecond."""
    return msgspec.json.Decoder(kind)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object: each reader would take another of two entries with one name."""
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"{counts.most_common(1)[0][0]!r} stands in it twice")
    return content


def unknown_fields(content: dict[str, Any], known: dict[str, Any]) -> Iterator[str]:
    """Names in the JSON objects that the dataclasses made of them do not have: an option of a later
    version must not be passed over.
    """
    for name, part in content.items():
        if name not in known:
            yield name
        elif isinstance(part, dict):
            yield from unknown_fields(part, known[name])


def reason(error: BaseException) -> str:
    """What another program's error says: one line, short, safe to show."""
    return brief(getattr(error, "strerror", None) or str(error) or type(error).__name__)


def brief(what: object) -> str:
    """A text from a file in one line of at most LONGEST characters, safe to show."""
    line = shown(str(what)[: LONGEST + 1])
    return line if len(line) <= LONGEST else line[:LONGEST] + " ..."


# -- writing


def write_json(path: Path, content: Mapping[str, Any], most: int = MOST) -> None:
    """Write a JSON file in one move: a reader sees the old one or the new one.

    Raises InputError for what `read_json` would refuse.
    """
    try:
        text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
        size = len(text.encode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{shown(path)} cannot hold this ({reason(error)})") from None
    if size > most:
        raise InputError(_too_large(path, size, most))
    write_atomically(path, text)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is whole or absent, also after a power cut."""
    with replacing(path) as temporary, temporary.open("xb") as file:
        file.write(content.encode("utf-8") if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, to be written. At the end it is moved over `path`; after an
    error it is removed.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        temporary.unlink(missing_ok=True)  # may be a link, or a FIFO
        yield temporary
        replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def writing(path: Path, advice: str, verb: str = "write") -> Iterator[None]:
    """Turn an OSError of writing there into an InputError with the path, the reason, the advice."""
    try:
        yield
    except OSError as error:
        raise InputError(f"cannot {verb} to {shown(path)} ({reason(error)})\n{advice}") from None


def write_output(path: Path, content: str | bytes, advice: str) -> None:
    """Write a file that a command was asked for. InputError ends with the advice."""
    with writing(path, advice):
        write_atomically(path, content)


@contextmanager
def drawing() -> Iterator[None]:
    """Turn any error of matplotlib into an InputError, also an error of its import: its settings
    come from a variable and from a file of the user.
    """
    logging.getLogger("matplotlib").addHandler(SILENT)
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"the picture cannot be drawn ({reason(error)})\n"
            "see what the variable MPLBACKEND and the file matplotlibrc tell matplotlib"
        ) from None


def write_picture(figure: Any, path: Path, advice: str) -> None:
    """Write a figure of matplotlib, as `write_output` does, in the format that the path ends in."""
    picture = io.BytesIO()
    with warnings.catch_warnings(action="ignore"):  # a letter that no font has is drawn as a box
        figure.savefig(picture, format=path.suffix[1:].lower())
    write_output(path, picture.getvalue(), advice)


def lock(folder: Path, busy: str) -> int | None:
    """Lock a folder until the descriptor is closed, or until the process ends: the descriptor, or
    None on Windows. Some network drives know no such locks: nothing is locked there.

    Raises InputError, with the message `busy`, where another process has locked the folder.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise InputError(busy) from None
    except OSError:
        pass
    return descriptor


def replace(source: Path, target: Path) -> None:
    """os.replace that lasts: on POSIX the folder is flushed too, so that the new name survives a
    power cut.

    Windows cannot flush a folder, and refuses to replace a file that another program (a virus
    scanner, an editor) has open. There the move is tried again for a second.
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
