"""Texts larger than memory: read, tokenized and trained on a part at a time, as if they were there
whole.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygpt
from tests.helpers.program import PROGRAM, TINY, environment, losses, refused
from tests.tinygpt.tokenizers.test_byte_pair import CODE, FAR, PROSE
from tinygpt import (
    BytePairTokenizer,
    ByteTokenizer,
    CharacterTokenizer,
    InputError,
    TokenizerError,
    WordTokenizer,
    story,
    tokenizers,
)
from tinygpt.__main__ import main
from tinygpt.commands import tokenize
from tinygpt.data import prepare as data
from tinygpt.data import token_files
from tinygpt.data.documents import encode_text
from tinygpt.data.reading import opening, read_parts, read_text
from tinygpt.runs import run as runs
from tinygpt.tokenizers.byte_pair import END
from tinygpt.tokenizers.tokenizer import Tokenizer

KINDS = ("character", "byte", "word", "bpe")
TEXT = PROSE + CODE.replace("\r\n", "\n") + FAR + story() * 3
TOKENIZERS: dict[str, Tokenizer] = {
    "byte": ByteTokenizer(),
    "word": WordTokenizer(TEXT, 40),
    "byte pairs": BytePairTokenizer.train(TEXT * 2, 500),
    "no special tokens": BytePairTokenizer.train(TEXT * 2, 500, specials=()),
    "special tokens": BytePairTokenizer.train(
        TEXT * 2, 500, specials=(END, "aa", "aaa", "ab", "  ", "\n", " a", "\u3000 ", "b'")
    ),
    "special tokens with white space": BytePairTokenizer.train(
        TEXT * 2, 500, specials=(END, "'ll x", "aa", "aaa", "ab", "  ", "\n", "a a", "b'")
    ),
}
PIECES = [
    "a",
    "aa",
    "b",
    " a",
    " ",
    "  ",
    "\n",
    "\r",
    "\u3000",
    "\x1c",
    "'",
    "'l",
    "ll",
    "s",
    "re",
    "ve",
    "x",
    "'ll x",
    "!",
    "1",
    "²",
    "猫",
    "é",
    "e\u0301",
    "😀",
]
PIECES += [END, "<|", "<|end"]
SLICES = st.builds(
    lambda start, length: TEXT[start : start + length],
    st.integers(0, len(TEXT)),
    st.integers(0, 200),
)
TEXTS = st.one_of(st.lists(st.sampled_from(PIECES), max_size=25).map("".join), SLICES)
BYTES = [b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n", b"a", "é".encode(), "猫".encode(), "😀".encode()]


def cut(text: str, places: list[int]) -> list[str]:
    """The text in parts, cut at those places; some may be empty."""
    return [
        text[a:b]
        for a, b in pairwise([0, *sorted(min(place, len(text)) for place in places), len(text)])
    ]


# -- the text in parts


@given(st.lists(st.sampled_from(BYTES), min_size=1, max_size=20), st.integers(1, 9))
def test_parts_are_the_text_whatever_is_read_at_a_time(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes], size: int
) -> None:
    """A character, a line end and a byte order mark may lie across the border of two reads."""
    path = tmp_path_factory.getbasetemp() / "pieces.txt"
    path.write_bytes(b"".join(pieces))
    told: list[int] = []
    expected = b"".join(pieces).decode("utf-8-sig").replace("\r\n", "\n")
    if not expected:
        with pytest.raises(InputError, match="is empty"):
            list(read_parts(str(path), size))
        return
    parts = list(read_parts(str(path), size, told.append))
    assert "".join(parts) == expected
    assert all(parts)
    assert sum(told) == path.stat().st_size
    assert max(told) <= size


@pytest.mark.parametrize("size", [1, 2, 3, 4, 100])
def test_the_place_of_a_wrong_byte_is_that_in_the_file(tmp_path: Path, size: int) -> None:
    for content, place in (
        (b"\xef\xbb\xbfab\xe9cd", 5),
        (b"abc\xe7\x8c", 3),
        ("猫".encode() * 3 + b"\xff", 9),
    ):
        (tmp_path / "text.txt").write_bytes(content)
        with pytest.raises(InputError, match=f"byte 0x{content[place]:02x} at offset {place}\n"):
            list(read_parts(str(tmp_path / "text.txt"), size))


@pytest.mark.parametrize("name", TOKENIZERS)
@given(TEXTS, st.lists(st.integers(0, 200), max_size=30), TEXTS)
def test_ids_of_parts_are_those_of_the_whole(
    name: str, text: str, places: list[int], more: str
) -> None:
    """Wherever the text is cut, and however often."""
    tokenizer = TOKENIZERS[name]
    for parts in (cut(text, places), [text, more], [*text, *more]):
        ids = [i for ids in tokenizer.encode_parts(parts) for i in ids]
        assert ids == tokenizer.encode("".join(parts))


@given(st.text(min_size=1), st.lists(st.integers(0, 50)))
def test_characters_in_parts(text: str, places: list[int]) -> None:
    tokenizer = CharacterTokenizer(text)
    assert [
        i for ids in tokenizer.encode_parts(cut(text, places)) for i in ids
    ] == tokenizer.encode(text)


def test_an_unknown_character_is_named_with_its_position_in_all_parts() -> None:
    with pytest.raises(TokenizerError, match="character 'x' at position 7 "):
        list(CharacterTokenizer("abc").encode_parts(["abca", "", "bcax"]))


@pytest.mark.parametrize("name", ["word", "byte pairs"])
def test_little_waits_and_what_does_is_not_looked_at_again_and_again(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, looked = TOKENIZERS[name], list[int]()
    encode = tokenizer.encode

    def look(text: str) -> list[int]:
        looked.append(len(text))
        return encode(text)

    monkeypatch.setattr(tokenizer, "encode", look)
    list(tokenizer.encode_parts([story()] * 50))
    assert max(looked) < len(story()) + 20
    looked.clear()
    list(tokenizer.encode_parts(["a" * 10] * 1000))  # one word
    assert sum(looked) < 4 * 10_000


# -- the command


@pytest.fixture
def text(here: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """text.txt, to be read in parts of 100 bytes."""
    (here / "text.txt").write_text(TEXT, encoding="utf-8", newline="")
    monkeypatch.setattr(read_parts, "__defaults__", (100, None))
    return read_text("text.txt")


def made(*arguments: str) -> token_files.TokenFolder:
    """`tinygpt tokenize text.txt --out made`, and what it made."""
    assert main(["tokenize", "text.txt", "--out", "made", *arguments]) == 0
    return token_files.read("made")


def ids_of(found: Any) -> list[int]:
    return [int(i) for i in np.asarray(found)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_folder_trains_as_its_text_does(
    kind: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same tokens, windows, and split: the same losses."""
    chosen = ["--tokenizer", kind, "--tokens", "300", "--validation", "0.2"]
    found = made(*chosen)
    assert END in text
    assert ids_of(found.ids) == encode_text(found.tokenizer, text, several=True)
    assert found.header.characters == len(text)
    said = capsys.readouterr().out
    assert f"{found.header.tokens:,} as uint16" in said
    assert (", 1.02 characters each, " in said) == (kind == "character")
    assert sorted(path.name for path in Path("made").iterdir()) == [
        "tokenizer.json",
        "tokens.bin",
        "tokens.json",
    ]
    for source, more in (("text.txt", chosen), ("made", [])):
        assert (
            main(
                ["train", *TINY, "--steps", "4", "--text", source, "--out", f"runs/{source}", *more]
            )
            == 0
        )
    assert (
        f"made: {found.header.tokens:,} tokens as uint16, of {len(text):,} characters"
        in capsys.readouterr().out
    )
    direct, mapped = (
        [
            {n: v for n, v in record.items() if n != "seconds"}
            for record in losses(Path("runs", name))
        ]
        for name in ("text.txt", "made")
    )
    assert mapped == direct
    assert [runs.load(Path("runs", name))[0].opening for name in ("made", "text.txt")] == [
        opening(text)
    ] * 2


