"""What a tensor shows of itself: in short, as `repr`; and by `Tensor.explain()`: storage, layout, sharing, contiguity, and why."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import numpy as np

from tensor.devices import to_host
from tensor.layout import Layout, contiguous_strides

if TYPE_CHECKING:
    from tensor.core import Tensor

CELLS = 24  # elements of storage drawn; more would not fit a line
LETTERS = "ijklmnopqrstuvwxyz"  # one for each axis


def in_short(x: Tensor) -> str:
    """The values, the middle left out where they are many, and what is not as usual: dtype, device, strides; and what made it."""
    text = np.array2string(to_host(x.array), separator=", ", prefix="Tensor(", threshold=100, edgeitems=3)
    facts = [] if x.dtype.name in ("float32", "int64", "bool") else [f"dtype={x.dtype}"]
    facts += [] if x.device == "cpu" else [f"device={x.device}"]
    facts += [] if x.is_contiguous() else [f"strides={x.strides}", f"offset={x.offset}"]
    facts += [f"made by {x.node.op}"] if not x.is_leaf else (["requires_grad"] if x.requires_grad else [])
    return f"Tensor({', '.join([text, *facts])})"


def explain(x: Tensor, sharing: list[Tensor]) -> str:
    """The storage as a row of cells, where each index lands in it, who else looks at it."""
    storage, layout = x.storage, x.layout
    formula = " + ".join([str(layout.offset), *(f"{name}*{stride}" for name, stride in zip(LETTERS, layout.strides, strict=False))])
    lines = [
        x.describe(),
        f"storage     {storage.flat.size} x {storage.dtype} ({storage.flat.nbytes:,} bytes) on {storage.device}, version {storage.version}",
        f"layout      shape {layout.shape}, strides {layout.strides}, offset {layout.offset}",
        f"element     [{', '.join(LETTERS[: len(layout.shape)])}] lives at {formula}",
        *_diagram(x),
        f"contiguous  {_contiguity(layout)}",
    ]
    lines += [f"shared with {other.describe()}, strides {other.strides}, offset {other.offset}" for other in sharing] or ["shared with no other tensor"]
    return "\n".join(lines)


def _contiguity(layout: Layout) -> str:
    gap = None if layout.is_contiguous else layout.first_gap()
    if gap is None:
        return "yes: row-major, without gaps"
    needed = contiguous_strides(layout.shape)[gap]
    return f"no: axis {gap} steps by {layout.strides[gap]}, row-major order needs {needed}; .contiguous() copies {layout.size:,} elements"


def _diagram(x: Tensor) -> list[str]:
    """Each storage cell, and under it the first index that lives there; a dot where none does."""
    layout, flat = x.layout, x.storage.flat
    if not 0 < flat.size <= CELLS or layout.size > 4 * CELLS:
        return []
    first: dict[int, str] = {}
    for index in product(*map(range, layout.shape)):
        place = layout.offset + sum(i * s for i, s in zip(index, layout.strides, strict=True))
        name = ",".join(map(str, index)) or "()"
        first[place] = first[place] + "+" if place in first and not first[place].endswith("+") else first.get(place, name)
    cells = [f"{float(value):g}" for value in flat.tolist()]
    names = [first.get(place, ".") for place in range(len(cells))]
    widths = [max(len(a), len(b)) for a, b in zip(cells, names, strict=True)]
    return [
        "  memory    " + " ".join(c.rjust(w) for c, w in zip(cells, widths, strict=True)),
        "  index     " + " ".join(n.rjust(w) for n, w in zip(names, widths, strict=True)),
    ]
