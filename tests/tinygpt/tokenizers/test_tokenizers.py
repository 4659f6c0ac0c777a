"""Characters, bytes and words to ids and back; what all tokenizers share. Byte pairs have a file of
their own.
"""

from __future__ import annotations

import json
import os
import re
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import InputError, story, tokenizers
from tinygpt.files import TOKENS
from tinygpt.tokenizers import (
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    Tokenizer,
    TokenizerError,
    WordTokenizer,
)
from tinygpt.tokenizers.gpt2_files import read_merges, read_vocabulary
from tinygpt.tokenizers.tokenizer import texts_in

# -- characters


def test_ids_in_order_of_first_appearance() -> None:
    tokenizer = CharacterTokenizer("The cat sat")
    assert tokenizer.encode("The cat") == [0, 1, 2, 3, 4, 5, 6]
    assert tokenizer.encode("sat") == [7, 5, 6]
    assert tokenizer.size == 8
    assert tokenizer.decode([0, 1, 2]) == "The"
    assert CharacterTokenizer(story()).size == 22


@given(st.text(min_size=1))
def test_decode_undoes_encode(text: str) -> None:
    tokenizer = CharacterTokenizer(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.size == len(set(text)) == max(ids) + 1
    assert list(dict.fromkeys(ids)) == list(range(tokenizer.size))  # numbered as they first appear


def test_empty_text() -> None:
    with pytest.raises(TokenizerError, match="empty"):
        CharacterTokenizer("")
    assert CharacterTokenizer("a").encode("") == []
    assert CharacterTokenizer("a").decode([]) == ""


def test_unknown_character_is_named_with_its_position() -> None:
    with pytest.raises(
        TokenizerError, match=r"character 'z' at position 4 is not one of the 7 .*' Taceht'"
    ):
        CharacterTokenizer("The cat").encode("The z")
    with pytest.raises(ValueError, match=r"'\\n' at position 0"):
        CharacterTokenizer("The cat").encode("\nThe")


@pytest.mark.parametrize(
    ("ids", "message"),
    [([0, 7], "token 7 at position 1 is outside 0 to 6"), ([-1], "token -1 at position 0")],
)
def test_unknown_id_is_named_with_its_position(ids: list[int], message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        CharacterTokenizer("The cat").decode(ids)


def test_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    text = 'naïve\n\t"☃" 🐈 \u2028 \x00'
    CharacterTokenizer(text).save(path)
    loaded = CharacterTokenizer.load(path)
    assert loaded.encode(text) == CharacterTokenizer(text).encode(text)
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]  # and no temporary file


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tokenizer.json"
    CharacterTokenizer("old").save(path)

    def full(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        CharacterTokenizer("new").save(path)
    assert CharacterTokenizer.load(path).decode([0, 1, 2]) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["tokenizer.json"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`, got `array`"),
        (b"{", "truncated"),
        (b"\xff", "malformed"),
        (b'{"kind": "other", "characters": "ab"}', "Invalid value 'other' - at `$.kind`"),
        (b'{"kind": "character"}', "missing required field `characters`"),
        (b'{"kind": "character", "characters": ["ab"]}', "Expected `str`, got `array`"),
        (b'{"kind": "character", "characters": "ab", "more": 1}', "unknown field `more`"),
        (
            b'{"kind": "character", "characters": "ab", "characters": "ba"}',
            "'characters' stands in it twice",
        ),
        (b'{"kind": "character", "characters": "a\\ud800"}', "truncated"),
        (b'{"kind": "character", "characters": "aa"}', "one of its characters stands there twice"),
        (b'{"kind": "character", "characters": ""}', "no text"),
    ],
)
def test_a_file_that_holds_no_tokenizer(content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(
        InputError,
        match=r"tokenizer\.json is damaged.*" + re.escape(says) + r".*\nrestore it from a copy",
    ):
        CharacterTokenizer.load(path)


# -- bytes


@given(st.binary())
def test_any_bytes_come_back(data: bytes) -> None:
    assert ByteTokenizer().decode_bytes(ByteTokenizer().encode_bytes(data)) == data


def test_bytes_of_a_text() -> None:
    tokenizer = ByteTokenizer()
    assert tokenizer.encode("aé☃") == [97, 195, 169, 226, 152, 131]
    assert tokenizer.decode([97, 195, 169, 226, 152]) == "aé\ufffd"
    assert tokenizer.size == 256
    with pytest.raises(TokenizerError, match="token 256 at position 1 is outside 0 to 255"):
        tokenizer.decode([0, 256])
    with pytest.raises(
        TokenizerError, match=r"'\\ud800' at position 2 is half of a surrogate pair"
    ):
        tokenizer.encode("ab\ud800")


# -- words


def test_words_by_frequency() -> None:
    tokenizer = WordTokenizer("a rose, a")
    assert tokenizer.tokens == ("<unk>", "a", " ", "rose", ",")
    assert tokenizer.encode("a rose, a") == [1, 2, 3, 4, 2, 1]
    assert tokenizer.encode("a tulip") == [1, 2, 0]
    assert tokenizer.decode([1, 2, 0]) == "a <unk>"
    assert WordTokenizer("a rose, a", size=4).encode("a rose, a") == [1, 2, 3, 0, 2, 1]
    assert WordTokenizer("a", size=1).encode("a") == [0]
    assert WordTokenizer("(a)\n\n  b!?").tokens[1:] == ("(", "a", ")", "\n\n  ", "b", "!", "?")


@given(st.text(min_size=1))
def test_known_words_come_back(text: str) -> None:
    tokenizer = WordTokenizer(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert 0 not in ids
    assert tokenizer.size == len(set(ids)) + 1


def test_words_that_cannot_be() -> None:
    with pytest.raises(TokenizerError, match="empty"):
        WordTokenizer("")
    with pytest.raises(TokenizerError, match="size 0: at least 1"):
        WordTokenizer("a", size=0)
    with pytest.raises(TokenizerError, match="token -1 at position 0"):
        WordTokenizer("a").decode([-1])


# -- all kinds

TEXT = "The cat sat. Thé ☃ \n\n cat"
ALL: list[Tokenizer] = [
    CharacterTokenizer(TEXT),
    ByteTokenizer(),
    WordTokenizer(TEXT),
    BytePairTokenizer.train(TEXT, 262),
]


@pytest.mark.parametrize("tokenizer", ALL, ids=lambda tokenizer: type(tokenizer).__name__)
def test_any_kind_is_saved_and_loaded(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    for loaded in (tokenizers.load(path), type(tokenizer).load(path)):
        assert type(loaded) is type(tokenizer)
        assert (loaded.size, loaded.hash) == (tokenizer.size, tokenizer.hash)
        ids = loaded.encode(TEXT)
        assert ids == tokenizer.encode(TEXT)
        assert max(ids) < loaded.size
        assert loaded.decode(ids) == TEXT


def test_bug_65_hash_tells_tokenizers_apart() -> None:
    tokens = BytePairTokenizer.train("ab ab", 258, specials=())
    different: list[Tokenizer] = [
        *ALL,
        CharacterTokenizer("ab"),
        CharacterTokenizer("ba"),  # as many tokens, other ids
        WordTokenizer("a b"),
        WordTokenizer("b a"),
        tokens,
        BytePairTokenizer.train("ab ab", 258),
        BytePairTokenizer.train("ab ab", 258, specials=("<s>",)),
        BytePairTokenizer(
            [*tokens.tokens[1:-1], tokens.tokens[0], tokens.tokens[-1]], tokens.merges, {}
        ),
        BytePairTokenizer(
            [*tokens.tokens, b"bc", b"abc"], [*tokens.merges, (b"b", b"c"), (b"ab", b"c")], {}
        ),
        BytePairTokenizer(
            [*tokens.tokens, b"bc", b"abc"], [(b"b", b"c"), *tokens.merges, (b"ab", b"c")], {}
        ),
    ]
    hashes = [tokenizer.hash for tokenizer in different]
    assert len(set(hashes)) == len(hashes)
    assert all(len(each) == 64 and int(each, 16) for each in hashes)
    assert BytePairTokenizer.train("ab ab", 258, specials=()).hash == tokens.hash
    assert (
        CharacterTokenizer("ab").hash
        == "fb3045ec9d8a1e5e5f7e65b0c7a1ac88fb01411a1e8cb3d82704aebda5706190"
    )


NESTED = b"[" * 100_000


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        NESTED,
        b'{"kind": "other"}',
        b'{"kind": ["byte"]}',
        b'{"characters": "ab"}',
        b'{"kind":' + NESTED,
    ],
)
def test_a_file_of_no_kind(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"tokenizer\.json is damaged \(.*\nrestore it from a copy"
    ):
        tokenizers.load(path)


@pytest.mark.parametrize(
    "pieces",
    [None, [], ["a"], ["<unk>", "a", "a"], ["<unk>", "a b"], ["<unk>", 3], ["<unk>", ""], "<unk>"],
    ids=lambda pieces: str(pieces).replace("/", ""),
)
def test_a_file_that_holds_no_words(pieces: object, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"kind": "word", "pieces": pieces}))
    with pytest.raises(InputError, match=r"is damaged( \(Expected `|: its pieces are no list)"):
        tokenizers.load(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tokenizer\.json is missing\nfetch it"):
        tokenizers.load(tmp_path / "tokenizer.json", advice="fetch it")


def hostile(kind: str) -> str:
    """The text of a tokenizer file that asks for much memory: 7 MB of short texts, or of marks."""
    letters = [f"{i:05x}" for i in range(TOKENS + 2048)]
    parts = {"kind": kind, "specials": {}, "merges": [], "tokens": ["a"]}
    if kind == "word":
        parts = {"kind": kind, "pieces": ["<unk>", *letters, *letters]}
    if kind == "character":
        parts = {"kind": kind, "characters": "".join(map(chr, range(0x10000, 0x10001 + TOKENS)))}
    if kind == "merges":
        parts |= {"kind": "byte_pair", "merges": ["a b"] * (1 << 20)}
    if kind == "specials":
        parts |= {"kind": "byte_pair", "specials": dict.fromkeys(letters[:1025], 7)}
    return json.dumps(parts)


@pytest.mark.parametrize("kind", ["word", "character", "merges", "specials"])
def test_a_hostile_file_of_tokens_takes_no_memory(tmp_path: Path, kind: str) -> None:
    """Texts are counted before they are made: each takes 50 bytes and more."""
    path = tmp_path / "tokenizer.json"
    path.write_text(hostile(kind))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"at most 131,072|length <= (131072|1024)"):
            tokenizers.load(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * path.stat().st_size + (1 << 20)


def test_hostile_files_of_gpt2(tmp_path: Path) -> None:
    vocabulary, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    vocabulary.write_text(json.dumps({f"{i:05x}": i for i in range(2 * TOKENS + 2050)}))
    merges.write_text("a b\n" * (TOKENS + 1))
    with pytest.raises(InputError, match="at most 131,072 tokens"):
        read_vocabulary(vocabulary)
    with pytest.raises(InputError, match="more than 131,072 merges"):
        read_merges(merges)


def test_no_tokenizer_is_saved_that_could_not_be_loaded(tmp_path: Path) -> None:
    words = WordTokenizer(" ".join(f"{i:05x}" for i in range(TOKENS)))
    with pytest.raises(InputError, match="131,074 tokens: a file can hold at most 131,072"):
        words.save(tmp_path / "tokenizer.json")
    with pytest.raises(InputError, match="at most 131,072 tokens"):
        BytePairTokenizer.train("ab", TOKENS + 1)
    many = BytePairTokenizer.train("ab", 2000, specials=[f"<{i}>" for i in range(1025)])
    with pytest.raises(InputError, match=r"no file can hold this tokenizer \(.*length <= 1024"):
        many.save(tmp_path / "tokenizer.json")
    assert not list(tmp_path.iterdir())


def test_bug_93_tokens_of_quotation_marks_are_not_texts(tmp_path: Path) -> None:
    """Tokens with more quotation marks and backslashes than a file may have texts."""
    path = tmp_path / "tokenizer.json"
    for text in ('"' * 450_000, "\\" * 450_000, '\\"' * 300_000):
        tokenizer = BytePairTokenizer.train(text, 300)
        tokenizer.save(path)
        assert tokenizers.load(path).hash == tokenizer.hash


@given(st.lists(st.text('"\\na', max_size=8)))
def test_texts_are_counted_whatever_is_in_them(texts: list[str]) -> None:
    for ascii_only in (True, False):
        data = json.dumps(texts, ensure_ascii=ascii_only).encode()
        assert texts_in(data) == len(texts)


def test_an_unknown_character_names_its_line() -> None:
    tokenizer = CharacterTokenizer("ab\n")
    with pytest.raises(TokenizerError, match="'c' at position 4 in line 3 is not"):
        tokenizer.encode("a\nb\nc")
    with pytest.raises(TokenizerError, match="'c' at position 4 in line 3 is not"):
        list(tokenizer.encode_parts(["a\nb", "\nc"]))
    with pytest.raises(TokenizerError, match="'c' at position 2 is not"):
        tokenizer.encode("abc\n")