def test_a_folder_of_texts(text: str, here: Path) -> None:
    (here / "texts/deep").mkdir(parents=True)
    for name, content in (
        ("texts/b.txt", "grün\r\n"),
        ("texts/deep/a.txt", "'l"),
        ("texts/c.txt", "l"),
        ("texts/no.csv", "no"),
    ):
        (here / name).write_text(content, encoding="utf-8", newline="")
    choices = ["--tokenizer", "byte", "--validation", "0", "--no-documents"]
    assert main(["tokenize", "texts", "--out", "made", *choices]) == 0
    assert (
        bytes(ids_of(token_files.read("made").ids)).decode()
        == data.read("texts")
        == "grün\n\n\nl\n\n'l"
    )
    assert token_files.read("made").header.learned == 13


def test_only_a_first_part_is_learned_from_and_only_so_much_kept_back(
    text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokenize, "SEEN", 500)
    monkeypatch.setattr(tokenize, "MEASURED", 20)
    found = made("--tokenizer", "bpe", "--tokens", "280")
    assert found.tokenizer.hash == BytePairTokenizer.train(text[:500], 280).hash
    assert found.header.tokens - found.header.learned == 20
    out = capsys.readouterr().out
    assert (
        f"280 different tokens: byte pairs learned from the first 500 of {len(text):,} characters"
        in out
    )
    assert "the last 20 to measure on" in out


