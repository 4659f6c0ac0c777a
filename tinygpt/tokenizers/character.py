"""One token a character."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

from tinygpt.checkpoint import write_json
from tinygpt.errors import InputError


class TokenizerError(InputError):
    """Text or ids that this tokenizer does not know, or a file that holds none."""


class CharacterTokenizer:
    """Characters to ids, in the order in which `text` first shows them: "The cat" -> T 0, h 1, e 2, space 3, c 4, a 5, t 6.

    encode and decode undo each other. Raises TokenizerError for a text without characters.
    """

    def __init__(self, text: str):
        if not text:
            raise TokenizerError("no text to make a tokenizer from: it is empty")
        self.characters = "".join(dict.fromkeys(text))
        self._ids = {character: i for i, character in enumerate(self.characters)}

    @property
    def size(self) -> int:
        """The number of tokens, V."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """The id of each character. Raises TokenizerError naming the first unknown character and its position (from 0)."""
        try:
            return [self._ids[character] for character in text]
        except KeyError:
            position = next(i for i, character in enumerate(text) if character not in self._ids)
            known = "".join(sorted(self.characters))
            shown = known if len(known) <= 80 else known[:80] + "..."
            raise TokenizerError(f"character {text[position]!a} at position {position} is not one of the {self.size} this tokenizer knows: {shown!a}") from None

    def decode(self, ids: Iterable[int]) -> str:
        """The characters of the ids. Raises TokenizerError naming the first id outside [0, size) and its position."""
        numbers = [int(i) for i in ids]
        for position, number in enumerate(numbers):
            if not 0 <= number < self.size:  # a negative index would quietly count from the end
                raise TokenizerError(f"token {number} at position {position} is outside 0 to {self.size - 1}")
        return "".join(self.characters[number] for number in numbers)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the characters, in the order of their ids, as JSON: a whole file or none, also when the process is killed."""
        write_json(Path(path), {"kind": "character", "characters": self.characters})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> CharacterTokenizer:
        """The tokenizer that `save` wrote. Raises TokenizerError for a file that holds none."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            characters = content["characters"]
            sound = content["kind"] == "character" and isinstance(characters, str) and len(set(characters)) == len(characters) > 0
        except (ValueError, KeyError, TypeError, RecursionError):
            sound = False
        if not sound:
            raise TokenizerError(f"{path} holds no character tokenizer")
        return cls(characters)
