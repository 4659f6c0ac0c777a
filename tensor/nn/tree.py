"""A model as text: what print(model) shows."""

from __future__ import annotations

from typing import Any

from tensor.tensor import Tensor

Row = tuple[str, int]  # a line, and the numbers of the module in that line with all below


def tree(module: Any) -> str:
    """A line for each module: its name, its class, the shapes of its own parameters, and how many
    numbers it holds with all below. A parameter of several names counts under the first.
    """
    (first, total), *below = _rows(module, "", "", {})
    width = max((len(line) for line, _ in below), default=0)
    digits = len(f"{total:,}")
    lines = [f"{line:{width}}  {count:{digits},}" if count else line for line, count in below]
    return "\n".join([f"{first}: {total:,} parameters", *lines])


def _rows(module: Any, label: str, path: str, names: dict[int, str]) -> list[Row]:
    """The rows of a module and of those below. path: its name and a dot, or nothing. names: the
    first name of each parameter met so far.
    """
    own: list[str] = []
    below: list[Row] = []
    total = 0
    for name, child in module._children():
        if isinstance(child, Tensor):
            first = names.setdefault(id(child), path + name)
            met_before = first != path + name
            own.append(f"{name} = {first}" if met_before else f"{name} {child.shape}")
            total += 0 if met_before else child.size
        else:
            rows = _rows(child, f"{name}: ", f"{path}{name}.", names)
            below += [(f"  {line}", count) for line, count in rows]
            total += rows[0][1]
    line = f"{label}{type(module).__name__}  {', '.join(own)}".rstrip()
    return [(line, total), *below]
