"""Every CUDA kernel under compute-sanitizer: bad addresses, races in shared memory, reads of memory
that nothing wrote.

    python -m tests.faults.cuda_sanitizer                     memcheck, racecheck, initcheck
    python -m tests.faults.cuda_sanitizer --tool memcheck     one of them
    python -m tests.faults.cuda_sanitizer --calls             only the calls, without a sanitizer

The calls are those of the gradient checks in every float dtype and some larger ones of odd sizes,
and steps of a small GPT. CuPy's pool would hide an overrun inside its own blocks, so every array
here is an allocation of the driver. Exit code 1 where a sanitizer reported anything, or a kernel in
a .cu file was never launched. Without a GPU or compute-sanitizer one line says so, and the exit
code is 0.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tensor import Generator, kernels
from tensor.errors import DeviceError
from tensor.gradient_cases import CASES
from tensor.kernels.cuda.launch import FOLDER, Source
from tensor.memory.devices import cupy
from tensor.ops import OPS
from tests.helpers.agreement import found, laid
from tinygpt import GPT, GPTConfig
from tinygpt.config import TrainConfig
from tinygpt.training.step import optimizer_of, update

TOOLS = ["memcheck", "racecheck", "initcheck"]
DTYPES = ["float32", "float64", "float16", "bfloat16"]
PLACES = ["/usr/local/cuda/bin", "/opt/nvidia/nsight-compute"]  # where PATH may not lead
Launched = set[str]


@contextmanager
def launches() -> Iterator[Launched]:
    """The names of the kernels that are launched inside."""
    names: Launched = set()
    launch = Source.launch

    def noted(self: Source, kernel: str, *arguments: Any, **options: Any) -> None:
        names.add(kernel)
        launch(self, kernel, *arguments, **options)

    Source.launch = noted  # type: ignore[method-assign]
    try:
        yield names
    finally:
        Source.launch = launch  # type: ignore[method-assign]


def declared() -> Launched:
    """The names of the kernels in all .cu files."""
    texts = [path.read_text() for path in sorted(FOLDER.glob("*.cu"))]
    bounds = r"(?:__launch_bounds__\([^)]*\)\s*)?"
    return set(re.findall(rf"^KERNEL\s+{bounds}(\w+)\(", "\n".join(texts), re.MULTILINE))


def call_ops(dtype: str) -> None:
    """The cases of every op that has a CUDA kernel, forward and backward: row-major, and a
    transpose.
    """
    names = {name for name, known in kernels.KERNELS.items() if any_cuda(known)}
    for case in CASES:
        if case.op in names & OPS.keys():
            for layout in ("C", "F"):
                found(case.call, [laid(x, layout, "cuda", dtype) for x in case.inputs(0)])


def any_cuda(known: list[kernels.Kernel]) -> bool:
    return any(kernel.device == "cuda" for kernel in known)


def train(dtype: str, width: int, heads: int, vocabulary: int, context: int) -> None:
    """Two steps of a small GPT with dropout. Odd sizes leave vectors, warps and tiles unfilled."""
    shape = GPTConfig(vocabulary, context, width, heads, layers=1, dropout=0.1)
    model = GPT(shape, generator=Generator(0), dtype=dtype, device="cuda").train()
    optimizer = optimizer_of(model, TrainConfig(dtype=dtype))
    ids = np.random.default_rng(0).integers(0, vocabulary, (3, context + 1))
    for _ in range(2):
        update(model, optimizer, ids[:, :-1], ids[:, 1:], 1.0)


def calls() -> int:
    """Call everything; the number of kernels that were never launched."""
    cupy().cuda.set_allocator(None)
    with launches() as launched, np.errstate(all="ignore"):
        for dtype in DTYPES:
            call_ops(dtype)
            train(dtype, width=64, heads=1, vocabulary=1025, context=130)
            train(dtype, width=51, heads=3, vocabulary=77, context=37)
    cupy().cuda.Device().synchronize()
    missed = declared() - launched
    print(f"{len(launched)} kernels launched; never: {', '.join(sorted(missed)) or 'none'}")
    return len(missed)


def sanitizer() -> str | None:
    """The path of compute-sanitizer."""
    if on_path := shutil.which("compute-sanitizer"):
        return on_path
    places = [place for place in map(Path, PLACES) if place.is_dir()]
    found_there = [str(path) for place in places for path in place.rglob("compute-sanitizer")]
    return next((path for path in found_there if os.access(path, os.X_OK)), None)


def run(program: str, tool: str) -> int:
    """Run the calls under a tool; its exit code, 1 where it found something."""
    start = time.perf_counter()
    child = [sys.executable, "-m", "tests.faults.cuda_sanitizer", "--calls"]
    command = [program, "--tool", tool, "--error-exitcode", "1", "--print-limit", "20", *child]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    print(done.stdout[-6000:] if done.returncode else "\n".join(done.stdout.splitlines()[-2:]))
    print(f"{tool}: exit code {done.returncode}, {time.perf_counter() - start:.0f} s", flush=True)
    return int(done.returncode != 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tool", choices=TOOLS, help="default: all")
    parser.add_argument("--calls", action="store_true", help="only the calls")
    options = parser.parse_args()
    try:
        cupy()
    except DeviceError as error:
        print(f"skipped: {error}")
        return 0
    if options.calls:
        return int(calls() > 0)
    program = sanitizer()
    if program is None:
        print("skipped: no compute-sanitizer here; it comes with the CUDA toolkit")
        return 0
    return max(run(program, tool) for tool in ([options.tool] if options.tool else TOOLS))


if __name__ == "__main__":
    sys.exit(main())
