"""What all tokenizers have in common: their file, their hash, their error."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self, Union

import msgspec
import regex

from tinygpt.errors import InputError
from tinygpt.files import RESTORE, TOKENS, VOCABULARY, parse_json, read_bytes, write_json
from tinygpt.terminal import shown

QUOTED = 60  # characters of a token that an error shows
# the last place where white space begins, as both re and regex see it
BREAK = regex.compile(r"(?r)(?<=[^\s\x1c-\x1f])[ \n]")


class TokenizerError(InputError):
    """Text or ids that this tokenizer does not know, or a file that holds none."""


class Content(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind"):
    """What decides the ids of a tokenizer, and its kind: the schema of its file."""


class Tokenizer(ABC):
    """Text to ids from 0 to size - 1 and back. The file and the hash are made from `content`."""

    schema: ClassVar[type[Content]]
    unit = "token"  # the word for one of them
    tokens: Sequence[Any]  # tokens[i]: the text of id i; where `decode` says so, the bytes
    specials: Mapping[str, int] = MappingProxyType({})  # the ids of special tokens, by their names

    @property
    def size(self) -> int:
        """The number of tokens, V."""
        return len(self.tokens)

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. Raises TokenizerError naming the first id outside [0, size) and its
        position.
        """
        return "".join([self.tokens[i] for i in checked(ids, self.size)])

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The text of ids in UTF-8. Where a token is only a part of a character, its bytes."""
        return self.decode(ids).encode("utf-8")

    @abstractmethod
    def content(self) -> Content:
        """What decides the ids, an instance of the schema."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: Any) -> Self:
        """The tokenizer of that content, an instance of the schema.

        Raises TokenizerError where its parts do not fit together.
        """

    def encode_parts(self, parts: Iterable[str]) -> Iterator[list[int]]:
        """The ids of `encode("".join(parts))`, some with each part, wherever the text is cut.

        A part is encoded up to its last white space, for no token goes on where white space begins.
        The rest waits for the next part. Raises TokenizerError as `encode` does.
        """
        waiting = ""
        for part in parts:
            found = BREAK.search(part)
            if found:
                yield self.encode(waiting + part[: found.start()])
                waiting = ""
            waiting += part[found.start() :] if found else part
        yield self.encode(waiting)

    @property
    def hash(self) -> str:
        """SHA-256 of the content, 64 hexadecimal digits: two tokenizers with the same hash give
        the same ids.
        """
        content = json.dumps(msgspec.to_builtins(self.content()), sort_keys=True)
        return sha256(content.encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the content as JSON: a whole file or none, also when the process is killed.

        Raises InputError where `load` would refuse the file: more than TOKENS tokens, too many
        merges or special tokens, or too many bytes.
        """
        if self.size > TOKENS:
            raise TokenizerError(f"{self.size:,} tokens: a file can hold at most {TOKENS:,}")
        content = msgspec.to_builtins(self.content())
        try:
            msgspec.convert(content, self.schema)
        except msgspec.ValidationError as error:
            raise TokenizerError(f"no file can hold this tokenizer ({error})") from None
        write_json(Path(path), content, VOCABULARY)

    @classmethod
    def load(cls, path: str | os.PathLike[str], advice: str = RESTORE) -> Self:
        """The tokenizer that `save` wrote: `Tokenizer.load` reads a file of any kind, and
        `WordTokenizer.load` one of words.

        Raises InputError, which ends with `advice`, for any other file.
        """
        kinds = {kind.schema: kind for kind in cls.__subclasses__() or [cls]}
        schema: Any = Union[tuple(kinds)]  # noqa: UP007 (of a list that is not known here)
        content = parse_json(read_tokens(path, advice), schema, path, advice)
        try:
            return kinds[type(content)].from_content(content)
        except TokenizerError as error:
            raise TokenizerError(f"{shown(path)} is damaged: {error}\n{advice}") from None


def read_tokens(path: str | os.PathLike[str], advice: str) -> bytes:
    """The bytes of a JSON file with tokens.

    Raises InputError for a file with more strings than a tokenizer can have tokens and merges. The
    strings are counted before they are made: each takes 50 bytes and more of memory.
    """
    data = read_bytes(path, VOCABULARY, advice)
    strings = texts_in(data)
    if strings > 2 * TOKENS + 2048:
        raise TokenizerError(
            f"{shown(path)} has {strings:,} texts; a tokenizer has at most {TOKENS:,} "
            f"tokens\n{advice}"
        )
    return data


def texts_in(data: bytes) -> int:
    """The number of texts in JSON: each stands between two quotation marks that are not escaped."""
    single = data.replace(rb"\\", b"")  # a backslash that is left escapes what comes after it
    return (single.count(b'"') - single.count(rb"\"")) // 2


def quoted(text: str) -> str:
    """A token in an error: short, and safe to show."""
    return ascii(text) if len(text) <= QUOTED else f"{text[:QUOTED]!a}..."


def word_of(tokenizer: Tokenizer, token: int) -> str:
    r"""A token as text that is safe to show. A part of a character is shown as bytes: \xc3."""
    text = tokenizer.decode([token])
    if "\ufffd" in text:
        return "".join(f"\\x{byte:02x}" for byte in tokenizer.decode_bytes([token]))
    return shown(text)


def utf8(text: str) -> bytes:
    """The text as UTF-8. Raises TokenizerError for half of a surrogate pair, which no file can
    hold, naming its position (from 0).
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise TokenizerError(
            f"character {half!a} at position {error.start} is half of a surrogate pair: it has no "
            "UTF-8"
        ) from None


def checked(ids: Iterable[int], size: int) -> list[int]:
    """The ids as a list of int. Raises TokenizerError naming the first outside [0, size) and its
    position.
    """
    numbers = [int(i) for i in ids]
    for position, number in enumerate(numbers):
        if not 0 <= number < size:  # a negative index would quietly count from the end
            raise TokenizerError(
                f"token {number} at position {position} is outside 0 to {size - 1}"
            )
    return numbers
