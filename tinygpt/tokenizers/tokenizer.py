"""What every tokenizer can do, and what ours share: their file, their hash, their error."""

from __future__ import annotations

import json
import os
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

from tinygpt.console import shown
from tinygpt.errors import InputError
from tinygpt.files import write_json


class TokenizerError(InputError):
    """Text or ids that this tokenizer does not know, or a file that holds none."""


class Tokenizer(Protocol):
    """Text to ids from 0 to size - 1 and back."""

    @property
    def size(self) -> int:
        """The number of tokens, V."""

    @property
    def hash(self) -> str:
        """64 hexadecimal digits: two tokenizers with the same hash give the same ids."""

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""

    def encode_parts(self, parts: Iterable[str]) -> Iterator[list[int]]:
        """The ids of a text that comes in parts, some with each: together they are those of the whole text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file."""

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The tokenizer that `save` wrote."""


class StoredTokenizer(Tokenizer):
    """A tokenizer that is told whole by `kind` and `content`: these are what its file holds, and what its hash is taken of."""

    kind: ClassVar[str]

    def settled(self, text: str) -> tuple[list[int], int]:
        """The ids that a text has whatever follows it, and how many of its characters they are: here all."""
        return self.encode(text), len(text)

    def encode_parts(self, parts: Iterable[str]) -> Iterator[list[int]]:
        """The ids of `encode("".join(parts))`, some with each part, wherever the text is cut; only the end of a part waits for the next.

        Raises TokenizerError as `encode` does.
        """
        rest, waiting = "", 0
        for part in parts:
            rest += part
            if len(rest) >= 2 * waiting:  # a word that does not end is looked at again when it is twice as long: n characters take n steps
                ids, known = self.settled(rest)
                rest = rest[known:]
                waiting = len(rest)
                yield ids
        yield self.encode(rest)

    @abstractmethod
    def content(self) -> dict[str, Any]:
        """What decides its ids, as JSON can hold it."""

    @classmethod
    @abstractmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """The tokenizer of that content. Raises TokenizerError, KeyError or TypeError where it is unsound."""

    @property
    def hash(self) -> str:
        """SHA-256 of kind and content, 64 hexadecimal digits: a checkpoint keeps it, to refuse a tokenizer with other ids."""
        return sha256(json.dumps({"kind": self.kind, **self.content()}, sort_keys=True).encode()).hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write kind and content as JSON: a whole file or none, also when the process is killed."""
        write_json(Path(path), {"kind": self.kind, **self.content()})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """The tokenizer that `save` wrote. Raises TokenizerError for a file that holds none of this kind, OSError for no file."""
        reason = ""
        try:
            content = json.loads(Path(path).read_bytes().decode("utf-8"))
            if content["kind"] == cls.kind:
                return cls.from_content(content)
        except TokenizerError as error:
            reason = f": {error}"
        except (ValueError, KeyError, TypeError, RecursionError):
            pass
        raise TokenizerError(f"{shown(path)} holds no {cls.kind.replace('_', ' ')} tokenizer{reason}")


def word_of(tokenizer: Tokenizer, token: int) -> str:
    r"""A token as text that is safe to show; of one that is a part of a character, its bytes: \xc3."""
    text = tokenizer.decode([token])
    if "\ufffd" in text and hasattr(tokenizer, "decode_bytes"):
        return "".join(f"\\x{byte:02x}" for byte in tokenizer.decode_bytes([token]))
    return shown(text)


def utf8(text: str) -> bytes:
    """The text as UTF-8. Raises TokenizerError for half of a surrogate pair, which no file can hold, naming its position (from 0)."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        half = text[error.start]
        raise TokenizerError(f"character {half!a} at position {error.start} is half of a surrogate pair: it has no UTF-8") from None


def checked(ids: Iterable[int], size: int) -> list[int]:
    """The ids as a list of int. Raises TokenizerError naming the first outside [0, size) and its position."""
    numbers = [int(i) for i in ids]
    for position, number in enumerate(numbers):
        if not 0 <= number < size:  # a negative index would quietly count from the end
            raise TokenizerError(f"token {number} at position {position} is outside 0 to {size - 1}")
    return numbers
