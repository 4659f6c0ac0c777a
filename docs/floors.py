"""Draw which part of the code imports which: `python docs/floors.py` writes docs/floors.svg.

A part, here called a room, is a folder or a module at the top of `tensor` or `tinygpt`. A room is
one floor above the highest room that it imports. So every line of the picture leads down. If
imports form a circle, there is no such order, and nothing is drawn.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tensor", "tinygpt")
Imports = dict[str, set[str]]  # a name -> the names that it imports


def modules() -> dict[str, Path]:
    """tensor.ops.views -> its file; a package is its __init__.py."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """The modules of both packages that some code imports, also inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


def module_imports() -> Imports:
    """Each module and the modules that it imports, also for annotations alone."""
    known = modules()
    return {
        name: set(imports_of(ast.parse(path.read_text()), known)) for name, path in known.items()
    }


def room_of(module: str) -> str:
    """The folder of a module: tensor.ops.views -> tensor.ops. A module at the top is a room of its
    own.
    """
    parent = module.rpartition(".")[0]
    return module if parent in PACKAGES or modules()[module].name == "__init__.py" else parent


def room_imports() -> Imports:
    """Each room and the other rooms that it imports."""
    rooms: Imports = {}
    for module, imported in module_imports().items():
        others = {room_of(name) for name in imported} - {room_of(module)}
        rooms.setdefault(room_of(module), set()).update(others)
    return rooms


def circles(imports: Imports) -> list[list[str]]:
    """The groups of names that reach each other (Tarjan 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in imports.get(name, ()):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in imports:
        if name not in index:
            visit(name)
    return found


# -- the picture


def heights(imports: Imports) -> dict[str, int]:
    """The floor of each room: one above the highest room it imports, and 0 if it imports none."""
    known: dict[str, int] = {}

    def height(room: str) -> int:
        if room not in known:
            known[room] = 1 + max((height(other) for other in imports[room]), default=-1)
        return known[room]

    for room in imports:
        height(room)
    return known


def draw(path: Path) -> None:
    """One row a floor, a box a room, a line from each room to the rooms that it imports."""
    from matplotlib.figure import Figure

    imports = room_imports()
    floor = heights(imports)
    rows = [
        sorted(room for room in floor if floor[room] == i) for i in range(max(floor.values()) + 1)
    ]
    place = {
        room: ((i + 0.5) / len(row), height)
        for height, row in enumerate(rows)
        for i, room in enumerate(row)
    }
    figure = Figure(figsize=(14, 1 + 0.75 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    axes.axis("off")
    axes.set(xlim=(0, 1), ylim=(-0.6, len(rows) - 0.4))
    for room, others in imports.items():
        for other in others:
            (x, y), (to_x, to_y) = place[room], place[other]
            axes.plot([x, to_x], [y, to_y], color="0.85", linewidth=0.6, zorder=0)
    for room, (x, y) in place.items():
        colour = "#dbe9f6" if room.startswith("tensor") else "#fdebd0"
        box = {"boxstyle": "round", "facecolor": colour, "edgecolor": "0.6"}
        axes.text(x, y, room, ha="center", va="center", fontsize=8, bbox=box)
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    assert not circles(module_imports())
    assert not circles(room_imports())
    draw(ROOT / "docs" / "floors.svg")
