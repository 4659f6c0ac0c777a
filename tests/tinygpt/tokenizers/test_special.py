"""Special tokens before those of another tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import InputError, tokenizers
from tinygpt.ids import EOS, PAD, PAIR_TOKENS, SOS
from tinygpt.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    SpecialTokenizer,
    Tokenizer,
    TokenizerError,
    WordTokenizer,
    word_of,
)

TEXT = "The cat sat. Thé ☃ \n\n cat <pad>"
INNER: list[Tokenizer] = [
    CharacterTokenizer(TEXT),
    ByteTokenizer(),
    WordTokenizer(TEXT),
    BytePairTokenizer.train(TEXT, 262),
]
kinds = pytest.mark.parametrize("inner", INNER, ids=lambda inner: type(inner).__name__)


def test_special_tokens_come_first() -> None:
    tokenizer = SpecialTokenizer(CharacterTokenizer("cat"), PAIR_TOKENS)
    assert tokenizer.tokens == ("<pad>", "<sos>", "<eos>", "c", "a", "t")
    assert [PAIR_TOKENS[i] for i in (PAD, SOS, EOS)] == ["<pad>", "<sos>", "<eos>"]
    assert tokenizer.encode("cat") == [3, 4, 5]
    assert tokenizer.decode([SOS, 3, 4, 5, EOS, PAD]) == "<sos>cat<eos><pad>"
    assert tokenizer.decode_bytes([3, EOS]) == b"c<eos>"
    assert word_of(tokenizer, EOS) == "<eos>"
    assert (tokenizer.size, tokenizer.unit) == (6, "character")


@kinds
def test_a_text_gives_no_special_token(inner: Tokenizer, tmp_path: Path) -> None:
    tokenizer = SpecialTokenizer(inner, PAIR_TOKENS)
    ids = tokenizer.encode(TEXT)
    assert min(ids) >= 3
    assert [i - 3 for i in ids] == inner.encode(TEXT)
    assert tokenizer.decode(ids) == TEXT
    parts = [TEXT[:7], TEXT[7:]]
    assert list(tokenizer.encode_parts(parts)) == [
        [i + 3 for i in part] for part in inner.encode_parts(parts)
    ]
    tokenizer.save(tmp_path / "tokenizer.json")
    for loaded in (
        tokenizers.load(tmp_path / "tokenizer.json"),
        SpecialTokenizer.load(tmp_path / "tokenizer.json"),
    ):
        assert isinstance(loaded, SpecialTokenizer)
        assert loaded.special == PAIR_TOKENS
        assert type(loaded.inner) is type(inner)
        assert (loaded.hash, loaded.size) == (tokenizer.hash, inner.size + 3)
        assert loaded.encode(TEXT) == ids


@given(st.lists(st.integers(0, 258)))
def test_bytes_between_special_tokens(ids: list[int]) -> None:
    """A special token ends a character that is cut off."""
    tokenizer = SpecialTokenizer(ByteTokenizer(), PAIR_TOKENS)
    written = tokenizer.decode_bytes(ids)
    assert written == b"".join(tokenizer.decode_bytes([i]) for i in ids)
    assert tokenizer.decode(ids) == written.decode("utf-8", "replace")


def test_the_hash_tells_names_and_inner_tokenizers_apart() -> None:
    cat, act = CharacterTokenizer("cat"), CharacterTokenizer("act")
    different = [
        cat,
        SpecialTokenizer(cat, ()),
        SpecialTokenizer(cat, ("<a>", "<b>")),
        SpecialTokenizer(cat, ("<b>", "<a>")),
        SpecialTokenizer(act, ("<a>", "<b>")),
        SpecialTokenizer(WordTokenizer("cat"), ("<a>", "<b>")),
    ]
    assert len({tokenizer.hash for tokenizer in different}) == len(different)


@pytest.mark.parametrize("special", [("",), ("<a>", "<a>"), ("c",), ("<a>", "\ud800")])
def test_names_that_cannot_be(special: tuple[str, ...]) -> None:
    with pytest.raises(TokenizerError, match=r"special token '.*each name is|half of a surrogate"):
        SpecialTokenizer(CharacterTokenizer("cat"), special)


def test_names_that_are_tokens() -> None:
    with pytest.raises(TokenizerError, match="no token of the inner"):
        SpecialTokenizer(ByteTokenizer(), ["a"])
    with pytest.raises(TokenizerError, match="no token of the inner"):
        SpecialTokenizer(WordTokenizer("a"), ["<unk>"])
    with pytest.raises(TokenizerError, match="is there once"):
        SpecialTokenizer(SpecialTokenizer(CharacterTokenizer("cat"), PAIR_TOKENS), ["<pad>"])


def test_special_tokens_before_special_tokens() -> None:
    """They are one tokenizer, and those in front can be taken off again."""
    inside = SpecialTokenizer(CharacterTokenizer("cat"), ("<a>", "<b>"))
    both = SpecialTokenizer(inside, ("<c>",))
    assert both.tokens == ("<c>", "<a>", "<b>", "c", "a", "t")
    assert both.specials == {"<c>": 0, "<a>": 1, "<b>": 2}
    assert both.encode("cat") == [3, 4, 5]
    assert both.without(1).hash == inside.hash
    assert both.without(3) is inside.inner
    pairs = BytePairTokenizer.train("cat cat", 260)
    found = SpecialTokenizer(pairs, ("<a>",)).specials
    assert found == {"<a>": 0, **{name: i + 1 for name, i in pairs.specials.items()}}


def test_unknown_ids_are_named_with_their_position() -> None:
    tokenizer = SpecialTokenizer(CharacterTokenizer("cat"), PAIR_TOKENS)
    with pytest.raises(TokenizerError, match="token 6 at position 1 is outside 0 to 5"):
        tokenizer.decode([0, 6])
    with pytest.raises(TokenizerError, match="token -1 at position 0"):
        tokenizer.decode_bytes([-1])


@pytest.mark.parametrize(
    "change",
    [
        {"special": ["<a>", "<a>"]},
        {"special": [""]},
        {"special": ["<a>"] * 257},
        {"special": "<a>"},
        {"inner": None},
        {"inner": {"kind": "special", "special": [], "inner": {"kind": "byte"}}},
        {"inner": {"kind": "character", "characters": "aa"}},
    ],
)
def test_a_file_that_holds_no_special_tokenizer(change: object, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    content = {"kind": "special", "special": ["<a>"], "inner": {"kind": "byte"}}
    path.write_text(json.dumps(content))
    assert tokenizers.load(path).size == 257
    assert isinstance(change, dict)
    path.write_text(json.dumps(content | change))
    with pytest.raises(InputError, match=r"tokenizer\.json is damaged.*\nrestore it from a copy"):
        tokenizers.load(path)
