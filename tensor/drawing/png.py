"""The picture as PNG, through matplotlib, in the light colours."""

from __future__ import annotations

import logging
import math
import warnings
from pathlib import Path
from typing import Any

from tensor.drawing.shapes import ARROW, EDGE, FILL, PAGE, TEXT, Rect, Scene, Shape, Text, bezier

SHARP = 2.0  # pixels to a unit
MOST_PIXELS = 16e6  # in a larger picture, fewer pixels to a unit
LONGEST = 60_000  # pixels to a side; matplotlib ends at 65,536
SMALLEST = 0.5  # pixels to a unit: with fewer, nothing can be read
SIDES = {"start": "left", "middle": "center", "end": "right"}


def png(scene: Scene, path: Path) -> None:
    """Write the file. Raises ValueError where the picture is too large to be read."""
    # without a handler, what matplotlib says of its folder for settings would go to stderr
    logging.getLogger("matplotlib").addHandler(logging.NullHandler())
    from matplotlib.figure import Figure  # not pyplot: a file, never a window

    width, height = scene.width, scene.height
    scale = min(SHARP, LONGEST / max(width, height), math.sqrt(MOST_PIXELS / (width * height)))
    if scale < SMALLEST:
        raise ValueError(
            f"draw: {width:,.0f} x {height:,.0f} is too large for a PNG: "
            "save as .svg, or draw with collapse=True"
        )
    figure = Figure((width / 72, height / 72), 72 * scale, facecolor=PAGE[0])  # a point is a unit
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(scene.x, scene.x + width), ylim=(scene.y + height, scene.y))
    axes.set_axis_off()
    for mark in scene.marks:
        for shape in mark.shapes:
            _paint(axes, shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a square stands for an unknown letter
        figure.savefig(path, format="png", dpi="figure")


def _paint(axes: Any, shape: Shape) -> None:
    from matplotlib.patches import FancyBboxPatch, PathPatch
    from matplotlib.path import Path as Line

    if isinstance(shape, Text):
        pen = TEXT[shape.style]
        side, colour = SIDES[shape.anchor], pen.colours[0]
        font = {"family": "DejaVu Sans", "size": pen.size, "weight": pen.weight, "color": colour}
        # without parse_math, a dollar sign in a name is a dollar sign
        axes.text(*shape[1:4], ha=side, parse_math=False, **font)
    elif isinstance(shape, Rect):
        fill = FILL[shape.style]
        patch = FancyBboxPatch(shape[1:3], *shape[3:], f"round,pad=0,rounding_size={fill.radius}")
        dashes = (0, fill.dashes or None)
        patch.set(fc=fill.colours[0], ec=EDGE[0], linewidth=fill.line, linestyle=dashes)
        axes.add_patch(patch)
    else:
        codes = [Line.MOVETO, Line.CURVE4, Line.CURVE4, Line.CURVE4] * len(shape.strokes)
        points = [point for stroke in shape.strokes for point in bezier(*stroke)]
        axes.add_patch(PathPatch(Line(points, codes), fill=False, ec=ARROW[0], lw=1.5))
        for x, y in shape.tips:
            axes.fill((x, x - 4.5, x + 4.5), (y, y - 9, y - 9), color=ARROW[0], lw=0)
