"""draw(y): all of the graph is in the picture, once; nothing overlaps; text stays text; what cannot be drawn is said in a sentence."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, nn, no_grad
from tensor.draw import Picture, draw
from tensor.draw.contents import Box, Contents, common, contents, input_name
from tensor.draw.fold import FOLD_ABOVE, MERGE_ABOVE, MOST
from tensor.draw.scene import Rect, Text, scene, width_of
from tensor.draw.svg import ARROW, EDGE, FILL, PAGE, TEXT
from tensor.errors import GraphError
from tensor.graph import Accumulator, Node, Output, reachable

SVG = "{http://www.w3.org/2000/svg}"
Collapse = bool | None
both = pytest.mark.parametrize("collapse", [True, False])


def leaf(*shape: int, device: str = "cpu", dtype: str = "float32") -> Tensor:
    return tensor.ones(*shape, device=device, dtype=dtype, requires_grad=True)


class Layer(nn.Module):
    def __init__(self, width: int):
        self.norm, self.inner, self.outer = nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def __call__(self, x: Tensor) -> Tensor:
        return self.outer(self.inner(self.norm(x)).relu())


class Model(nn.Module):
    """Residual layers between a table that is used twice."""

    def __init__(self, layers: int = 3, width: int = 4):
        self.table = nn.Embedding(5, width)
        self.layers = [Layer(width) for _ in range(layers)]

    def __call__(self, ids: Any) -> Tensor:
        x = self.table(ids)
        for layer in self.layers:
            x = x + layer(x)
        return x @ self.table.weight.T

    def loss(self) -> Tensor:
        return tensor.cross_entropy(self([[0, 1, 2]]), Tensor([[1, 2, 3]], device=self.table.weight.device))


def model_on(device: str, layers: int = 3) -> Model:
    return Model(layers).to(device=device)


# -- what is in it ------------------------------------------------------------------------------------------------------


def check_complete(y: Tensor, found: Contents) -> None:
    """Every op in exactly one box, every leaf a row or a box, and every input that crosses from box to box an arrow, counted."""
    nodes = reachable([y.node])
    ops = [node for node in nodes if type(node) is Node]
    drawn = [node for box in found.boxes if box.kind != "leaf" for node in box.nodes]
    assert drawn == ops
    owner: dict[Any, Box] = {node: box for box in found.boxes for node in box.nodes}
    rows: Counter[Any] = Counter(leaf for box in found.boxes for leaf in box.leaves)
    assert rows == Counter(node for node in nodes if type(node) is Accumulator)

    expected: Counter[tuple[Box, Box, Any]] = Counter()
    for node in ops:
        for parent in node.parents:
            source = owner.get(parent.parents[0] if type(parent) is Output else parent)
            if source is not None and source is not owner[node]:
                expected[source, owner[node], parent] += 1
            elif type(parent) is Accumulator:
                assert parent in owner[node].leaves
    assert {(e.source, e.target, e.value): e.times for e in found.edges} == expected
    places = {box: i for i, box in enumerate(found.boxes)}
    assert all(places[e.source] < places[e.target] for e in found.edges)


def rectangles(picture: Any) -> list[Rect]:
    return [mark.shapes[0] for mark in picture.marks if mark.kind in ("op", "call", "repeat", "leaf") for mark.shapes[0] in mark.shapes[:1]]


def check_apart(found: Contents) -> None:
    """No two boxes overlap or leave the page, no arrow passes through one, and frames hold their own boxes only."""
    picture = scene(found)
    boxes = [
        next(s for s in mark.shapes if isinstance(s, Rect) and s.style != "sheet")
        for mark in picture.marks[picture.frames :]
        if mark.kind not in ("labels", "legend")
    ]
    assert len(boxes) == len(found.boxes)
    for a, b in combinations(boxes, 2):
        assert a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y
    assert all(0 < a.x and a.x + a.width < picture.width and 0 < a.y and a.y + a.height < picture.height for a in boxes)
    for curve in picture.curves:
        for x, y, to, bottom in curve.strokes:
            assert y <= bottom
            for a in boxes:
                assert not (min(x, to) < a.x + a.width - 1 and max(x, to) > a.x + 1 and y < a.y + a.height - 1 and bottom > a.y + 1), (a, x, y, to, bottom)
    frames = [mark.shapes[0] for mark in picture.marks[: picture.frames]]
    for frame, number in zip(frames, found.frames, strict=True):
        for a, box in zip(boxes, found.boxes, strict=True):
            inside = frame.x < a.x and a.x + a.width < frame.x + frame.width and frame.y < a.y and a.y + a.height < frame.y + frame.height  # type: ignore[union-attr]
            outside = a.x + a.width < frame.x or a.x > frame.x + frame.width or a.y + a.height < frame.y or a.y > frame.y + frame.height  # type: ignore[union-attr]
            assert inside if box.frame == number else outside
    tips = Counter((round(x), round(y)) for curve in picture.curves for x, y in curve.tips)
    assert sum(tips.values()) == len(found.edges)  # an arrowhead for each
    for x, y in tips:
        assert any(a.x <= x <= a.x + a.width and abs(y - a.y) < 1 for a in boxes)


def check(y: Tensor, collapse: Collapse, model: Any = None) -> Contents:
    found = contents(y, model, collapse)
    check_complete(y, found)
    check_apart(found)
    ElementTree.fromstring(draw(y, model=model, collapse=collapse).svg)
    return found


def rows_of(found: Contents, op: str) -> list[tuple[str, ...]]:
    """The rows of the one box with that title."""
    (box,) = [box for box in found.boxes if box.rows[0][1][0] == op]
    return [texts for _, texts in box.rows]


@both
def test_a_model_with_residuals_and_a_tied_table(device: str, collapse: bool) -> None:
    model = model_on(device)
    found = check(model.loss(), collapse, model)
    (table,) = [box for box in found.boxes if box.kind == "leaf"]
    assert table.rows[0] == ("leaf", ("table.weight", "(5, 4)", ""))
    users = [edge.target for edge in found.edges if edge.source is table]
    assert len(users) == 2
    assert users[0] is found.boxes[1]
    names = [texts[0] for box in found.boxes for kind, texts in box.rows if kind == "leaf"]
    if collapse:
        calls = [box.rows[:2] for box in found.boxes if box.rows[0][1][0] == "Layer.__call__"]
        assert [rows[1] for rows in calls] == [("soft", (f"layers.{i}",)) for i in range(3)]
        assert names.count("inner.weight") == 3
    else:
        assert [frame for frame in found.frames.values() if frame.name == "Layer.__call__"] == [("Layer.__call__", f"layers.{i}") for i in range(3)]
        assert names.count("inner.weight") == 3


@both
def test_one_value_used_twice_by_one_op(device: str, collapse: bool) -> None:
    x = leaf(2, device=device) + 1.0
    found = check(x * x, False)
    assert [(e.times, e.label) for e in found.edges] == [(2, "")]
    a = leaf(2, device=device)
    found = check(a * a, collapse)
    assert rows_of(found, "multiply") == [("multiply", "(2,)"), ("a ×2", "(2,)", ""), ("the result",)]


@both
def test_several_outputs(device: str, collapse: bool) -> None:
    a, b, c = (leaf(6, device=device) * 2.0).split([1, 2, 3])
    found = check((a * b).sum() + c.sum(), collapse)
    if not collapse:
        assert rows_of(found, "split") == [("split", "3 × (1,)")]
        assert [e.label for e in found.edges if e.source.rows[0][1][0] == "split"] == ["output 0", "output 1 (2,)", "output 2 (3,)"]
    unused = check(leaf(6, device=device).split(2)[1].sum(), False)
    assert [e.label for e in unused.edges] == ["output 1"]
    check(leaf(6, device=device).split(2)[2], False)  # what is drawn is an output itself


@both
def test_broadcasting_is_drawn_as_the_expand_that_it_is(device: str, collapse: bool) -> None:
    x, bias = leaf(4, 3, device=device), leaf(3, device=device)
    found = check((x * 2.0 + bias).sum(), collapse)
    if not collapse:
        assert rows_of(found, "expand") == [("expand", "(4, 3)"), ("x", "(3,)", "")]
        assert rows_of(found, "multiply") == [("multiply", "(4, 3)"), ("a", "(4, 3)", ""), ("b", "constant")]


def test_dtype_where_it_is_not_float32(device: str) -> None:
    x = leaf(2, device=device, dtype="float64")
    found = check((x * 1.5).to("float16").sum(), False)
    assert rows_of(found, "multiply")[:2] == [("multiply", "(2,) float64"), ("a", "(2,) float64", "")]
    assert rows_of(found, "to")[0][1] == "(2,) float16"


def test_an_optional_input_left_out_is_no_constant(device: str) -> None:
    found = check(tensor.linear(leaf(2, 3, device=device), leaf(3, 4, device=device), None), False)
    assert rows_of(found, "linear")[1:3] == [("x", "(2, 3)", ""), ("weight", "(3, 4)", "")]
    assert len(rows_of(found, "linear")) == 4


def test_input_names() -> None:
    assert input_name("layer_norm", 1) == ("gain", True)
    assert input_name("linear", 2) == ("bias", False)
    assert input_name("concatenate", 1)[0].endswith("[1]")
    assert input_name("of my own", 3) == ("input 3", True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ""),
        (["table"], ""),
        (["a.weight"], "a"),
        (["a.0.q.weight", "a.0.q.bias"], "a.0.q"),
        (["a.0.q.weight", "a.0.k.weight"], "a.0"),
        (["a.0.q.weight", "a.01.q.weight"], "a"),
        (["a.b", "c.b"], ""),
    ],
)
def test_what_names_have_in_common(names: list[str], expected: str) -> None:
    assert common(names) == expected


# -- gradients ------------------------------------------------------------------------------------------------------------


@both
def test_gradients_are_drawn_once_they_are_there(device: str, collapse: bool) -> None:
    model = model_on(device)
    loss = model.loss()
    assert not contents(loss, model, collapse).gradients
    assert "gradient 0" not in draw(loss, model=model, collapse=collapse).svg
    idle = leaf(2, device=device)
    loss.backward(retain_graph=True)
    found = check(loss + 0.0 * idle.sum(), collapse, model)
    shown = {texts[2] for box in found.boxes for kind, texts in box.rows if kind == "leaf"}
    norms = {f"gradient {np.linalg.norm(p.grad.numpy().astype(float)):.3g}" for p in model.parameters() if p.grad is not None}
    assert shown == norms | {"no gradient"}


def test_many_leaves_are_summed_up_in_a_row(device: str) -> None:
    def total(leaves: list[Tensor]) -> Tensor:
        y = leaves[0] * 1.0
        for one in leaves[1:]:
            y = y + one
        return y

    leaves = [leaf(3, device=device) for _ in range(20)]
    y = total(leaves).sum()
    y.backward(retain_graph=True)
    box = check(y * 1.0, True).boxes[0]
    assert ("leaf", ("20 leaves", "60 numbers", f"gradient {60**0.5:.3g}")) in box.rows


def test_the_picture_keeps_nothing_of_the_graph(device: str) -> None:
    import gc
    import weakref

    y = leaf(2, device=device) * 2.0
    node = weakref.ref(y.node)
    picture = draw(y)
    del y
    gc.collect()
    assert node() is None
    assert "multiply" in picture.svg


# -- calls, repeats, sizes ----------------------------------------------------------------------------------------------------


def test_a_small_graph_is_drawn_op_by_op_and_a_large_one_call_by_call(device: str) -> None:
    small, large = model_on(device, 2), model_on(device, 12)
    assert {box.kind for box in check(small.loss(), None, small).boxes} == {"op", "leaf"}
    found = check(large.loss(), None, large)
    assert sum(box.kind == "call" for box in found.boxes) >= 12
    assert not found.frames


def test_a_call_is_named_by_its_function_and_its_parameters(device: str) -> None:
    model = model_on(device)
    (box,) = [box for box in contents(model.loss(), model, True).boxes if ("soft", ("layers.1",)) in box.rows]
    assert box.rows[0] == ("title", ("Layer.__call__", "(1, 3, 4)"))
    assert box.rows[2] == ("soft", ("4 ops: layer_norm, linear ×2, relu",))
    assert [texts[:2] for kind, texts in box.rows if kind == "leaf"][:3] == [("norm.gain", "(4,)"), ("norm.bias", "(4,)"), ("inner.weight", "(4, 8)")]


def test_without_a_model_leaves_have_the_names_of_inputs(device: str) -> None:
    (box, *_) = [box for box in contents(model_on(device).loss(), None, True).boxes if box.rows[0][1][0] == "Layer.__call__"]
    assert [texts[0] for kind, texts in box.rows if kind == "leaf"][:3] == ["gain of layer_norm", "bias of layer_norm", "weight of linear"]


def test_repeated_blocks_of_a_very_deep_model_are_drawn_once(device: str) -> None:
    model = model_on(device, 150)
    found = check(model.loss(), None, model)
    assert len(found.boxes) < 12
    (repeat,) = [box for box in found.boxes if box.kind == "repeat"]
    of, times = re.fullmatch(r"the (\d+) boxes above, (\d+) more times", repeat.rows[0][1][0]).groups()  # type: ignore[union-attr]
    assert int(of) == 2  # a layer, and its residual sum
    assert 145 <= int(times) <= 149
    assert len(repeat.nodes) == 5 * int(times)


@pytest.mark.parametrize("collapse", [True, None])
def test_fifty_thousand_ops_deep(device: str, collapse: Collapse) -> None:
    y = leaf(2, device=device)
    for _ in range(50_000):
        y = y * 1.0
    found = contents(y, None, collapse)
    assert len(found.boxes) <= 4
    assert sum(len(box.nodes) for box in found.boxes) == 50_000
    check_apart(found)
    with pytest.raises(ValueError, match=r"collapse=False would draw 50,000 boxes, and 2,000 is the most"):
        draw(y, collapse=False)


def test_long_and_without_repeats(device: str) -> None:
    """Shapes that grow: no two ops alike, so neighbours share boxes."""
    y = leaf(1, device=device)
    for i in range(2, 3 * MERGE_ABOVE):
        y = y.sum().expand(i) * 1.0
    found = check(y, None)
    assert FOLD_ABOVE < len(found.boxes) <= MERGE_ABOVE
    assert {len(box.nodes) for box in found.boxes} <= set(range(1, 20))
    assert 3 * 3 * MERGE_ABOVE > MOST


def doubled(x: Tensor) -> Tensor:
    return x + x * 2.0


def joined(x: Tensor, y: Tensor) -> Tensor:
    halves = x.reshape(2, -1).split(1)
    return halves[0].reshape(-1).sum() * y + halves[1].sum()


@given(
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=25), collapse=st.sampled_from([True, False, None])
)
def test_random_graphs(steps: list[tuple[int, int, int]], collapse: Collapse, device: str) -> None:
    rules: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, y: doubled(x),
        joined,
        lambda x, y: x * y,
        lambda x, y: x + y,
        lambda x, y: x.exp() + 1.0,
        lambda x, y: x * x,
    ]
    values = [leaf(4, device=device), leaf(4, device=device)]
    for rule, i, j in steps:
        values.append(rules[rule](values[i % len(values)], values[j % len(values)]))
    y = values[2]
    for other in values[3:]:
        y = y + other
    check(y, collapse)


# -- the text of the files ------------------------------------------------------------------------------------------------------


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
        assert {element.tag for element in root.iter()} <= {SVG + tag for tag in ("svg", "title", "desc", "style", "g", "rect", "text", "path")}
        for suffix in ("svg", "png", "dot"):
            picture.save(tmp_path / f"graph.{suffix}")
        check_dot(picture.dot)
    texts = [element.text for element in root.iter(SVG + "text")]
    if name.isascii() and name.isprintable() and len(name) <= 44:
        assert name in texts
    assert not any(c for text in texts for c in text or "" if not c.isprintable())
    assert any('</title><script>alert("&")</script>' in (element.text or "") for element in root.iter(SVG + "title"))  # the user's line, as text


def check_dot(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Read what draw() writes of DOT, strictly: the names of the nodes, and the edges."""
    string = r'"(?:[^"\\\n]|\\.)*"'
    lines = [re.sub(string, "S", line).strip() for line in text.splitlines()]
    assert not any('"' in line or "\\" in line for line in lines)
    nodes = [found[1] for line in lines if (found := re.fullmatch(r"(b\d+) \[label=S, tooltip=S[^\]]*\];", line))]
    edges = [(found[1], found[2]) for line in lines if (found := re.fullmatch(r"(b\d+) -> (b\d+)(?: \[label=S\])?;", line))]
    others = [line for line in lines if not re.match(r"b\d+ (\[|->)", line)]
    assert all(re.fullmatch(r"digraph \{|\}|label=S;.*|node \[.*|subgraph cluster_\d+ \{", line) for line in others)
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
    assert edges == [(place[e.source], place[e.target]) for e in found.edges]


