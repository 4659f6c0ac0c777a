"""The scene as SVG: text that can be searched and pointed at, light or dark as the reader's screen is."""

from __future__ import annotations

from xml.sax.saxutils import escape

from tensor.drawing.scene import BOLD, WRITING, Curve, Mark, Rect, Scene, Text

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"

# colours of each style: (light, dark); of rectangles what they are filled with, and their edge
PAGE = ("#ffffff", "#14171c")
TEXT = {
    "heading": ("#16191d", "#f0f3f7"),
    "name": ("#16191d", "#f0f3f7"),
    "call": ("#16191d", "#f0f3f7"),
    "plain": ("#24292f", "#dde3ea"),
    "soft": ("#57606a", "#aab4c0"),
    "label": ("#57606a", "#aab4c0"),
    "foot": ("#57606a", "#aab4c0"),
    "gradient": ("#8f3a00", "#ffb27d"),
}
FILL = {
    "frame": ("#f5f6f8", "#1a1e24"),
    "op": ("#ffffff", "#232830"),
    "call": ("#fff9ea", "#2e2a20"),
    "sheet": ("#fff9ea", "#2e2a20"),
    "repeat": ("#fff9ea", "#2e2a20"),
    "leaf": ("#ffffff", "#232830"),
    "result": ("#ffffff", "#232830"),
    "band": ("#e8f0fe", "#22334d"),
    "bar": ("#2f6fd0", "#6ea8fe"),
}
EDGE = ("#6b7480", "#8a94a1")
ARROW = ("#4a525c", "#a3adb9")
THICK = {"result": 2.5}  # edges are 1.2 elsewhere
PLAIN = ("band", "bar")  # rectangles without an edge
DASHED = {"frame": "5 4", "repeat": "2 3"}
ROUND = {"op": 6, "call": 6, "sheet": 6, "repeat": 6, "leaf": 6, "result": 6, "frame": 10, "band": 2, "bar": 1}


def svg(scene: Scene) -> str:
    """The whole file."""
    width, height = f"{scene.width:.0f}", f"{scene.height:.0f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tensor-graph" role="img" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"<title>{escape(scene.title)}</title>",
        f"<desc>{escape(scene.description)}</desc>",
        f"<style>{_style()}</style>",
        f'<rect class="page" width="{width}" height="{height}"/>',
        *map(_mark, scene.marks[: scene.frames]),
        *map(_curve, scene.curves),
        *map(_mark, scene.marks[scene.frames :]),
        "</svg>\n",
    ]
    return "\n".join(parts)


def _style() -> str:
    """Every rule begins with the picture's class: in a notebook a style holds for the whole page."""
    light, dark = _colours(0), _colours(1)
    sizes = [f".{name}{{font-size:{size:g}px{';font-weight:600' if name in BOLD else ''}}}" for name, size in WRITING.items()]
    edges = [f".r-{name}{{stroke-dasharray:{dashes}}}" for name, dashes in DASHED.items()]
    edges += [f".r-{name}{{stroke-width:{THICK.get(name, 1.2):g}}}" for name in FILL if name not in PLAIN]
    base = [*sizes, *edges, f"text{{font-family:{FONT};white-space:pre}}", ".arrow{fill:none;stroke-width:1.5}", ".label{paint-order:stroke;stroke-width:4px}"]
    root = ".tensor-graph "
    return "".join(root + rule for rule in [*base, *light]) + "@media (prefers-color-scheme: dark){" + "".join(root + rule for rule in dark) + "}"


def _colours(which: int) -> list[str]:
    rules = [f".page{{fill:{PAGE[which]}}}", f".arrow{{stroke:{ARROW[which]}}}", f".tip{{fill:{ARROW[which]}}}", f".label{{stroke:{PAGE[which]}}}"]
    rules += [f".{name}{{fill:{colours[which]}}}" for name, colours in TEXT.items()]
    return rules + [f".r-{name}{{fill:{fill[which]}{'' if name in PLAIN else f';stroke:{EDGE[which]}'}}}" for name, fill in FILL.items()]


def _mark(mark: Mark) -> str:
    title = f"<title>{escape(mark.tooltip)}</title>" if mark.tooltip else ""
    return f'<g class="m-{mark.kind}">{title}{"".join(map(_shape, mark.shapes))}</g>'


def _shape(shape: Rect | Text) -> str:
    if isinstance(shape, Text):
        anchor = "" if shape.anchor == "start" else f' text-anchor="{shape.anchor}"'
        return f'<text class="{shape.style}" x="{shape.x:.1f}" y="{shape.y:.1f}"{anchor}>{escape(shape.text)}</text>'
    size = f'x="{shape.x:.1f}" y="{shape.y:.1f}" width="{shape.width:.1f}" height="{shape.height:.1f}"'
    return f'<rect class="r-{shape.style}" {size} rx="{min(ROUND[shape.style], shape.height / 4):g}"/>'


def _curve(curve: Curve) -> str:
    steps = "".join(
        f"M{x:.1f} {y:.1f}V{b:.1f}" if x == a else f"M{x:.1f} {y:.1f}C{x:.1f} {(y + b) / 2:.1f} {a:.1f} {(y + b) / 2:.1f} {a:.1f} {b:.1f}"
        for x, y, a, b in curve.strokes
    )
    tips = "".join(f"M{x:.1f} {y:.1f}l-4.5 -9h9z" for x, y in curve.tips)
    return f'<path class="arrow" d="{steps}"/>' + (f'<path class="tip" d="{tips}"/>' if tips else "")
