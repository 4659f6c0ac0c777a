"""A stand-in for CuPy that compiles a `.cu` file with the C++ compiler and runs its kernels on the
CPU, at the very addresses, sizes and parameters that a GPU would be given.

The instructions of tensor cores (attention/mma.cuh) have stand-ins of their own.
"""

from __future__ import annotations

import ctypes
import functools
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tensor.kernels.cuda import launch
from tests.helpers.without_cudnn import CUPY, OnGPU

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
SHARED = 1 << 18  # bytes
OWN = "attention/mma.cuh"


@functools.cache
def compiled(code: str) -> ctypes.CDLL:
    """A library with a function run_KERNEL for each kernel."""
    assert COMPILER
    bounds = r"(?:__launch_bounds__\([^)]*\)\s*)?"
    names = re.findall(rf"^KERNEL\s+{bounds}(\w+)\(", code, re.MULTILINE)
    code = re.sub(r"#include <cuda_\w+.h>\n", "", code)
    own = rf'#line 1 "{OWN}"\n.*?(?=#line 1 )'
    code = re.sub(own, '#include "mma_on_cpu.h"\n', code, flags=re.DOTALL)
    code = re.sub(r"extern __shared__ (\w+) (\w+)\[\];", r"\1 *\2 = (\1 *)shared_bytes;", code)
    calls = "".join(
        f'extern "C" void run_{name}(void **parameters, const unsigned *sizes) {{\n'
        f"    shared_memories = {{{{shared_bytes, sizeof(shared_bytes)}}}};\n"
        f"    launch({name}, parameters, sizes);\n}}\n"
        for name in names
    )
    shared = f"alignas(16) static unsigned char shared_bytes[{SHARED}];\n"
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "module.cpp"), Path(folder, "module.so")
        source.write_text(f'#include "cuda_on_cpu.h"\n{shared}{code}\n{calls}')
        # variables of templates: two libraries would share them, whatever their sizes
        own = "-fno-gnu-unique"
        flags = "-std=c++20", "-O1", "-w", "-shared", "-fPIC", own, f"-I{HERE}"
        subprocess.run([COMPILER, *flags, str(source), "-o", str(library)], check=True)
        return ctypes.CDLL(str(library))


class Module:
    """What cupy.RawModule is."""

    def __init__(self, code: str, options: tuple[str, ...]):
        self.library = compiled(code)

    def get_function(self, name: str) -> Any:
        return SimpleNamespace(kernel=SimpleNamespace(ptr=self.library[f"run_{name}"]))


def launch_kernel(
    function: Any, gx: int, gy: int, gz: int, bx: int, by: int, bz: int, shared: int,
    stream: int, parameters: int, extra: int,
) -> None:  # fmt: skip
    assert shared <= SHARED
    function(ctypes.c_void_p(parameters), (ctypes.c_uint * 6)(gx, gy, gz, bx, by, bz))


CUPY_ON_CPU = SimpleNamespace(
    ndarray=CUPY.ndarray,
    ascontiguousarray=CUPY.ascontiguousarray,
    asarray=lambda x: np.asarray(x).view(OnGPU),
    RawModule=Module,
    cuda=SimpleNamespace(
        Device=lambda: SimpleNamespace(compute_capability="90"),
        get_current_stream=lambda: SimpleNamespace(ptr=0),
        driver=SimpleNamespace(launchKernel=launch_kernel),
    ),
)


def run_kernels_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sources compile and launch their kernels here; without g++ the test is skipped."""
    if COMPILER is None:
        pytest.skip("g++ is not installed")
    monkeypatch.setattr(launch, "cupy", lambda: CUPY_ON_CPU)
    monkeypatch.setattr(launch, "launch_early", launch_kernel)
