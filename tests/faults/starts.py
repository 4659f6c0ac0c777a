"""Processes that want the compiled kernels, in folders made for them, and how each went."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from tensor.kernels.cpu import built

AS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
# Whose starts these are, and who attacks.
USER, OTHER = (65533, 65534) if AS_ROOT else (os.geteuid(), os.geteuid())
SPOKEN = "planted code ran"
LIMIT = 60  # seconds for a start: a hang takes longer

# All is imported before it becomes USER, who may not be able to read these files.
START = """
import json, os, subprocess, sys, time
import numpy, threadpoolctl
import tensor
from pathlib import Path
from tensor.kernels.cpu import built, compiled
built.HERE = Path(sys.argv[2])
found = threadpoolctl.ThreadpoolController()
threadpoolctl.ThreadpoolController = lambda: found
if os.geteuid() != int(sys.argv[1]):
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
began = time.perf_counter()
reason = compiled.unavailable()
print(json.dumps([reason, tensor.kernels.NOTES, time.perf_counter() - began]))
"""


class Start(NamedTuple):
    """How one start went."""

    reason: str | None  # why there are no kernels
    notes: list[str]
    seconds: float
    trouble: str = ""  # what must never be: code of others, a crash, a hang, a folder left behind

    @property
    def kind(self) -> str:
        """cache: kernels, nothing said. alone, NumPy: a line said why. Or the trouble."""
        if self.trouble or len(self.notes) > 1:
            return self.trouble or f"MANY LINES: {self.notes}"
        return "NumPy" if self.reason else "alone" if self.notes else "cache"


class Place:
    """Folders of USER, and a compiler that counts. With `library` it copies that instead."""

    def __init__(self, folder: Path, library: bytes | None = None) -> None:
        folder.chmod(0o755)
        self.folder, self.sources, self.compiler = folder, folder / "sources", folder / "compiler"
        shutil.copytree(built.HERE, self.sources, ignore=shutil.ignore_patterns("__pycache__"))
        self.home, self.temporary, self.work, log = (
            self.give(folder / name) for name in ("home", "temporary", "work", "log")
        )
        self.cache, self.log = self.home / ".cache" / "tinygpt", log / "builds"
        work = f'exec {shutil.which("cc")} "$@"'
        if library is not None:
            (folder / "made").write_bytes(library)
            work = f'while [ "$1" != -o ]; do shift; done; cp {folder / "made"} "$2"'
        self.compiler.write_text(f"#!/bin/sh\necho once >> {self.log}\n{work}\n")
        self.compiler.chmod(0o755)
        self.environment = {
            "HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "CC": str(self.compiler),
        }

    def give(self, path: Path, mode: int = 0o711, user: int = USER) -> Path:
        """Make a folder, unless there is something of that name, and give it to a user."""
        if not path.exists():
            path.mkdir()
        os.chown(path, user, user)
        path.chmod(mode)
        return path

    def made_cache(self) -> Path:
        """The cache as a start would make it, except that others may look for a name inside."""
        self.give(self.cache.parent)
        return self.give(self.cache)

    def library(self, content: bytes) -> Path:
        """Where a start looks for a library with this content."""
        before = os.environ.get("CC")
        os.environ["CC"] = str(self.compiler)
        try:
            return self.cache / f"{built.recipe().name}-{built._hash(content)}.so"
        finally:
            os.environ.pop("CC")
            os.environ.update({} if before is None else {"CC": before})

    def builds(self) -> int:
        """How often the compiler has run since this was asked last."""
        count = len(self.log.read_text().split()) if self.log.exists() else 0
        self.log.unlink(missing_ok=True)
        return count

    def start(self, times: int = 1) -> list[Start]:
        """Start that many processes at once, and wait for all."""
        variables = {
            key: value
            for key, value in os.environ.items()
            if not key.startswith(("TENSOR_", "XDG_")) and key != "HOME"
        }
        variables |= {"PYTHONPATH": str(Path(__file__).parents[2]), **self.environment}
        command = [sys.executable, "-c", START, str(USER), str(self.sources)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes = [
            subprocess.Popen(command, cwd=self.work, env=variables, **pipes) for _ in range(times)
        ]
        starts = [self.answer(process) for process in processes]
        left = [path.name for path in self.temporary.iterdir()]
        return [
            start._replace(trouble=start.trouble or f"LEFT BEHIND: {left}") if left else start
            for start in starts
        ]

    def answer(self, process: subprocess.Popen[str]) -> Start:
        """What a start printed."""
        try:
            out, error = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return Start(None, [], LIMIT, "HANGS")
        if SPOKEN in out:
            return Start(None, [], 0, "PLANTED CODE RAN")
        if process.returncode or error:
            return Start(None, [], 0, f"FAILED: {process.returncode} {error[-200:]}")
        return Start(*json.loads(out))
