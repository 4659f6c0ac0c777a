"""Token folders: a text as ids in a file, made once by `tinygpt tokenize`, of which a training
reads only the windows that it needs.

    tokens.bin        the ids of the whole text, one after the other: 2 bytes each, 4 where there
    are more than 65,536 tokens, low byte first
    tokenizer.json    what they mean
    tokens.json       how many they are, how many of them to learn from, and the hashes of both
    files: written last, in one move

A folder without tokens.json is what a kill left behind, and is taken for nothing else. Gigabytes
are not hashed at each start: their
size is compared, ids that no token has are found where they are read, and the hash in tokens.json
is what a run goes on with.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from tinygpt.data.reading import opening
from tinygpt.data.windows import MappedIds
from tinygpt.errors import InputError
from tinygpt.files import open_regular, parse_json, read_bytes, reason, telling, write_json
from tinygpt.terminal import shown
from tinygpt.tokenizers import Tokenizer
from tinygpt.tokenizers import load as load_tokenizer

IDS, TOKENIZER, MARK = "tokens.bin", "tokenizer.json", "tokens.json"
VERSION: Final = 1
DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
HASHED = 1 << 26  # bytes up to which a file is hashed when it is opened: a tenth of a second
AGAIN = "restore it from a copy, or make it again: tinygpt tokenize"


Count: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=2**53)]


class Version(msgspec.Struct):
    """What tokens.json says in every version."""

    version: Count


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tokens.json says."""

    version: Literal[1]
    dtype: Literal["uint16", "uint32"]
    tokens: Count
    learned: Count  # so many of them, the first, are to learn from; the rest to measure on
    hash: str  # SHA-256 of tokens.bin
    tokenizer: str  # hash of the tokenizer
    characters: Count  # of the text
    opening: str  # its first words

    def __post_init__(self) -> None:
        if self.learned > self.tokens:
            raise ValueError(f"{self.learned:,} of {self.tokens:,} tokens to learn from")


@dataclass(frozen=True)
class TokenFolder:
    """An opened folder."""

    header: Header
    ids: MappedIds
    tokenizer: Tokenizer

    @property
    def hash(self) -> str:
        """64 hexadecimal digits: what a training sees follows from it."""
        seen = (
            self.header.hash,
            self.header.tokenizer,
            self.header.dtype,
            str(self.header.tokens),
            str(self.header.learned),
        )
        return sha256(" ".join(seen).encode()).hexdigest()


def dtype_for(size: int) -> Literal["uint16", "uint32"]:
    """The narrowest of the two that holds ids from 0 to size - 1: uint16 for 65,536 tokens, uint32
    for one more.
    """
    return "uint16" if size <= 1 << 16 else "uint32"


def is_token_folder(path: str | None) -> bool:
    """Whether the path leads to what `write` wrote, or left half written."""
    return path is not None and any(
        os.path.isfile(os.path.join(path, name)) for name in (MARK, IDS)
    )


# -- reading
# ------------------------------------------------------------------------------------------------------------


def read(path: str, tokenizer: Tokenizer | None = None) -> TokenFolder:
    """The ids in a token folder, left where they are. tokenizer: the one that they must be those
    of, if any.

    Raises InputError when a file is missing, cut off or damaged, or when two of them, or the
    tokenizer, do not belong together.
    """
    folder, name = Path(path), shown(path)
    if not (folder / MARK).exists():
        raise InputError(
            f"{name} is half written: it has no {MARK}, which comes last\nmake it again: tinygpt tokenize FILE --out {name}"
        )
    header, own = _header(folder / MARK), load_tokenizer(folder / TOKENIZER, AGAIN)
    if own.hash != header.tokenizer:
        raise InputError(
            f"{TOKENIZER} in {name} is not the one that its tokens were made with: they would read as another text\n{AGAIN}"
        )
    if own.size > np.iinfo(DTYPES[header.dtype]).max + 1:
        raise InputError(
            f"{name} cannot hold its {own.size:,} tokens in {header.dtype}: {MARK} is damaged\n{AGAIN}"
        )
    if tokenizer is not None and tokenizer.hash != own.hash:
        raise InputError(
            f"the tokens in {name} are of another tokenizer than the run's: its model knows them by other numbers\n"
            f"make them with the run's own: tinygpt tokenize FILE --out FOLDER --from RUN"
        )
    return TokenFolder(
        header, MappedIds(_mapped(folder / IDS, header), own.size, shown(folder / IDS)), own
    )


