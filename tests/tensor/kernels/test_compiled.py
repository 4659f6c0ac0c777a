"""How the C files become a library, and what threads, forks and other processors change: never a
bit of a result.
"""

from __future__ import annotations

import os
import platform
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import tensor
from tensor import Tensor, grad
from tensor.kernels.cpu import built, compiled
from tensor.ops.op import OPS
from tensor.random import Generator, Key, keyed
from tests.helpers.kernel_runs import compiled_kernels, draw
from tinygpt import GPT, GPTConfig, TrainConfig
from tinygpt.training.step import optimizer_of, update

__all__ = ["compiled_kernels"]
Array = Any
ROOT = Path(tensor.__file__).parents[1]
linear = OPS["linear"]
needs_kernels = pytest.mark.usefixtures("compiled_kernels")

# A training step by whatever there is, and what that was.
STEP = """
import numpy as np
import tensor
from tensor.random import Generator
from tinygpt import GPT, GPTConfig, TrainConfig
from tinygpt.training.step import optimizer_of, update
model = GPT(GPTConfig(11, 7, 12, 3, 2), generator=Generator(1))
ids = np.arange(22).reshape(2, 11)[:, :7] % 11
print(update(model, optimizer_of(model, TrainConfig()), ids, (ids + 1) % 11, 1.0))
print(tensor.kernels.explain())
"""


def started(program: str, **environment: str) -> subprocess.Popen[str]:
    variables = {
        name: value for name, value in os.environ.items() if not name.startswith("TENSOR_")
    } | environment
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """Its output. Nothing may have been said on stderr."""
    out, error = process.communicate(timeout=120)
    assert (process.returncode, error) == (0, "")
    return out


def reasons(out: str) -> dict[str, list[str]]:
    """op -> [implementation, reason], from the table that the program printed."""
    return {line.split()[0]: line.split(maxsplit=2)[1:] for line in out.splitlines()[2:]}


# -- without a library


def a_compiler(folder: Path, script: str) -> str:
    """A program that is run as the C compiler."""
    path = folder / "cc"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


WITHOUT: dict[str, tuple[Callable[[Path], dict[str, str]], str]] = {
    "none there": (
        lambda folder: {"CC": "/nonexistent", "PATH": ""},
        "no C compiler found (cc, gcc, clang)",
    ),
    "switched off": (lambda folder: {"TENSOR_COMPILE": "off"}, "TENSOR_COMPILE is off"),
    "an error": (
        lambda folder: {
            "CC": a_compiler(folder, "echo 'gelu.c:1: error: no such luck' >&2; exit 1")
        },
        "cc failed: gelu.c:1: error: no such luck",
    ),
    "no word": (lambda folder: {"CC": a_compiler(folder, "exit 3")}, "cc failed: exit status 3"),
    "not a library": (
        lambda folder: {
            "CC": a_compiler(folder, 'while [ "$1" != -o ]; do shift; done; echo hello > "$2"')
        },
        "does not load: ",
    ),
    "nothing made": (lambda folder: {"CC": a_compiler(folder, "exit 0")}, "cc made no library"),
}


@pytest.mark.parametrize("case", WITHOUT)
def test_without_a_library_the_references_run_and_the_reason_is_said(
    case: str, tmp_path: Path
) -> None:
    environment, reason = WITHOUT[case]
    plain = started(STEP, TENSOR_KERNELS="off")
    out = finished(started(STEP, XDG_CACHE_HOME=str(tmp_path), **environment(tmp_path)))
    table = reasons(out)
    for op in (
        "linear",
        "linear_gelu",
        "layer_norm",
        "residual_layer_norm",
        "multi_head_attention",
        "cross_entropy",
        "positional_embedding",
        "adamw",
    ):
        assert table[op][0] == "reference", op
        assert reason in table[op][1], op
    # to the last digit what NumPy alone gives
    assert out.splitlines()[0] == finished(plain).splitlines()[0]
    # nothing half made is left
    assert [path.name for path in tmp_path.glob("tinygpt/*")] in ([], ["lock"])


# -- the package


def test_every_c_file_is_part_of_the_package() -> None:
    settings = (ROOT / "pyproject.toml").read_text()
    assert {path.suffix for path in built.HERE.iterdir() if path.suffix not in (".py", "")} == {
        ".c",
        ".h",
    }
    assert '"kernels/cpu/*.c", "kernels/cpu/*.h"' in settings


@needs_kernels
def test_functions_that_are_not_there_say_so() -> None:
    with pytest.raises(AttributeError, match="no C function 'nothing': no KERNEL line"):
        _ = compiled_library().nothing


def compiled_library() -> Any:
    return compiled.library


def test_bug_93_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENSOR_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    cores = compiled.thread_count()
    assert cores >= 1
    for given, other, count in (
        ("3", "5", 3),
        ("", "5", 5),
        ("0", "", cores),
        ("many", "0", cores),
        ("-2", "7", 7),
        ("\u00b2", "7", 7),  # a digit to Python, and no number
        ("\u0662", "7", 7),
        ("9" * 5000, "7", 7),
        ("999999", "7", 999_999),
    ):
        monkeypatch.setenv("TENSOR_THREADS", given)
        monkeypatch.setenv("OMP_NUM_THREADS", other)
        assert compiled.thread_count() == count


