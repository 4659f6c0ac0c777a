"""The picture as SVG: text that can be searched, tooltips, light or dark like the screen."""

from __future__ import annotations

from html import escape

from tensor.drawing.shapes import (
    ARROW,
    EDGE,
    FILL,
    PAGE,
    TEXT,
    Rect,
    Scene,
    Shape,
    Text,
    bezier,
)

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'DejaVu Sans', sans-serif"


def svg(scene: Scene) -> str:
    """The whole file."""
    x, y, width, height = (f"{number:.0f}" for number in scene[:4])
    size = f'width="{width}" height="{height}"'
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" class="tensor-graph" role="img"',
        f'{size} viewBox="{x} {y} {width} {height}">',
        f"<title>{escape(scene.title, quote=False)}</title>",
        f"<desc>{escape(scene.description, quote=False)}</desc>",
        f"<style>{_style()}</style>",
        f'<rect class="page" x="{x}" y="{y}" {size}/>',
    ]
    for mark in scene.marks:
        title = f"<title>{escape(mark.tooltip, quote=False)}</title>" if mark.tooltip else ""
        lines.append(f"<g>{title}{''.join(map(_shape, mark.shapes))}</g>")
    return "\n".join([*lines, "</svg>\n"])


def _style() -> str:
    rules = {"text": f"font-family:{FONT};white-space:pre"}
    rules[".arrow"] = "fill:none;stroke-width:1.5"
    rules[".label"] = "paint-order:stroke;stroke-width:4px"
    for name, pen in TEXT.items():
        rules[f".t-{name}"] = f"font-size:{pen.size:g}px;font-weight:{pen.weight}"
    dark = f"@media (prefers-color-scheme: dark){{{_css(_colours(1))}}}"
    return _css(rules) + _css(_colours(0)) + dark


def _colours(dark: int) -> dict[str, str]:
    rules = {".page": f"fill:{PAGE[dark]}", ".t-label": f"stroke:{PAGE[dark]}"}
    rules[".arrow"], rules[".tip"] = f"stroke:{ARROW[dark]}", f"fill:{ARROW[dark]}"
    for name, fill in FILL.items():
        rules[f".r-{name}"] = f"fill:{fill.colours[dark]};stroke:{EDGE[dark]}"
    for name, pen in TEXT.items():
        rules[f"text.t-{name}"] = f"fill:{pen.colours[dark]}"
    return rules


def _css(rules: dict[str, str]) -> str:
    """Each rule holds for this picture only: in a notebook a style is the whole page's."""
    return "".join(f".tensor-graph {name}{{{rule}}}" for name, rule in rules.items())


def _shape(shape: Shape) -> str:
    if isinstance(shape, Text):
        at = f'x="{shape.x:.1f}" y="{shape.y:.1f}" text-anchor="{shape.anchor}"'
        return f'<text class="t-{shape.style}" {at}>{escape(shape.text, quote=False)}</text>'
    if isinstance(shape, Rect):
        return _rect(shape)
    strokes = ""
    for stroke in shape.strokes:
        start, *rest = (f"{x:.1f} {y:.1f}" for x, y in bezier(*stroke))
        strokes += f"M{start}C{' '.join(rest)}"
    tips = "".join(f"M{x:.1f} {y:.1f}l-4.5 -9h9z" for x, y in shape.tips)
    return f'<path class="arrow" d="{strokes}"/><path class="tip" d="{tips}"/>'


def _rect(rect: Rect) -> str:
    fill = FILL[rect.style]
    size = f'x="{rect.x:.1f}" y="{rect.y:.1f}" width="{rect.width:.1f}" height="{rect.height:.1f}"'
    dashes = " ".join(map(str, fill.dashes)) or "none"
    edge = f'stroke-width="{fill.line:g}" stroke-dasharray="{dashes}"'
    return f'<rect class="r-{rect.style}" {size} rx="{fill.radius:g}" {edge}/>'
