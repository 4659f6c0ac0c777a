"""Tokens that no text holds, before those of another tokenizer.

SpecialTokenizer(CharacterTokenizer("cat"), ("<pad>", "<sos>", "<eos>"))

id       0      1      2      3  4  5
token    <pad>  <sos>  <eos>  c  a  t
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, Self

import msgspec

from tinygpt.ids import ANSWERED
from tinygpt.tokenizers.byte import Bytes, ByteTokenizer
from tinygpt.tokenizers.byte_pair import END, BytePairs, BytePairTokenizer
from tinygpt.tokenizers.character import Characters, CharacterTokenizer
from tinygpt.tokenizers.tokenizer import Content, Tokenizer, TokenizerError, checked, quoted, utf8
from tinygpt.tokenizers.word import Pieces, WordTokenizer

INNER: tuple[type[Tokenizer], ...] = (
    CharacterTokenizer,
    ByteTokenizer,
    WordTokenizer,
    BytePairTokenizer,
)
MOST = 256  # special tokens
ENDS = END, ANSWERED  # the special tokens at which a text ends
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class SpecialAndInner(Content, frozen=True, tag="special"):
    """The names of the special tokens, in the order of their ids, and the inner tokenizer."""

    special: Annotated[tuple[Name, ...], msgspec.Meta(max_length=MOST)]
    inner: Characters | Bytes | Pieces | BytePairs


class SpecialTokenizer(Tokenizer):
    """The special tokens have the ids 0 to k - 1. Id i of the inner tokenizer becomes i + k.

    `encode` never gives a special token: the text "<pad>" is five characters like any other.
    `decode` writes a special token as its name. The special tokens of an inner tokenizer of this
    class come after the new ones. Raises TokenizerError for a name that is empty, is there twice,
    or is a token of the inner tokenizer.
    """

    schema = SpecialAndInner

    inner: Tokenizer
    special: tuple[str, ...]

    def __init__(self, inner: Tokenizer, special: Sequence[str]):
        if isinstance(inner, SpecialTokenizer):
            special, inner = (*special, *inner.special), inner.inner
        if not isinstance(inner, INNER):
            raise TokenizerError(
                f"{type(inner).__name__} cannot be the inner tokenizer\n"
                f"give one of {', '.join(kind.__name__ for kind in INNER)}"
            )
        self.inner, self.special, self.unit = inner, tuple(special), inner.unit
        self.tokens, k = (*self.special, *inner.tokens), len(self.special)
        self.specials = {name: i for i, name in enumerate(self.special)}
        self.specials |= {name: i + k for name, i in inner.specials.items()}
        known = {inner.decode([i]) for i in range(inner.size)}
        for i, name in enumerate(self.special):
            if not utf8(name) or name in self.special[:i] or name in known:
                raise TokenizerError(
                    f"special token {quoted(name)}: each name is some text, is there once, and is "
                    "no token of the inner tokenizer"
                )

    def without(self, count: int) -> Tokenizer:
        """The tokenizer that lacks the first `count` special tokens: its ids are lower by count."""
        rest = self.special[count:]
        return SpecialTokenizer(self.inner, rest) if rest else self.inner

    def encode(self, text: str) -> list[int]:
        """The ids of the inner tokenizer, each plus k. Raises what the inner tokenizer raises."""
        return self._shifted(self.inner.encode(text))

    def encode_parts(self, parts: Iterable[str]) -> Iterator[list[int]]:
        """The ids of `encode("".join(parts))`, cut as the inner tokenizer cuts them."""
        return map(self._shifted, self.inner.encode_parts(parts))

    def _shifted(self, ids: list[int]) -> list[int]:
        k = len(self.special)
        return [i + k for i in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids. A special token gives its name."""
        return "".join(
            name if name is not None else self.inner.decode(run) for name, run in self._runs(ids)
        )

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The text of the ids in UTF-8. A special token gives its name."""
        return b"".join(
            utf8(name) if name is not None else self.inner.decode_bytes(run)
            for name, run in self._runs(ids)
        )

    def _runs(self, ids: Iterable[int]) -> Iterator[tuple[str | None, list[int]]]:
        """The ids cut at the special tokens: (name, []) for a special token, and (None, ids of the
        inner tokenizer) for a run of others.
        """
        k = len(self.special)
        for special, run in groupby(checked(ids, self.size), lambda i: i < k):
            if special:
                yield from ((self.special[i], []) for i in run)
            else:
                yield None, [i - k for i in run]

    def content(self) -> SpecialAndInner:
        """The names, and the content of the inner tokenizer."""
        inner: Any = self.inner.content()
        return SpecialAndInner(self.special, inner)

    @classmethod
    def from_content(cls, content: Any) -> Self:
        """The tokenizer of that content. Raises TokenizerError as the constructor does."""
        kind = next(kind for kind in INNER if kind.schema is type(content.inner))
        return cls(kind.from_content(content.inner), content.special)


def end_tokens(tokenizer: Tokenizer) -> list[int]:
    """The ids at which a text ends: those of the tokenizer's special tokens that are in ENDS."""
    return [tokenizer.specials[name] for name in ENDS if name in tokenizer.specials]


def with_end(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with the special token END: itself, if it has this token."""
    return tokenizer if END in tokenizer.specials else SpecialTokenizer(tokenizer, (END,))


def with_special(tokenizer: Tokenizer, names: Sequence[str]) -> SpecialTokenizer:
    """The tokenizer with these special tokens too. Its own special tokens keep their ids, then come
    the new ones, and all other ids move up.
    """
    if not isinstance(tokenizer, SpecialTokenizer):
        return SpecialTokenizer(tokenizer, names)
    new = [name for name in names if name not in tokenizer.special]
    return SpecialTokenizer(tokenizer.inner, (*tokenizer.special, *new))
