"""The scene as PNG, through matplotlib: the light colours, the same places."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

from tensor.drawing.scene import BOLD, WRITING, Curve, Rect, Scene, Text
from tensor.drawing.svg import ARROW, DASHED, EDGE, FILL, PAGE, PLAIN, ROUND, TEXT, THICK

SHARP = 2.0  # pixels to a unit
MOST_PIXELS = 16e6  # of taller pictures the pixels are larger
LONGEST = 60_000  # pixels to a side; matplotlib ends at 65,536
SMALLEST = 0.5  # pixels to a unit; below that nothing can be read


def png(scene: Scene, path: Path) -> None:
    """Write the file. Raises ValueError where it would be too large to be read."""
    from matplotlib.figure import Figure  # without pyplot: a file, never a window

    scale = min(SHARP, LONGEST / max(scene.width, scene.height), math.sqrt(MOST_PIXELS / (scene.width * scene.height)))
    if scale < SMALLEST:
        raise ValueError(f"draw: {scene.width:,.0f} x {scene.height:,.0f} is too large for a PNG: save as .svg, or draw with collapse=True")
    dpi = 72 * scale  # so that a point is a unit
    figure = Figure(figsize=(scene.width / 72, scene.height / 72), dpi=dpi, facecolor=PAGE[0])
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, scene.width), ylim=(scene.height, 0))
    axes.set_axis_off()
    painter = _Painter(axes)
    for mark in scene.marks[: scene.frames]:
        painter.shapes(mark.shapes)
    for curve in scene.curves:
        painter.curve(curve)
    for mark in scene.marks[scene.frames :]:
        painter.shapes(mark.shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a letter that the font has not: an empty square stands for it
        figure.savefig(path, format="png", dpi=dpi)


class _Painter:
    """Puts shapes on matplotlib's axes, each above those before."""

    def __init__(self, axes: Any):
        self.axes, self.order = axes, 0

    def _next(self) -> int:
        self.order += 1
        return self.order

    def shapes(self, shapes: list[Rect | Text]) -> None:
        for shape in shapes:
            if isinstance(shape, Text):
                self._text(shape)
            else:
                self._rect(shape)

    def _rect(self, rect: Rect) -> None:
        from matplotlib.patches import FancyBboxPatch

        edge = "none" if rect.style in PLAIN else EDGE[0]
        dashes = DASHED.get(rect.style)
        patch = FancyBboxPatch(
            (rect.x, rect.y),
            rect.width,
            rect.height,
            boxstyle=f"round,pad=0,rounding_size={min(ROUND[rect.style], rect.height / 4):g}",
            facecolor=FILL[rect.style][0],
            edgecolor=edge,
            linewidth=THICK.get(rect.style, 1.2),
            linestyle=(0, tuple(map(float, dashes.split()))) if dashes else "solid",
            zorder=self._next(),
        )
        self.axes.add_patch(patch)

    def _text(self, text: Text) -> None:
        self.axes.text(
            text.x,
            text.y,
            text.text,
            color=TEXT[text.style][0],
            fontsize=WRITING[text.style],
            fontweight="bold" if text.style in BOLD else "normal",
            family="DejaVu Sans",
            horizontalalignment={"start": "left", "middle": "center", "end": "right"}[text.anchor],
            verticalalignment="baseline",
            parse_math=False,  # a dollar sign in a name is a dollar sign
            zorder=self._next(),
        )

    def curve(self, curve: Curve) -> None:
        from matplotlib.patches import PathPatch, Polygon
        from matplotlib.path import Path as Line

        points: list[tuple[float, float]] = []
        codes: list[Any] = []
        for x, y, a, b in curve.strokes:
            middle = (y + b) / 2
            points += [(x, y), (a, b)] if x == a else [(x, y), (x, middle), (a, middle), (a, b)]
            codes += [Line.MOVETO, Line.LINETO] if x == a else [Line.MOVETO, Line.CURVE4, Line.CURVE4, Line.CURVE4]
        if points:
            self.axes.add_patch(PathPatch(Line(points, codes), facecolor="none", edgecolor=ARROW[0], linewidth=1.5, zorder=self._next()))
        for x, y in curve.tips:
            self.axes.add_patch(Polygon([(x, y), (x - 4.5, y - 9), (x + 4.5, y - 9)], closed=True, facecolor=ARROW[0], zorder=self._next()))
