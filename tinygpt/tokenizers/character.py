"""One token a character."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Self

import msgspec

from tinygpt.files import TOKENS
from tinygpt.tokenizers.tokenizer import Content, Tokenizer, TokenizerError


class Characters(Content, frozen=True, tag="character"):
    """The characters, in the order of their ids."""

    characters: Annotated[str, msgspec.Meta(max_length=TOKENS)]


class CharacterTokenizer(Tokenizer):
    """Characters to ids, in the order in which `text` first shows them: "The cat" -> T 0, h 1, e 2,
    space 3, c 4, a 5, t 6.

    encode and decode undo each other. Raises TokenizerError for a text without characters.
    """

    schema, unit = Characters, "character"

    def __init__(self, text: str):
        if not text:
            raise TokenizerError("no text to make a tokenizer from: it is empty")
        self.tokens: str = "".join(dict.fromkeys(text))
        self._ids = {character: i for i, character in enumerate(self.tokens)}

    def encode(self, text: str) -> list[int]:
        """The id of each character. Raises TokenizerError naming the first unknown character and
        its position (from 0).
        """
        return self._encode(text)

    def encode_parts(self, parts: Iterable[str]) -> Iterator[list[int]]:
        """The ids of each part; an unknown character is named with its position in all of them."""
        before, lines = 0, 1
        for part in parts:
            yield self._encode(part, before, lines)
            before += len(part)
            lines += part.count("\n")

    def _encode(self, text: str, before: int = 0, lines: int = 1) -> list[int]:
        """The ids of a part, which has so many characters before it and begins in that line."""
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in self._ids)
            known = "".join(sorted(self.tokens))
            shown = known if len(known) <= 80 else known[:80] + "..."
            line = lines + text.count("\n", 0, position)
            where = f" in line {line}" if line > 1 else ""
            what = f"character {text[position]!a} at position {before + position}{where}"
            raise TokenizerError(
                f"{what} is not one of the {self.size} this tokenizer knows: {shown!a}\n"
                "use those, or train with --tokenizer bpe or byte, which know all"
            ) from None

    def content(self) -> Characters:
        """The characters, in the order of their ids."""
        return Characters(self.tokens)

    @classmethod
    def from_content(cls, content: Any) -> Self:
        """The tokenizer of these characters. Raises TokenizerError where one occurs twice, or there
        is none.
        """
        tokenizer = cls(content.characters)
        if tokenizer.size < len(content.characters):
            raise TokenizerError("one of its characters stands there twice")
        return tokenizer
