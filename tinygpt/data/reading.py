"""Texts from files: UTF-8, a part at a time, whatever their size."""

from __future__ import annotations

import codecs
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib import resources
from threading import Timer
from typing import BinaryIO

from tinygpt.errors import InputError
from tinygpt.files import brief, open_regular, reason, refuse_pointer
from tinygpt.tokenizers.byte_pair import END

STANDARD_INPUT = "-"  # the path that means: what another program pipes in
PATIENCE = 2.0  # seconds of silence while standard input is read
PART = 1 << 18  # bytes of a file that are read at a time
START = 1000  # characters in which the first words of a text are looked for


def story() -> str:
    """The little text that comes with the package: 149 characters, 22 different ones."""
    return resources.files("tinygpt.data").joinpath("story.txt").read_text(encoding="utf-8")


def read_text(path: str) -> str:
    """The text of a UTF-8 file, all of it, read as `read_parts` does."""
    return "".join(read_parts(path))


def read_parts(
    path: str, size: int = PART, progress: Callable[[int], None] | None = None
) -> Iterator[str]:
    """The text of a UTF-8 file, or of standard input (`-`), part by part. Line ends of Windows
    become plain ones, and a byte order mark at the start is dropped.

    size: bytes to read for a part; it does not change the text of all parts together. `progress` is
    called with the bytes of each part. Raises InputError for a file that is missing, a folder, no
    regular file, empty, a pointer of Git LFS, UTF-16, or not UTF-8 (with the offset of the first
    wrong byte).
    """
    empty, name = True, name_of(path)
    try:
        with _opened(path) as file:
            for part in _decoded(file, name, size, progress):
                empty = False
                yield part
    except InputError:  # is a ValueError too
        raise
    except FileNotFoundError:
        raise InputError(
            f"no file is named {name}\ngive the path of a text file that is there"
        ) from None
    except (OSError, ValueError) as error:  # a ValueError: a path that no file can have
        raise InputError(
            f"{name} cannot be read: {reason(error)}\n"
            "give the path of a text file that you may read; save what another program writes to a "
            "file first"
        ) from None
    if empty:
        raise InputError(f"{name} is empty\ngive a file with some text in it")


def name_of(path: str) -> str:
    """The path of a text, for people."""
    return "standard input" if path == STANDARD_INPUT else f"'{brief(path)}'"


def _opened(path: str) -> AbstractContextManager[BinaryIO]:
    if path != STANDARD_INPUT:
        return open_regular(path)
    if sys.stdin.isatty():
        raise InputError(
            "the path - means standard input, and nothing is piped in\n"
            "pipe a text in: PROGRAM | tinygpt ..., or give the path of a file"
        )
    return _standard_input()


@contextmanager
def _standard_input() -> Iterator[BinaryIO]:
    """Standard input. A line says what is waited for, if the end does not come soon."""
    line = "reading the text from standard input, until its end ..."
    waiting = Timer(PATIENCE, print, [line], {"file": sys.stderr, "flush": True})
    waiting.daemon = True  # Ctrl-C does not wait for the line
    waiting.start()
    try:
        yield sys.stdin.buffer
    finally:
        waiting.cancel()


def looks_like_utf_16(start: bytes) -> bool:
    """Whether a file that begins so is probably UTF-16: it has the mark, or every other byte is
    mostly zero, as in Latin letters.
    """
    half = len(start) // 2
    zeros = max(start[::2].count(0), start[1::2].count(0))
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or zeros > half / 2 > 0


def _decoded(
    file: BinaryIO, name: str, size: int, progress: Callable[[int], None] | None
) -> Iterator[str]:
    """The parts of `read_parts`. A part of a character at the end of a read waits for the next
    read, and so does the first half of a line end.
    """
    offset, rest, half = 0, b"", ""
    while True:
        read = file.read(size)
        data = rest + read
        try:
            text, used = codecs.utf_8_decode(data, "strict", not read)
        except UnicodeDecodeError as error:
            wrong = f"byte 0x{data[error.start]:02x} at offset {offset + error.start:,}"
            if offset == 0 and looks_like_utf_16(data):
                wrong += "; it looks like UTF-16"
            raise InputError(
                f"{name} is not UTF-8: {wrong}\nsave it as UTF-8: the `save as` of most editors can"
            ) from None
        if offset == 0:
            refuse_pointer(name, data)
            if looks_like_utf_16(data):
                raise InputError(
                    f"{name} looks like UTF-16 without a mark: every other byte is zero\n"
                    "save it as UTF-8: the `save as` of most editors can"
                )
        text = half + (text if offset else text.removeprefix("\ufeff"))
        rest, offset = data[used:], offset + used
        half = "\r" if read and text.endswith("\r") else ""
        text = text.removesuffix(half).replace("\r\n", "\n")
        if progress:
            progress(len(read))
        if text:
            yield text
        if not read:
            return


def opening(text: str, words: int = 5) -> str:
    """The first words of a text, or of its first document: "The cat sat on the" of the story."""
    start = text[:START]
    if END in start:
        text = next(filter(None, map(str.strip, start.split(END))), start)
    found = re.match(rf"\s*(\S+\s+){{0,{words - 1}}}\S+", text)
    return (found.group() if found else text)[:80]


def fault_of(line: str, error: Exception) -> str:
    """What is wrong with a line that is no JSON object of its kind."""
    return str(error) if line.strip() else "the line is empty"
