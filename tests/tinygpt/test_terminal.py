"""The terminal: text made safe to show, the live line, Ctrl-C, pipes."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.helpers.program import PROGRAM, TINY, environment, losses, refused, sampled, start
from tinygpt import GPT, files
from tinygpt.__main__ import main
from tinygpt.terminal import _row, duration, short, stop_signals, visible
from tinygpt.training.progress import STOPPING, Interrupt

pytestmark = pytest.mark.usefixtures("here")


def test_visible() -> None:
    assert visible("a\tb\nc é 漢 👩‍💻") == "a\tb\nc é 漢 👩‍💻"
    assert visible("\r\x00\x1b\x85\u2028\ud800\u2067") == r"\r\x00\x1b\x85\u2028\ud800\u2067"
    assert visible("a\tb\n", lines=False) == r"a\tb\n"


def test_how_numbers_are_shown() -> None:
    assert [duration(seconds) for seconds in (-1, 0.2, 7, 59.4, 60, 65, 7400)] == [
        "0 s",
        "0 s",
        "7 s",
        "59 s",
        "1:00",
        "1:05",
        "2:03:20",
    ]
    assert [short(number) for number in (0.5, 12, 950, 12345, 4.5e6, 3e9)] == [
        "0.5",
        "12",
        "950",
        "12.3k",
        "4.5M",
        "3G",
    ]


# -- Ctrl-C and its like


def stopped(here: Path, number: int) -> tuple[int, str, str]:
    """A long training that gets a signal after its first steps."""
    process = start("train", *TINY, "--steps", "1000000", cwd=here)
    metrics = here / "runs/story-1/metrics.jsonl"
    try:
        end = time.monotonic() + 30
        while (
            not (metrics.exists() and metrics.read_text().count("\n") >= 3)
            and time.monotonic() < end
        ):
            time.sleep(0.02)
        process.send_signal(number)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    return process.returncode, out, err


@pytest.mark.skipif(os.name == "nt", reason="signals cannot be sent there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", 1)])
def test_ctrl_c_saves(number: int, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip("the tests run under nohup")
    code, out, err = stopped(here, number)
    assert (code, err) == (128 + number, f"{STOPPING}\n" if number == signal.SIGINT else "")
    records = losses(here / "runs/story-1")
    said = f"stopped after step {len(records)} of 1,000,000; go on: "
    assert said + "tinygpt train --resume runs/story-1" in out
    assert json.loads((here / "runs/story-1/state.json").read_text())["step"] == len(records) >= 3
    assert (here / "runs/story-1/loss.png").exists()
    assert sampled(capsys, "--length", "5").startswith("The cat sat on the")


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL")
def test_killed_before_the_first_checkpoint(
    here: Path, capsys: pytest.CaptureFixture[str], trained: Path
) -> None:
    """Its folder is not taken for a run to sample from, and another training goes beside it."""
    assert stopped(here, signal.SIGKILL)[0] == -signal.SIGKILL
    refused(capsys, "sample", says="there is no run here yet")
    refused(
        capsys,
        "sample",
        "story-1",
        says="model.safetensors is missing\nthe run ended before its first checkpoint",
    )
    assert main(["train", *TINY, "--steps", "1"]) == 0
    assert "runs/story-2" in capsys.readouterr().out


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    before = [signal.getsignal(number) for number in stop_signals()]
    with Interrupt() as stop:
        yield stop
    assert [signal.getsignal(number) for number in stop_signals()] == before


def test_a_second_ctrl_c_stops_at_once(interrupt: Interrupt) -> None:
    for number in (signal.SIGTERM, signal.SIGTERM):  # a second one of these says nothing new
        signal.raise_signal(number)
    assert interrupt.asked == signal.SIGTERM
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("saved", [0, 2])
def test_a_second_ctrl_c_says_what_is_saved(
    saved: int, here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    healthy, steps = GPT.loss, iter(range(1000))

    def loss(self: GPT, *arguments: Any, **options: Any) -> Any:
        if self.training and len(arguments) == 3 and next(steps) == 2:  # step 3
            for _ in range(2):
                signal.raise_signal(signal.SIGINT)
        return healthy(self, *arguments, **options)

    monkeypatch.setattr(GPT, "loss", loss)
    monkeypatch.setattr("tinygpt.training.loop.SAVE_SECONDS", 0.0 if saved else 60.0)
    assert main(["train", *TINY, "--steps", "5", "--out", "one"]) == 130
    first, second, *_ = capfd.readouterr().err.splitlines()
    assert first == STOPPING
    said = "nothing is saved, for there was no checkpoint yet"
    if saved:
        said = "the run is saved up to step 2; go on: tinygpt train --resume one"
    assert second == f"stopped at once: {said}"
    assert Path("one/state.json").exists() == bool(saved)


def test_a_second_ctrl_c_in_a_save_says_what_is_saved(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From state.json.new on, the new files are the checkpoint."""
    replace, signals = files.replace, iter([signal.SIGINT] * 2)

    def interrupted(source: Path, target: Path) -> None:
        replace(source, target)
        if target.name == "model.safetensors":
            for number in signals:
                signal.raise_signal(number)

    monkeypatch.setattr(files, "replace", interrupted)
    monkeypatch.setattr("tinygpt.training.loop.SAVE_SECONDS", 0.0)
    assert main(["train", *TINY, "--steps", "5", "--out", "one"]) == 130
    assert capfd.readouterr().err.splitlines()[1] == (
        "stopped at once: the run is saved up to step 1; go on: tinygpt train --resume one"
    )
    assert main(["train", "--resume", "one"]) == 0
    assert "goes on after step 1" in capfd.readouterr().out


