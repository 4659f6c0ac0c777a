"""Pinned memory: memory of the host that a GPU writes by itself, while the host goes on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tensor.memory.devices import Array, cupy

ALIGNED = 64  # bytes: where an array may begin


def copies(arrays: Sequence[Array]) -> list[np.ndarray[Any, Any]]:
    """Copies of a GPU's arrays on the host, in one piece of pinned memory.

    The copies are queued behind all work so far, and nothing waits. They are whole when the GPU has
    come so far: record an event.
    """
    cuda = cupy().cuda
    sizes = [-(-array.nbytes // ALIGNED) * ALIGNED for array in arrays]
    whole = np.frombuffer(cuda.alloc_pinned_memory(sum(sizes)), np.uint8, sum(sizes))
    stream, start, found = cuda.get_current_stream(), 0, []
    for array, size in zip(arrays, sizes, strict=True):
        part = whole[start : start + array.nbytes]
        # what it makes lives until the copy: the pool gives memory to later work of the stream
        cupy().ascontiguousarray(array).data.copy_to_host_async(
            part.ctypes.data, array.nbytes, stream
        )
        found.append(part.view(array.dtype).reshape(array.shape))
        start += size
    return found
