"""One token a byte."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from tinygpt.tokenizers.tokenizer import Content, Tokenizer, checked, utf8


class Bytes(Content, frozen=True, tag="byte"):
    """Nothing: there is only one such tokenizer."""


class ByteTokenizer(Tokenizer):
    """The bytes of UTF-8 as ids, 0 to 255: "é" -> 195, 169. Every text is known."""

    schema, unit = Bytes, "byte"
    tokens = range(256)

    def encode(self, text: str) -> list[int]:
        """The bytes of the text. Raises TokenizerError for half of a surrogate pair, which has
        none.
        """
        return list(utf8(text))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the bytes, with U+FFFD for what is no UTF-8. Raises TokenizerError for ids
        outside 0 to 255.
        """
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def encode_bytes(self, data: bytes) -> list[int]:
        """The bytes as ids, whatever they are."""
        return list(data)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The ids as bytes. Raises TokenizerError for ids outside 0 to 255."""
        return bytes(checked(ids, self.size))

    def content(self) -> Bytes:
        """Nothing but its kind."""
        return Bytes()

    @classmethod
    def from_content(cls, content: Any) -> Self:
        """The byte tokenizer."""
        return cls()
