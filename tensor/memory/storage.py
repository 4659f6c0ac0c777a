"""Storage: the flat memory under tensors, and a record of who wrote to it.

    version    goes up by one at each write; a node that keeps an array for backward remembers the
    version it saw
    writes     where the last write to each region was made, so that an error can name its line

Every tensor that views the memory shares the one Storage, so a write through any of them is seen by
all.
"""

from __future__ import annotations

import linecache
import os
import sys
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from tensor.dtypes import DType
from tensor.memory.devices import Array, device_of, flatten, of_known_dtype, window
from tensor.memory.layout import Layout

PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
# regions remembered one by one; past that the oldest two are merged into the span of both
REGIONS = 64


class Line(NamedTuple):
    """A line of the source, as code object and instruction. A frame would keep its local variables
    alive.
    """

    code: CodeType
    instruction: int

    @property
    def number(self) -> int:
        """The line number of the instruction."""
        for start, end, line in self.code.co_lines():
            if start <= self.instruction < end and line:
                return line
        return self.code.co_firstlineno

    @property
    def place(self) -> str:
        """attention.py:30"""
        return f"{os.path.basename(self.code.co_filename)}:{self.number}"

    def __str__(self) -> str:
        text = linecache.getline(self.code.co_filename, self.number).strip()
        return self.place + (f" `{text}`" if text else "")


# file name -> whether it belongs to this package; a dict look-up is all that a hot path pays
_inside: dict[str, bool] = {}


def user_place(depth: int) -> tuple[CodeType, int]:
    """The code and the instruction of the nearest line outside this package. The search begins
    `depth` frames above the caller.
    """
    frame = user_frame(sys._getframe(depth + 1))
    return frame.f_code, frame.f_lasti


def user_frame(frame: FrameType) -> FrameType:
    """The nearest frame outside this package: this one, or a frame that called it."""
    while True:
        name = frame.f_code.co_filename
        inside = _inside.get(name)
        if inside is None:
            inside = _inside[name] = name.startswith((PACKAGE, "<frozen"))
        if not inside or frame.f_back is None:
            return frame
        frame = frame.f_back


def user_line(depth: int) -> Line:
    """`user_place` as a Line."""
    return Line(*user_place(depth + 1))


class Storage:
    """Flat memory (1-D, NumPy or CuPy), shared by every tensor that views it."""

    __slots__ = ("_array", "_flat", "exported", "given", "saved", "version", "writes")

    def __init__(self, array: Array):
        # as it came; made flat when first asked for, which for most results is never
        self._array = array
        self._flat: Array = None
        self.version = 0
        self.exported = False  # whether another library was given a writable window on it
        # whether a graph ever kept this memory: then NumPy gets read-only windows on it
        self.saved = False
        self.writes: dict[Layout, tuple[int, Line]] = {}
        # the version and the values at which DLPack gave out what a graph had kept
        self.given: tuple[int, Array] | None = None

    @property
    def flat(self) -> Array:
        """The memory as a 1-D array."""
        if self._flat is None:
            self._flat = flatten(self._array)[0]
            self._array = self._flat
        return self._flat

    @property
    def dtype(self) -> DType:
        return self._array.dtype

    @property
    def device(self) -> str:
        return device_of(self._array)

    def __reduce__(self) -> Any:
        """For `copy` and `pickle`: the memory and its version, and no window, no graph."""
        return _restored, (self.flat, self.version)

    def give_out(self) -> None:
        """Another library may write here from now on, and nobody counts its writes. (PyTorch writes
        to what DLPack calls read-only.) So graphs that kept this memory look at the values.
        """
        self.exported = True
        if self.saved and (self.given is None or self.given[0] != self.version):
            self.version += 1
            self.given = self.version, self.flat.copy()

    def wrote(self, region: Layout, line: Line) -> None:
        """Remember a write. After a write to the whole storage, earlier writes do not matter."""
        self.version += 1
        if region.size == self.flat.size:
            self.writes, self.given = {}, None
        self.writes.pop(region, None)
        self.writes[region] = (self.version, line)
        if len(self.writes) > REGIONS:
            first, second = list(self.writes)[:2]
            ends = *first.span(), *second.span()
            both = Layout((max(ends) - min(ends),), (1,), min(ends))
            del self.writes[first]
            self.writes = {both: self.writes.pop(second), **self.writes}

    def written_since(self, version: int, region: Layout) -> Line | str | None:
        """The line of the first write after `version` into `region`, or what is known of an
        uncounted one; None without such a write.
        """
        for written, (when, line) in self.writes.items():
            if when > version and written.overlaps(region):
                return line
        if self.given is not None and self.given[0] > version:
            then, now = window(self.given[1], region), window(self.flat, region)
            if not np.array_equal(then, now, equal_nan=True):
                return "an array that DLPack gave out"
        return None

    def __repr__(self) -> str:
        return f"Storage({self.flat.size} x {self.dtype} on {self.device}, version {self.version})"


def _restored(flat: Array, version: int) -> Storage:
    """A copy of a storage."""
    storage = Storage(of_known_dtype(flat))
    storage.version = version
    return storage


class Exported:
    """In place of a storage that `numpy()` gave a writable array of. Writes to that array are not
    counted, so the values are compared with a copy.
    """

    __slots__ = ("array", "copy", "storage")

    def __init__(self, storage: Storage, array: Array):
        self.storage, self.array, self.copy = storage, array, array.copy()

    @property
    def flat(self) -> Array:
        return self.storage.flat

    @property
    def version(self) -> int:
        """That of the storage; -1 once the values are others."""
        return self.storage.version if np.array_equal(self.array, self.copy, equal_nan=True) else -1

    def written_since(self, version: int, region: Layout) -> Line | str | None:
        """The line of a counted write, or what is known of an uncounted one."""
        return self.storage.written_since(version, region) or (
            "an array that .numpy() or DLPack gave out" if self.version == -1 else None
        )
