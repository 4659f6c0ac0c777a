"""One token a word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, Self

from tinygpt.tokenizers.tokenizer import Content, Tokenizer, TokenizerError

UNKNOWN = "<unk>"  # no piece of a text: the pattern cuts it into "<", "unk" and ">"
# a word, a run of white space, or a single mark: together all of a text
PIECE = re.compile(r"\w+|\s+|[^\w\s]")


class Pieces(Content, frozen=True, tag="word"):
    """The pieces, in the order of their ids."""

    pieces: tuple[str, ...]


class WordTokenizer(Tokenizer):
    """Words, runs of white space and single marks to ids, the most frequent first; <unk> is 0: "a
    rose, a" -> 1 2 3 4 2 1.

    `size` limits the tokens, <unk> among them; the rarest are left out, of equals the ones seen
    last. decode(encode(text)) == text
    for a text of known pieces only. Raises TokenizerError for a text without characters.
    """

    schema = Pieces

    def __init__(self, text: str, size: int | None = None):
        if not text:
            raise TokenizerError("no text to make a tokenizer from: it is empty")
        if size is not None and size < 1:
            raise TokenizerError(f"size {size}: at least 1 is needed, for {UNKNOWN}")
        counts = Counter(match.group() for match in PIECE.finditer(text))
        self._number(
            [
                UNKNOWN,
                *(piece for piece, _ in counts.most_common(None if size is None else size - 1)),
            ]
        )

    def _number(self, pieces: Sequence[str]) -> None:
        self.tokens: tuple[str, ...] = tuple(pieces)
        self._ids = {piece: i for i, piece in enumerate(self.tokens)}

    def encode(self, text: str) -> list[int]:
        """The id of each piece, 0 for one that is unknown."""
        return [self._ids.get(match.group(), 0) for match in PIECE.finditer(text)]

    def content(self) -> Pieces:
        """The pieces, in the order of their ids."""
        return Pieces(self.tokens)

    @classmethod
    def from_content(cls, content: Any) -> Self:
        """The tokenizer of these pieces. Raises TokenizerError for what is no list of different
        pieces after <unk>.
        """
        pieces = content.pieces
        if (
            pieces[:1] != (UNKNOWN,)
            or len(set(pieces)) < len(pieces)
            or not all(map(PIECE.fullmatch, pieces[1:]))
        ):
            raise TokenizerError(
                f"its pieces are no list of {UNKNOWN} and then different words, white space and "
                "marks"
            )
        tokenizer = cls.__new__(cls)
        tokenizer._number(pieces)
        return tokenizer
