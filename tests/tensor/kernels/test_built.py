"""How the library file is made, kept and found again. Only what this user made is loaded."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import tensor
from tensor import kernels
from tensor.kernels.cpu import built, compiled
from tensor.kernels.cpu.private import UnavailableError, private_file, private_folder
from tests.faults.cache import BROKEN, CUTS, PLANTED, Fault, good, outcome
from tests.faults.starts import AS_ROOT
from tests.helpers.kernel_runs import compiled_kernels
from tests.tensor.kernels.test_compiled import a_compiler
from tinygpt import GPTConfig, TrainConfig
from tinygpt.commands import train

__all__ = ["compiled_kernels"]
ROOT = Path(tensor.__file__).parents[1]
# A compiler that counts, and then has the name of the file to make as $2.
MAKES = 'echo once >> "$0.log"; while [ "$1" != -o ]; do shift; done;'
needs_kernels = pytest.mark.usefixtures("compiled_kernels")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no compiled kernels on Windows")


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that another user can reach: pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="cache-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a compiler that takes no time and makes a new library each time."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(
        "CC", a_compiler(tmp_path, f'{MAKES} (date +%s%N; head -c 9000 /dev/zero) > "$2"')
    )
    return tmp_path / "tinygpt"


def builds(cache: Path) -> int:
    return len((cache.parent / "cc.log").read_text().split())


# -- libraries of others, broken libraries: as `python -m tests.faults.cache`, with a fast compiler
# --

SOME_CUTS = {f"cut after {part}/{CUTS + 1}" for part in (2, 9, 10, 17)}
BROKEN_HERE = [
    fault for fault in BROKEN if not fault.name.startswith("cut") or fault.name in SOME_CUTS
]


def tried(fault: Fault, place: Path) -> None:
    if fault.root and not AS_ROOT:
        pytest.skip("only root can try this")
    result = outcome(fault, place, good())
    assert not result.wrong(fault), result
    assert len(result.line.splitlines()) == (not fault.heals)


@needs_kernels
@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.name)
def test_bug_82_a_planted_library_is_not_loaded(fault: Fault, place: Path) -> None:
    tried(fault, place)


@needs_kernels
@pytest.mark.parametrize("fault", BROKEN_HERE, ids=lambda fault: fault.name)
def test_bug_82_a_broken_cache(fault: Fault, place: Path) -> None:
    tried(fault, place)


def test_bug_82_every_byte_of_a_library_counts(cache: Path) -> None:
    """Cut anywhere or changed anywhere, it is built anew, and only then."""
    for change in (
        lambda data: data[:-1],
        lambda data: data[:5],
        lambda data: b"",
        lambda data: data + b"\0",
        lambda data: b"x" + data[1:],
    ):
        path = built.kept(built.recipe())
        count = builds(cache)
        assert built.kept(built.recipe()) == path
        assert builds(cache) == count
        path.write_bytes(change(path.read_bytes()))
        again = built.kept(built.recipe())
        assert again != path
        assert not path.exists()
        assert builds(cache) == count + 1


def test_bug_82_only_regular_files_are_read(tmp_path: Path) -> None:
    """Opening a FIFO returns at once, and what it would give is not waited for."""
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir()
    for name in ("fifo", "folder"):
        with pytest.raises(OSError, match="no regular file"), private_file(tmp_path / name):
            pass


def test_bug_82_nothing_of_another_user_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this is not root, who can plant the real thing: this user is taken for another one."""
    (tmp_path / "file").touch(0o600)
    (tmp_path / "file").chmod(0o600)
    with private_file(tmp_path / "file"):
        assert private_folder(tmp_path) == tmp_path
    monkeypatch.setattr(os, "geteuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(OSError, match=f"belongs to user {tmp_path.stat().st_uid}"):
        private_folder(tmp_path)
    with (
        pytest.raises(OSError, match="that only this user can write"),
        private_file(tmp_path / "file"),
    ):
        pass


# -- the file --------------------------------------------------------------------------------------


def test_folders_and_files_are_made_for_this_user_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the umask: what others could write would be refused at the next start."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parent / "a" / "b"))
    before = os.umask(0)
    try:
        path = built.kept(built.recipe())
    finally:
        os.umask(before)
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, *path.parents[:3])] == [
        0o600,
        0o700,
        0o700,
        0o700,
    ]
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, "lock"]
    assert built.kept(built.recipe()) == path


