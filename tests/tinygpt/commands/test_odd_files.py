"""Odd files in place of each file that a command reads: no regular ones, unreadable ones, odd
names.

Each is told in two lines, at once, and nothing is made.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from tests.helpers.gpt2_folder import BYTES, drawn, write
from tests.helpers.program import TINY, refused, sampled
from tests.tinygpt.commands.test_tokenize import made
from tinygpt import story
from tinygpt.__main__ import main

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no FIFOs, no devices, no alarm")
SECONDS = 20  # of a command, on a machine that has other things to do

PLACES = [  # a file, and the command that reads it
    ("runs/story-1/tokenizer.json", ["sample"]),
    ("runs/story-1/tokenizer.json", ["plot"]),
    ("runs/story-1/tokenizer.json", ["tokenize", "text.txt", "--out", "new", "--from", "story-1"]),
    ("runs/story-1/metrics.jsonl", ["plot"]),
    ("runs/story-1/metrics.jsonl", ["look", "--length", "0"]),
    ("runs/story-1/gpt2.json", ["export-gpt2", "story-1", "new"]),
    ("text.txt", ["train", *TINY, "--text", "text.txt"]),
    ("text.txt", ["eval", "--text", "text.txt"]),
    ("text.txt", ["tokenize", "text.txt", "--out", "new"]),
    ("text.txt", ["sample", "--prompts", "text.txt"]),
    ("texts/text.txt", ["train", *TINY, "--text", "texts"]),
    ("made/tokens.json", ["train", *TINY, "--text", "made"]),
    ("made/tokens.bin", ["train", *TINY, "--text", "made"]),
    ("made/tokenizer.json", ["train", *TINY, "--text", "made"]),
    ("gpt/config.json", ["import-gpt2", "gpt"]),
    ("gpt/vocab.json", ["import-gpt2", "gpt"]),
    ("gpt/merges.txt", ["import-gpt2", "gpt"]),
    ("gpt/model.safetensors", ["import-gpt2", "gpt"]),
    ("gpt/model.safetensors.index.json", ["import-gpt2", "gpt"]),
]
EACH = pytest.mark.parametrize(
    ("file", "command"), PLACES, ids=lambda value: value if isinstance(value, str) else value[0]
)


@pytest.fixture
def soon() -> Iterator[None]:
    """Nothing may hang."""

    def late(number: int, frame: Any) -> None:
        raise AssertionError(f"still not done after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def places(run: Path, soon: None, capsys: pytest.CaptureFixture[str]) -> Path:
    """A folder with all of these files, sound."""
    Path("texts").mkdir()
    for name in ("text.txt", "texts/text.txt"):
        Path(name).write_text(story() * 3)
    made()
    write(Path("gpt"), BYTES, drawn(BYTES))
    capsys.readouterr()
    return Path()


def replace(file: str, kind: str) -> None:
    path = Path(file)
    if file.endswith(".index.json"):  # read where the weights are in several files
        Path("gpt/model.safetensors").unlink()
    path.unlink(missing_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()


@EACH
@pytest.mark.parametrize("kind", ["fifo", "device", "folder"])
def test_bug_86_no_regular_file(
    kind: str, file: str, command: list[str], places: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(file, kind)
    says = "(it is a folder)" if kind == "folder" else "it is no regular file"
    if kind == "folder" and file.endswith("text.txt"):
        says = "it is a folder" if command[0] == "sample" else "holds no .txt file"
    refused(capsys, *command, says=says)


@pytest.mark.parametrize("file", ["tokenizer.json", "gpt2.json"])
def test_bug_86_a_hole_of_40_gigabytes(
    file: str, run: Path, soon: None, capsys: pytest.CaptureFixture[str]
) -> None:
    os.truncate(run / file, 0) if (run / file).exists() else (run / file).touch()
    os.truncate(run / file, 40 << 30)
    assert main(["export-gpt2", "story-1", "new"]) == 2
    assert "has 42,949,672,960 bytes, and" in capsys.readouterr().err


def test_bug_86_metrics_of_40_gigabytes(
    run: Path, soon: None, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a power cut leaves at the end of a file: the losses before it are drawn."""
    os.truncate(run / "metrics.jsonl", 40 << 30)
    assert main(["plot"]) == 0
    assert "step 3" in capsys.readouterr().out


