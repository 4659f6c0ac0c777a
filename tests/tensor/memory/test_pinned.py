"""Pinned memory goes to the next owner when the GPU has done its work there."""

from __future__ import annotations

import gc
from types import SimpleNamespace

import numpy as np
import pytest

from tensor.memory import pinned


def test_an_array_keeps_the_memory_and_the_last_one_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []

    class Memory:
        """What CuPy's pool gives."""

        def __init__(self, size: int):
            self.bytes = np.zeros(size, np.uint8)
            self.ptr = self.bytes.ctypes.data

        def __del__(self) -> None:
            noted.append("given back")

    event = SimpleNamespace(synchronize=lambda: noted.append("waited"))
    cuda = SimpleNamespace(alloc_pinned_memory=Memory, Event=lambda **_: event)
    monkeypatch.setattr(pinned, "cupy", lambda: SimpleNamespace(cuda=cuda))
    whole = np.asarray(pinned.Pinned(64))
    part = whole[8:16].view(np.int64).reshape(())
    part[...] = 5
    del whole
    gc.collect()
    assert (int(part), noted) == (5, [])
    del part
    gc.collect()
    assert noted == ["waited", "given back"]
