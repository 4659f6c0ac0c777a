"""What a tensor shows of itself: in short, as `repr`; and by `Tensor.explain()`: storage, layout,
sharing, contiguity, and why.
"""

from __future__ import annotations

from itertools import product
from operator import mul
from typing import Any

import numpy as np

from tensor.base import TensorBase
from tensor.memory.devices import address, to_host
from tensor.memory.layout import Layout, contiguous_strides

CELLS = 24  # elements of storage drawn; more would not fit a line
LETTERS = "ijklmnopqrstuvwxyz"  # one for each axis


def in_short(x: TensorBase) -> str:
    """The values, the middle left out where they are many, and what is not as usual: dtype, device,
    strides; and what made it.
    """
    text = np.array2string(
        to_host(x.array), separator=", ", prefix="Tensor(", threshold=100, edgeitems=3
    )
    facts = [] if x.dtype.name in ("float32", "int64", "bool") else [f"dtype={x.dtype}"]
    facts += [] if x.device == "cpu" else [f"device={x.device}"]
    facts += [] if x.is_contiguous() else [f"strides={x.strides}", f"offset={x.offset}"]
    if not x.is_leaf:
        facts.append(f"made by {x.node.op}")
    elif x.requires_grad:
        facts.append("requires_grad")
    return f"Tensor({', '.join([text, *facts])})"


def explain(x: TensorBase, sharing: list[Any]) -> str:
    """The storage as a row of cells, where each index lands in it, who else looks at it."""
    storage, layout = x.storage, x.layout
    steps = zip(LETTERS, layout.strides, strict=False)
    start = layout.offset * storage.dtype.itemsize
    formula = " + ".join([str(layout.offset), *(f"{name}*{stride}" for name, stride in steps)])
    lines = [
        x.describe(),
        f"storage     {storage.flat.size} x {storage.dtype} ({storage.flat.nbytes:,} bytes) on "
        f"{storage.device}, version {storage.version}",
        f"layout      shape {layout.shape}, strides {layout.strides}, offset {layout.offset}",
        f"address     {address(x.array):#x}, {start:,} bytes after the storage begins",
        f"element     [{', '.join(LETTERS[: len(layout.shape)])}] lives at {formula}",
        *_diagram(x),
        f"contiguous  {_contiguity(layout)}",
    ]
    lines += [
        f"shared with {other.describe()}, strides {other.strides}, offset {other.offset}"
        for other in sharing
    ] or ["shared with no other tensor"]
    return "\n".join(lines)


def _contiguity(layout: Layout) -> str:
    gap = None if layout.is_contiguous else layout.first_gap()
    if gap is None:
        return "yes: row-major, without gaps"
    needed = contiguous_strides(layout.shape)[gap]
    return (
        f"no: axis {gap} steps by {layout.strides[gap]}, row-major order needs {needed}; "
        f".contiguous() copies {layout.size:,} elements"
    )


def _diagram(x: TensorBase) -> list[str]:
    """Each storage cell, and under it the first index that lives there; a dot where none does."""
    layout, flat = x.layout, x.storage.flat
    if not 0 < flat.size <= CELLS or layout.size > 4 * CELLS:
        return []
    names = ["."] * flat.size
    for index in product(*map(range, layout.shape)):
        position = layout.offset + sum(map(mul, index, layout.strides))
        if names[position] == ".":
            names[position] = ",".join(map(str, index)) or "()"
        elif not names[position].endswith("+"):  # several indices
            names[position] += "+"
    cells = [f"{float(value):g}" for value in flat.tolist()]
    widths = [max(map(len, pair)) for pair in zip(cells, names, strict=True)]
    return [
        "  memory    " + " ".join(map(str.rjust, cells, widths)),
        "  index     " + " ".join(map(str.rjust, names, widths)),
    ]
