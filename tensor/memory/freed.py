"""Keeping freed memory: on Linux, large arrays otherwise go back to the operating system after
every op.

glibc gives blocks above a threshold back at once, and the next op of that size takes them anew,
page fault by page fault. That was a third of a training step at small sizes. Raising two thresholds
keeps the blocks for reuse, until `give_back_freed_memory`. The environment variable
TENSOR_KEEP_MEMORY=off leaves the allocator alone, as do MALLOC_MMAP_THRESHOLD_ and
MALLOC_TRIM_THRESHOLD_ when set.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP = 1 << 30  # bytes: blocks up to this size, and as much free memory, are kept


def keep_freed_memory() -> bool:
    """Raise glibc's thresholds for the whole process; False where there is no glibc, or it was
    asked not to.
    """
    asked_not_to = os.environ.get("TENSOR_KEEP_MEMORY", "on").lower() in ("off", "0", "no", "false")
    if (
        asked_not_to
        or not sys.platform.startswith("linux")
        or any(name.startswith("MALLOC_") for name in os.environ)
    ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # musl and others have no mallopt
        return False
    return bool(mallopt(_MMAP_THRESHOLD, _KEEP)) and bool(mallopt(_TRIM_THRESHOLD, _KEEP))


def give_back_freed_memory() -> None:
    """Give all freed memory back to the operating system, where glibc can."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
