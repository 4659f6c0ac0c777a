"""Folders and files that no other user can change. Code is loaded from these alone.

A file can be replaced by whoever may write its folder, and a folder by whoever may write the one
that holds it. So all are checked, up to /.
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl


class UnavailableError(Exception):
    """There can be no compiled kernels here; says why."""


OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH  # an access control list shows in the bits of the group
# A symbolic link is refused, and opening a FIFO does not wait for somebody who writes to it.
READ = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def private_folder(wanted: Path) -> Path:
    """The real path of this user's folder, which no one else can change. Made where it is missing.

    Folders above it belong to this user or to root. They may be open to all where the sticky bit
    keeps strangers from renaming what is inside. Each is checked before the next is looked at, so
    that nobody can change the path in between. Raises OSError where a folder is not so, where it
    cannot be made, or where the system loads no code from it.
    """
    folder = Path(os.path.realpath(wanted.parent)) / wanted.name
    for each in reversed([folder, *folder.parents]):
        if not os.path.lexists(each):
            each.mkdir(0o700, exist_ok=True)  # two processes may start at once
        _check(each, last=each == folder)
    if os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0):
        raise OSError(f"{folder} is on a file system mounted noexec")
    return folder


def _check(folder: Path, *, last: bool) -> None:
    """Raise OSError where another user can change what is in a folder."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        found = "a symbolic link" if stat.S_ISLNK(status.st_mode) else "no folder"
        raise OSError(f"{folder} is {found}")
    if status.st_uid != os.geteuid() and (last or status.st_uid != 0):
        raise OSError(f"{folder} belongs to user {status.st_uid}")
    if status.st_mode & OTHERS_WRITE and (last or not status.st_mode & stat.S_ISVTX):
        raise OSError(f"other users can write {folder}: run chmod go-w {folder}")


@contextmanager
def private_file(path: Path) -> Iterator[int]:
    """A descriptor to read this user's regular file. OSError where others can write the file."""
    descriptor = os.open(path, READ)
    try:
        status = os.fstat(descriptor)
        own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        if not own or status.st_mode & OTHERS_WRITE:
            raise OSError(f"{path} is no regular file that only this user can write")
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def alone(folder: Path, patience: float) -> Iterator[None]:
    """Hold the lock of a private folder. Raises UnavailableError after `patience` seconds."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | READ, 0o600)
    try:
        deadline = time.monotonic() + patience
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                held = f"another process has held {folder / 'lock'} for {patience:.0f} s"
                raise UnavailableError(held)
            time.sleep(0.05)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Try to take a lock. Where a file system has none, two processes may do the same work."""
    with suppress(OSError):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