def test_svg_says_what_it_is(device: str) -> None:
    model = model_on(device)
    loss = model.loss()
    root = ElementTree.fromstring(draw(loss, model=model).svg)
    assert root.get("role") == "img"
    assert root.findtext(SVG + "title") == "How this result of `cross_entropy` was computed"
    assert "ops" in str(root.findtext(SVG + "desc"))
    titles = [title.text or "" for title in root.iter(SVG + "title")]
    assert any(title.startswith("`cross_entropy` at test_draw.py:") for title in titles)  # where the user called it
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
        grounds = [PAGE[mode], *(FILL[name][mode] for name in FILL if name != "bar")]
        assert min(contrast(colours[mode], ground) for colours in TEXT.values() for ground in grounds) >= 4.5
        assert min(contrast(line[mode], ground) for line in (ARROW, EDGE) for ground in grounds) >= 3
    css = draw(leaf(2) * 2.0).svg
    assert "@media (prefers-color-scheme: dark)" in css
    assert min(float(size) for size in re.findall(r"font-size:([\d.]+)px", css)) >= 12


def test_rows_fit_their_boxes(device: str) -> None:
    model = model_on(device)
    loss = model.loss()
    loss.backward(retain_graph=True)
    for collapse in (True, False):
        for mark in scene(contents(loss, model, collapse)).marks:
            rect = next((s for s in mark.shapes if isinstance(s, Rect) and s.style != "sheet"), None)
            for text in mark.shapes:
                if isinstance(text, Text) and rect and mark.kind not in ("labels", "legend"):
                    left = text.x if text.anchor == "start" else text.x - width_of(text.text, text.style)
                    assert rect.x < left < left + width_of(text.text, text.style) < rect.x + rect.width


