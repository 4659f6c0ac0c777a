"""Files read and written with care: no regular file, too large, unreadable, of another type."""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest

from tinygpt import InputError
from tinygpt.files import (
    LONGEST,
    MOST,
    brief,
    open_regular,
    read_bytes,
    read_json,
    reason,
    write_json,
)


@dataclass(frozen=True)
class Inner:
    share: float
    name: str = ""


@dataclass(frozen=True)
class Outer:
    inner: Inner
    step: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.json"


def test_what_fits_is_read(path: Path) -> None:
    path.write_text('{"inner": {"share": 1, "name": "é"}, "step": 7}', encoding="utf-8")
    assert read_json(path, Outer) == Outer(Inner(1.0, "é"), 7)
    assert read_json(path, dict[str, Any])["step"] == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "truncated"),
        ("[]", "Expected `object`, got `array`"),
        ("{}", "missing required field `inner`"),
        ('{"inner": {}}', "missing required field `share` - at `$.inner`"),
        ('{"inner": {"share": "1"}}', "Expected `float`, got `str` - at `$.inner.share`"),
        ('{"inner": {"share": NaN}}', "invalid character"),
        ('{"inner": {"share": 1e999}}', "Number out of range"),
        ('{"inner": {"share": 1' + "0" * 400 + "}}", "Number out of range"),
        ('{"inner": {"share": 1}, "step": 1' + "0" * 400 + "}", "Expected `int` <= 100"),
        ('{"inner": {"share": 1}, "step": -1}', "Expected `int` >= 0"),
        ('{"inner": {"share": 1}, "step": true}', "Expected `int`, got `bool`"),
        ('{"inner": {"share": 1, "name": "\\ud800"}}', "truncated"),
        ('{"inner": {"share": 1, "more": 1}}', "it has a field 'more', which is not known here"),
        ('{"inner": {"share": 1, "' + "x" * 5000 + '": 1}}', "it has a field 'xxx"),
        ('{"inner": {"share": 1, "share": 2}}', "'share' stands in it twice"),
        ('{"inner": {"share": 1}, "more": ' + "[" * 100_000, "recursion"),
        (
            '{"inner": {"share": 1}, "more": ' + "[" * 800 + "]" * 800 + ', "more": 1}',
            "stands in it twice",
        ),
    ],
    ids=lambda text: str(text)[:40],
)
def test_bug_86_what_does_not_fit_is_told_in_short(path: Path, text: str, says: str) -> None:
    path.write_text(text, encoding="utf-8")
    with pytest.raises(
        InputError, match=r"file\.json is damaged \(.*" + re.escape(says) + r".*\)\ndo this"
    ) as caught:
        read_json(path, Outer, advice="do this")
    assert len(str(caught.value)) < len(str(path)) + LONGEST + 50


def test_bug_86_a_wrong_type_takes_no_memory(path: Path) -> None:
    """The error comes where the type is. Lists in lists, twenty times the file, are not built."""
    import tracemalloc

    path.write_text("[" + "[]," * 200_000 + "[]]")
    tracemalloc.start()
    with pytest.raises(InputError):
        read_json(path, list[str])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * path.stat().st_size


def test_bug_86_sizes_are_bounded(path: Path) -> None:
    path.write_bytes(b"x" * 100)
    assert read_bytes(path, most=100) == b"x" * 100
    with pytest.raises(
        InputError, match=r"has 100 bytes, and 99 are the most that such a file can have\ndo this"
    ):
        read_bytes(path, most=99, advice="do this")
    with pytest.raises(InputError, match=r"has 1,048,580 bytes, and 1,048,576 are the most"):
        write_json(path, {"a": "x" * (MOST - 10)})
    assert path.read_bytes() == b"x" * 100
    write_json(path, {"a": "x" * (MOST - 15)})
    assert read_json(path, dict[str, str]) == {"a": "x" * (MOST - 15)}


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [float("nan"), "\udce9", nested(5000)], ids=["nan", "half", "nested"]
)
def test_bug_86_what_could_not_be_read_again_is_not_written(path: Path, value: Any) -> None:
    path.write_text("old")
    with pytest.raises(InputError, match=r"file\.json cannot hold this"):
        write_json(path, {"a": value})
    assert [(p.name, p.read_text()) for p in path.parent.iterdir()] == [("file.json", "old")]


def test_bug_86_messages_are_short_and_safe() -> None:
    assert brief("a\x1b[2J\nb") == r"a\x1b[2J\nb"
    assert brief("x" * LONGEST) == "x" * LONGEST
    assert brief("\x00" * 10_000) == r"\x00" * (LONGEST // 4) + " ..."
    assert reason(OSError(errno.EIO, "Input/output error", "f")) == "Input/output error"
    assert reason(OSError("no space")) == "no space"
    assert reason(KeyError()) == "KeyError"
    assert reason(ValueError("\x1b" * 9999)).endswith(" ...")


@pytest.mark.skipif(os.name == "nt", reason="no devices")
def test_bug_86_only_regular_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("/dev/zero")
    before = os.listdir("/dev/fd")
    for name, says in (
        ("fifo", "it is no regular file"),
        ("link", "it is no regular file"),
        (".", "it is a folder"),
    ):
        with pytest.raises(OSError, match=says):
            open_regular(tmp_path / name)
    assert os.listdir("/dev/fd") == before  # none was left open
