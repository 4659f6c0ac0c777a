"""`python -m tests.zoo [ROW ...]`: put each bug back into a copy of the tree, one at a time, and
see its test fail.

Every test first runs without a bug: a test that fails then proves nothing. Prints one line for each
bug, then the number killed. Exits with 1 when a bug survives. A machine without a GPU skips the
bugs that need one, and says so.
"""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import tests.zoo
from tensor.errors import DeviceError
from tensor.memory.devices import array_module
from tests.zoo.bug import Bug

ROOT = Path(__file__).resolve().parents[2]


def bugs() -> list[Bug]:
    """Every entry of every file in this folder, by row."""
    found: list[Bug] = []
    for module in pkgutil.iter_modules(tests.zoo.__path__):
        found += (
            getattr(importlib.import_module(f"tests.zoo.{module.name}"), "ZOO", [])
            if module.name != "__main__"
            else []
        )
    return sorted(found)


def missing(device: str) -> bool:
    """Whether this machine lacks it."""
    try:
        array_module(device)
    except DeviceError:
        return True
    return False


def pytest(folder: Path, device: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tests of the copy in `folder`. Kernels that are built stay there."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", device]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "XDG_CACHE_HOME": str(folder),
    }
    return subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


def failing(folder: Path, device: str, tests: Sequence[str]) -> set[str]:
    """Those of the tests that fail, or cannot run, though no bug is in."""
    if not tests:
        return set()
    run = pytest(folder, device, "-rfE", *tests)
    failed = set(re.findall(r"^(?:FAILED|ERROR) (\S+)", run.stdout, re.MULTILINE))
    return failed or (set(tests) if run.returncode else set())


def survives(bug: Bug, folder: Path) -> str | None:
    """None when the test fails with the bug in; else why the bug lives."""
    target = folder / bug.file
    text = target.read_text()
    if text.count(bug.old) != 1:
        return f"its snippet occurs {text.count(bug.old)} times in {bug.file}"
    target.write_text(text.replace(bug.old, bug.new))
    try:
        run = pytest(folder, bug.device, "-x", bug.test)
    except subprocess.TimeoutExpired:
        return "its test does not end"
    finally:
        target.write_text(text)
    if run.returncode == 1:  # tests ran, and one failed
        return None
    if run.returncode == 0:
        return "its test passes"
    return f"pytest exited {run.returncode}: {run.stdout[-200:]}"


def copied(folder: Path) -> Path:
    """What the tests need of the tree, in that folder."""
    for name in ("tensor", "tinygpt", "tests", "examples", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def hunt(chosen: list[Bug], folders: list[Path]) -> int:
    """Try each bug, a folder a process; print the lines. The number that lives."""
    n, broken = len(folders), set[str]()
    free: SimpleQueue[Path] = SimpleQueue()
    for folder in folders:
        free.put(folder)

    def tried(bug: Bug) -> str | None:
        if any(test.startswith(bug.test) for test in broken):
            return "its test fails without the bug too"
        folder = free.get()
        try:
            return survives(bug, folder)
        finally:
            free.put(folder)

    alive = 0
    with ThreadPoolExecutor(n) as pool:
        for device in sorted({bug.device for bug in chosen}):
            tests = sorted({bug.test for bug in chosen if bug.device == device})
            shares = [tests[i::n] for i in range(n)]
            broken = broken.union(*pool.map(failing, folders, [device] * n, shares))
        for bug, reason in zip(chosen, pool.map(tried, chosen), strict=True):
            alive += reason is not None
            said = f"ALIVE: {reason}" if reason else "killed"
            print(f"row {bug.row:2}  {said}  {bug.test}", flush=True)
    return alive


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help="these rows alone")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="bugs side by side")
    options = parser.parse_args()
    chosen = [bug for bug in bugs() if not options.rows or bug.row in options.rows]
    absent = {device for device in {bug.device for bug in chosen} if missing(device)}
    untried = [bug for bug in chosen if bug.device in absent]
    for bug in untried:
        print(f"row {bug.row:2}  needs a GPU  {bug.test}")
    chosen = [bug for bug in chosen if bug.device not in absent]
    with tempfile.TemporaryDirectory() as temporary:
        folders = [copied(Path(temporary) / str(i)) for i in range(options.processes)]
        alive = hunt(chosen, folders)
    print(
        f"{len(chosen) - alive} of {len(chosen)} killed"
        + f", {len(untried)} not tried: no GPU here" * bool(untried)
    )
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