def test_the_tokenizer_of_a_run(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    made("--tokenizer", "bpe", "--tokens", "280")
    assert main(["train", *TINY, "--steps", "1", "--text", "made"]) == 0
    Path("other.txt").write_text("The dog liked the park. " * 20)
    assert main(["tokenize", "other.txt", "--out", "other", "--from", "made-1"]) == 0
    assert token_files.read("other").tokenizer.hash == token_files.read("made").tokenizer.hash
    assert main(["train", "--init", "made-1", "--text", "other", "--steps", "1"]) == 0
    assert main(["tokenize", "other.txt", "--out", "bytes", "--tokenizer", "byte"]) == 0
    assert main(["eval", "made-1", "--text", "other"]) == 0
    assert main(["plan", *TINY, "--text", "other", "--tokenizer", "bpe"]) == 0
    capsys.readouterr()
    refused(
        capsys,
        "train",
        "--init",
        "made-1",
        "--text",
        "bytes",
        says="the tokens in bytes are of another tokenizer than the run's",
    )
    refused(
        capsys,
        "eval",
        "made-1",
        "--text",
        "bytes",
        says="the tokens in bytes are of another tokenizer than the run's",
    )
    refused(
        capsys,
        "tokenize",
        "other.txt",
        "--out",
        "new",
        "--from",
        "made-1",
        "--tokens",
        "9",
        says="--tokens cannot be chosen with --from",
    )
    refused(
        capsys,
        "train",
        "--text",
        "made",
        "--validation",
        "0.5",
        says="--validation cannot be chosen with --text made",
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["text.txt"], "--out"),
        (["nowhere.txt", "--out", "new"], "no file is named 'nowhere.txt'"),
        (["empty", "--out", "new"], "holds no .txt file"),
        (
            ["latin1.txt", "--out", "new", "--tokenizer", "byte"],
            "is not UTF-8: byte 0xe9 at offset 300",
        ),
        (["text.txt", "--out", "full"], "full is not empty\nname a new folder"),
        (["text.txt", "--out", "text.txt/new"], "cannot write to text.txt/new"),
        (
            ["text.txt", "--out", "new", "--tokenizer", "bpe", "--tokens", "9"],
            "at least 257 tokens",
        ),
        (
            ["text.txt", "--out", "new", "--validation", "1"],
            "--validation 1.0: a number, at least 0 and below 1, is needed",
        ),
        (["text.txt", "--out", "new", "--from", "nowhere"], "no run is named 'nowhere'"),
        (
            ["text.txt", "--out", "new", "--from", "empty"],
            "empty/tokenizer.json is missing\nname a run, or a folder of tokens",
        ),
        (["text.txt", "--out", "new", "--lr", "1"], "no flag is named --lr"),
    ],
)
def test_tokenize_refuses(
    arguments: list[str], says: str, text: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "latin1.txt").write_bytes(b"a" * 300 + b"\xe9")
    for name in ("empty", "full"):
        (here / name).mkdir()
    (here / "full/mine.txt").touch()
    before = sorted(Path().rglob("*"))
    if "latin1.txt" not in arguments:
        refused(capsys, "tokenize", *arguments, says=says)
    else:  # found only after the first lines are said
        assert main(["tokenize", *arguments]) == 2
        assert says in capsys.readouterr().err
    assert sorted(Path().rglob("*")) == before


