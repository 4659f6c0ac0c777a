"""The C files of this folder as one library file: built by the system's C compiler, kept in the
user's cache, found there again.

The file is named kernels-RECIPE-CHECKSUM.so. RECIPE is a hash of all that it was made from,
CHECKSUM one of its bytes: a file that was cut short or changed is built anew.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from tensor.kernels.cpu.private import UnavailableError, alone, private_file, private_folder

HERE = Path(__file__).parent
_FLAGS = """-std=gnu11 -O3 -march=native -fno-math-errno -fno-trapping-math -fopenmp-simd
-fvisibility=hidden -fPIC -shared -pthread"""
FLAGS = _FLAGS.split()
PATIENCE = 120  # seconds for a build, and to wait for another process's; one takes about two
LONGEST = 200  # characters of a compiler's message that are shown
LARGEST = 1 << 26  # bytes of a library: a file that is longer is none of ours
HEARD = 1 << 16  # bytes of a compiler's messages that are read


class Recipe(NamedTuple):
    """How the library is made, and what is in it."""

    name: str  # kernels-RECIPE
    command: list[str]  # all but the name of the file to make
    functions: dict[str, list[str]]  # name -> kinds of its parameters


def compiler() -> str:
    """The path of the system's C compiler. Raises UnavailableError where there is none."""
    for name in (os.environ.get("CC") or "cc", "gcc", "clang"):
        if found := shutil.which(name):
            return found
    raise UnavailableError("no C compiler found (cc, gcc, clang)")


def recipe() -> Recipe:
    """Read the sources. Raises UnavailableError without a compiler."""
    sources = {path: path.read_bytes() for path in [HERE / "kernels.h", *sorted(HERE.glob("*.c"))]}
    command = [compiler(), *FLAGS, f"-DOBJECT_HEAD={object.__basicsize__}"]
    made_from = [*sources.values(), " ".join(command).encode(), _processor().encode()]
    command += [*(str(path) for path in sources if path.suffix == ".c"), "-lm", "-o"]
    functions = _functions(b"\n".join(sources.values()).decode())
    return Recipe(f"kernels-{_hash(b''.join(made_from))}", command, functions)


def _processor() -> str:
    """What tells processors apart: machines may share a home folder, and the code is for one."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor() + platform.machine()


def _functions(text: str) -> dict[str, list[str]]:
    """name -> kinds of its parameters, from the lines that start with KERNEL."""
    found = re.findall(r"^KERNEL (\w+)\(([^)]*)\)", text, re.MULTILINE)
    return {name: re.findall(r"(\w+) \w+", parameters) for name, parameters in found}


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


# -- where the file is -----------------------------------------------------------------------------


def kept(made: Recipe) -> Path:
    """The library in the user's cache. Where none is, one process builds it, the others wait.

    Raises OSError where the cache cannot be used, UnavailableError where no library can be made or
    another process takes too long.
    """
    folder = private_folder(_cache())
    if found := _intact(folder, made.name):
        return found
    with alone(folder, PATIENCE):
        return _intact(folder, made.name) or _build(made, folder)


@contextmanager
def unkept(made: Recipe) -> Iterator[Path]:
    """The library built into a new folder, which is removed: once loaded, it needs no file."""
    with tempfile.TemporaryDirectory(prefix="tinygpt-", ignore_cleanup_errors=True) as folder:
        yield _build(made, private_folder(Path(folder)))


def _cache() -> Path:
    """The folder for built libraries. Relative paths are ignored, as XDG's specification says."""
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(base):
            return Path(base) / "tinygpt"
    raise OSError("no home folder is known")


def _intact(folder: Path, name: str) -> Path | None:
    """The library of a recipe whose bytes have the checksum that its name says, if there is one."""
    for path in folder.glob(f"{name}-*.so"):
        with suppress(OSError), private_file(path) as descriptor:
            if path.stem == f"{name}-{_checksum(descriptor)}":
                return path
    return None


def _checksum(descriptor: int) -> str:
    with open(descriptor, "rb", closefd=False) as file:
        return _hash(file.read(LARGEST))


# -- building --------------------------------------------------------------------------------------


def _build(made: Recipe, folder: Path) -> Path:
    """Compile in a folder inside a private one, flush to the disk, move to the final name."""
    _clear(folder, made.name)
    with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as inner:
        file = Path(inner) / "kernels.so"
        _compile([*made.command, str(file)])
        try:
            file.chmod(0o600)  # whatever the umask is
        except FileNotFoundError:
            raise UnavailableError(f"{made.command[0]} made no library") from None
        with private_file(file) as descriptor:
            target = folder / f"{made.name}-{_checksum(descriptor)}.so"
            os.fsync(descriptor)
        os.replace(file, target)
    return target


def _clear(folder: Path, name: str) -> None:
    """Remove broken files, and folders of killed builds: too old for a build that still runs."""
    for path in folder.glob(f"{name}-*.so"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for path in folder.glob("building-*"):
        if path.lstat().st_mtime < time.time() - 10 * PATIENCE:
            shutil.rmtree(path, ignore_errors=True)


def _compile(command: list[str]) -> None:
    """Run the compiler. Raises UnavailableError with the first line that reports an error."""
    import subprocess  # no start but the first needs it, and importing tensor would take 4% longer

    nothing = subprocess.DEVNULL
    try:
        with (
            tempfile.TemporaryFile(dir=Path(command[-1]).parent) as messages,
            subprocess.Popen(
                command, stdin=nothing, stdout=nothing, stderr=messages, start_new_session=True
            ) as process,
        ):
            try:
                status = process.wait(PATIENCE)
            except BaseException as ending:  # too slow, or an interrupt
                os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(ending, subprocess.TimeoutExpired):
                    raise
                status = process.wait()
            messages.seek(0)
            said = messages.read(HEARD).decode(errors="replace").strip()
    except OSError as error:
        raise UnavailableError(f"{command[0]} failed: {shown(str(error))}") from None
    if status:
        slow = f"ended by signal {-status}, as after {PATIENCE} s"
        said = said or (slow if status < 0 else f"exit status {status}")
        line = next((line for line in said.splitlines() if "error" in line), said)
        raise UnavailableError(f"{command[0]} failed: {shown(line)}")


def shown(text: str, most: int = LONGEST) -> str:
    """Text in one line of at most `most` characters, control characters escaped."""
    line = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[: most + 1]
    )
    return line if len(line) <= most else line[: most - 4] + " ..."
