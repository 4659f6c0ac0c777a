"""Every CUDA kernel under compute-sanitizer: bad addresses, races in shared memory, reads of memory
that nothing wrote, threads that do not wait for all others.

    python -m tests.faults.cuda_sanitizer                     all four tools
    python -m tests.faults.cuda_sanitizer --tools memcheck    one of them
    python -m tests.faults.cuda_sanitizer --part attention    the kernels of one folder
    python -m tests.faults.cuda_sanitizer --calls bfloat16    only the calls, without a sanitizer

The calls are the gradient checks of the ops that have CUDA kernels, and steps and texts of small
GPTs of odd sizes, in every float dtype. CuPy's pool would hide an overrun inside its own blocks, so
every array here is an allocation of the driver. Each tool and dtype has a process of its own, and
all run at once: a sanitizer makes calls ten times as slow. Exit code 1 where a sanitizer reported
anything, or a kernel in a .cu file was never launched. Without a GPU or compute-sanitizer one line
says so, and the exit code is 0.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tensor import Generator, kernels, no_grad, ops
from tensor.errors import DeviceError
from tensor.gradient_cases import CASES
from tensor.kernels.cuda.attention import by_hand, versions
from tensor.kernels.cuda.gelu import gelu_backward_sums
from tensor.kernels.cuda.launch import FOLDER, Source
from tensor.kernels.cuda.sums import column_sums
from tensor.memory.devices import cupy, move, to_host
from tensor.random import Key
from tests.helpers.agreement import Raised, found, laid
from tests.helpers.attention_cases import UNITS, Example, errors
from tinygpt import GPT, GPTConfig
from tinygpt.config import TrainConfig
from tinygpt.training.step import optimizer_of, update

TOOLS = ["memcheck", "racecheck", "initcheck", "synccheck"]
DTYPES = ["float32", "float64", "float16", "bfloat16"]
LAUNCHED = "launched:"
PLACES = ["/usr/local/cuda/bin", "/opt/nvidia/nsight-compute"]  # where PATH may not lead
MANY = [
    Example("", 2, 2, 130, 130, 64, True),
    Example("", 1, 2, 70, 201, 32, True, "padding", 0.3),
    Example("", 1, 1, 65, 129, 128, packed=False),
]
FEW = [
    Example("", 2, 2, 1, 300, 64, packed=False),
    Example("", 2, 2, 3, 257, 20, True, "padding", 0.3),
    Example("", 1, 1, 4, 511, 128, True, packed=False),
]
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


def declared(folder: Path = FOLDER) -> Launched:
    """The names of the kernels in all .cu files."""
    texts = [path.read_text() for path in sorted(folder.rglob("*.cu*"))]
    bounds = r"(?:__launch_bounds__\([^)]*\)\s*)?"
    return set(re.findall(rf"^KERNEL\s+{bounds}(\w+)\(", "\n".join(texts), re.MULTILINE))


def call_ops(dtype: str) -> None:
    """The cases of every op that has a CUDA kernel, forward and backward: row-major, and a
    transpose.
    """
    names = {name for name, known in kernels.KERNELS.items() if any_cuda(known)}
    for case in CASES:
        if case.op in names:
            for layout in ("C", "F"):
                both_ways(case.call, [laid(x, layout, "cuda", dtype) for x in case.inputs(0)])


def both_ways(call: Any, inputs: list[Any]) -> None:
    """Forward and backward. An error ends the program."""
    facts = found(call, inputs)
    raised = [fact for fact in facts.values() if isinstance(fact, Raised)]
    if raised:
        raise SystemExit(f"{call}: {raised[0]}: {raised[0].words}")


def call_larger(dtype: str) -> None:
    """Rows and columns of more than a block, in vectors and not: kernels that ops reach, and those
    that other kernels may call.
    """
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 3000, 5000)
    for columns in (77, 1600):
        shapes: list[tuple[Any, list[tuple[int, ...]]]] = [
            (ops.layer_norm, [(1100, columns), (columns,), (columns,)]),
            (partial(ops.dropout, p=0.3, key=Key(1)), [(1100, columns)]),
            (partial(ops.embedding, ids), [(3000, columns)]),
            (partial(ops.cross_entropy, targets=ids[:40] % 1000), [(40, 16 * columns)]),
        ]
        for call, sizes in shapes:
            inputs = [laid(rng.standard_normal(size), "C", "cuda", dtype) for size in sizes]
            both_ways(call, inputs)
        x, dy = (laid(rng.standard_normal((1100, columns)), "C", "cuda", dtype) for _ in range(2))
        column_sums(x.array)
        gelu_backward_sums(dy.array, x.array)


def call_attention(dtype: str) -> None:
    """Each version of attention by hand that takes the dtype: tiles that are full, and not; and
    few queries, by the version that is chosen for them.
    """
    usual = by_hand.version_for
    chosen = [versions.plain, versions.tiles]
    chosen += [versions.tensor_cores] if dtype in ("float16", "bfloat16") else []
    try:
        for version in chosen:
            by_hand.version_for = lambda *_, version=version: version
            call_version(version.__name__, MANY, dtype)
    finally:
        by_hand.version_for = usual
    with no_grad():  # else there may be a backward, which decoding is not for
        call_version("decoding", FEW, dtype)


def call_version(name: str, examples: list[Example], dtype: str) -> None:
    for example in examples:
        example = example._replace(dtype=dtype)
        if not errors(example, lambda x: move(x, "cuda"), to_host) <= UNITS[dtype]:
            raise SystemExit(f"wrong: {name} {example}")


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


def write(dtype: str, width: int, heads: int) -> None:
    """Texts of small GPTs: one text, and more than a matrix-vector product is for; then one text
    by weights of 8 bits. The head is the token table, or not.
    """
    for tied in (True, False):
        shape = GPTConfig(1003, context=40, width=width, heads=heads, layers=2, tied=tied)
        model = GPT(shape, generator=Generator(0), dtype=dtype, device="cuda")
        for rows in (1, 5, 1):
            ids = np.random.default_rng(rows).integers(0, 1003, (rows, 9))
            model.generate(ids, 20, top_k=40, top_p=0.9, generator=Generator(1))
            if rows > 1:
                model.to_int8()


# what calls the kernels of a folder, and what calls the others
PARTS: dict[str, list[Callable[[str], None]]] = {
    "attention": [call_attention],
    "generation": [partial(write, width=64, heads=2)],
    "": [
        call_ops,
        call_larger,
        partial(train, width=64, heads=1, vocabulary=1025, context=130),
        partial(train, width=51, heads=3, vocabulary=77, context=37),
    ],
}


def calls(dtype: str, part: str | None) -> Launched:
    """Call everything in one dtype, or one part; the kernels that were launched."""
    cupy().cuda.set_allocator(None)
    chosen = PARTS.values() if part is None else [PARTS[part]]
    with launches() as launched, np.errstate(all="ignore"):
        for call in itertools.chain(*chosen):
            call(dtype)
    cupy().cuda.Device().synchronize()
    return launched


def sanitizer() -> str | None:
    """The path of compute-sanitizer."""
    if on_path := shutil.which("compute-sanitizer"):
        return on_path
    places = [place for place in map(Path, PLACES) if place.is_dir()]
    found_there = [str(path) for place in places for path in place.rglob("compute-sanitizer")]
    return next((path for path in found_there if os.access(path, os.X_OK)), None)


def run(program: str, part: str | None, tool: str, dtype: str) -> tuple[int, Launched]:
    """The calls in a dtype under a tool: (exit code, kernels that were launched)."""
    start = time.perf_counter()
    child = [sys.executable, "-m", "tests.faults.cuda_sanitizer", "--calls", dtype]
    child += ["--part", part] if part else []
    command = [program, "--tool", tool, "--error-exitcode", "1", "--print-limit", "20", *child]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    lines = done.stdout.splitlines()
    launched = next((line for line in lines if line.startswith(LAUNCHED)), LAUNCHED)
    shown = done.stdout[-3000:] if done.returncode else (lines or [""])[-1]
    seconds = time.perf_counter() - start
    print(f"{tool}, {dtype}: exit code {done.returncode}, {seconds:.0f} s\n{shown}", flush=True)
    return done.returncode, set(launched.removeprefix(LAUNCHED).split())


def check(program: str, tools: list[str], part: str | None) -> int:
    """All tools and dtypes; 1 where one found something or a kernel was never launched."""
    pairs = [(tool, dtype) for tool in tools for dtype in DTYPES]
    with ThreadPoolExecutor(len(pairs)) as pool:
        ended = list(pool.map(lambda pair: run(program, part, *pair), pairs))
    all_kernels = declared(FOLDER / (part or ""))
    missed = all_kernels - set().union(*(launched for _, launched in ended))
    print(f"never launched: {', '.join(sorted(missed)) or 'none'} of {len(all_kernels)} kernels")
    return int(bool(missed) or any(code for code, _ in ended))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--part", choices=sorted(filter(None, PARTS)), help="one folder alone")
    parser.add_argument("--calls", choices=DTYPES, help="only the calls, in a dtype")
    options = parser.parse_args()
    try:
        cupy()
    except DeviceError as error:
        print(f"skipped: {error}")
        return 0
    if options.calls:
        print(LAUNCHED, *sorted(calls(options.calls, options.part)))
        return 0
    program = sanitizer()
    if program is None:
        print("skipped: no compute-sanitizer here; it comes with the CUDA toolkit")
        return 0
    return check(program, options.tools, options.part)


if __name__ == "__main__":
    sys.exit(main())