# -- files and errors ------------------------------------------------------------------------------------------------------------


def test_files(device: str, tmp_path: Path) -> None:
    y = leaf(2, device=device) * 2.0
    for name, start in (("a.svg", b"<svg "), ("a.PNG", b"\x89PNG\r\n"), ("a.dot", b"digraph {")):
        picture = draw(y, tmp_path / name)
        assert (tmp_path / name).read_bytes().startswith(start)
    draw(y, str(tmp_path / "a.svg"))  # once more, over the old one
    assert (tmp_path / "a.svg").read_text(encoding="utf-8") == picture._repr_svg_() == picture.svg
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.PNG", "a.dot", "a.svg"]
    assert repr(picture).startswith("Picture(1 boxes, ")


def test_png_is_not_drawn_through_pyplot(device: str, tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    draw(leaf(2, device=device) * 2.0, tmp_path / "a.png")
    assert ("matplotlib.pyplot" in sys.modules) == before


@pytest.mark.parametrize("suffix", ["svg", "png", "dot"])
def test_a_failure_leaves_the_old_file_and_nothing_else(suffix: str, device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    huge = Picture(picture.scene._replace(height=200_000.0), picture.dot, 1)
    with pytest.raises(ValueError, match=r"too large for a PNG: save as \.svg, or draw with collapse=True"):
        huge.save(tmp_path / "a.png")
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
    with pytest.raises(TypeError, match=r"must have named_parameters\(\), as nn.Module has; dict has not"):
        draw(y, model={})
    with pytest.raises(GraphError, match=r"tensor \(2,\) float32, a leaf, which no op made"):
        draw(x)
    for constant in (tensor.ones(2, device=device), y.detach()):
        with pytest.raises(GraphError, match=r"is in no graph: compute it from a leaf with requires_grad=True, outside no_grad\(\)"):
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
        with pytest.raises(GraphError, match=r"freed the graph behind `.*` \(test_draw.py:.*Draw before backward, or call backward\(retain_graph=True\)"):
            draw(part)


def test_a_checkpoint_is_one_op(device: str) -> None:
    model = model_on(device, 1)
    layer = model.layers[0]
    found = check(tensor.checkpoint(layer, tensor.ones(2, 4, device=device)).sum(), False, model)
    assert [texts[0] for texts in rows_of(found, "checkpoint")][:3] == ["checkpoint", "layers.0.norm.gain", "layers.0.norm.bias"]
