"""`python -m tests.zoo [ROW ...]`: put each bug back into a copy of the tree, one at a time, and
see its test fail.

Every test first runs without a bug: a test that does not pass then proves nothing. Prints one line
for each bug, then the number killed. Exits with 1 when a bug survives. A bug is not tried on a
machine without the GPU or the package that its test needs; its line says so.
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
from collections import ChainMap, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import tests.zoo
from tensor.errors import DeviceError
from tensor.memory.devices import array_module
from tests.zoo.bug import Bug

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


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


def unfit(folder: Path, device: str, tests: Sequence[str]) -> dict[str, str]:
    """What comes of those tests of one file that do not pass without a bug: they prove nothing."""
    run = pytest(folder, device, "-rpfEs", *tests)

    def has(outcome: str, test: str) -> bool:
        line = rf"^{outcome} {re.escape(test)}(?=\[| - |$)"
        return bool(re.search(line, run.stdout, re.MULTILINE))

    outcomes = {}
    for test in tests:
        if has("(FAILED|ERROR)", test):
            outcomes[test] = "ALIVE: its test fails without the bug too"
        elif not has("PASSED", test):
            skipped = re.search(r"^SKIPPED \[\d+\] (.+)", run.stdout, re.MULTILINE)
            outcomes[test] = (
                f"not tried: {skipped[1]}"
                if skipped
                else f"ALIVE: its test does not run: {(run.stdout + run.stderr)[-200:].strip()}"
            )
    return outcomes


def tried(folder: Path, bug: Bug) -> str:
    """ "killed" when the test fails with the bug in; else why the bug lives."""
    target = folder / bug.file
    text = target.read_text()
    if text.count(bug.old) != 1:
        return f"ALIVE: its snippet occurs {text.count(bug.old)} times in {bug.file}"
    target.write_text(text.replace(bug.old, bug.new))
    try:
        run = pytest(folder, bug.device, "-x", bug.test)
    except subprocess.TimeoutExpired:
        return "ALIVE: its test does not end"
    finally:
        target.write_text(text)
    if run.returncode == 1:  # tests ran, and one failed
        return "killed"
    if run.returncode == 0:
        return "ALIVE: its test passes"
    return f"ALIVE: pytest exited {run.returncode}: {run.stdout[-200:]}"


def copied(folder: Path) -> Path:
    """What the tests need of the tree, in that folder."""
    for name in ("tensor", "tinygpt", "tests", "examples", "docs", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    return folder


def hunt(chosen: list[Bug], folders: list[Path]) -> list[str]:
    """Try each bug, a folder a process; print the lines. What came of each."""
    free: SimpleQueue[Path] = SimpleQueue()
    for folder in folders:
        free.put(folder)

    def in_a_folder(function: Callable[..., T], *arguments: Any) -> T:
        folder = free.get()
        try:
            return function(folder, *arguments)
        finally:
            free.put(folder)

    def without_bugs(place: tuple[str, str]) -> dict[tuple[str, str], str]:
        device, _ = place
        outcomes = in_a_folder(unfit, device, sorted(places[place]))
        return {(device, test): outcome for test, outcome in outcomes.items()}

    def with_bug(bug: Bug) -> str:
        return known.get((bug.device, bug.test)) or in_a_folder(tried, bug)

    places = defaultdict(set)  # device and file -> tests
    for bug in chosen:
        places[bug.device, bug.test.partition("::")[0]].add(bug.test)
    found = []
    with ThreadPoolExecutor(len(folders)) as pool:
        known = dict(ChainMap(*pool.map(without_bugs, places)))
        for bug, outcome in zip(chosen, pool.map(with_bug, chosen), strict=True):
            print(f"row {bug.row:2}  {outcome}  {bug.test}", flush=True)
            found.append(outcome)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    parser.add_argument("rows", nargs="*", type=int, metavar="ROW", help="these rows alone")
    parser.add_argument("--processes", type=int, default=1, metavar="N", help="bugs side by side")
    options = parser.parse_args()
    wanted = [bug for bug in bugs() if not options.rows or bug.row in options.rows]
    absent = {device for device in {bug.device for bug in wanted} if missing(device)}
    for bug in wanted:
        if bug.device in absent:
            print(f"row {bug.row:2}  not tried: needs a GPU  {bug.test}")
    chosen = [bug for bug in wanted if bug.device not in absent]
    with tempfile.TemporaryDirectory() as temporary:
        folders = [copied(Path(temporary) / str(i)) for i in range(options.processes)]
        found = hunt(chosen, folders)
    killed, alive = (
        sum(outcome.startswith(word) for outcome in found) for word in ("killed", "ALIVE")
    )
    print(f"{killed} of {len(wanted)} killed, {len(wanted) - killed - alive} not tried")
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
