"""Imports go down: no circle among modules or rooms, and none hidden in a function."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def floors() -> ModuleType:
    spec = importlib.util.spec_from_file_location("floors", ROOT / "docs" / "floors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_circle_among_modules_and_rooms() -> None:
    house = floors()
    assert house.circles(house.module_imports()) == []
    assert house.circles(house.room_imports()) == []


def test_a_circle_is_found() -> None:
    assert floors().circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


@pytest.mark.parametrize("package", ["tensor", "tinygpt"])
def test_no_import_of_the_house_in_a_function(package: str) -> None:
    """cli.py loads commands by name; `if TYPE_CHECKING` counts as any other import."""
    for path in (ROOT / package).rglob("*.py"):
        functions = (
            node
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        )
        for function in functions:
            for node in ast.walk(function):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                own = [name for name in names if name.split(".")[0] in ("tensor", "tinygpt")]
                assert not own, f"{path.relative_to(ROOT)}:{node.lineno} imports {own[0]}"
