"""`python -m tests.zoo [ROW ...]`: put each bug back into a copy of the tree, one at a time, and
see its test fail.

Prints one line for each bug, then the number killed. Exits with 1 when a bug survives. A bug that
needs a GPU is skipped, with a line that says so, on a machine without one.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

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


def survives(bug: Bug, folder: Path) -> str | None:
    """None when the test fails with the bug in; else why the bug lives."""
    target = folder / bug.file
    text = target.read_text()
    if text.count(bug.old) != 1:
        return f"its snippet occurs {text.count(bug.old)} times in {bug.file}"
    target.write_text(text.replace(bug.old, bug.new))
    try:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-x",
            "-q",
            "-p",
            "no:cacheprovider",
            "--device",
            bug.device,
            bug.test,
        ]
        # built C files stay there
        environment = {
            **os.environ,
            "PYTHONPATH": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_CACHE_HOME": str(folder),
        }
        run = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
    finally:
        target.write_text(text)
    if run.returncode == 1:  # tests ran, and one failed
        return None
    return (
        "its test passes"
        if run.returncode == 0
        else f"pytest exited {run.returncode}: {run.stdout[-200:]}"
    )


def main() -> int:
    if not all(argument.isdigit() for argument in sys.argv[1:]):
        print(__doc__, file=sys.stderr)
        return 2
    rows = {int(argument) for argument in sys.argv[1:]}
    chosen = [bug for bug in bugs() if not rows or bug.row in rows]
    absent = {device for device in {bug.device for bug in chosen} if missing(device)}
    alive = untried = 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("tensor", "tinygpt", "tests"):
            shutil.copytree(
                ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__")
            )
        shutil.copy(ROOT / "pyproject.toml", folder)
        for bug in chosen:
            if bug.device in absent:
                untried += 1
                print(f"row {bug.row:2}  needs a GPU  {bug.test}", flush=True)
                continue
            reason = survives(bug, folder)
            alive += reason is not None
            said = "killed" if reason is None else f"ALIVE: {reason}"
            print(f"row {bug.row:2}  {said}  {bug.test}", flush=True)
    print(
        f"{len(chosen) - untried - alive} of {len(chosen)} killed"
        + f", {untried} not tried: no GPU here" * (untried > 0)
    )
    return int(alive > 0)


if __name__ == "__main__":
    sys.exit(main())
