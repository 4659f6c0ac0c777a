"""Pinned memory: memory of the host that a GPU reads and writes while the host goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tensor.memory.devices import Array, cupy

ALIGNED = 64  # bytes: where an array may begin
OnHost: TypeAlias = "np.ndarray[Any, Any]"


class Pinned:
    """`size` bytes of pinned memory; np.asarray of them is an array that keeps them.

    event: recorded behind the work of a GPU that reads or writes the bytes. CuPy gives memory that
    nobody keeps to the next owner. This memory first waits for the event.
    """

    def __init__(self, size: int):
        cuda = cupy().cuda
        self._memory = cuda.alloc_pinned_memory(size)
        self.event = cuda.Event(disable_timing=True)
        bytes_there = {"data": (self._memory.ptr, False), "shape": (size,), "typestr": "|u1"}
        self.__array_interface__ = {"version": 3, **bytes_there}

    def __del__(self) -> None:
        if hasattr(self, "event"):  # there is memory
            self.event.synchronize()


def copies(arrays: Sequence[Array]) -> list[OnHost]:
    """Copies of a GPU's arrays on the host, in one piece of pinned memory.

    The copies are queued behind all work so far, and nothing waits. They are whole when the GPU has
    come so far: record an event.
    """
    sizes = [-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays]
    memory = Pinned(sum(sizes))
    whole, start, found = np.asarray(memory), 0, []
    for array, size in zip(arrays, sizes, strict=True):
        part = whole[start : start + array.nbytes]
        # what it makes lives until the copy: the pool gives memory to later work of the stream
        cupy().ascontiguousarray(array).data.copy_to_host_async(part.ctypes.data, array.nbytes)
        found.append(part.view(array.dtype).reshape(array.shape))
        start += size
    memory.event.record()
    return found