def _header(path: Path) -> Header:
    data, name = read_bytes(path, advice=AGAIN), shown(path)
    version = parse_json(data, Version, name=name, advice=AGAIN).version
    if version > VERSION:
        raise InputError(
            f"{name} is of version {version}, written by a later tinygpt; this one knows {VERSION}\nmake it again: tinygpt tokenize"
        )
    return parse_json(data, Header, name=name, advice=AGAIN)


def _mapped(path: Path, header: Header) -> np.ndarray[Any, Any]:
    """The file as an array of which the operating system reads what is looked at."""
    dtype = DTYPES[header.dtype]
    with telling(path, AGAIN), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != header.tokens * dtype.itemsize:
            says = f"{size:,} bytes, not the {header.tokens * dtype.itemsize:,} of {header.tokens:,} tokens"
            raise InputError(
                f"{shown(path)} holds {says}: it was cut off, or is another text's\n{AGAIN}"
            )
        ids = np.asarray(np.memmap(file, dtype, mode="r"))
    if size <= HASHED and sha256(ids.data).hexdigest() != header.hash:
        raise InputError(
            f"{shown(path)} is not what {MARK} beside it was written for: its hash is another\n{AGAIN}"
        )
    return ids


# -- writing
# ------------------------------------------------------------------------------------------------------------


def check_free(folder: Path) -> None:
    """Raise InputError unless the folder can be made, or is empty, or was left half written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written to" if there.is_dir() else "is no folder"
        raise InputError(
            f"cannot write to {shown(folder)}: {shown(there)} {why}\nname a folder you may write to: --out FOLDER"
        )
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not (
        IDS in names and names <= {IDS, TOKENIZER, f"{TOKENIZER}.tmp", f"{MARK}.tmp"}
    ):
        what = "holds tokens already" if MARK in names else "is not empty"
        raise InputError(f"{shown(folder)} {what}\nname a new folder: --out FOLDER")


def write(
    folder: Path,
    tokenizer: Tokenizer,
    text: Iterable[str],
    validation: float,
    most: int | None = None,
) -> Header:
    """Write the ids of a text that comes in parts; never are they all in memory.

    validation: the share of the tokens, the last ones, that are kept back to measure on, if not
    more than `most`. Raises InputError
    where that cannot be written, and leaves nothing when it ends early in any way that Python sees.
    """
    check_free(folder)
    found = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            header = _write(folder, tokenizer, text, validation, most)
        except BaseException:
            for name in (MARK, TOKENIZER, IDS):
                (folder / name).unlink(missing_ok=True)
            if not found:
                folder.rmdir()
            raise
    except OSError as error:
        raise InputError(
            f"cannot write to {shown(folder)} ({reason(error)})\nname a folder you may write to, with room: --out FOLDER"
        ) from None
    return header


def _write(
    folder: Path, tokenizer: Tokenizer, text: Iterable[str], validation: float, most: int | None
) -> Header:
    dtype, hashed, tokens, seen = dtype_for(tokenizer.size), sha256(), 0, Seen()
    with (folder / IDS).open("wb") as file:
        for ids in tokenizer.encode_parts(seen.through(text)):
            # raises for an id that is too large
            data = np.fromiter(ids, DTYPES[dtype], len(ids)).tobytes()
            file.write(data)
            hashed.update(data)
            tokens += len(ids)
        file.flush()
        os.fsync(file.fileno())
    kept = int(tokens * validation) if most is None else min(int(tokens * validation), most)
    header = Header(
        VERSION,
        dtype,
        tokens,
        tokens - kept,
        hashed.hexdigest(),
        tokenizer.hash,
        seen.characters,
        opening(seen.start),
    )
    tokenizer.save(folder / TOKENIZER)
    write_json(folder / MARK, msgspec.structs.asdict(header))
    return header


class Seen:
    """Notes of a text what passes by."""

    def __init__(self) -> None:
        self.start, self.characters = "", 0

    def through(self, text: Iterable[str]) -> Iterator[str]:
        """The same parts."""
        for part in text:
            self.start += part[: max(0, 1000 - len(self.start))]
            self.characters += len(part)
            yield part
