"""A training outlives its pipes and its terminal, and its exit code says how it ended."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tensor.optim import clipping
from tests.helpers.program import PROGRAM, TINY, environment, losses, sampled
from tests.tinygpt.runs.test_checkpoint import wait_for
from tinygpt import story
from tinygpt.__main__ import main
from tinygpt.terminal import outliving, say

pytestmark = [
    pytest.mark.usefixtures("here"),
    pytest.mark.skipif(os.name == "nt", reason="no such pipes, signals and terminals"),
]
CHOICES = ["train", *TINY, "--text", "text.txt", "--evaluate", "20", "--out", "one"]
LONG = "1000000"  # steps: it ends by a signal


@pytest.fixture(autouse=True)
def text(here: Path) -> None:
    (here / "text.txt").write_text(story() * 3, encoding="utf-8")


def saved_steps() -> int:
    """After how many steps the run was saved; as many are in its metrics."""
    step: int = json.loads(Path("one/state.json").read_text())["step"]
    assert [record["step"] for record in losses(Path("one")) if "lr" in record] == list(
        range(1, step + 1)
    )
    return step


# -- pipes


@pytest.mark.parametrize(
    ("number", "code"), [(None, 0), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout and stderr"])
def test_bug_84_a_reader_that_ends(
    both: bool, number: int | None, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """`| sleep 3`; and Ctrl-C under `2>&1 | tee log`, which ends tee first."""
    steps = "100" if number is None else LONG
    error = subprocess.STDOUT if both else subprocess.PIPE
    with subprocess.Popen(
        [*PROGRAM, *CHOICES, "--steps", steps],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=error,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        if number is not None:
            wait_for(Path("one/state.json").exists)
            process.send_signal(number)
        if not both:
            assert process.stderr is not None
            assert b"Error" not in process.stderr.read()
        assert process.wait(timeout=60) == code
    assert saved_steps() >= 20
    assert Path("one/loss.png").exists()
    assert sampled(capsys, "one", "--length", "3")


@pytest.mark.parametrize("closed", ["2>&-", ">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_bug_84_streams_that_are_closed(closed: str, capfd: pytest.CaptureFixture[str]) -> None:
    """The next file to be opened must not take the number of stderr."""
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *PROGRAM]
    done = subprocess.run([*command, *CHOICES, "--steps", "40"], env=environment(), timeout=60)
    assert done.returncode == 0
    assert saved_steps() == 40
    out, err = capfd.readouterr()
    assert ("saved in one" in out, err != "") == (">&-" not in closed.split(), "2>&-" not in closed)
    for arguments, code in (
        (["sample", "one"], 0),
        (["sample", "nowhere"], 2),
        (["sample", "one", "--prompt-file", "-"], 2),
        (["--help"], 0),
        (["plan"], 0),
        (["tokenize", "text.txt", "--out", "made"], 0),
    ):
        assert (
            subprocess.run([*command, *arguments], env=environment(), timeout=60).returncode == code
        ), arguments
    assert "Traceback" not in capfd.readouterr().err


def test_a_full_disk_under_the_log(here: Path) -> None:
    """`> log` on a disk that is full costs what would have been said, nothing else."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *CHOICES, "--steps", "40"],
            env=environment(),
            stdout=full,
            stderr=full,
            timeout=60,
        )
    assert done.returncode == 0
    assert saved_steps() == 40


def test_what_is_said_once_more_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this process: streams are as before afterwards."""
    ours, theirs = os.pipe()
    os.close(ours)
    with open(theirs, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stdout", broken)
        with outliving():
            say("one")
            say("two")
        assert sys.stdout is broken
        broken.write("three\n")


# -- terminals


def on_a_terminal(*arguments: str, ignore: bool = False) -> tuple[subprocess.Popen[bytes], int]:
    """The program with a terminal of its own, and our end of it."""
    ours, theirs = pty.openpty()
    program = "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    program += f"signal.signal(signal.SIGHUP, signal.{'SIG_IGN' if ignore else 'SIG_DFL'})\n"
    program += "os.execv(sys.executable, sys.argv[1:])"
    command = [sys.executable, "-c", program, *PROGRAM, *arguments]
    process = subprocess.Popen(
        command,
        env=environment(TERM="xterm"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    return process, ours


@pytest.mark.parametrize(
    ("ignore", "steps", "code"),
    [(False, LONG, 129), (True, "300", 0)],
    ids=["closed", "under nohup"],
)
def test_bug_84_a_terminal_that_is_closed(
    ignore: bool, steps: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """It saves as at Ctrl-C; where the signal is ignored it goes on without showing."""
    limits = ["--steps", steps, "--evaluate", steps]
    process, ours = on_a_terminal(*CHOICES, *limits, ignore=ignore)
    noted = Path("one/metrics.jsonl")
    try:
        os.set_blocking(ours, False)
        wait_for(lambda: drained(ours) and noted.exists() and noted.read_text().count("\n") >= 20)
        os.close(ours)
        assert process.wait(timeout=60) == code
    finally:
        process.kill()
    assert saved_steps() >= 20
    assert sampled(capsys, "one", "--length", "3")


def drained(terminal: int) -> bool:
    """Read what was written: a full terminal would stop the program."""
    try:
        while os.read(terminal, 65536):
            pass
    except BlockingIOError:
        pass
    return True


# -- nothing is removed in which a step was taken


@pytest.mark.parametrize("after", [0, 1, 5])
def test_bug_84_what_went_wrong_before_the_first_checkpoint(
    after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a step nothing is left; with one, its metrics and snapshots are."""

    norm, left = clipping.clip_gradients, iter(range(after))

    def failing(*arguments: Any) -> float:
        if next(left, None) is None:
            raise MemoryError("no more")
        return norm(*arguments)

    monkeypatch.setattr(clipping, "clip_gradients", failing)
    assert main([*CHOICES, "--steps", "50"]) == 2
    assert Path("one").exists() == (after > 0)
    if after:
        assert len(losses(Path("one"))) == after