def test_ctrl_c_while_python_ends_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """It kills the program. Whoever calls `main` keeps their own handler."""

    def interrupted(argv: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinygpt.commands.program.run", interrupted)
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main([]) == 130
        assert signal.getsignal(signal.SIGINT) == before
        assert main() == 130
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


def test_only_the_main_thread_listens() -> None:
    """Python lets no other set a handler: training there still works."""
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(main(["train", *TINY, "--steps", "1"])))
    thread.start()
    thread.join()
    assert codes == [0]


def test_signals_of_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    assert stop_signals() == (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    assert stop_signals() == (signal.SIGINT, signal.SIGTERM)
    signal.signal(signal.SIGHUP, before)
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(signal, "SIGBREAK", 21, raising=False)
    assert stop_signals() == (signal.SIGINT, 21)


def test_ctrl_c_elsewhere(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tinygpt.commands.sample.write", pressed)
    assert main(["sample"]) == 130
    assert capsys.readouterr().err == "\ninterrupted\n"


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_terminated(name: str, run: Path) -> None:
    """What is half done is removed, as after an error."""
    program = (
        "import os, signal, sys, tempfile\nimport tinygpt.commands.plan\n"
        "from tinygpt.__main__ import main\n"
        f"signal.signal(signal.{name}, signal.SIG_DFL)\n"
        "def run(options):\n"
        "    with tempfile.TemporaryDirectory(dir='.'):\n"
        f"        os.kill(os.getpid(), signal.{name})\n"
        "        print('later')\n"
        "tinygpt.commands.plan.run = run\nsys.exit(main(['plan']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=run,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + getattr(signal, name), "", "")
    assert not [path for path in run.iterdir() if path.is_dir() and path.name != "snapshots"]


DURING = """
import signal, sys
class Pressed:
    def find_spec(self, name, *rest):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)
sys.meta_path.insert(0, Pressed())
from tinygpt.__main__ import main
sys.exit(main(["plan"]))
"""


@pytest.mark.parametrize(
    "module",
    [
        "tinygpt.commands.cli",
        "tinygpt.terminal",
        "argparse",
        "tinygpt.commands",
        "numpy",
        "numpy.linalg",
        "tensor.tensor",
        "msgspec",
    ],
)
def test_ctrl_c_while_it_starts(module: str, here: Path) -> None:
    """The imports are most of the start."""
    done = subprocess.run(
        [sys.executable, "-c", DURING, module],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "\ninterrupted\n")


# -- terminals and pipes


@pytest.mark.skipif(os.name == "nt", reason="no pipes of this kind")
def test_a_reader_that_has_seen_enough(run: Path) -> None:
    with start("sample", "--length", "100000", cwd=run.parents[1]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10) == "The cat sa"
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=30) == 0


def test_a_terminal_that_lacks_a_character(here: Path) -> None:
    (here / "text.txt").write_text("grün 漢字 " * 5, encoding="utf-8")
    command = [*PROGRAM, "train", "--text", "text.txt", *TINY, "--steps", "1"]
    done = subprocess.run(
        command,
        cwd=here,
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert rb"gr\xfcn \u6f22\u5b57" in done.stdout


@pytest.mark.parametrize("encoding", ["idna", "undefined"])
def test_bug_84_an_encoding_that_escapes_nothing(encoding: str, here: Path) -> None:
    for arguments, code in ((["sample", "nowh\u00e9re"], 2), (["--help"], 0)):
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env=environment(PYTHONIOENCODING=encoding),
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == code
        assert b"Traceback" not in done.stderr
        assert (done.stdout + done.stderr).startswith((b"tinygpt: error: no run", b"usage: "))


def on_a_terminal(here: Path, *arguments: str, columns: int = 80, **variables: str) -> str:
    """What a command writes to a terminal of so many columns."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = {
        name: value
        for name, value in environment(**{"TERM": "xterm-256color", **variables}).items()
        if name not in ("COLUMNS", "LINES")
    }
    process = subprocess.Popen(
        [*PROGRAM, *arguments], cwd=here, env=env, stdin=theirs, stdout=theirs, stderr=theirs
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how a terminal says that nobody writes any more
        pass
    finally:
        os.close(ours)
    assert process.wait(timeout=30) == 0
    return written.decode()


def test_a_narrow_terminal_keeps_the_count() -> None:
    text = "loss 0.3121  lr 2.1e-03  norm 0.52  45.1k tok/s  12 s left"
    for columns in (20, 40, 60, 80):
        console = Console(width=columns, file=io.StringIO())
        console.print(_row(420, 1000, " 420/1000", text))
        assert console.file.getvalue().startswith(" 420/1000 "), columns


CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_the_live_line(here: Path) -> None:
    written = on_a_terminal(here, "train", *TINY, "--steps", "40")
    lines = [line for line in re.split(r"[\r\n]+", CONTROL.sub("", written)) if "tok/s" in line]
    assert lines
    assert max(map(len, lines)) <= 80
    assert re.match(
        r"40/40 ━+ loss \d\.\d{4}  lr \d\.\de-\d\d  norm \d+\.\d\d  [\d.]+k? tok/s  0 s left",
        lines[-1],
    )
    assert "\x1b[38;5" in written or "\x1b[3" in written  # the bar has a colour


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_no_color(here: Path) -> None:
    written = on_a_terminal(here, "train", *TINY, "--steps", "20", NO_COLOR="1")
    assert "20/20" in written
    codes = [
        code
        for sequence in re.findall(r"\x1b\[([0-9;]*)m", written)
        for code in sequence.split(";")
    ]
    assert not [code for code in codes if code.startswith(("3", "4", "9")) and code != "39"]


@pytest.mark.skipif(os.name == "nt", reason="no pseudo-terminals")
def test_a_dumb_terminal_gets_no_live_line(here: Path) -> None:
    written = on_a_terminal(here, "train", *TINY, "--steps", "2", TERM="dumb")
    assert "\x1b" not in written
    assert "tok/s" not in written
