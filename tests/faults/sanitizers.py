"""The C kernels built with sanitizers, and run: the kernel tests of the suite, then random shapes
and strides of every kernel.

    python -m tests.faults.sanitizers --shapes 20000      a table: kernel, calls, how many C took,
    reports, differences from the reference
    python -m tests.faults.sanitizers --thread            races between threads, instead of
    addresses and undefined behaviour

Exit code 1 where a sanitizer reported anything, a kernel and its reference differ, or a test fails.
Without a gcc that has sanitizers, one
line says so, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.shapes import REPORT

ROOT = Path(__file__).resolve().parents[2]
TESTS = [
    *(f"tests/tensor/kernels/test_{name}.py" for name in ("cpu", "edges", "extremes", "memory")),
    "tests/tensor/autograd/test_buffers.py",
    "tests/tinygpt/model/test_cache.py",
    "tests/tinygpt/model/test_int8.py",
]
# what must be loaded before Python
RUNTIMES = {"address,undefined": ("libasan.so", "libubsan.so"), "thread": ("libtsan.so",)}
FLAGS = {
    "address,undefined": "-fsanitize=address,undefined -fsanitize-recover=address,undefined",
    "thread": "-fsanitize=thread",
}
SHOWN = 12  # lines of a report
PIECE = 5000  # calls in a process
Table = dict[str, dict[str, int]]  # kernel -> column -> count


def preloads(compiler: str | None, kind: str) -> list[str]:
    """The files of the sanitizers' runtime; none where this compiler lacks them."""
    if compiler is None:
        return []
    asked = [[compiler, f"-print-file-name={name}"] for name in RUNTIMES[kind]]
    found = [
        subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        for command in asked
    ]
    return found if all(Path(path).is_absolute() and Path(path).exists() for path in found) else []


def environment(compiler: str, kind: str, libraries: list[str], folder: Path) -> dict[str, str]:
    """The variables under which Python builds the kernels with sanitizers, into this folder, and
    loads them.
    """
    wrapper = folder / "cc"
    wrapper.write_text(
        f'#!/bin/sh\nexec {compiler} "$@" {FLAGS[kind]} -fno-omit-frame-pointer -g1\n'
    )
    wrapper.chmod(0o700)
    report = f"log_path={folder / 'report'}:halt_on_error=0"
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("TENSOR_")},
        "CC": str(wrapper),
        "XDG_CACHE_HOME": str(folder),
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": f"{report}:detect_leaks=0",
        "UBSAN_OPTIONS": f"{report}:print_stacktrace=1",
        "TSAN_OPTIONS": f"{report}:suppressions={suppressions(folder)}",
    }


def suppressions(folder: Path) -> Path:
    """What the thread sanitizer must not report: it sees nothing of how threads that it did not
    compile wait for each other.
    """
    path = folder / "suppressions"
    path.write_text(
        "".join(
            f"called_from_lib:{name}\n"
            for name in ("libscipy_openblas", "_multiarray_umath", "libpython")
        )
    )
    return path


def reports(folder: Path) -> list[str]:
    """The first lines of each report."""
    found = []
    for path in sorted(folder.glob("report.*")):
        lines = path.read_text(errors="replace").splitlines()
        found += [
            "\n".join(lines[i : i + SHOWN]) for i, line in enumerate(lines) if REPORT.search(line)
        ]
    return found


def kernel_tests(variables: dict[str, str]) -> int:
    """Run the suite's tests of the kernels; pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", *TESTS]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(run.stdout[-2000:] if run.returncode else run.stdout.strip().splitlines()[-1])
    return run.returncode


def shapes(calls: int, seed: int, variables: dict[str, str], folder: Path) -> tuple[Table, int]:
    """The counts of all pieces together, and how many of them ended badly."""
    total: Table = {}
    failed = 0
    for start in range(0, calls, PIECE):
        command = [
            sys.executable,
            "-m",
            "tests.faults.shapes",
            "--calls",
            str(min(PIECE, calls - start)),
            "--seed",
            str(seed + start),
        ]
        run = subprocess.run(
            [*command, "--log", str(folder / "report")],
            cwd=ROOT,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        *said, last = run.stdout.strip().splitlines() or [""]
        print("\n".join(said), end="\n" if said else "")
        if not last.startswith("{"):
            print(f"exit code {run.returncode}: {last}\n{run.stderr[-1500:]}")
            failed += 1
            continue
        for name, row in json.loads(last).items():
            counts = total.setdefault(name, dict.fromkeys(row, 0))
            for column, count in row.items():
                counts[column] += count
    return total, failed


def show(total: Table) -> None:
    columns = ["calls", "taken", "reports", "differences"]
    print(f"\n{'kernel':24}" + "".join(f"{column:>13}" for column in columns))
    for name, row in total.items():
        print(f"{name:24}" + "".join(f"{row[column]:13,}" for column in columns))
    print(
        f"{'all':24}"
        + "".join(f"{sum(row[column] for row in total.values()):13,}" for column in columns)
    )


def main() -> int:
    """Build, test, draw shapes, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--shapes", type=int, default=2000, help="calls of kernels with random shapes (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--thread", action="store_true", help="look for races instead")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests of the suite")
    options = parser.parse_args()
    kind, compiler = "thread" if options.thread else "address,undefined", shutil.which("gcc")
    libraries = preloads(compiler, kind)
    if compiler is None or not libraries:
        print(f"skipped: no gcc with -fsanitize={kind} here")
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder, start = Path(name), time.perf_counter()
        variables = environment(compiler, kind, libraries, folder)
        # first: it keeps the compiler out of the sanitizers
        total, broken = shapes(options.shapes, options.seed, variables, folder)
        failed = 0 if options.no_tests else kernel_tests(variables)
        show(total)
        found = reports(folder)
        print(
            f"{len(found)} reports of -fsanitize={kind}, tests included; "
            f"{time.perf_counter() - start:.0f} s"
        )
        print("\n\n".join(found[:20]))
        return int(
            bool(failed or broken or found or any(row["differences"] for row in total.values()))
        )


if __name__ == "__main__":
    raise SystemExit(main())