# -- threads


@needs_kernels
def test_the_same_bits_for_any_number_of_threads() -> None:
    """Weights after three whole training steps; sizes that no block, vector or band divides."""
    library, results = compiled_library(), []
    ids = np.random.default_rng(0).integers(0, 37, (3, 9, 41))
    for threads in (1, 2, 3, 5):
        library.set_threads(threads)
        model = GPT(GPTConfig(37, 41, 51, 3, 2, dropout=0.1), generator=Generator(1))
        optimizer = optimizer_of(model, TrainConfig())
        losses = []
        for step in range(3):
            with keyed(Key(0, step)):
                losses.append(update(model, optimizer, ids[step], np.roll(ids[step], -1), 0.5))
        results.append((losses, {name: p.numpy().copy() for name, p in model.named_parameters()}))
    for losses, weights in results[1:]:
        assert losses == results[0][0]
        for name, w in weights.items():
            np.testing.assert_array_equal(w, results[0][1][name], err_msg=name)


@needs_kernels
@pytest.mark.parametrize("seed", range(20))
def test_the_same_bits_of_products_of_any_size(seed: int) -> None:
    """Bands must meet the same code in BLAS, which has other code for small products."""
    rng, library = np.random.default_rng(seed), compiled_library()
    rows, inputs, outputs = (
        (int(n) for n in rng.integers(1, 400, 3))
        if seed % 5
        else (1, *(int(n) for n in rng.integers(300, 1500, 2)))
    )
    arrays = [
        rng.standard_normal(shape).astype(np.float32)
        for shape in ((rows, inputs), (inputs, outputs), (outputs,), (rows, outputs))
    ]
    results = []
    for threads in (1, 2, 3, 5, 8):
        library.set_threads(threads)
        xs = [Tensor(x, requires_grad=True) for x in arrays[:3]]
        y = tensor.linear_gelu(*xs)
        results.append(
            [z.numpy() for z in (linear(*xs), y, *grad(y, xs, arrays[3])) if z is not None]
        )
    for result in results[1:]:
        for a, b in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(a, b)


def some_work() -> list[Array]:
    """What uses the pool, BLAS, and the memory that kernels take for themselves."""
    x, w, qkv = (
        Tensor(draw(*shape), requires_grad=True) for shape in ((300, 64), (64, 64), (2, 70, 96))
    )
    y = tensor.layer_norm(linear(x, w), Tensor(draw(64)), Tensor(draw(64)))
    z = tensor.multi_head_attention(qkv, heads=2, causal=True)
    return [
        a.numpy()
        for a in (y, z, *grad([y, z], [x, w, qkv], [draw(*y.shape), draw(*z.shape)]))
        if a is not None
    ]


@needs_kernels
def test_threads_of_the_program_do_not_disturb_each_other() -> None:
    """All get the bits that one alone gets; and BLAS has its number of threads back afterwards,
    whoever left last.
    """
    expected = some_work()
    wrong: list[int] = []

    def work() -> None:
        wrong.extend(
            i
            for _ in range(40)
            for i, (a, b) in enumerate(zip(some_work(), expected, strict=True))
            if not np.array_equal(a, b)
        )

    def blas_threads() -> list[int]:
        return [
            library["num_threads"]
            for library in threadpoolctl.threadpool_info()
            if library["user_api"] == "blas"
        ]

    with threadpoolctl.threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert blas_threads() == before
    assert wrong == []


FORK = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of threads at a fork
import numpy as np
from tests.tensor.kernels.test_compiled import some_work
expected, stop = some_work(), threading.Event()

def forever():
    while not stop.is_set():
        some_work()

busy = threading.Thread(target=forever)
if sys.argv[-1] == "busy":
    busy.start()
for _ in range(10):
    child = os.fork()
    if child == 0:
        same = all(np.array_equal(a, b) for _ in range(3) for a, b in zip(some_work(), expected))
        os._exit(0 if same else 1)
    deadline = time.monotonic() + 20
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            status = "the child hangs"
            break
        time.sleep(0.002)
    print(status)
    assert all(np.array_equal(a, b) for a, b in zip(some_work(), expected))
stop.set()
"""


@needs_kernels
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_uses_kernels_of_its_own() -> None:
    """In a process that has used the pool, so that the child is without its threads; the parent
    goes on.
    """
    assert finished(started(FORK, TENSOR_THREADS="3")).split() == ["0"] * 10


# -- other processors


@needs_kernels
@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86-64 levels")
@pytest.mark.parametrize("level", ["x86-64", "x86-64-v3"])  # vectors of 4 and of 8
def test_code_for_lesser_processors(level: str, tmp_path: Path) -> None:
    if level == "x86-64-v3" and "avx2" not in built._processor():
        pytest.skip("this processor has no AVX2")
    program = f"""
import sys, pytest
from tensor.kernels.cpu import built
built.FLAGS = [flag.replace("native", {level!r}) for flag in built.FLAGS]
files = ["tests/tensor/kernels/test_cpu.py"]
chosen = "33-3-5 or 33-2-64 or 65-33 or adamw or constants"
sys.exit(pytest.main([*files, "-q", "-x", "-p", "no:cacheprovider", "-k", chosen]))
"""
    assert " passed" in finished(started(program, XDG_CACHE_HOME=str(tmp_path)))
