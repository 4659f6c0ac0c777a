"""The contents in the language DOT, for Graphviz: `dot -Tsvg graph.dot`."""

from __future__ import annotations

import json

from tensor.drawing.boxes import Box, Contents

STYLES = {
    "op": "",
    "leaf": ", style=rounded",
    "call": ", peripheries=2",
    "repeat": ", peripheries=2, style=dashed",
}


def dot(contents: Contents) -> str:
    """A digraph: a node for each box, an edge for each arrow, a cluster for each frame."""
    names = {box: f"b{i}" for i, box in enumerate(contents.boxes)}
    lines = [
        "digraph {",
        f"  label={_quoted(contents.title)}; labelloc=t; fontname=sans;",
        "  node [shape=box, fontname=sans]; edge [fontname=sans];",
    ]
    for number, frame in enumerate(contents.frames):
        inside = [names[box] for box in frame.boxes]
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(f'{frame.name}  {frame.module}'.strip())}; style=dashed;")
        lines.append(f"    {'; '.join(inside)};")
        lines.append("  }")
    lines += [f"  {name} {_attributes(box)};" for box, name in names.items()]
    for wire in contents.wires:
        for box, times in wire.targets.items():
            label = f"{wire.label} ×{times:,}" if times > 1 else wire.label
            attributes = f" [label={_quoted(label.strip())}]" if label else ""
            lines.append(f"  {names[wire.source]} -> {names[box]}{attributes};")
    return "\n".join([*lines, "}", ""])


def _attributes(box: Box) -> str:
    label = "\n".join("  ".join(filter(None, texts)) for _, texts in box.rows)
    return f"[label={_quoted(label)}, tooltip={_quoted(box.tooltip)}{STYLES[box.kind]}]"


def _quoted(text: str) -> str:
    r"""In double quotes, with \" and \\ and \n as in JSON."""
    return json.dumps(text, ensure_ascii=False)
