"""Numbers of a GPU, read without a wait: they are copied behind the work that makes them, and the
host looks when it has queued the next step.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import TypeAlias

from tensor import Tensor
from tensor.memory import pinned
from tensor.memory.devices import array_module

Number: TypeAlias = "float | Tensor"  # a tensor: () of a GPU, which nobody has waited for


class Moment:
    """Now: on a GPU, when all that was queued so far is done."""

    def __init__(self, device: str):
        self.device, self.time, self.event = device, time.perf_counter(), None
        if device != "cpu":
            self.event = array_module(device).cuda.Event()
            self.event.record()

    @property
    def passed(self) -> bool:
        """Whether the GPU has come here."""
        return self.event is None or bool(self.event.done)

    def wait(self) -> None:
        """Wait until the GPU has come here."""
        if self.event is not None:
            self.event.synchronize()

    def since(self, start: Moment) -> float:
        """The seconds from another moment to this one. Both have passed."""
        if self.event is None:
            return self.time - start.time
        elapsed = array_module(self.device).cuda.get_elapsed_time
        return float(elapsed(start.event, self.event)) / 1e3


class Reading:
    """The values that numbers have now, and the seconds since `start`."""

    def __init__(self, start: Moment, *numbers: Number):
        self._start = start
        # of each: its value, or a copy that a GPU writes
        self._values = [number if isinstance(number, float) else None for number in numbers]
        arrays = [number.array for number in numbers if isinstance(number, Tensor)]
        self._copies = pinned.copies(arrays) if arrays else []
        self._end = Moment(start.device)

    @property
    def ready(self) -> bool:
        """Whether nobody would wait."""
        return self._end.passed

    @cached_property
    def floats(self) -> list[float]:
        """The values. On a GPU, this waits for what makes them, and for no later work."""
        self._end.wait()
        read, self._copies = iter(self._copies), []
        return [float(next(read)) if x is None else x for x in self._values]

    @cached_property
    def seconds(self) -> float:
        """From `start` to when the numbers were there."""
        self._end.wait()
        return self._end.since(self._start)
