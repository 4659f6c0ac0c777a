"""One owner for a run folder: a lock on the folder itself, which nothing in it can replace; and
where that folder is, if it was renamed.
"""

from __future__ import annotations

import os
from pathlib import Path

from tinygpt.files import lock
from tinygpt.terminal import shown


class Owner:
    """`with Owner(folder):` no other process trains the run in that folder.

    The lock ends with the process, however it ends. Some network drives have no such locks: there
    nothing is locked. Raises InputError where another process trains the run, and OSError where the
    folder cannot be opened.
    """

    def __init__(self, folder: Path):
        self._descriptor: int | None = None
        self.take(folder)

    def take(self, folder: Path) -> None:
        """Own that folder, instead of the one before."""
        descriptor = lock(
            folder,
            f"{shown(folder)} is being trained by another process\n"
            "wait for it, or stop it: Ctrl-C there saves what it has learned",
        )
        self.close()
        self.folder, self._descriptor = folder, descriptor

    def stays(self) -> bool:
        """Whether the folder is still there, under its name."""
        return self._is(self.folder)

    def follow(self) -> Path | None:
        """Where the folder is now; None where it was removed, or where the system does not say."""
        if not self.stays():
            try:
                folder = Path(os.readlink(f"/proc/self/fd/{self._descriptor}"))
            except OSError:
                return None
            if not self._is(folder):
                return None
            here = Path.cwd()
            self.folder = folder.relative_to(here) if folder.is_relative_to(here) else folder
        return self.folder

    def _is(self, folder: Path) -> bool:
        """Whether that is the folder that we own, and not another one of its name."""
        if self._descriptor is None:
            return folder.is_dir()
        try:
            return os.path.samestat(os.stat(folder), os.fstat(self._descriptor))
        except OSError:
            return False

    def close(self) -> None:
        """Others may train there now."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
