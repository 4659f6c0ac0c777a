"""The C functions of this folder, loaded with ctypes from the library that built.py finds or makes.

Optional: without a compiler, or with TENSOR_COMPILE=off, `unavailable()` says why, every kernel
here declines with that reason, and NumPy does the work. Nothing is compiled at install or at
import. TENSOR_THREADS sets the number of threads, by default the cores this process may use (or
OMP_NUM_THREADS).
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import re
import sys
import threading
from contextlib import suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tensor.dtypes import float32
from tensor.kernels import NOTES
from tensor.kernels.cpu.private import UnavailableError

if TYPE_CHECKING:
    from tensor.kernels.cpu.built import Recipe

IN_ORDER = 0x101  # NumPy's bits for contiguous, and for aligned
_TYPES = {
    "array": ctypes.py_object,
    "arrays": ctypes.py_object,
    "size": ctypes.c_ssize_t,
    "real": ctypes.c_double,
}

# A thread that asks while another one loads the library waits for it.
# So does a fork: the child would inherit half a library.
_loading = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release
    )


@functools.cache
def unavailable() -> str | None:
    """Why there are no compiled kernels; None when there are, after building and loading them."""
    with _loading:
        return _trouble()


@functools.cache
def _trouble() -> str | None:
    """The same, once: two threads can both find the other cache empty."""
    try:
        _load()
    except (UnavailableError, OSError) as reason:  # OSError: a disk is full, a source is missing
        return _built().shown(str(reason), most=600)
    return None


def refusal(*arrays: Any, dtype: Any = float32) -> str | None:
    """Why the C kernels cannot take these arrays: None when all have that dtype and are in order,
    and the library is there.
    """
    for array in arrays:
        if array.dtype is not dtype and array.dtype != dtype:
            return f"dtype {array.dtype}"
        if array.flags.num & IN_ORDER != IN_ORDER:
            return "not aligned" if array.flags.c_contiguous else "not contiguous"
    return unavailable()


def in_order(array: Any) -> Any:
    """The array itself where C can read it, else a copy: where it is not contiguous, or its
    elements straddle their boundaries.
    """
    return array if array.flags.num & IN_ORDER == IN_ORDER else array.copy()


class Library:
    """The C functions by name, filled by `_load`: `library.gelu_forward(x, y, rows, width)`."""

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"no C function {name!r}: {unavailable() or 'no KERNEL line in this folder names it'}"
        )


library = Library()


def _built() -> Any:
    """The module built.py. Hashing, copying and temporary files would take a tenth of the time of
    `import tensor`.
    """
    return importlib.import_module("tensor.kernels.cpu.built")


def _load() -> None:
    """Load the library from the cache, else one built for this process, and make it ready."""
    if os.environ.get("TENSOR_COMPILE", "on").lower() in ("off", "0", "no", "false"):
        raise UnavailableError("TENSOR_COMPILE is off")
    if sys.platform == "win32" or sys.implementation.name != "cpython":
        here = f"{sys.implementation.name} on {sys.platform}"
        raise UnavailableError(f"compiled kernels need CPython on Linux or macOS, not {here}")
    wanted = _built().recipe()
    try:
        _load_kept(wanted)
    except OSError as trouble:
        with _built().unkept(wanted) as path:
            _bind(path, wanted)
        note = f"built for this process alone: {trouble} (XDG_CACHE_HOME can name another folder)"
        NOTES.append(_built().shown(note, most=600))
    probe = np.arange(4, dtype=np.float32)
    if library.squared_norm(probe[1:], 3) != 14:  # 1 + 4 + 9: the data are where NumPy keeps them
        raise UnavailableError(
            "this NumPy keeps its data elsewhere in an array than the kernels look"
        )
    library.set_threads(thread_count())
    _find_blas()


def _load_kept(wanted: Recipe) -> None:
    """Load the library from the cache. One that does not load is removed, to be built anew."""
    path = _built().kept(wanted)
    try:
        _bind(path, wanted)
    except OSError:
        with suppress(OSError):
            path.unlink()
        raise


def _bind(path: Path, wanted: Recipe) -> None:
    """Give `library` the functions of a file. Raises OSError where one of them is missing."""
    try:
        loaded = ctypes.CDLL(str(path))
        for name, kinds in wanted.functions.items():
            function = getattr(loaded, name)
            function.argtypes, function.restype = [_TYPES[kind] for kind in kinds], ctypes.c_double
            setattr(library, name, function)
    except (OSError, AttributeError) as error:
        raise OSError(f"the library does not load: {error}") from None


# -- threads ---------------------------------------------------------------------------------------


def thread_count() -> int:
    """TENSOR_THREADS, else OMP_NUM_THREADS, else the cores this process may use.

    A value that is no number from 1 to 999,999 counts as none.
    """
    for name in ("TENSOR_THREADS", "OMP_NUM_THREADS"):
        given = os.environ.get(name, "")
        if re.fullmatch("[0-9]{1,6}", given) and int(given) > 0:
            return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _find_blas() -> None:
    """Hand the kernels the sgemm of the OpenBLAS that NumPy uses. Raises UnavailableError where
    NumPy uses another BLAS.
    """
    from threadpoolctl import ThreadpoolController

    for blas in ThreadpoolController().lib_controllers:
        if blas.internal_api != "openblas" or blas.threading_layer == "openmp":
            continue
        for prefix, suffix in product(("scipy_", ""), ("64_", "")):
            names = "cblas_sgemm", "openblas_set_num_threads", "openblas_get_num_threads"
            found = [getattr(blas.dynlib, f"{prefix}{name}{suffix}", None) for name in names]
            if all(found):
                sgemm, *threads = (
                    ctypes.cast(each, ctypes.c_void_p).value for each in found if each
                )
                library.use_blas(sgemm, suffix == "64_", *threads)
                return
    raise UnavailableError(
        "NumPy's BLAS is not an OpenBLAS with threads of its own, whose sgemm the kernels call"
    )
