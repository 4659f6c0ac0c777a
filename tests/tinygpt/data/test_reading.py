"""Texts as they are found: folders of many kinds of files, standard input, other encodings."""

from __future__ import annotations

import codecs
import io
import time
from pathlib import Path

import pytest

from tests.helpers.program import TINY, refused, sampled
from tinygpt.__main__ import main
from tinygpt.data.prepare import files, read
from tinygpt.data.reading import looks_like_utf_16, read_parts, read_text
from tinygpt.errors import InputError

TEXT = "The cat sat on the mat. The dog ran in the park. " * 4


def piped(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    """Standard input holds the data."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_what_is_no_text_is_skipped_and_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in ("texts/book.txt", "texts/.git", "texts/sub"):
        Path(folder).mkdir(parents=True)
    contents = {
        "a.txt": b"one",
        "B.TXT": b"two",
        "c.md": b"three",
        "book.txt/d.txt": b"four",
        "empty.txt": b"",
        "mark.txt": codecs.BOM_UTF8,
        "._a.txt": b"\x00\x05\x16\x07",
        ".DS_Store": b"\x00\x00\x00\x01Bud1",
        ".git/HEAD.md": b"x",
        "picture.png": b"\x89PNG",
    }
    for name, data in contents.items():
        Path("texts", name).write_bytes(data)
    assert read("texts") == "two\n\n\none\n\n\nfour\n\n\nthree".replace("\n\n\n", "\n\n")
    said = capsys.readouterr().out
    assert said == (
        "skipped   texts/._a.txt (hidden), texts/.git/HEAD.md (hidden), texts/book.txt (a folder), "
        "texts/empty.txt (empty), texts/mark.txt (empty)\n"
    )
    for i in range(3):
        Path(f"texts/empty{i}.txt").touch()
    assert len(files("texts")) == 4
    assert capsys.readouterr().out.endswith(
        "texts/empty.txt (empty), texts/empty0.txt (empty) and 3 more\n"
    )
    with pytest.raises(InputError, match=r"holds no \.txt file and no \.md file"):
        files("texts/sub")


def test_a_folder_says_how_many_files_were_read(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("texts").mkdir()
    flags = ["train", "--text", "texts", *TINY, "--steps", "1", "--validation", "0"]
    for name, said in (("a", "1 file, 196 characters"), ("b", "2 documents, 390 characters")):
        Path("texts", f"{name}.txt").write_text(TEXT)
        assert main(flags) == 0
        assert f"text      texts: {said}, " in capsys.readouterr().out


def test_standard_input(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training, also one that goes on; and prompts."""
    flags = ["train", "--text", "-", *TINY, "--steps", "2", "--until", "1"]
    piped(monkeypatch, TEXT.encode())
    assert main(flags) == 0
    assert "text      standard input: 196 characters" in capsys.readouterr().out
    fix = (
        "text-1 was trained on standard input, and no text comes from there now\npipe the same text"
    )
    monkeypatch.setattr("tinygpt.commands.step._check", lambda _: None)
    for command in (["train", "--resume", "text-1"], ["eval", "text-1"], ["step", "--train"]):
        piped(monkeypatch, b"")
        refused(capsys, *command, says=fix)
        monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
        refused(capsys, *command, says=fix)
        piped(monkeypatch, TEXT.encode().replace(b"cat", b"dog"))
        refused(
            capsys, *command, says="standard input is not the text that runs/text-1 was trained"
        )
    refused(capsys, "verify", "resume", "text-1", says="two trainings cannot both read")
    piped(monkeypatch, b"\xff\xff")
    refused(capsys, *flags, says="standard input is not UTF-8: byte 0xff at offset 0")
    refused(capsys, "tokenize", "-", "--out", "made", says="standard input can be read once")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    refused(capsys, *flags, says="standard input, and nothing is piped in")
    piped(monkeypatch, TEXT.encode())
    assert main(["train", "--resume", "text-1"]) == 0
    capsys.readouterr()
    piped(monkeypatch, b"The cat\r\nThe dog\n")
    lines = sampled(capsys, "story-1", "--prompts", "-", "--length", "0").splitlines()
    assert lines == ["The cat", "The dog"]


def test_a_pipe_that_is_silent_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that is given no pipe would else seem to hang."""
    monkeypatch.setattr("tinygpt.data.reading.PATIENCE", 0.01)
    piped(monkeypatch, b"The cat")
    parts, said = read_parts("-"), ""
    assert next(parts) == "The cat"
    deadline = time.monotonic() + 10
    while not said and time.monotonic() < deadline:
        time.sleep(0.05)  # what is written while capsys reads is lost
        said = capsys.readouterr().err
    assert said == "reading the text from standard input, until its end ...\n"
    assert list(parts) == []


def test_utf_16_is_suspected_aloud(here: Path) -> None:
    for encoding in ("utf-16-le", "utf-16-be"):
        Path("text.txt").write_bytes(TEXT.encode(encoding))
        with pytest.raises(InputError, match=r"'text\.txt' looks like UTF-16 without a mark"):
            read_text("text.txt")
    Path("text.txt").write_bytes(TEXT.encode("utf-16"))
    with pytest.raises(
        InputError, match="is not UTF-8: byte 0xff at offset 0; it looks like UTF-16"
    ):
        read_text("text.txt")
    Path("text.txt").write_bytes(b"some\x00 zeros \x00 in a text\x00\x00")
    assert read_text("text.txt").count("\0") == 4
    for plain in (b"", b"\0", b"a", b"ab", "猫é".encode()):
        assert not looks_like_utf_16(plain)


def test_a_pointer_of_git_lfs_is_no_text(here: Path) -> None:
    Path("text.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(InputError, match=r"'text\.txt' is a pointer of Git LFS"):
        read_text("text.txt")
