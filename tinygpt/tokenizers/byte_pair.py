"""Byte-pair encoding: what often stands together becomes one token. What is rare takes several
tokens, so no text is unknown.

    bytes    a text is its UTF-8 bytes: 256 tokens to begin with
    words    the text is cut into words, each with the space before it ("the cat" -> "the", " cat"):
             no token crosses a cut
    pairs    count the pairs of neighbours in all words
    merges   the most frequent pair becomes a new token wherever it stands; count again; and so on,
             until there are enough tokens
    encode   a new text: words, bytes, and then the same merges, the first learned first

        a a a b d a a a b a c      a a comes 4 times (twice in a a a, where only the first can
                                   become a token)
        Z a b d Z a b a c          Z = a a; a b and Z a come twice: the smaller ids go first, those
                                   of older tokens
        Z Y d Z Y a c              Y = a b; Z Y comes twice
        X d X a c                  X = Z Y; nothing comes twice

Sennrich, Haddow and Birch 2016 (arXiv:1508.07909); over bytes and with these words: GPT-2, Radford
et al. 2019.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from itertools import pairwise
from typing import Annotated, Any, Self

import msgspec
import regex  # re, with classes of characters such as \p{L}

from tinygpt.files import TOKENS
from tinygpt.terminal import shown
from tinygpt.tokenizers.gpt2_files import (
    Id,
    in_order,
    read_merge,
    read_merges,
    read_vocabulary,
    to_bytes,
    to_text,
    write_merges,
    write_vocabulary,
)
from tinygpt.tokenizers.pairs import GAP, Pair, Pairs, integers
from tinygpt.tokenizers.tokenizer import (
    BREAK,
    Content,
    Tokenizer,
    TokenizerError,
    checked,
    quoted,
    utf8,
)

BYTES = [bytes([byte]) for byte in range(256)]
CACHED = 1 << 16  # words whose ids are remembered: some 20 MB
LONGEST = 64  # characters of a word that is remembered
END = "<|endoftext|>"  # stands between two documents
BRACKETS = re.compile(rb"<.+>|\[.+\]", re.DOTALL)  # how tokens for a purpose are written

# -- words

WORD = regex.compile(
    "|".join(  # the first that fits; together they fit every character
        [
            r"'(?:s|t|re|ve|m|ll|d)",  # it's, don't, we're: the ending is a word of its own
            r" ?\p{L}+",  # letters,
            r" ?\p{N}+",  # digits,
            r" ?[^\s\p{L}\p{N}]+",  # other marks, each with the space before them
            # white space; its last character is left to a word that follows
            r"\s+(?!\S)",
            r"\s+",
        ]
    )
)


def words(text: str) -> Iterator[str]:
    """The words, which together are the text: "Hello,  world" -> "Hello", ",", " ", " world"."""
    return (match.group() for match in WORD.finditer(text))


def split(text: str, specials: Iterable[str]) -> list[str]:
    """The text cut at its special tokens, the longest that fits first: ordinary, special, ordinary,
    ..., ordinary. Parts may be empty.
    """
    choices = "|".join(re.escape(special) for special in sorted(specials, key=len, reverse=True))
    return re.split(f"({choices})", text) if choices else [text]


# -- the tokenizer


class BytePairs(Content, frozen=True, tag="byte_pair"):
    """The content of GPT-2's two files, in the order of ranks and ids, and the special tokens."""

    # a text is cut at its special tokens by a pattern that names each
    specials: Annotated[dict[str, Id], msgspec.Meta(max_length=1024)]
    merges: Annotated[tuple[str, ...], msgspec.Meta(max_length=TOKENS)]
    tokens: Annotated[tuple[str, ...], msgspec.Meta(max_length=TOKENS)]


