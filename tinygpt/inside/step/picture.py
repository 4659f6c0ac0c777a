"""One plane of an array as a picture, with its numbers where they have space."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.files import write_picture
from tinygpt.inside.arrays import Floats, Plane, number

NUMBERED = 24  # rows and columns up to which the numbers are written
NAMED = 64  # and up to which their names are
SHORT = 4  # letters of a name that stands upright above its column


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
    size = min(max(columns * 0.5, 4), 14), min(max(rows * 0.35, 2) + 1, 12)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.add_subplot()
    limit = float(np.abs(values[np.isfinite(values)]).max(initial=0)) or 1.0
    signed = bool((values < 0).any())
    image = axes.imshow(values, "PuOr_r" if signed else "cividis", aspect="auto")
    image.set(clim=(-limit if signed else 0, limit), interpolation="nearest")
    if rows <= NUMBERED and columns <= NUMBERED:
        _write_numbers(axes, values, limit, signed)
    axes.set_title(_plain(f"{title} {found.text}"), fontsize=9)
    axes.set(xlabel="last axis", ylabel="axis before it")
    if down and rows <= NAMED:
        axes.set_yticks(range(rows), map(_plain, down), fontsize=8)
    if across and columns <= NAMED:
        upright = 90 * (max(map(len, across)) > SHORT)
        axes.set_xticks(range(columns), map(_plain, across), fontsize=8, rotation=upright)
    figure.colorbar(image, ax=axes)
    name = re.sub(r"[^\w.#]+", "-", f"step-{title}").strip("-")
    position = f"[{','.join(map(str, found.position))}]" if found.position else ""
    path = folder / f"{name}{position}.png"
    write_picture(figure, path, "start tinygpt step in another folder")
    return path


def _plain(text: str) -> str:
    """matplotlib reads what follows a `$` as a formula."""
    return text.replace("$", r"\$")


def _write_numbers(axes: Any, values: Floats, limit: float, signed: bool) -> None:
    for (row, column), value in np.ndenumerate(values):
        share = abs(value) / limit if np.isfinite(value) else 0.0
        dark = share > 0.6 if signed else share < 0.5
        colour = "white" if dark else "black"
        text = axes.text(column, row, number(round(value, 3)), ha="center", va="center")
        text.set(fontsize=6, color=colour)
