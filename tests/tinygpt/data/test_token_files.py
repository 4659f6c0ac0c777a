"""Token folders: damage is found, windows and batches are cut from the file, and nothing is seen
twice, lost, or seen that should not be.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tracemalloc
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.program import PROGRAM, TINY, environment, losses, refused
from tests.tinygpt.commands.test_tokenize import ids_of, made
from tinygpt import GPT, CharacterTokenizer, GPTConfig, InputError, TrainConfig, story
from tinygpt.__main__ import main
from tinygpt.data import prepare as data
from tinygpt.data import token_files
from tinygpt.data.windows import MappedIds, SideBySide, Windows
from tinygpt.ids import IGNORED
from tinygpt.runs import run as runs
from tinygpt.training import order
from tinygpt.training.order import WHOLE, batch_rows, random_rows
from tinygpt.training.step import train

# -- damage


def edited(**changes: Any) -> Callable[[], object]:
    path = Path("made/tokens.json")
    return lambda: path.write_text(
        json.dumps(
            {
                name: value
                for name, value in {**json.loads(path.read_text()), **changes}.items()
                if value is not None
            }
        )
    )


def tampered() -> None:
    with Path("made/tokens.bin").open("rb+") as file:
        file.seek(100)
        file.write(b"\x15")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda: Path("made/tokens.bin").unlink(), "made/tokens.bin is missing"),
        (
            lambda: Path("made/tokenizer.json").unlink(),
            "made/tokenizer.json is missing\nrestore it from a copy, or make it again",
        ),
        (lambda: Path("made/tokens.json").unlink(), "made is half written"),
        (
            lambda: os.truncate("made/tokens.bin", 400),
            "holds 400 bytes, not the 894 of 447 tokens: it was cut off",
        ),
        (tampered, "its hash is another"),
        (
            lambda: CharacterTokenizer(story()[::-1]).save("made/tokenizer.json"),
            "tokenizer.json in made is not the one that its tokens were made with",
        ),
        (edited(tokens=446), "holds 894 bytes, not the 892 of 446 tokens"),
        (edited(learned=448), "tokens.json is damaged"),
        (edited(learned=None), "tokens.json is damaged"),
        (edited(dtype="int64"), "tokens.json is damaged"),
        (edited(tokens="447"), "tokens.json is damaged"),
        (edited(more=1), "tokens.json is damaged"),
        (edited(version=2), "of version 2, written by a later tinygpt"),
        (lambda: Path("made/tokens.json").write_text("{"), "tokens.json is damaged"),
    ],
)
def test_damage_is_found(
    damage: Callable[[], object], says: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.txt").write_text(story() * 3)
    made()
    damage()
    capsys.readouterr()
    refused(capsys, "train", *TINY, "--text", "made", says=says)


def test_an_id_that_no_token_has_is_named_with_its_place(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a file too large to be hashed at each start: when a step, or the measuring, reads it.

    The folder stays, with what was noted of the steps that were taken.
    """
    monkeypatch.setattr(token_files, "HASHED", 0)
    Path("text.txt").write_text(story() * 3)
    for place, arguments in ((100, []), (440, ["--evaluate", "1"])):
        made("--validation", "0.1")
        ids = np.memmap("made/tokens.bin", "<u2", mode="r+")
        ids[place] = 500
        ids.flush()
        del ids
        capsys.readouterr()
        assert main(["train", *TINY, "--steps", "200", "--text", "made", *arguments]) == 2
        says = (
            f"tokens.bin is damaged: token 500 at position {place} is not one of the 22 that its "
            "tokenizer knows\nrestore it from a copy"
        )
        assert says in capsys.readouterr().err
        assert losses(Path("runs/made-1"))
        shutil.rmtree("runs/made-1")
        for file in Path("made").iterdir():
            file.unlink()


# -- windows and batches of what is not in memory


@given(st.integers(0, 100), st.integers(1, 30), st.data())
def test_starts_are_what_an_array_would_hold(last: int, stride: int, draw: st.DataObject) -> None:
    windows = Windows(np.arange(last + 2), 1, stride)
    array = np.append(np.arange(0, last, stride), last)
    assert len(windows) == len(array)
    rows = np.array(draw.draw(st.lists(st.integers(0, len(array) - 1))), dtype=np.int64)
    for some in (rows, slice(None), slice(2, None, 3), slice(-3, None)):
        assert np.array_equal(windows.starts(some), array[some])
    for row in (len(array), -1):
        with pytest.raises(IndexError):
            windows.starts(np.array([0, row]))


