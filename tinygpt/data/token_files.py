"""Token folders: the ids of a text in a file, made once by `tinygpt tokenize`. A training reads
only the windows that it needs.

    tokens.bin        the ids of the whole text: 2 bytes each, 4 where the tokenizer has more than
                      65,536 tokens, low byte first
    tokenizer.json    the tokenizer
    tokens.json       the number of ids, how many of them to learn from, and the hashes of both
                      files: written last, in one move

A folder without tokens.json is half written. Gigabytes are not hashed at each start: the size is
compared, and an id that no token has is found when it is read. A run goes on only with the hash in
tokens.json.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec
import numpy as np

from tinygpt.data.documents import encode_documents
from tinygpt.data.reading import START, opening
from tinygpt.data.windows import MappedIds, kept_back
from tinygpt.errors import InputError
from tinygpt.files import lock, open_regular, parse_json, read_bytes, reading, reason, write_json
from tinygpt.terminal import command, shown
from tinygpt.tokenizers import Tokenizer
from tinygpt.tokenizers import load as load_tokenizer

IDS, TOKENIZER, MARK = "tokens.bin", "tokenizer.json", "tokens.json"
PARTS = MARK, f"{MARK}.tmp", TOKENIZER, f"{TOKENIZER}.tmp", IDS  # in the order they are removed
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
        """64 hexadecimal digits: two folders with the same hash train a model in the same way."""
        h = self.header
        seen = f"{h.hash} {h.tokenizer} {h.dtype} {h.tokens} {h.learned}"
        return sha256(seen.encode()).hexdigest()


def is_token_folder(path: str | None) -> bool:
    """Whether `write` made this folder, whole or in part."""
    return path is not None and any(
        os.path.isfile(os.path.join(path, name)) for name in (MARK, IDS)
    )


# -- reading


def read(path: str, tokenizer: Tokenizer | None = None) -> TokenFolder:
    """The ids in a token folder, left on the disk. tokenizer: the one that must have made them.

    Raises InputError for a file that is missing, cut off or damaged, and for files, or a tokenizer,
    that do not belong together.
    """
    folder, name = Path(path), shown(path)
    if not (folder / MARK).exists():
        raise InputError(
            f"{name} is half written: it has no {MARK}, which comes last\n"
            f"make it again: {command('tokenize', 'FILE', '--out', path)}"
        )
    header, own = _header(folder / MARK), load_tokenizer(folder / TOKENIZER, AGAIN)
    if own.hash != header.tokenizer:
        raise InputError(
            f"{TOKENIZER} in {name} is not the one that its tokens were made with: they would read "
            f"as another text\n{AGAIN}"
        )
    if own.size > np.iinfo(DTYPES[header.dtype]).max + 1:
        raise InputError(
            f"{name} cannot hold its {own.size:,} tokens in {header.dtype}: {MARK} is damaged\n"
            f"{AGAIN}"
        )
    if tokenizer is not None and tokenizer.hash != own.hash:
        raise InputError(
            f"the tokens in {name} are of another tokenizer than the run's: its model knows them "
            "by other numbers\n"
            "make them with the run's own: tinygpt tokenize FILE --out FOLDER --from RUN"
        )
    return TokenFolder(
        header, MappedIds(_mapped(folder / IDS, header), own.size, shown(folder / IDS)), own
    )


def _header(path: Path) -> Header:
    data = read_bytes(path, advice=AGAIN)
    version = parse_json(data, Version, path, AGAIN).version
    if version > VERSION:
        raise InputError(
            f"{shown(path)} is of version {version}, written by a later tinygpt; this one knows "
            f"{VERSION}\nmake it again: tinygpt tokenize"
        )
    return parse_json(data, Header, path, AGAIN)


def _mapped(path: Path, header: Header) -> np.ndarray[Any, Any]:
    """The file as an array. The operating system reads the parts that are used."""
    dtype = DTYPES[header.dtype]
    with reading(path, AGAIN), open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size != header.tokens * dtype.itemsize:
            raise InputError(
                f"{shown(path)} holds {size:,} bytes, not the {header.tokens * dtype.itemsize:,} "
                f"of {header.tokens:,} tokens: it was cut off, or is another text's\n{AGAIN}"
            )
        ids = np.asarray(np.memmap(file, dtype, mode="r"))
    if size <= HASHED and sha256(ids.data).hexdigest() != header.hash:
        raise InputError(
            f"{shown(path)} is not what {MARK} beside it was written for: its hash is another\n"
            f"{AGAIN}"
        )
    return ids


# -- writing


def check_free(folder: Path) -> None:
    """Raise InputError unless the folder can be made, or is empty or half written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        why = "may not be written to" if there.is_dir() else "is no folder"
        raise InputError(
            f"cannot write to {shown(folder)}: {shown(there)} {why}\n"
            "name a folder you may write to: --out FOLDER"
        )
    entries = list(folder.iterdir()) if folder.is_dir() else []
    names = {entry.name for entry in entries}
    half_written = IDS in names and MARK not in names and names <= {*PARTS}
    if names and (not half_written or any(entry.is_dir() for entry in entries)):
        what = "holds tokens already" if MARK in names else "is not empty"
        raise InputError(f"{shown(folder)} {what}\nname a new folder: --out FOLDER")