def test_a_text_from_another_program(
    run: Path, soon: None, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a shell gives it: tinygpt train --text <(cat text.txt)"""
    reading, writing = os.pipe()
    refused(
        capfd,
        "train",
        "--text",
        f"/dev/fd/{reading}",
        says="it is no regular file\n"
        "give the path of a text file that you may read; save what another program",
    )
    for end in (reading, writing):
        os.close(end)


# -- what cannot be read


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of files of which no byte can be read: the disk says EIO."""
    names: list[str] = []
    opened = os.fdopen

    def fdopen(descriptor: int, mode: str) -> BinaryIO:
        file = opened(descriptor, mode)
        assert isinstance(file, object)
        if any(os.readlink(f"/proc/self/fd/{descriptor}").endswith(name) for name in names):
            return Broken(file)  # type: ignore[return-value]
        return file  # type: ignore[return-value]

    monkeypatch.setattr(os, "fdopen", fdopen)
    return names


class Broken:
    """A file whose reads fail."""

    def __init__(self, file: Any):
        self.file = file

    def __getattr__(self, name: str) -> Any:
        if name.startswith("read"):
            raise OSError(errno.EIO, "Input/output error")
        return getattr(self.file, name)

    def __enter__(self) -> Broken:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks /proc which file it is")
@EACH
def test_bug_86_a_read_error_is_told_with_the_file(
    file: str,
    command: list[str],
    places: Path,
    broken: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    if file == "made/tokens.bin":
        pytest.skip("is mapped, not read")
    if not Path(file).exists():
        replace(file, "folder")
        Path(file).rmdir()
        Path(file).touch()
    broken.append(file)
    before = sorted(Path().rglob("*"))
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "Input/output error" in err
    assert Path(file).name in err
    assert sorted(Path().rglob("*")) == before


# -- names that are no UTF-8

CAFE = os.fsdecode(b"caf\xe9")


def test_bug_86_names_that_are_no_utf8(places: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run keeps the names of its text and its folder: such a name is refused before a folder is
    made.

    Everywhere else it is a name like any other.
    """
    try:
        Path(CAFE).mkdir()
    except OSError:
        pytest.skip("this file system has no such names")
    text = f"{CAFE}/{CAFE}.txt"
    Path(text).write_text(story() * 3)
    refused(
        capsys,
        "train",
        *TINY,
        "--text",
        text,
        says=r"--text 'caf\udce9/caf\udce9.txt': config.json cannot hold a name that is no UTF-8",
    )
    refused(capsys, "train", *TINY, "--text", CAFE, says=r"--text 'caf\udce9'")
    refused(capsys, "train", *TINY, "--out", f"{CAFE}/run", says=r"--out 'caf\udce9/run'")
    refused(capsys, "import-gpt2", "gpt", "--out", f"{CAFE}/run", says=r"out 'caf\udce9/run'")
    os.rename("runs/story-1", f"runs/{CAFE}")
    os.rename("gpt", f"{CAFE}/gpt{CAFE}")
    for command in (
        ["sample", CAFE, "--prompts", f"{CAFE}/prompts"],
        ["eval", CAFE, "--text", text],
        ["plot", CAFE, "--out", f"{CAFE}/{CAFE}.svg"],
        ["look", CAFE, "--length", "0", "--out", f"{CAFE}/{CAFE}.html"],
        ["inspect", CAFE],
        ["tokenize", text, "--out", f"{CAFE}/made", "--from", CAFE],
        ["eval", CAFE, "--text", f"{CAFE}/made"],
        ["train", "--init", CAFE, "--steps", "1", "--out", "new"],
        ["import-gpt2", f"{CAFE}/gpt{CAFE}"],
        ["export-gpt2", "gptcaf-1", f"{CAFE}/back"],
        ["export-gpt2", CAFE, f"{CAFE}/story"],
    ):
        Path(f"{CAFE}/prompts").write_text("The cat\nThe dog\n")
        assert main(command) == 0, capsys.readouterr().err
    assert sampled(capsys, "gptcaf-1", "--prompt", "the", "--length", "3")
