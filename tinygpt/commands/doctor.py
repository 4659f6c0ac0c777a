"""What is here to train with: the versions of Python, NumPy, CUDA and the others, and the GPU.

Then a tiny GPT takes a training step in float32 on the CPU, and two on a GPU: in bfloat16 and in
float32. For each step the report says which kernels ran, and why readable references ran in the
place of others. If a device that was asked for (`--device cuda`) cannot be used, the exit code
is 1.
"""

from __future__ import annotations

import argparse
import functools
import os
import platform
import subprocess
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
from threadpoolctl import threadpool_info

from tensor import kernels
from tensor.errors import DeviceError
from tensor.kernels.cpu import built, compiled
from tensor.kernels.cpu.private import UnavailableError
from tensor.kernels.cuda import cudnn
from tensor.memory.devices import array_module
from tensor.random import Generator
from tensor.recording import in_bytes
from tinygpt.commands.cli import Parser
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.model import GPT
from tinygpt.terminal import say, shown
from tinygpt.training.step import arithmetic, optimizer_of, update

LABEL, WIDTH = 13, 80  # characters
TINY = GPTConfig(64, 64, 128, heads=2, layers=2)
NONE_FOR_CPU = "no kernel for cpu"
NOT_CALLED = kernels.latest("")[1]


def arguments(parser: Parser) -> None:
    """The device."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="a device that must be usable, else the exit code is 1: cpu, cuda or cuda:N (default: "
        "look at the CPU and at a GPU)",
    )


def run(options: argparse.Namespace) -> int:
    """The machine, then the kernels of each device."""
    device = "cuda" if options.device is None else options.device
    TrainConfig(device=device)  # which looks at the name
    for label, text in [*_machine(), *_gpu(device)]:
        _say(label, text)
    works = [_report("cpu", "float32")]
    try:
        on_gpu = array_module(device) is not np
    except DeviceError:  # `_gpu` has said so
        return 0 if options.device is None else 1
    if on_gpu:
        works += [_report(device, dtype) for dtype in ("bfloat16", "float32")]
    if kernels.NOTES:
        say()
    for note in kernels.NOTES:
        _say("note", note)
    return 0 if all(works) else 1


def _say(label: str, text: str) -> None:
    say(
        textwrap.fill(
            shown(text),
            WIDTH,
            initial_indent=f"{label:<{LABEL}}",
            subsequent_indent=" " * LABEL,
            break_on_hyphens=False,
        )
    )


def _asked(question: Callable[[], Any]) -> str:
    """The answer, or in words why there is none: a library may be broken."""
    try:
        return str(question())
    except Exception as error:
        return f"unknown ({error!s:.200})"


# -- what is here


def _machine() -> Iterator[tuple[str, str]]:
    """What the CPU needs."""
    yield "Python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"
    yield "NumPy", f"{np.__version__}, with {_asked(_blas)}"
    yield "compiler", _asked(_compiler)
    yield "threads", f"{compiled.thread_count()}: TENSOR_THREADS sets how many"


def _blas() -> str:
    """The library that multiplies NumPy's matrices."""
    found = [blas for blas in threadpool_info() if blas["user_api"] == "blas"]
    names = [f"{blas['internal_api']} {blas['version']}" for blas in found]
    return ", ".join(dict.fromkeys(names)) or "a BLAS that threadpoolctl does not know"


def _compiler() -> str:
    """The C compiler and its version."""
    try:
        path = built.compiler()
    except UnavailableError as reason:
        return f"{reason}: install one, and the CPU's kernels are compiled at their first use"
    first = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20).stdout
    return f"{path}: {first.partition(os.linesep)[0] or 'it says no version'}"


def _gpu(device: str) -> Iterator[tuple[str, str]]:
    """What a GPU needs."""
    if device == "cpu":
        return
    try:
        cupy = array_module(device)
    except DeviceError as error:
        yield "GPU", f"none to use: {error}"
        return
    yield "CuPy", cupy.__version__
    yield "GPU", _asked(functools.partial(_name, cupy, int(device[5:] or 0)))
    yield "CUDA", _asked(functools.partial(_cuda, cupy))
    yield "cuDNN", _asked(_cudnn)
    yield "TF32", "off: `tinygpt train --tf32` multiplies matrices of float32 in it"
    yield (
        "equal bits",
        "attention takes the faster way, cuDNN where it is installed; `tinygpt train "
        "--deterministic` takes attention by hand, and equal runs have equal bits",
    )


def _name(cupy: Any, number: int) -> str:
    facts = cupy.cuda.runtime.getDeviceProperties(number)
    capability = f"compute capability {facts['major']}.{facts['minor']}"
    return f"{facts['name'].decode()}, {in_bytes(facts['totalGlobalMem'])}, {capability}"


def _cuda(cupy: Any) -> str:
    runtime = cupy.cuda.runtime
    driver, library = (
        f"{version // 1000}.{version % 1000 // 10}"
        for version in (runtime.driverGetVersion(), runtime.runtimeGetVersion())
    )
    compiler = ".".join(map(str, cupy.cuda.nvrtc.getVersion()))
    return f"driver for {driver}, runtime {library}, compiler NVRTC {compiler}"


def _cudnn() -> str:
    frontend = cudnn.frontend()
    if isinstance(frontend, str):
        return f"{frontend}; without it attention is by hand, slower"
    major, rest = divmod(frontend.backend_version(), 10_000)
    version = metadata.version("nvidia-cudnn-frontend")
    return f"{major}.{rest // 100}.{rest % 100}, through nvidia-cudnn-frontend {version}"


# -- what runs


def _report(device: str, dtype: str) -> bool:
    """Say which kernels a GPT takes. False where it cannot take a step."""
    say(f"\na GPT in {dtype} on {device}")
    try:
        taken = step_of(device, dtype)
    except Exception as error:  # of a compiler or a driver
        _say("fails", f"{type(error).__name__}: {error!s:.300}")
        return False
    ran = [name for name, (function, _) in taken.items() if function != "reference"]
    reasons = defaultdict(list)
    for name, (function, reason) in taken.items():
        if function == "reference":
            reasons[reason].append(name)
    _say("kernels", ", ".join(ran) or "none")
    for reason, names in reasons.items():
        why = "as usual, their kernels are for a GPU" if reason == NONE_FOR_CPU else reason
        _say("references", f"{', '.join(names)}: {why}")
    return True


def step_of(device: str, dtype: str) -> dict[str, tuple[str, str]]:
    """op -> what a training step of a tiny GPT took for it, and why."""
    kernels.forget()
    config = TrainConfig(device=device, dtype=dtype)
    with arithmetic(TINY, config):
        model = GPT(TINY, dtype=dtype, device=device, generator=Generator(0))
        update(model, optimizer_of(model, config), *model.example(2), config.clip)
    called = {name: kernels.latest(name) for name in sorted(kernels.KERNELS)}
    return {name: latest for name, latest in called.items() if latest[1] != NOT_CALLED}
