"""One plane of an array as a picture, with its numbers where they have space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.files import drawing, write_picture
from tinygpt.inside.arrays import Floats, Plane, number

NUMBERED = 24  # rows and columns up to which the numbers are written
NAMED = 64  # and up to which their names are
SHORT = 4  # letters of a name that stands upright above its column


@drawing()
def draw(
    found: Plane, title: str, folder: Path, down: Sequence[str] = (), across: Sequence[str] = ()
) -> Path:
    """Write the picture into a file that is named after the title, and return its path. Raises
    InputError where the file cannot be written.

    down, across: names of the rows and columns, if they have any.
    """
    # here: matplotlib takes longer to import than all the rest
    from matplotlib.figure import Figure

    values = found.values
    rows, columns = values.shape
    size = np.clip((columns * 0.5, rows * 0.35 + 1), (4, 3), (14, 12))
    figure = Figure(figsize=tuple(size), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    limit = float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0
    signed = bool((values < 0).any())
    image = axes.imshow(values, "PuOr_r" if signed else "cividis", aspect="auto")
    image.set(clim=(-limit if signed else 0, limit), interpolation="nearest")
    if rows <= NUMBERED and columns <= NUMBERED:
        _write_numbers(axes, values, limit, signed)
    # without parse_math a `$` begins no formula
    axes.set_title(f"{title} {found.text}", fontsize=9, parse_math=False)
    axes.set(xlabel="last axis", ylabel="axis before it")
    named: dict[str, Any] = {"fontsize": 8, "parse_math": False}
    if down and rows <= NAMED:
        axes.set_yticks(range(rows), down, **named)
    if across and columns <= NAMED:
        upright = 90 * (max(map(len, across)) > SHORT)
        axes.set_xticks(range(columns), across, rotation=upright, **named)
    figure.colorbar(image, ax=axes)
    name = re.sub(r"[^\w.#]+", "-", f"step-{title}").strip("-")
    position = f"[{','.join(map(str, found.position))}]" if found.position else ""
    path = folder / f"{name}{position}.png"
    write_picture(figure, path, "name another folder: --out FOLDER")
    return path


def _write_numbers(axes: Any, values: Floats, limit: float, signed: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        share = abs(value) / limit if np.isfinite(value) else 0.0
        dark = share > 0.6 if signed else share < 0.5
        label, colour = number(round(value, 3)), "white" if dark else "black"
        axes.text(column, row, label, ha="center", va="center", fontsize=6, color=colour)
