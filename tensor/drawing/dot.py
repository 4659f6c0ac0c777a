"""The contents as text in the language DOT, for those who have Graphviz: `dot -Tsvg graph.dot`."""

from __future__ import annotations

from tensor.drawing.contents import Box, Contents


def dot(contents: Contents) -> str:
    """A digraph: a node for each box, an edge for each value that goes from one to another, a cluster for each frame."""
    name = {box: f"b{i}" for i, box in enumerate(contents.boxes)}
    lines = ["digraph {", f"  label={_quoted(contents.title)}; labelloc=t; fontname=sans;", "  node [shape=box, fontname=sans]; edge [fontname=sans];"]
    for number, frame in contents.frames.items():
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(f'{frame.name}  {frame.module}'.strip())}; style=dashed;")
        lines += [f"    {_node(name[box], box)}" for box in contents.boxes if box.frame == number]
        lines.append("  }")
    lines += [f"  {_node(name[box], box)}" for box in contents.boxes if box.frame not in contents.frames]
    for edge in contents.edges:
        label = " ".join(filter(None, (edge.label, f"×{edge.times:,}" if edge.times > 1 else "")))
        lines.append(f"  {name[edge.source]} -> {name[edge.target]}" + (f" [label={_quoted(label)}];" if label else ";"))
    return "\n".join([*lines, "}", ""])


def _node(name: str, box: Box) -> str:
    label = "\n".join("  ".join(filter(None, texts)) for _, texts in box.rows)
    shape = {"leaf": ", style=rounded", "call": ", peripheries=2", "repeat": ", peripheries=2, style=dashed"}.get(box.kind, "")
    return f"{name} [label={_quoted(label)}, tooltip={_quoted(box.tooltip)}{shape}];"


def _quoted(text: str) -> str:
    r"""In double quotes: those inside, and backslashes, escaped; \n between lines."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{text}"'
