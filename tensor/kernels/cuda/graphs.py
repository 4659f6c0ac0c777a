"""CUDA graphs: the work of many kernels, captured once, and queued again by one call.

    graph = Graph(work)      calls work(): its kernels are captured, and none of them runs
    graph.replay()           queues all of them on the current stream

To queue one kernel takes the host some microseconds. A small step has a hundred kernels of two
microseconds each, so the GPU would wait for the host most of the time.

A replay has the addresses and the numbers of the capture. What changes from replay to replay must
lie in memory of the GPU: `OnDevice`, and the arrays that `work` reads. So `work` must not read a
value of the GPU, and must not copy from the host. CUDA reports both as an error.
CUDA C++ Programming Guide, section "CUDA Graphs"
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from tensor.memory.devices import Array, cupy

RELAXED = 2  # cudaStreamCaptureMode: memory may be allocated during a capture


class OnDevice:
    """A whole number that a kernel reads when the kernel runs.   array: (1,), int64"""

    def __init__(self, array: Array):
        self.array = array

    @property
    def address(self) -> int:
        """Where the number lies; the low 32 bits come first."""
        return int(self.array.data.ptr)


@functools.cache
def _stream(device: int) -> Any:
    """The stream of captures: libraries keep scratch memory for each stream."""
    return cupy().cuda.Stream(non_blocking=True)


class Memory:
    """The memory of some graphs, which run one after the other. Nothing else uses this memory."""

    def __init__(self) -> None:
        self._pool = cupy().cuda.MemoryPool()
        MEMORIES.add(self)

    def used(self) -> Any:
        """`with memory.used():` new arrays lie in this memory."""
        return cupy().cuda.using_allocator(self._pool.malloc)

    @property
    def bytes(self) -> int:
        """How much of the GPU this is."""
        return int(self._pool.total_bytes())


MEMORIES: WeakSet[Memory] = WeakSet()  # all there are


class Graph:
    """What `work` queues, to be queued again.

    result: what `work` returned. Arrays in it are written anew by each replay.
    Raises what `work` raises, and CuPy's error where the work cannot be captured.
    """

    def __init__(self, work: Callable[[], Any], memory: Memory | None = None):
        self.memory = memory or Memory()
        stream = _stream(cupy().cuda.runtime.getDevice())
        with stream, self.memory.used():
            stream.begin_capture(RELAXED)
            try:
                self.result = work()
            except BaseException:
                with suppress(Exception):  # the capture is broken already
                    stream.end_capture()
                raise
            self._graph = stream.end_capture()

    @property
    def nodes(self) -> int:
        """How many kernels, copies and fills there are."""
        count = ctypes.c_size_t()
        ctypes.CDLL("libcuda.so.1").cuGraphGetNodes(
            ctypes.c_void_p(self._graph.graph), None, ctypes.byref(count)
        )
        return count.value

    def replay(self) -> None:
        """Queue the work on the current stream."""
        self._graph.launch(cupy().cuda.get_current_stream())
