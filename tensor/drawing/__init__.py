"""draw(y): the computation graph behind a tensor as a picture.

fold.py       which ops share a box
boxes.py      the parts of a picture
contents.py   the boxes, their rows, the arrows between them, the frames around them
layout.py     the positions
shapes.py     rectangles, texts, curves, and their styles
scene.py      the contents as shapes
svg.py, png.py, dot.py   the files
"""

from __future__ import annotations

import os
from functools import partial
from operator import methodcaller
from pathlib import Path
from typing import Any

from tensor.drawing.boxes import Contents
from tensor.drawing.contents import contents, many
from tensor.drawing.dot import dot
from tensor.drawing.png import png
from tensor.drawing.scene import scene
from tensor.drawing.svg import svg
from tensor.recording.report import write_whole
from tensor.tensor import Tensor


def draw(
    y: Tensor,
    path: str | os.PathLike[str] | None = None,
    *,
    model: Any = None,
    collapse: bool | None = None,
) -> Picture:
    """The graph behind y: a box for each op, with shapes and leaves; after backward, with norms.

    path: the file to write, .svg, .png or .dot. In a notebook, the result shows itself.
    model: the leaves get the names of its parameters.
    collapse: True draws each call of a function as one box, False draws each op.
        By default, calls become boxes where the ops are more than 40.

    Draw before backward, or after backward(retain_graph=True). Raises GraphError where no graph
    is, or the graph has been freed.
    """
    if path is not None:
        _check(Path(path))
    picture = Picture(contents(y, model, collapse))
    if path is not None:
        picture.save(path)
    return picture


class Picture:
    """A drawn graph: `svg` and `dot` as text. It keeps nothing of the graph itself."""

    def __init__(self, contents: Contents):
        self.boxes = len(contents.boxes)
        self.scene = scene(contents)
        self.svg, self.dot = svg(self.scene), dot(contents)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a whole .svg, .png or .dot, or nothing. Raises ValueError for another suffix."""
        target = Path(path)
        suffix = _check(target)
        if suffix == ".png":
            write_whole(target, partial(png, self.scene))
        else:
            text = self.svg if suffix == ".svg" else self.dot
            write_whole(target, methodcaller("write_text", text, encoding="utf-8", newline="\n"))

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        size = f"{many(self.boxes, 'box')}, {self.scene.width:.0f} x {self.scene.height:.0f}"
        return f"Picture({size}); .save('graph.svg') writes the picture, a notebook shows it"


def _check(path: Path) -> str:
    """The suffix. Raises for a path that cannot be written."""
    suffix = path.suffix.lower()
    if suffix not in (".svg", ".png", ".dot"):
        raise ValueError(f"draw: {str(path)!r} must end in .svg, .png or .dot")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"draw: there is no folder {str(path.parent)!r}: make it first")
    return suffix
