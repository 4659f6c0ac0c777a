"""Characters to ids and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import story
from tinygpt.tokenizers import CharacterTokenizer, TokenizerError


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
    with pytest.raises(TokenizerError, match=r"character 'z' at position 4 is not one of the 7 .*' Taceht'"):
        CharacterTokenizer("The cat").encode("The z")
    with pytest.raises(ValueError, match=r"'\\n' at position 0"):
        CharacterTokenizer("The cat").encode("\nThe")


@pytest.mark.parametrize(("ids", "message"), [([0, 7], "token 7 at position 1 is outside 0 to 6"), ([-1], "token -1 at position 0")])
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
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        json.dumps({"kind": "other", "characters": "ab"}).encode(),
        b'{"kind": "character", "characters": "aa"}',
        b'{"kind": "character", "characters": ""}',
    ],
)
def test_a_file_that_holds_no_tokenizer(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError, match="holds no character tokenizer"):
        CharacterTokenizer.load(path)
