"""`python -m tests.faults.cache`: plant libraries in the kernels' cache, break it in every way, and
see what a start does.

Prints a line a fault: how a start went, how often it compiled, and how the next one went. Where
root runs this, the starts are those of one user, and the libraries are planted by another one.
Exits 1 when planted code ran, a start failed, hung, compiled too often or left a folder behind, or
the next one was not normal.

At some faults the start builds the library anew. At others it uses one of its own, and says in one
line why; where the fault lasts, the next start follows the advice in that line, a cache elsewhere.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from tensor.kernels.cpu import built
from tests.faults.starts import AS_ROOT, OTHER, SPOKEN, USER, Place, Start

EVIL = (
    "#include <stdio.h>\n__attribute__((constructor)) static void planted(void) "
    f'{{ puts("{SPOKEN}"); fflush(stdout); }}\n'
)
CUTS = 17


class Fault(NamedTuple):
    """What is wrong with a cache. `make` gets a library: evil, to plant, or good, to break."""

    name: str
    make: Callable[[Place, bytes], None]
    heals: bool = True  # at once
    lasts: bool = False  # until somebody does something about it
    root: bool = False  # only root can make it
    starts: int = 1  # at once
    evil: bool = False


# -- planted libraries: all is right about each but for what its name says -------------------------


def planted(
    name: str, make: Callable[[Place, bytes, int], None], lasts: bool = False, root: bool = False
) -> list[Fault]:
    """By the user, so that one thing alone is wrong, and by another user, as in an attack."""
    own = Fault(
        f"{name}, by the user",
        lambda place, evil: make(place, evil, USER),
        not lasts,
        lasts,
        root,
        evil=True,
    )
    return [
        own,
        own._replace(
            name=f"{name}, by another", make=lambda place, evil: make(place, evil, OTHER), root=True
        ),
    ]


def write(path: Path, content: bytes, by: int) -> Path:
    """Write a file as that user: what others may not do, fails."""
    as_user = {"user": by, "group": by, "extra_groups": []} if AS_ROOT else {}
    subprocess.run(
        ["sh", "-c", 'umask 022; cat > "$0"', str(path)], input=content, check=True, **as_user
    )  # type: ignore[call-overload]
    return path


def open_folder(place: Place, evil: bytes, by: int) -> None:
    place.made_cache().chmod(0o777)
    write(place.library(evil), evil, by)


def folder_open_above(place: Place, evil: bytes) -> None:
    place.made_cache()
    place.cache.parent.chmod(0o777)
    write(place.library(evil), evil, USER)


def open_file(place: Place, evil: bytes, by: int) -> None:
    place.made_cache()
    place.give(write(place.library(evil), b"", USER), 0o666)
    write(place.library(evil), evil, by)


def file_of_another(place: Place, evil: bytes) -> None:
    place.made_cache()
    place.give(write(place.library(evil), evil, USER), 0o644, OTHER)


def folder_of_another(place: Place, evil: bytes, by: int) -> None:
    place.made_cache()
    place.give(write(place.library(evil), evil, USER), 0o644, by)
    place.give(place.cache, 0o755, OTHER)


def linked_file(place: Place, evil: bytes, by: int) -> None:
    place.made_cache()
    target = write(place.give(place.folder / "theirs", 0o755, by) / "evil", evil, by)
    place.library(evil).symlink_to(target)


def linked_folder(place: Place, evil: bytes, by: int) -> None:
    target = place.give(place.folder / "theirs", 0o755, by)
    write(target / place.library(evil).name, evil, by)
    place.give(place.cache.parent)
    place.cache.symlink_to(target)


def relative_path(place: Place, evil: bytes, by: int) -> None:
    place.environment["XDG_CACHE_HOME"] = "here"
    for folder in (place.work, place.work / "here", place.work / "here" / "tinygpt"):
        place.give(folder, 0o755, by)
    write(place.work / "here" / "tinygpt" / place.library(evil).name, evil, by)


PLANTED = [
    *planted("folder open to all", open_folder, lasts=True),
    Fault("folder above open to all", folder_open_above, False, True, evil=True),
    *planted("file open to all", open_file),
    Fault("file of another user", file_of_another, root=True, evil=True),
    *planted("folder of another user", folder_of_another, lasts=True, root=True),
    *planted("file a symbolic link", linked_file),
    *planted("folder a symbolic link", linked_folder, lasts=True),
    *planted("relative XDG_CACHE_HOME", relative_path),
]


# -- broken caches ---------------------------------------------------------------------------------


def instead(change: Callable[[bytes], bytes]) -> Callable[[Place, bytes], None]:
    """A library that holds something else than its name says."""

    def make(place: Place, good: bytes) -> None:
        place.made_cache()
        write(place.library(good), change(good), USER)

    return make


def cut(part: int) -> Fault:
    return Fault(
        f"cut after {part}/{CUTS + 1}", instead(lambda good: good[: len(good) * part // (CUTS + 1)])
    )


def without_symbols(place: Place, good: bytes) -> None:
    """With the right checksum: a compiler can make such a thing and say that all went well."""
    place.made_cache()
    nothing = compiled(place.folder / "nothing.so", "int nothing;")
    write(place.library(nothing), nothing, USER)


def fifo(place: Place, good: bytes) -> None:
    place.made_cache()
    os.mkfifo(place.library(good))
    place.give(place.library(good), 0o600)


def device(place: Place, good: bytes) -> None:
    place.made_cache()
    os.mknod(place.library(good), 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero, which has no end
    place.give(place.library(good), 0o600)


def folder_of_that_name(place: Place, good: bytes) -> None:
    place.made_cache()
    place.give(place.library(good))


def cache_a_file(place: Place, good: bytes) -> None:
    place.give(place.cache.parent)
    place.cache.write_bytes(b"")


def unwritable(place: Place, good: bytes) -> None:
    place.made_cache().chmod(0o500)


def unwritable_home(place: Place, good: bytes) -> None:
    place.home.chmod(0o500)


def no_home(place: Place, good: bytes) -> None:
    del place.environment["HOME"]


def mounted(options: str) -> Callable[[Place, bytes], None]:
    """The cache on a file system of its own."""

    def make(place: Place, good: bytes) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tinygpt", str(place.made_cache())], check=True
        )
        place.give(place.cache)

    return make


def untouched(place: Place, good: bytes) -> None:
    pass


BROKEN = [
    *(cut(part) for part in range(1, CUTS + 1)),
    Fault("empty", instead(lambda good: b"")),
    Fault("garbage", instead(lambda good: bytes(reversed(good)))),
    Fault(
        "a flipped bit", instead(lambda good: good[:9000] + bytes([good[9000] ^ 1]) + good[9001:])
    ),
    Fault("without symbols, checksum right", without_symbols, heals=False),
    Fault("a FIFO", fifo),
    Fault("a device", device, root=True),
    Fault("a folder of that name", folder_of_that_name),
    Fault("the cache is a file", cache_a_file, False, True),
    Fault("cache not writable", unwritable, False, True),
    Fault("home not writable", unwritable_home, False, True),
    Fault("no home", no_home, False, True, root=True),
    Fault("noexec", mounted("noexec"), False, True, root=True),
    Fault("10 first starts at once", untouched, starts=10),
]


# -- trying ----------------------------------------------------------------------------------------


def compiled(path: Path, source: str) -> bytes:
    """The bytes of a library made of a line of C."""
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-x", "c", "-o", str(path), "-"],
        input=source,
        text=True,
        check=True,
    )
    return path.read_bytes()


@functools.cache
def good() -> bytes:
    """The bytes of the library that this machine's compiler makes."""
    try:
        return built.kept(built.recipe()).read_bytes()
    except OSError:
        with built.unkept(built.recipe()) as path:
            return path.read_bytes()


