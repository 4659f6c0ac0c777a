"""The files that draw() writes: text stays text, colours can be read, files are whole.

An error says in a sentence why nothing can be drawn.
"""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

import tensor
from tensor import Tensor, nn, no_grad
from tensor.drawing import draw
from tensor.drawing.boxes import shortened
from tensor.drawing.contents import contents
from tensor.drawing.shapes import ARROW, EDGE, FILL, PAGE, TEXT
from tensor.errors import GraphError
from tests.helpers.drawing import arrows, both, leaf, model_on

STRING = r'"(?:[^"\\\n]|\\["\\n])*"'  # of DOT
FREED = r"freed the graph behind `.*` \(test_files.py:.*Draw before backward, or call backward\("
SVG = "{http://www.w3.org/2000/svg}"


# -- the text of the files -------------------------------------------------------------------------


class Named(nn.Module):
    """A parameter of any name."""

    def __init__(self, name: str, device: str):
        setattr(self, name, nn.Parameter(tensor.ones(2, device=device)))
        self.only = name

    def __call__(self) -> Tensor:
        return (getattr(self, self.only) * 2.0).sum()  # </title><script>alert("&")</script>


NAMES = [
    "</script><script>alert(1)</script>",
    'a"b\\',
    "\\",
    "<&>]]>",
    "$\\frac{1}$",
    "\x00\x1b[2J\x0c",
    "\u202eabc",
    "\ud800",
    "漢字" * 3,
    "x" * 300,
    "a\nb",
    "{}",
    "'",
]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_data(name: str, device: str, tmp_path: Path) -> None:
    model = Named(name, device)
    for collapse in (True, False):
        picture = draw(model(), model=model, collapse=collapse)
        root = ElementTree.fromstring(picture.svg)
        assert {element.tag for element in root.iter()} <= {
            SVG + tag for tag in ("svg", "title", "desc", "style", "g", "rect", "text", "path")
        }
        check_dot(picture.dot)
        labels = [
            label[1:-1].replace("\\\\", "\0").replace('\\"', '"').replace("\0", "\\")
            for label in re.findall(STRING, picture.dot)
        ]
        assert any(shortened(name) + "  (2,)" in label for label in labels)
    for suffix in ("svg", "png", "dot"):
        picture.save(tmp_path / f"graph.{suffix}")
    texts = [element.text for element in root.iter(SVG + "text")]
    if name.isascii() and name.isprintable() and len(name) <= 44:
        assert name in texts
    assert not any(c for text in texts for c in text or "" if not c.isprintable())
    # the user's line, as text
    assert any(
        '</title><script>alert("&")</script>' in (element.text or "")
        for element in root.iter(SVG + "title")
    )


