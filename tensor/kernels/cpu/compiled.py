"""The C files of this folder as one library: built by the system's C compiler when first needed, kept for later, loaded with ctypes.

Optional: without a compiler, or with TENSOR_COMPILE=off, `unavailable()` says why, every kernel here declines with that reason, and NumPy does
the work. Nothing is compiled at install or at import. TENSOR_THREADS sets the number of threads, by default the cores this process may use
(or OMP_NUM_THREADS).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tensor.dtypes import float32

HERE = Path(__file__).parent
FLAGS = ["-std=gnu11", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd", "-fvisibility=hidden", "-fPIC", "-shared", "-pthread"]
_TYPES = {"array": ctypes.py_object, "arrays": ctypes.py_object, "size": ctypes.c_ssize_t, "real": ctypes.c_double}


@functools.cache
def unavailable() -> str | None:
    """Why there are no compiled kernels; None when there are, after building and loading them."""
    try:
        _load()
    except (UnavailableError, OSError) as reason:  # OSError: no folder may be written, a disk is full, a source is missing
        return str(reason)
    return None


def refusal(*arrays: Any) -> str | None:
    """Why the C kernels cannot take these arrays: None when all are float32 and contiguous, and the library is there."""
    for array in arrays:
        if array.dtype != float32:
            return f"dtype {array.dtype}"
        if not array.flags.c_contiguous:
            return "not contiguous"
    return unavailable()


class UnavailableError(Exception):
    """There can be no compiled kernels here; says why."""


class Library:
    """The C functions by name, filled by `_load`: `library.gelu_forward(x, y, rows, width)`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no C function {name!r}: {unavailable() or 'no KERNEL line in this folder names it'}")


library = Library()


def _load() -> None:
    """Build or find the library, and bind its functions."""
    if os.environ.get("TENSOR_COMPILE", "on").lower() in ("off", "0", "no", "false"):
        raise UnavailableError("TENSOR_COMPILE is off")
    if sys.platform == "win32" or sys.implementation.name != "cpython":
        raise UnavailableError(f"compiled kernels need CPython on Linux or macOS, not {sys.implementation.name} on {sys.platform}")
    path = _built()
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{path} does not load: {error}") from None
    for name, parameters in _signatures().items():
        function = getattr(loaded, name)
        function.argtypes, function.restype = [_TYPES[kind] for kind in parameters], ctypes.c_double
        setattr(library, name, function)
    probe = np.arange(4, dtype=np.float32)
    if library.squared_norm(probe[1:], 3) != 14:  # 1 + 4 + 9: an array's data are where NumPy has always kept them
        raise UnavailableError("this NumPy keeps its data elsewhere in an array than the kernels look")
    library.set_threads(thread_count())
    _find_blas()


def _built() -> Path:
    """The library file, compiled now unless a former run left it. Its name says what it was made from, by what, for which processor."""
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise UnavailableError("no C compiler found (cc, gcc, clang)")
    sources = sorted(HERE.glob("*.c"))
    head = f"-DOBJECT_HEAD={object.__basicsize__}"
    made_from = [*(path.read_bytes() for path in [HERE / "kernels.h", *sources]), " ".join([compiler, head, *FLAGS]).encode(), _processor().encode()]
    target = _cache() / f"kernels-{hashlib.sha256(b''.join(made_from)).hexdigest()[:16]}.so"
    if target.exists():
        return target
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:  # renamed when whole: two processes may build at once
        made = Path(folder) / target.name
        command = [compiler, *FLAGS, head, "-o", str(made), *map(str, sources), "-lm"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(f"{compiler} failed: {error}") from None
        if result.returncode:
            said = result.stderr.strip() or f"exit status {result.returncode}"
            first = next((line for line in said.splitlines() if "error" in line), said[:200])
            raise UnavailableError(f"{compiler} failed: {first}")
        os.replace(made, target)
    return target


def _cache() -> Path:
    """The folder for built libraries: the user's cache, or else one of this process's own."""
    wanted = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinygpt"
    try:
        wanted.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(wanted, os.W_OK) and wanted.stat().st_uid == os.getuid():  # a library that others could replace is not loaded
            return wanted
    except (OSError, RuntimeError):
        pass
    return Path(tempfile.mkdtemp(prefix="tinygpt-"))


def _processor() -> str:
    """What tells processors apart: a home folder may be shared by machines, and the code is for one."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    except OSError:
        return platform.processor() + platform.machine()


def _signatures() -> dict[str, list[str]]:
    """name -> kinds of its parameters, from the lines that start with KERNEL."""
    found = {}
    for path in HERE.glob("*.c"):
        for name, parameters in re.findall(r"^KERNEL (\w+)\(([^)]*)\)", path.read_text(), re.MULTILINE):
            found[name] = [part.split()[0] for part in parameters.split(",") if part.strip() not in ("", "void")]
    return found


# -- threads ------------------------------------------------------------------------------------------------------------------


def thread_count() -> int:
    """TENSOR_THREADS, else OMP_NUM_THREADS, else the cores this process may use."""
    for name in ("TENSOR_THREADS", "OMP_NUM_THREADS"):
        if os.environ.get(name, "").isdigit() and int(os.environ[name]) > 0:
            return int(os.environ[name])
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _find_blas() -> None:
    """Hand the kernels the sgemm of the OpenBLAS that NumPy uses. Raises UnavailableError where NumPy uses another BLAS."""
    from threadpoolctl import ThreadpoolController

    for blas in ThreadpoolController().lib_controllers:
        if blas.internal_api != "openblas" or blas.threading_layer == "openmp":
            continue
        for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
            names = f"{prefix}cblas_sgemm{suffix}", f"{prefix}openblas_set_num_threads{suffix}", f"{prefix}openblas_get_num_threads{suffix}"
            if all(hasattr(blas.dynlib, name) for name in names):
                sgemm, setter, getter = (ctypes.cast(getattr(blas.dynlib, name), ctypes.c_void_p).value for name in names)
                library.use_blas(sgemm, suffix == "64_", setter, getter)
                return
    raise UnavailableError("NumPy's BLAS is not an OpenBLAS with threads of its own, whose sgemm the kernels call")
