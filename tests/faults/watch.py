"""One try of one input, watched: what came of it, in what time, with how much memory.

refused      an InputError, or one of its kin that `tinygpt.__main__.main` shows as two lines
accepted     no error
traceback    any other exception; also a message that is long, or of three lines and more
slow, large  over the bounds below, also when tried once more in a process of its own
hang         no end within PATIENCE seconds
crash        the process ended by a signal
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

from tinygpt.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
OURS = tuple(str(ROOT / name) + os.sep for name in ("tinygpt", "tensor"))
SLOWEST = 2.0  # seconds
PATIENCE = 15.0  # seconds after which an input hangs
MEMORY = 64 << 20  # bytes beside 3 times the file
LONGEST = 1000  # characters of a message
REFUSALS = (InputError, OSError, MemoryError)  # what main turns into two lines


class Hang(BaseException):
    """The time is over."""


@dataclass
class Verdict:
    """What came of an input."""

    kind: str
    seconds: float = 0.0
    memory: int = 0  # bytes over those of the process before
    what: str = ""  # the error in a line
    # the last line of ours that it passed through: tinygpt/runs/metrics.py:85 _step_of
    place: str = ""

    @property
    def sound(self) -> bool:
        return self.kind in ("refused", "accepted")

    @property
    def group(self) -> str:
        """What failures of one kind have in common."""
        return f"{self.kind}: {self.what.partition(':')[0]:.60} at {self.place}"


# -- in this process -------------------------------------------------------------------------------


def attempt(action: Callable[[], object], size: int) -> Verdict:
    """Run it, and judge.   size: bytes of the damaged file."""
    before, start = _reset(), _clock()
    verdict = _judged(action)
    verdict.seconds, verdict.memory = _clock() - start, max(0, _peak() - before)
    return bounded(verdict, size)


def bounded(verdict: Verdict, size: int) -> Verdict:
    """The verdict, or a worse one: a sound one that took too long or too much."""
    if verdict.sound and verdict.memory > MEMORY + 3 * size:
        return Verdict(
            "large",
            verdict.seconds,
            verdict.memory,
            f"{verdict.memory >> 20} MB for a file of {size:,} bytes: {verdict.what}",
            verdict.place,
        )
    if verdict.sound and verdict.seconds > SLOWEST:
        return Verdict(
            "slow",
            verdict.seconds,
            verdict.memory,
            f"{verdict.seconds:.1f} s: {verdict.what}",
            verdict.place,
        )
    return verdict


def _judged(action: Callable[[], object]) -> Verdict:
    try:
        with _alarm():
            action()
    except REFUSALS as error:
        what, message = _said(error), str(error)
        untidy = isinstance(error, InputError) and (
            message.count("\n") > 1 or len(message) > LONGEST
        )
        if untidy:
            size = f"{message.count(chr(10)) + 1} lines, {len(message):,} characters"
            what = f"long message: {size}: {what}"
        return Verdict("traceback" if untidy else "refused", what=what, place=place_of(error))
    except Hang as error:
        return Verdict("hang", what="Hang", place=place_of(error))
    except BaseException as error:  # SystemExit too: a reader ends no program
        return Verdict("traceback", what=_said(error), place=place_of(error))
    return Verdict("accepted")


def _said(error: BaseException) -> str:
    with suppress(Exception):
        return (
            f"{type(error).__name__}: {error}".encode("ascii", "backslashreplace")
            .decode()[:300]
            .replace("\n", " / ")
        )
    return type(error).__name__


def place_of(error: BaseException) -> str:
    """The last frame of ours; where there is none, the last of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if frame.filename.startswith(OURS)] or frames[-1:]
    return (
        f"{os.path.relpath(ours[-1].filename, ROOT)}:{ours[-1].lineno} {ours[-1].name}"
        if ours
        else ""
    )


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(number: int, frame: FrameType | None) -> NoReturn:
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    # again each second: a `finally` may hang as well
    signal.setitimer(signal.ITIMER_REAL, PATIENCE, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _clock() -> float:
    """Seconds, but for those in which other processes had the core, where Linux tells them."""
    waited = 0
    with suppress(OSError):
        waited = int(Path("/proc/self/schedstat").read_bytes().split()[1])
    return time.perf_counter() - waited / 1e9


def _reset() -> int:
    """Bytes of memory that this process holds; where the system lets it, its peak falls to them."""
    with suppress(OSError), open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return resident()


def resident() -> int:
    """Bytes of memory in use, now on Linux; elsewhere the most there ever were."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * resource.getpagesize()
    except OSError:
        return _peak()


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


# -- in a process of its own -----------------------------------------------------------------------


def apart(action: Callable[[], Verdict], log: Path) -> Verdict:
    """The verdict of an action in a fork of this process, which may hang or crash.   log: its
    stderr.
    """
    reading, writing = os.pipe()
    log.write_bytes(b"")
    child = os.fork()
    if child == 0:
        os.close(reading)
        _finish(action, writing, log)
    os.close(writing)
    said = b""
    if not select.select([reading], [], [], 2 * PATIENCE)[0]:
        os.kill(child, signal.SIGABRT)  # faulthandler writes where it stood
    while part := os.read(reading, 1 << 16):
        said += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    if said:
        return Verdict(**json.loads(said))
    return crashed(status, log)


def _finish(action: Callable[[], Verdict], writing: int, log: Path) -> NoReturn:
    """What the fork does: never does it come back."""
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 2)
        faulthandler.enable(descriptor)
        os.write(writing, json.dumps(asdict(action())).encode())
    except BaseException:
        os.write(2, traceback.format_exc().encode("ascii", "backslashreplace"))
    os._exit(0)


def crashed(status: int, log: Path) -> Verdict:
    """The verdict on a process that ended without one."""
    text = log.read_text(encoding="utf-8", errors="replace")
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    if number == signal.SIGABRT and "Fatal Python error: Aborted" in text:
        return Verdict("hang", 2 * PATIENCE, what="Hang", place=place_in(text))
    name = signal.Signals(number).name if number else f"no verdict: {text[-200:]}"
    return Verdict("crash", what=name, place=place_in(text))


def place_in(text: str) -> str:
    """The place in a printed traceback: the innermost line of ours."""
    found = re.findall(r'File "([^"]+)", line (\d+),? in (\S+)', text)
    if "most recent call first" in text:
        found = found[::-1]
    ours = [frame for frame in found if frame[0].startswith(OURS)] or found[-1:]
    return f"{os.path.relpath(ours[-1][0], ROOT)}:{ours[-1][1]} {ours[-1][2]}" if ours else ""