def check_dot(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Read what draw() writes of DOT, strictly: the names of the nodes, and the edges."""
    lines = [re.sub(STRING, "S", line).strip() for line in text.splitlines()]
    assert not any('"' in line or "\\" in line for line in lines)
    nodes = [
        found[1]
        for line in lines
        if (found := re.fullmatch(r"(b\d+) \[label=S, tooltip=S[^\]]*\];", line))
    ]
    edges = [
        (found[1], found[2])
        for line in lines
        if (found := re.fullmatch(r"(b\d+) -> (b\d+)(?: \[label=S\])?;", line))
    ]
    others = [line for line in lines if not re.match(r"b\d+ (\[|->)", line)]
    assert all(
        re.fullmatch(
            r"digraph \{|\}|label=S;.*|node \[.*|subgraph cluster_\d+ \{|(b\d+(; |;))+", line
        )
        for line in others
    )
    assert sum(line.endswith("{") for line in lines) == lines.count("}")
    assert len(nodes) + len(edges) + len(others) == len(lines)
    return nodes, edges


@both
def test_dot_has_every_box_and_every_arrow(device: str, collapse: bool) -> None:
    model = model_on(device)
    loss = model.loss()
    found = contents(loss, model, collapse)
    nodes, edges = check_dot(draw(loss, model=model, collapse=collapse).dot)
    assert sorted(nodes) == sorted(f"b{i}" for i in range(len(found.boxes)))
    place = {box: f"b{i}" for i, box in enumerate(found.boxes)}
    assert edges == [(place[wire.source], place[box]) for wire, box, _ in arrows(found)]


def test_svg_says_what_it_is(device: str) -> None:
    model = model_on(device)
    loss = model.loss()
    root = ElementTree.fromstring(draw(loss, model=model).svg)
    assert root.get("role") == "img"
    assert root.findtext(SVG + "title") == "How this result of `cross_entropy` was computed"
    assert "ops" in str(root.findtext(SVG + "desc"))
    titles = [title.text or "" for title in root.iter(SVG + "title")]
    # where the user called it
    assert any(title.startswith("`cross_entropy` at drawing.py:") for title in titles)
    texts = [text.text for text in root.iter(SVG + "text")]
    assert f"the result: {loss.item():.5g}" in texts


def test_text_can_be_read_in_light_and_in_dark() -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(a), luminance(b)))
        return (high + 0.05) / (low + 0.05)

    for mode in (0, 1):
        grounds = [PAGE[mode]]
        grounds += [fill.colours[mode] for name, fill in FILL.items() if name != "bar"]
        inks = [pen.colours[mode] for pen in TEXT.values()]
        assert min(contrast(ink, ground) for ink in inks for ground in grounds) >= 4.5
        assert (
            min(contrast(line[mode], ground) for line in (ARROW, EDGE) for ground in grounds) >= 3
        )
    css = draw(leaf(2) * 2.0).svg
    assert "@media (prefers-color-scheme: dark)" in css
    assert min(float(size) for size in re.findall(r"font-size:([\d.]+)px", css)) >= 12


# -- files and errors ------------------------------------------------------------------------------


def test_files(device: str, tmp_path: Path) -> None:
    y = leaf(2, device=device) * 2.0
    for name, start in (("a.svg", b"<svg "), ("a.PNG", b"\x89PNG\r\n"), ("a.dot", b"digraph {")):
        picture = draw(y, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    draw(y, str(tmp_path / "a.svg"))  # once more, over the old one
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == picture._repr_svg_() == picture.svg
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.PNG", "a.dot", "a.svg"]
    assert repr(picture).startswith("Picture(1 box, ")


def test_png_is_not_drawn_through_pyplot(device: str, tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    draw(leaf(2, device=device) * 2.0, tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_what_draws_is_loaded_when_somebody_draws() -> None:
    code = """
import sys, tensor
late = {"tensor.drawing", "unicodedata"}
assert not late & set(sys.modules)
assert "draw" in dir(tensor)
assert tensor.draw(tensor.ones(2, requires_grad=True) * 2).boxes == 1
assert late < set(sys.modules)
assert not hasattr(tensor, "drew")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("suffix", ["svg", "png", "dot"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    suffix: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / f"graph.{suffix}"
    target.write_bytes(b"old")

    def torn(source: Any, target: Any) -> None:
        assert Path(source).stat().st_size > 0
        raise OSError("the disk is full")

    monkeypatch.setattr("os.replace", torn)
    with pytest.raises(OSError, match="full"):
        draw(leaf(2, device=device) * 2.0, target)
    assert [file.name for file in tmp_path.iterdir()] == [target.name]
    assert target.read_bytes() == b"old"


def test_too_large_for_a_png(device: str, tmp_path: Path) -> None:
    picture = draw(leaf(2, device=device) * 2.0)
    picture.scene = picture.scene._replace(height=200_000.0)
    with pytest.raises(
        ValueError, match=r"too large for a PNG: save as \.svg, or draw with collapse=True"
    ):
        picture.save(tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_errors_teach(device: str, tmp_path: Path) -> None:
    x = leaf(2, device=device)
    y = x * 2.0
    with pytest.raises(ValueError, match=r"'graph.jpg' must end in \.svg, \.png or \.dot"):
        draw(y, "graph.jpg")
    with pytest.raises(ValueError, match=r"must end in"):
        draw(y).save(tmp_path / "graph")
    with pytest.raises(FileNotFoundError, match=r"there is no folder '.*missing': make it first"):
        draw(y, tmp_path / "missing" / "graph.svg")
    with pytest.raises(TypeError, match=r"y must be a tensor, such as a loss, not float"):
        draw(1.5)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"must have named_parameters\(\), as nn.Module has; dict has not"
    ):
        draw(y, model={})
    with pytest.raises(GraphError, match=r"tensor \(2,\) float32, a leaf, which no op made"):
        draw(x)
    for constant in (tensor.ones(2, device=device), y.detach()):
        with pytest.raises(
            GraphError,
            match=r"is in no graph: compute it from a leaf with requires_grad=True, outside",
        ):
            draw(constant)
    with no_grad(), pytest.raises(GraphError, match="is in no graph"):
        draw(x * 2.0)


def test_a_freed_graph_says_what_to_do(device: str) -> None:
    x = leaf(2, device=device)
    hidden = x * 2.0
    y = hidden.sum()
    y.backward(retain_graph=True)
    assert "gradient 2.83" in draw(y).svg
    y.backward()
    for part in (y, hidden, hidden.exp()):
        with pytest.raises(
            GraphError,
            match=FREED,
        ):
            draw(part)