class Outcome(NamedTuple):
    """How the starts went, how often they compiled, how the next went, and what was said."""

    first: list[Start]
    builds: int
    later: Start
    line: str

    def wrong(self, fault: Fault) -> bool:
        """Whether anything but the best happened."""
        kinds = {start.kind for start in self.first}
        return (
            kinds != {"cache" if fault.heals else "alone"}
            or self.builds != 1
            or self.later.kind != "cache"
        )


def outcome(fault: Fault, folder: Path, library: bytes | None = None) -> Outcome:
    """Make a fault, start, and start again: with a cache elsewhere where the fault lasts."""
    place = Place(folder, library)
    try:
        fault.make(place, compiled(folder / "evil.so", EVIL) if fault.evil else good())
        first = place.start(fault.starts)
        builds = place.builds()
        if fault.lasts:
            place.environment["XDG_CACHE_HOME"] = str(place.give(folder / "elsewhere"))
        return Outcome(
            first, builds, place.start()[0], "; ".join(first[0].notes) or first[0].reason or ""
        )
    finally:
        if os.path.ismount(place.cache):
            subprocess.run(["umount", str(place.cache)], check=True)


def main() -> int:
    wrong = 0
    print(f"{'fault':38}{'start':8}{'compiled':>8}{'s':>6}   {'next':8}{'s':>6}   said")
    for fault in [*PLANTED, *BROKEN]:
        if fault.root and not AS_ROOT:
            print(f"{fault.name:38}only root can try this")
            continue
        folder = Path(tempfile.mkdtemp(prefix="cache-"))
        try:
            result = outcome(fault, folder)
        finally:
            shutil.rmtree(folder)
        wrong += result.wrong(fault)
        kinds, slowest = (
            ", ".join(sorted({start.kind for start in result.first})),
            max(start.seconds for start in result.first),
        )
        later = f"{result.later.kind:8}{result.later.seconds:6.1f}"
        figures = f"{kinds:8}{result.builds:8}{slowest:6.1f}   {later}"
        print(
            f"{fault.name:38}{figures}   {'WRONG ' * result.wrong(fault)}"
            + result.line.replace(str(folder), ""),
            flush=True,
        )
    print(f"{wrong} wrong")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