class BytePairTokenizer(Tokenizer):
    """Bytes and merged bytes to ids. The merge of the lowest rank goes first, of equals the
    leftmost.

    tokens[i] are the bytes of id i. merges are pairs of tokens, in the order of their ranks.
    specials, {text: id}, are never merged nor split. No text becomes a token in brackets, such as
    [PAD], that is not special. Raises TokenizerError unless each merge makes a token, and all other
    tokens are bytes, special or in brackets.
    """

    schema = BytePairs

    def __init__(
        self,
        tokens: Sequence[bytes],
        merges: Iterable[tuple[bytes, bytes]],
        specials: Mapping[str, int],
    ):
        self.tokens = tuple(tokens)
        self.specials: dict[str, int] = dict(specials)
        self._ids = ids = numbered(self.tokens, self.specials)
        # 100,000 merges take 20 MB: a rank a pair, and the token that each rank makes
        self._ranks: dict[Pair, int] = {}
        self._made: list[int] = []
        for rank, (left, right) in enumerate(merges):
            for part in (left, right, left + right):
                if part not in ids:
                    raise TokenizerError(
                        f"token {quoted(to_text(part))} is missing: a merge needs it"
                    )
            pair = ids[left], ids[right]
            if self._ranks.setdefault(pair, rank) != rank:
                raise TokenizerError(
                    f"the merge of {quoted(to_text(left))} and {quoted(to_text(right))} is there "
                    "twice"
                )
            self._made.append(ids[left + right])
        made = set(self._made)
        for token, number in ids.items():
            if number not in made and len(token) > 1 and not BRACKETS.fullmatch(token):
                raise TokenizerError(
                    f"no merge makes token {quoted(to_text(token))}, id {number}: "
                    "a merge is missing, or it is a special token"
                )
        self._known = lru_cache(CACHED)(self._merge)

    def __getstate__(self) -> dict[str, Any]:
        """For `copy` and `pickle`: all but the cache."""
        return {name: value for name, value in vars(self).items() if name != "_known"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._known = lru_cache(CACHED)(self._merge)

    @property
    def merges(self) -> tuple[tuple[bytes, bytes], ...]:
        """The pairs of tokens that are merged, in the order of their ranks."""
        return tuple((self.tokens[left], self.tokens[right]) for left, right in self._ranks)

    @classmethod
    def train(
        cls,
        text: str,
        size: int,
        specials: Sequence[str] = (END,),
        progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Learn size - 256 - len(specials) merges from the text. Byte b has id b; then come the
        merges, then the special tokens.

        Each merge takes the most frequent pair of neighbours, of equals the one with the smallest
        ids, so the same text always makes the same tokens. Training ends early where no pair occurs
        twice. Special tokens in the text are left out. `progress` is called with (merges so far,
        merges wanted). Raises TokenizerError for a size or special tokens that cannot be.
        """
        wanted = size - len(BYTES) - len(specials)
        if wanted < 0:
            raise TokenizerError(
                f"size {size}: at least {size - wanted} tokens are needed, 256 bytes and "
                f"{len(specials)} special"
            )
        if size > TOKENS:
            raise TokenizerError(f"size {size:,}: a tokenizer has at most {TOKENS:,} tokens")
        if "" in specials or len(set(specials)) < len(specials):
            raise TokenizerError(
                f"special tokens {', '.join(map(ascii, specials))}: each must be some text, and be "
                "there once"
            )
        if not utf8(text):
            raise TokenizerError("no text to make a tokenizer from: it is empty")
        pairs = Pairs(Counter(word for part in split(text, specials)[::2] for word in words(part)))
        tokens, merges = list(BYTES), list[tuple[bytes, bytes]]()
        while len(merges) < wanted and (pair := pairs.most_frequent()):
            left, right = (tokens[i] for i in pair)
            pairs.merge(pair, len(tokens))
            merges.append((left, right))
            # new: the same bytes would have been merged in the same way
            tokens.append(left + right)
            if progress:
                progress(len(merges), wanted)
        return cls(
            [*tokens, *map(utf8, specials)],
            merges,
            {special: i for i, special in enumerate(specials, len(tokens))},
        )

    def encode(self, text: str, specials: bool = True) -> list[int]:
        """The ids of a text. With specials=False the text of a special token is ordinary text, as
        is right for strangers' texts.

        Raises TokenizerError for half of a surrogate pair, and for a byte without a token.
        """
        utf8(text)
        ids: list[int] = []
        for i, part in enumerate(split(text, self.specials if specials else ())):
            ids += [self.specials[part]] if i % 2 else self._encode(part)
        return ids

    def encode_parts(self, parts: Iterable[str]) -> Iterator[list[int]]:
        """As for every tokenizer; with a special token that holds white space, all at once."""
        if any(map(BREAK.search, self.specials)):
            return iter([self.encode("".join(parts))])
        return super().encode_parts(parts)

    def encode_bytes(self, data: bytes) -> list[int]:
        """The ids of any bytes; of UTF-8, those of its text without special tokens."""
        # a byte that is no UTF-8 becomes half a surrogate pair
        return self._encode(data.decode("utf-8", "surrogateescape"))

    def _encode(self, text: str) -> list[int]:
        """The ids of a text without special tokens."""
        ids: list[int] = []
        for word in words(text):
            ids += self._known(word) if len(word) <= LONGEST else self._merge(word)
        return ids

    def _merge(self, word: str) -> list[int]:
        """The ids of a word: of its bytes, then merged, the lowest rank first, of equals the
        leftmost, until no pair is in the merges.

        A heap holds rank * size + position of each pair, so that n bytes take n log n steps, not
        n^2. A pair that has changed meanwhile has another rank, and is skipped.
        """
        letters = word.encode("utf-8", "surrogateescape")
        try:
            ids = [self._ids[BYTES[byte]] for byte in letters]
        except KeyError as error:
            raise TokenizerError(
                f"byte 0x{error.args[0].hex()} of {quoted(word)} has no token: the text that this "
                "tokenizer was made from did not hold it"
            ) from None
        ids.append(GAP)  # after the last id, and at index -1 before the first
        size, ranks = len(ids), self._ranks
        before, after = integers(range(-1, size - 1), size), integers(range(1, size), size)
        waiting = [
            ranks[pair] * size + left for left, pair in enumerate(pairwise(ids)) if pair in ranks
        ]
        heapify(waiting)
        while waiting:
            rank, left = divmod(heappop(waiting), size)
            right = after[left]
            if ranks.get((ids[left], ids[right])) != rank:
                continue
            ids[left], ids[right] = self._made[rank], GAP
            after[left] = after[right]
            before[after[left]] = left
            for start in (before[left], left):
                later = ranks.get((ids[start], ids[after[start]]))
                if later is not None:
                    heappush(waiting, later * size + start)
        return [i for i in ids if i != GAP]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of the ids, with U+FFFD for bytes that are no UTF-8."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of the ids, one after the other."""
        return b"".join([self.tokens[i] for i in checked(ids, self.size)])

    def content(self) -> BytePairs:
        """Tokens, merges and special tokens, as text."""
        special = {number: text for text, number in self.specials.items()}
        return BytePairs(
            self.specials,
            tuple(f"{to_text(left)} {to_text(right)}" for left, right in self.merges),
            tuple(special.get(i) or to_text(token) for i, token in enumerate(self.tokens)),
        )

    @classmethod
    def from_content(cls, content: Any) -> Self:
        """The tokenizer of that content. Raises TokenizerError as the constructor does."""
        special = set(content.specials.values())
        return cls(
            [utf8(t) if i in special else to_bytes(t) for i, t in enumerate(content.tokens)],
            ((to_bytes(a), to_bytes(b)) for a, b in map(read_merge, content.merges)),
            content.specials,
        )

    @classmethod
    def from_gpt2(
        cls,
        vocabulary: str | os.PathLike[str],
        merges: str | os.PathLike[str],
        specials: Sequence[str] | None = None,
    ) -> Self:
        """The tokenizer of GPT-2's vocab.json and merges.txt, or of files written like them.

        The files do not say which tokens are special. Without `specials` they are the tokens that
        no merge makes and that look like <this>. Raises TokenizerError for entries that are
        missing, twice, or do not fit together.
        """
        tokens, lines = in_order(read_vocabulary(vocabulary), vocabulary), read_merges(merges)
        if specials is None:
            made = {line.replace(" ", "") for line in lines}
            specials = [text for text in tokens if re.fullmatch(r"<.+>", text) and text not in made]
        numbers = {text: i for i, text in enumerate(tokens)}
        missing = next((text for text in specials if text not in numbers), None)
        if missing is not None:
            raise TokenizerError(f"{shown(vocabulary)} lacks the special token {quoted(missing)}")
        chosen = {text: numbers[text] for text in specials}
        try:
            return cls.from_content(BytePairs(chosen, tuple(lines), tuple(tokens)))
        except TokenizerError as error:
            raise TokenizerError(
                f"{shown(vocabulary)} and {shown(merges)} do not fit together: {error}"
            ) from None

    def save_gpt2(self, vocabulary: str | os.PathLike[str], merges: str | os.PathLike[str]) -> None:
        """Write vocab.json and merges.txt as GPT-2's are written, byte for byte."""
        content = self.content()
        write_vocabulary(vocabulary, content.tokens)
        write_merges(merges, content.merges)


def numbered(tokens: Sequence[bytes], specials: Mapping[str, int]) -> dict[bytes, int]:
    """The ids of the ordinary tokens. Raises TokenizerError where one has two, or a special token
    has not its own.
    """
    for text, number in specials.items():
        if not text or not 0 <= number < len(tokens) or tokens[number] != utf8(text):
            raise TokenizerError(
                f"special token {quoted(text)} is not token {number}"
                if text
                else "a special token is empty"
            )
    special, ids = set(specials.values()), dict[bytes, int]()
    for number, token in enumerate(tokens):
        if number not in special and ids.setdefault(token, number) != number:
            raise TokenizerError(
                f"token {quoted(to_text(token))} has two ids, {ids[token]} and {number}"
            )
    return ids
