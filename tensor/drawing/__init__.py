"""draw(y): the computation graph behind a tensor as a picture.

fold.py       which ops share a box
contents.py   the boxes, their rows, and the values that go from box to box
layers.py     where each goes
scene.py      shapes with places
svg.py, png.py, dot.py: the files
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tensor.core import Tensor

if TYPE_CHECKING:
    from tensor.drawing.contents import Contents

SUFFIXES = (".svg", ".png", ".dot")


def draw(y: Tensor, path: str | os.PathLike[str] | None = None, *, model: Any = None, collapse: bool | None = None) -> Picture:
    """The computation graph behind y: a box for each op, with shapes, and the leaves in it; after backward, with their gradients' norms.

    path: where to save it, as .svg, .png or .dot. A notebook shows what comes back.   model: gives leaves the names of its parameters.
    collapse: True draws each call of a function as one box, False each op; by default calls become boxes where there are more than 40.

    Draw before backward, or after backward(retain_graph=True). Raises GraphError where there is no graph, or it has been freed.
    """
    if path is not None:
        _check(Path(path))
    from tensor.drawing.contents import contents  # here, as all below: those who draw nothing should not wait for it

    picture = Picture(contents(y, model, collapse))
    if path is not None:
        picture.save(path)
    return picture


class Picture:
    """A drawn graph: `svg` and `dot` as text. It keeps nothing of the graph itself."""

    def __init__(self, contents: Contents):
        from tensor.drawing.dot import dot
        from tensor.drawing.scene import scene
        from tensor.drawing.svg import svg

        self.boxes = len(contents.boxes)
        self.scene = scene(contents)
        self.svg, self.dot = svg(self.scene), dot(contents)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it as .svg, .png or .dot: whole, or not at all. Raises ValueError for another suffix."""
        from tensor.drawing.png import png

        target = Path(path)
        _check(target)
        writers: dict[str, Callable[[Path], None]] = {
            ".svg": lambda file: _write(file, self.svg),
            ".dot": lambda file: _write(file, self.dot),
            ".png": lambda file: png(self.scene, file),
        }
        temporary = target.with_name(f"{target.name}.{os.getpid()}.tmp")
        try:
            writers[target.suffix.lower()](temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        boxes = f"{self.boxes} box{'es' * (self.boxes != 1)}"
        return f"Picture({boxes}, {self.scene.width:.0f} x {self.scene.height:.0f}); .save('graph.svg') writes it, a notebook shows it"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def _check(path: Path) -> None:
    """Raise before any work is done for a path that cannot be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"draw: {str(path)!r} must end in .svg, .png or .dot, which says what to draw")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"draw: there is no folder {str(path.parent)!r}: make it first")