def test_a_relative_home_is_no_home(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", "there")
    with pytest.raises(OSError, match="no home folder is known"):
        built.kept(built.recipe())


def test_what_a_library_was_made_from_is_in_its_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources, flags, compiler, processor: where one is another, so is the library."""
    paths = [built.kept(built.recipe()), built.kept(built.recipe())]
    assert paths[0] == paths[1]
    monkeypatch.setattr(built, "FLAGS", [*built.FLAGS, "-DANYTHING"])
    paths.append(built.kept(built.recipe()))
    monkeypatch.setattr(built, "_processor", lambda: "another")
    paths.append(built.kept(built.recipe()))
    shutil.copytree(built.HERE, tmp_path / "sources")
    monkeypatch.setattr(built, "HERE", tmp_path / "sources")
    assert built.kept(built.recipe()) == paths[-1]
    for name in ("kernels.h", "gelu.c"):
        (tmp_path / "sources" / name).write_text((tmp_path / "sources" / name).read_text() + "\n")
        paths.append(built.kept(built.recipe()))
    assert len(set(paths)) == 5 == builds(cache)


def test_what_killed_builds_left_is_removed(cache: Path) -> None:
    """But not a young folder: another process may build there, on a file system without locks."""
    cache.mkdir(mode=0o700)
    for name, age in (("building-old", 3600), ("building-new", 60)):
        (cache / name).mkdir()
        (cache / name / "kernels.so").write_bytes(b"half")
        os.utime(cache / name, (time.time() - age,) * 2)
    path = built.kept(built.recipe())
    assert sorted(each.name for each in cache.iterdir()) == ["building-new", path.name, "lock"]


def test_a_library_for_one_process_leaves_no_folder(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(cache.parent))
    with built.unkept(built.recipe()) as path:
        assert path.parents[1] == cache.parent
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()
    cache.parent.chmod(0o777)  # there, others could put another folder in the place of this one
    with pytest.raises(OSError, match="other users can write"), built.unkept(built.recipe()):
        pass


# -- waiting for another process -------------------------------------------------------------------


def test_a_process_waits_for_the_one_that_builds(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no longer than a build may take. What is there already needs no waiting."""
    monkeypatch.setattr(built, "PATIENCE", 0.2)
    cache.mkdir(mode=0o700)
    with (
        built.alone(cache, 0),
        pytest.raises(UnavailableError, match=r"another process has held .*lock for 0 s"),
    ):
        built.kept(built.recipe())
    path = built.kept(built.recipe())
    with built.alone(cache, 0):
        assert built.kept(built.recipe()) == path


def test_bug_82_builders_at_once_build_once(cache: Path, tmp_path: Path) -> None:
    """Threads here, since a lock keeps out whoever opened its file for himself."""
    a_compiler(tmp_path, f'{MAKES} sleep 0.5; date +%s%N > "$2"')
    with ThreadPoolExecutor() as pool:
        paths = [
            waiting.result()
            for waiting in [pool.submit(built.kept, built.recipe()) for _ in range(4)]
        ]
    assert (len(set(paths)), builds(cache)) == (1, 1)


def test_without_locks_all_build(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network file systems have none."""

    def none(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr("tensor.kernels.cpu.private.fcntl.flock", none)
    cache.mkdir(mode=0o700)
    with built.alone(cache, 0):
        assert built.kept(built.recipe()).exists()


# -- what a compiler says --------------------------------------------------------------------------

SAYS = {
    "control characters": (
        r"printf 'error: \033[2J\007 \342\200\256 \377' >&2",
        "error: \\x1b[2J\\x07 \\u202e \N{REPLACEMENT CHARACTER}",
    ),
    "a long line": ("printf 'error: %0500d' 0 >&2", "error: " + "0" * 189 + " ..."),
    "the first error": (
        "echo 'a.c: warning: so so\na.c: error: one\na.c: error: two' >&2",
        "a.c: error: one",
    ),
    "nothing": ("true", "exit status 1"),
}


@pytest.mark.parametrize("case", SAYS)
def test_what_a_compiler_says_is_short_and_harmless(case: str, cache: Path, tmp_path: Path) -> None:
    script, said = SAYS[case]
    a_compiler(tmp_path, f"{script}; exit 1")
    with pytest.raises(UnavailableError) as caught:
        built.kept(built.recipe())
    assert str(caught.value) == f"{tmp_path / 'cc'} failed: {said}"


def test_a_compiler_that_talks_without_end_costs_no_memory(cache: Path, tmp_path: Path) -> None:
    """300 MB, and then it succeeds: its messages are heard to the end, and not kept."""
    a_compiler(tmp_path, f'head -c 300000000 /dev/zero >&2; {MAKES} echo made > "$2"')
    program = """
import resource
from tensor.kernels.cpu import built
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
path = built.kept(built.recipe())
print(path.read_text().strip(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    made, grown = run.stdout.split()
    assert made == "made"
    assert int(grown) * (1 if sys.platform == "darwin" else 1024) < 16e6


def test_a_compiler_that_hangs_is_ended_with_all_that_it_started(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(built, "PATIENCE", 0.3)
    a_compiler(tmp_path, f"sleep 1000 & echo $! > {tmp_path / 'started'}; wait")
    with pytest.raises(UnavailableError, match="failed: ended by signal 9"):
        built.kept(built.recipe())
    ends_soon(int((tmp_path / "started").read_text()))


def test_an_interrupt_ends_the_compiler(cache: Path, tmp_path: Path) -> None:
    """It says more than a pipe holds, and has run for a while: the wait for it has begun."""
    new, started = tmp_path / "new", tmp_path / "started"
    says = "head -c 300000 /dev/zero >&2"
    a_compiler(tmp_path, f"{says}; sleep 1000 & echo $! > {new}; sleep 2; mv {new} {started}; wait")
    program = "from tensor.kernels.cpu import built; built.kept(built.recipe())"
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "started").exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=20)[1]
    ends_soon(int((tmp_path / "started").read_text()))
    assert sorted(each.name for each in cache.iterdir()) == ["lock"]


def ends_soon(number: int) -> None:
    """A process that was killed: it is gone, or nobody has asked for its exit status yet."""
    for _ in range(200):
        try:
            os.kill(number, 0)
            if Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        except OSError:
            return
        time.sleep(0.05)
    raise AssertionError(f"process {number} still runs")


# -- one load a process ----------------------------------------------------------------------------

AT_ONCE = """
import os, signal, threading, time
import ctypes
from tensor.kernels.cpu import compiled
signal.alarm(60)  # a fork that hangs
loads, load = [], ctypes.CDLL
def slow(path, *rest, **more):
    if "kernels-" in path:
        loads.append(path)
        time.sleep(0.3)
    return load(path, *rest, **more)
ctypes.CDLL = slow
threads = [threading.Thread(target=compiled.unavailable) for _ in range(5)]
for thread in threads:
    thread.start()
time.sleep(0.1)
"""
FORKS = """
child = os.fork()
if child == 0:
    from tests.tensor.kernels.test_compiled import some_work
    some_work()
    os._exit(0 if compiled.unavailable() is None else 1)
print(os.waitpid(child, 0)[1])
"""


def said_by(program: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout.split()


@needs_kernels
@pytest.mark.parametrize("when", ["while it loads", "after it"])
def test_bug_72_threads_at_once_load_one_library(when: str) -> None:
    """A fork waits for it too: the child would have half a library."""
    wait = "for thread in threads:\n    thread.join()\n" if when == "after it" else ""
    assert said_by(f"{AT_ONCE}{wait}{FORKS}print(len(loads))") == ["0", "1"]


@needs_kernels
def test_bug_72_a_second_load_registers_nothing_for_forks() -> None:
    """As after an interrupt: a door that is closed twice before a fork never opens."""
    again = "compiled.unavailable()\ncompiled._load()\n"
    assert said_by(
        "import os, signal\nfrom tensor.kernels.cpu import compiled\nsignal.alarm(60)\n"
        f"{again}{FORKS}"
    ) == ["0"]


@needs_kernels
def test_a_library_for_one_process_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beneath the table of kernels.explain(), and by `tinygpt train`."""
    note = "built for this process alone: no home folder is known"
    monkeypatch.setattr(kernels, "NOTES", [note])
    assert kernels.explain().splitlines()[-1] == note
    assert train._kernels(GPTConfig(9), TrainConfig()).endswith(
        f"TENSOR_THREADS sets how many; {note}"
    )


def test_the_note_is_escaped_and_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Paths are whatever their makers called them."""

    def refuses() -> None:
        raise OSError("\x1b[2J" + "long " * 1000)

    monkeypatch.setattr(compiled, "_load", refuses)
    reason = compiled._trouble.__wrapped__()
    assert reason is not None
    assert reason.startswith(r"\x1b[2Jlong")
    assert len(reason) == 600