def check_apart(folder: Path, files: Iterable[str]) -> None:
    """Raise InputError where one of the files of a text is in the folder: it would be removed."""
    entries = [path for path in folder.iterdir() if path.exists()] if folder.is_dir() else []
    for file in files:
        if any(os.path.samefile(file, entry) for entry in entries):
            raise InputError(
                f"{shown(file)} is in {shown(folder)}, where the tokens go: it would be lost\n"
                "name a new folder: --out FOLDER"
            )


@contextmanager
def _new(folder: Path) -> Iterator[None]:
    """A folder to write to, ours alone. Any exception leaves nothing behind."""
    check_free(folder)
    found = folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            check_free(folder)  # another process may have written it meanwhile
            try:
                yield
            except BaseException:
                for name in PARTS:
                    (folder / name).unlink(missing_ok=True)
                if not found:
                    folder.rmdir()
                raise
    except OSError as error:
        raise InputError(
            f"cannot write to {shown(folder)} ({reason(error)})\n"
            "name a folder you may write to, with free space: --out FOLDER"
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Raises InputError where another process writes to the folder."""
    descriptor = lock(
        folder,
        f"another process writes to {shown(folder)}\n"
        "wait for it, or name a new folder: --out FOLDER",
    )
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def write(
    folder: Path,
    tokenizer: Tokenizer,
    text: Iterable[str],
    validation: float,
    most: int | None = None,
    several: bool = False,
) -> Header:
    """Write the ids of a text that comes in parts. The ids are never all in memory. several: the
    text has several documents, and each ends with the tokenizer's END.

    validation: the share of the tokens, the last ones, that is kept back to measure on, but at most
    `most` tokens. Raises InputError where the folder cannot be written, and CorpusError where the
    share is less than two tokens.
    """
    start, characters = "", 0

    def seen() -> Iterator[str]:
        nonlocal start, characters
        for part in text:
            start += part[: max(0, START - len(start))]
            characters += len(part)
            yield part

    dtype: Literal["uint16", "uint32"] = "uint16" if tokenizer.size <= 1 << 16 else "uint32"
    hashed, tokens = sha256(), 0
    encoded = encode_documents(tokenizer, seen()) if several else tokenizer.encode_parts(seen())
    with _new(folder):
        (folder / IDS).unlink(missing_ok=True)  # may be a link, or a FIFO
        with (folder / IDS).open("xb") as file:
            for ids in encoded:
                # raises for an id that is too large
                data = np.fromiter(ids, DTYPES[dtype], len(ids)).tobytes()
                file.write(data)
                hashed.update(data)
                tokens += len(ids)
            file.flush()
            os.fsync(file.fileno())
        kept = min(kept_back(tokens, validation), tokens if most is None else most)
        hashes = hashed.hexdigest(), tokenizer.hash
        header = Header(VERSION, dtype, tokens, tokens - kept, *hashes, characters, opening(start))
        tokenizer.save(folder / TOKENIZER)
        write_json(folder / MARK, msgspec.structs.asdict(header))
    return header
