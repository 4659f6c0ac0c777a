"""One plane of an array as a picture, with its numbers where there is room for them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinygpt.errors import InputError
from tinygpt.files import replace
from tinygpt.step.values import Plane, number

NUMBERED = 24  # rows and columns up to which the numbers are written
NAMED = 64  # and up to which their names are
SHORT = 4  # letters of a name that stands upright above its column


def draw(found: Plane, title: str, folder: Path, down: Sequence[str] = (), across: Sequence[str] = ()) -> Path:
    """Write the picture, under a name made from the title; the file. Raises InputError where that cannot be done.

    down, across: what the rows and columns are called, if anything.
    """
    from matplotlib.figure import Figure  # here: matplotlib takes longer to import than all the rest

    values = found.values
    rows, columns = values.shape
    size = min(max(columns * 0.5, 4), 14), min(max(rows * 0.35, 2) + 1, 12)
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    axes = figure.add_subplot()
    finite = np.abs(values[np.isfinite(values)])
    limit = float(finite.max()) if finite.size and finite.max() > 0 else 1.0
    signed = bool((values < 0).any())
    image = axes.imshow(values, cmap="PuOr_r" if signed else "cividis", vmin=-limit if signed else 0, vmax=limit, aspect="auto", interpolation="nearest")
    if rows <= NUMBERED and columns <= NUMBERED:
        _write_numbers(axes, values, limit, signed)
    axes.set_title(f"{title} {found.text}".replace("$", r"\$"), fontsize=9)
    axes.set(xlabel="last axis", ylabel="axis before it")
    if down and rows <= NAMED:
        axes.set_yticks(range(rows), [name.replace("$", r"\$") for name in down], fontsize=8)
    if across and columns <= NAMED:
        axes.set_xticks(range(columns), [name.replace("$", r"\$") for name in across], fontsize=8, rotation=90 * (max(map(len, across)) > SHORT))
    figure.colorbar(image, ax=axes)
    place = f"[{','.join(map(str, found.place))}]" if found.place else ""
    path = folder / (re.sub(r"[^\w.#]+", "-", f"step-{title}").strip("-") + place + ".png")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with warnings.catch_warnings(action="ignore"):  # a token that the font cannot draw is a box
            figure.savefig(temporary, format="png")
        replace(temporary, path)
    except OSError as error:
        raise InputError(f"cannot write {path.name} here ({error.strerror or error})") from None
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _write_numbers(axes, values, limit: float, signed: bool) -> None:  # type: ignore[no-untyped-def]
    for (row, column), value in np.ndenumerate(values):
        share = abs(value) / limit if np.isfinite(value) else 0.0
        dark = share > 0.6 if signed else share < 0.5
        axes.text(column, row, number(round(float(value), 3)), ha="center", va="center", fontsize=6, color="white" if dark else "black")