def test_a_billion_tokens(tmp_path: Path) -> None:
    """2 GB that nobody reads, for they are a hole: windows and batches of epochs, at random, and to
    measure on, in little memory.
    """
    with (tmp_path / "tokens.bin").open("wb") as file:
        file.truncate(2 * 10**9)
    ids = MappedIds(np.memmap(tmp_path / "tokens.bin", "<u2", mode="r"), 300, "tokens.bin")
    batch_rows(0, 16, 1000, 1)  # loads the kernels
    tracemalloc.start()
    windows, validation = Windows(ids[: 9 * 10**8], 64), SideBySide(ids[9 * 10**8 :], 64)
    assert (len(windows), len(validation)) == (9 * 10**8 - 64, (10**8 - 2) // 64 + 1)
    for rows in (
        batch_rows(0, 16, len(windows), 1),
        batch_rows(10**7, 16, len(windows), 1),
        random_rows(3, 16, len(windows), 1),
    ):
        x, y = windows[rows]
        assert x.shape == y.shape == (16, 64)
        assert {x.dtype.name, y.dtype.name} == {"int64"}
    _, y = validation[np.array([0, 1, len(validation) - 1])]
    assert [int(np.count_nonzero(row == IGNORED)) for row in y] == [0, 0, 64 - (10**8 - 1) % 64]
    assert tracemalloc.get_traced_memory()[1] < 1 << 22  # to shuffle a block
    tracemalloc.stop()


# -- bug 50


@pytest.mark.parametrize("whole", [0, WHOLE])
def test_bug_50_no_window_comes_twice_an_epoch(whole: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawn without replacement, whether an epoch is shuffled whole or in blocks; in another order
    each epoch and seed.
    """
    monkeypatch.setattr(order, "WHOLE", whole)
    monkeypatch.setattr(order, "BLOCK", 100)
    for windows, batch in ((117, 16), (1000, 7), (5, 16)):
        stream = np.concatenate(
            [batch_rows(step, batch, windows, 3) for step in range(3 * windows // batch + 1)]
        )
        for epoch in range(3):
            assert np.array_equal(
                np.sort(stream[epoch * windows : (epoch + 1) * windows]), np.arange(windows)
            )
    first, second, other = (
        batch_rows(step, 20_000, 20_000, seed).astype(float)
        for step, seed in ((0, 3), (1, 3), (0, 4))
    )
    for a, b in (
        (first, second),
        (first, other),
        (first, np.arange(20_000.0)),
        (first[1:], first[:-1]),
    ):
        assert abs(np.corrcoef(a, b)[0, 1]) < 0.04  # 0.007 is usual


@pytest.mark.parametrize("whole", [0, WHOLE])
def test_bug_50_the_same_batches_after_resuming(
    whole: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(order, "WHOLE", whole)
    monkeypatch.setattr(order, "BLOCK", 100)
    ids, config = CharacterTokenizer(story()).encode(story()), TrainConfig(steps=9, batch=20)

    class Noted(Windows):
        def __getitem__(self, rows: Any) -> Any:
            seen.append(rows.tolist())
            return super().__getitem__(rows)

    seen: list[list[int]] = []
    for first in (0, 5):
        for _ in train(GPT(GPTConfig(22, 8, 8, 2, 1)), Noted(ids, 8), config, first=first):
            pass
    assert seen[9:] == seen[5:9]
    assert len({tuple(rows) for rows in seen[:9]}) == 9


def test_bug_50_a_resumed_run_on_a_token_folder(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.txt").write_text(story() * 3)
    made("--validation", "0.2")
    for arguments in (["--out", "runs/whole"], ["--out", "runs/parts", "--until", "4"]):
        assert (
            main(["train", *TINY, "--text", "made", "--steps", "9", "--dropout", "0.1", *arguments])
            == 0
        )
    assert main(["train", "--resume", "parts"]) == 0
    for name in (runs.MODEL, runs.OPTIMIZER, runs.STATE):
        assert Path("runs/parts", name).read_bytes() == Path("runs/whole", name).read_bytes()

    assert (
        main(
            [
                "train",
                *TINY,
                "--text",
                "made",
                "--steps",
                "9",
                "--out",
                "runs/other",
                "--until",
                "4",
            ]
        )
        == 0
    )
    for file in Path("made").iterdir():
        file.unlink()
    made("--validation", "0.1")  # the same tokens, split elsewhere
    capsys.readouterr()
    refused(
        capsys,
        "train",
        "--resume",
        "other",
        says="'made' is not the text that runs/other was trained on",
    )


@pytest.mark.parametrize("context", [1, 7, 64])
def test_bug_50_nothing_measured_on_is_learned_from(context: int, here: Path) -> None:
    """Each token is another, so that its id is its place."""
    text = "".join(chr(0x4E00 + i) for i in range(1000))
    Path("text.txt").write_text(text, encoding="utf-8")
    made("--validation", "0.3")
    for config in (
        TrainConfig(text="text.txt", validation=0.3),
        TrainConfig(text="made"),
        TrainConfig(text="made", stride=50),
    ):
        found = data.prepare(config, context)
        assert found.validation is not None
        (x, y), (seen, targets) = found.windows[:], found.validation[:]
        assert {*x.ravel(), *y.ravel()} <= set(range(700))
        assert y.max() == 699
        assert {*seen.ravel()} <= set(range(700, 1000))
        assert np.array_equal(np.sort(targets[targets != IGNORED]), np.arange(701, 1000))


@pytest.mark.parametrize(
    ("size", "dtype"),
    [(2, "uint16"), (65_535, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (70_000, "uint32")],
)
def test_bug_50_ids_fit_their_dtype(size: int, dtype: str, here: Path) -> None:
    """The last id of 65,536 tokens is the largest of 16 bits; of one token more it would come back
    as 0.
    """
    text = "".join(chr(0x10000 + i) for i in range(size))
    header = token_files.write(Path("made"), CharacterTokenizer(text), [text], validation=0)
    assert header.dtype == dtype
    assert ids_of(token_files.read("made").ids) == list(range(size))


def test_bug_50_a_dtype_too_narrow_for_the_tokenizer(here: Path) -> None:
    text = "".join(chr(0x10000 + i) for i in range(65_537))
    token_files.write(Path("made"), CharacterTokenizer(text), [text], validation=0)
    ids = np.arange(65_537).astype("<u2")  # as 16 bits hold them
    ids.tofile("made/tokens.bin")
    edited(dtype="uint16", hash=sha256(ids.data).hexdigest())()
    with pytest.raises(InputError, match="made cannot hold its 65,537 tokens in uint16"):
        token_files.read("made")


# -- what is in the folder already


@pytest.mark.skipif(os.name == "nt", reason="no FIFOs, and links need rights")
@pytest.mark.parametrize("name", ["tokens.bin", "tokenizer.json.tmp", "tokens.json.tmp"])
@pytest.mark.parametrize("kind", ["link", "hard link", "FIFO"])
def test_bug_86_what_is_in_a_half_written_folder_is_not_opened(
    name: str, kind: str, here: Path
) -> None:
    """A link is not followed, and a FIFO does not wait for a reader."""
    Path("text.txt").write_text(story() * 3)
    Path("precious").write_text("precious")
    Path("made").mkdir()
    Path("made/tokens.bin").touch()
    place = Path("made", name)
    place.unlink(missing_ok=True)
    if kind == "link":
        place.symlink_to("../precious")
    elif kind == "hard link":
        place.hardlink_to("precious")
    else:
        os.mkfifo(place)
    command = [*PROGRAM, "tokenize", "text.txt", "--out", "made"]
    subprocess.run(command, env=environment(), check=True, timeout=60)
    assert token_files.read("made").header.tokens == 447
    assert Path("precious").read_text() == "precious"
    assert sorted(os.listdir("made")) == ["tokenizer.json", "tokens.bin", "tokens.json"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights")
def test_bug_86_a_text_in_the_folder_of_its_tokens(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is refused by any name it has."""
    Path("made").mkdir()
    Path("made/tokens.bin").write_text(story() * 3)
    Path("link").symlink_to("made/tokens.bin")
    Path("hard").hardlink_to("made/tokens.bin")
    for name in ("made/tokens.bin", "link", "hard"):
        refused(capsys, "tokenize", name, "--out", "made", says="is in made, where the tokens go")
    Path("made/tokens.bin").rename("text.txt")
    Path("made/tokens.bin").symlink_to("../text.txt")
    refused(capsys, "tokenize", "made/tokens.bin", "--out", "made", says="it would be lost")


def test_bug_86_a_folder_where_a_file_goes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_text(story())
    Path("made/tokenizer.json").mkdir(parents=True)
    Path("made/tokens.bin").touch()
    refused(capsys, "tokenize", "text.txt", "--out", "made", says="made is not empty")


def test_bug_85_two_that_write_to_one_folder(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one is refused while the first one writes, and also when both looked first."""
    pytest.importorskip("fcntl")
    Path("text.txt").write_text(story())
    Path("other.txt").write_text(story() * 2)
    command = ["tokenize", "other.txt", "--out", "made", "--tokenizer", "byte"]

    def parts() -> Iterator[str]:
        yield story()
        Path("made/tokens.bin").read_bytes()
        assert main(command) == 2
        assert "another process writes to made" in capsys.readouterr().err
        yield story()

    token_files.write(Path("made"), CharacterTokenizer(story()), parts(), 0.1)
    assert token_files.read("made").header.tokens == 298

    looks = iter([lambda _: None, lambda _: None, token_files.check_free])
    monkeypatch.setattr(token_files, "check_free", lambda folder: next(looks)(folder))
    assert main(command) == 2
    assert "made holds tokens already" in capsys.readouterr().err
    assert token_files.read("made").header.tokens == 298