# -- what ends early


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_ends_early_leaves_nothing(
    error: Any, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        assert Path("made/tokens.bin").exists()
        raise error

    monkeypatch.setattr(os, "fsync", fail)
    assert main(["tokenize", "text.txt", "--out", "made"]) == (
        130 if error is KeyboardInterrupt else 2
    )
    assert (
        "interrupted" if error is KeyboardInterrupt else "No space left on device"
    ) in capsys.readouterr().err
    assert not Path("made").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_what_a_kill_leaves_is_no_token_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.txt").write_bytes(story().encode() * 200_000)  # 30 MB
    process = subprocess.Popen(
        [*PROGRAM, "tokenize", "text.txt", "--out", "made", "--tokenizer", "byte"],
        env=environment(),
        stdout=subprocess.DEVNULL,
    )
    path = Path("made/tokens.bin")
    while not path.exists() or path.stat().st_size == 0:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not Path("made/tokens.json").exists()
    Path("text.txt").write_text(story())
    refused(capsys, "train", "--text", "made", says="made is half written: it has no tokens.json")
    # begins anew
    assert main(["tokenize", "text.txt", "--out", "made", "--tokenizer", "byte"]) == 0
    capsys.readouterr()
    assert bytes(ids_of(token_files.read("made").ids)).decode() == story()
    refused(capsys, "tokenize", "text.txt", "--out", "made", says="made holds tokens already")


# -- around it


def test_every_tokenizer_is_exported() -> None:
    kinds = Tokenizer.__subclasses__()
    for kind in kinds:
        assert getattr(tinygpt, kind.__name__) is getattr(tokenizers, kind.__name__) is kind
        assert kind.__name__ in tinygpt.__all__
        assert kind.__name__ in tokenizers.__all__
    assert {kind.__name__ for kind in kinds} == {
        name for name in tokenizers.__all__ if name.endswith("Tokenizer")
    } - {"Tokenizer"}


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
@pytest.mark.parametrize(
    "command",
    [
        ["tokenize", "text.txt", "--out", "made"],
        ["train", *TINY, "--steps", "1", "--text", "text.txt"],
    ],
)
def test_a_bar_while_byte_pairs_are_learned(command: list[str], text: str, here: Path) -> None:
    from tests.tinygpt.test_terminal import CONTROL, on_a_terminal

    written = CONTROL.sub(
        "", on_a_terminal(here, *command, "--tokenizer", "bpe", "--tokens", "300")
    )
    assert "43/43 ━" in written
    assert "byte pairs merged" in written
    assert command[0] == "train" or "100% ━" in written


def test_the_header_is_all_that_json_holds(text: str) -> None:
    found = made()
    assert json.loads(Path("made/tokens.json").read_text()) == msgspec.structs.asdict(found.header)


def test_a_text_is_never_there_whole(here: Path) -> None:
    """30 MB of text, which are 60 MB of ids, in a fifth of that."""
    Path("text.txt").write_bytes(story().encode() * 200_000)

    def parts() -> Iterator[str]:
        yield from data.parts(["text.txt"])

    tracemalloc.start()
    token_files.write(Path("made"), ByteTokenizer(), parts(), 0.1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12 << 20
