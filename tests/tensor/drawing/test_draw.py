"""draw(y): the content of the picture, in graphs of every kind and size.

The files: test_draw_files.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, nn
from tensor.drawing import draw
from tensor.drawing.boxes import Contents
from tensor.drawing.contents import MOST_INPUTS, common, contents
from tensor.drawing.fold import FOLD_ABOVE, MERGE_ABOVE, MOST
from tensor.drawing.scene import scene
from tensor.recording.entries import input_of
from tests.helpers.drawing import (
    Collapse,
    arrows,
    both,
    check,
    check_apart,
    curves_of,
    leaf,
    model_on,
    outlines,
)


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
    users = [box for wire, box, _ in arrows(found) if wire.source is table]
    assert len(users) == 2
    assert users[0] is found.boxes[1]
    names = [texts[0] for box in found.boxes for kind, texts in box.rows if kind == "leaf"]
    if collapse:
        calls = [box.rows[:2] for box in found.boxes if box.rows[0][1][0] == "Layer.__call__"]
        assert [rows[1] for rows in calls] == [("soft", (f"layers.{i}",)) for i in range(3)]
        assert names.count("inner.weight") == 3
    else:
        modules = [frame.module for frame in found.frames if frame.name == "Layer.__call__"]
        assert modules == [f"layers.{i}" for i in range(3)]
        assert names.count("inner.weight") == 3


@both
def test_one_value_used_twice_by_one_op(device: str, collapse: bool) -> None:
    x = leaf(2, device=device) + 1.0
    found = check(x * x, False)
    assert [(times, wire.label) for wire, _, times in arrows(found)] == [(2, "")]
    a = leaf(2, device=device)
    found = check(a * a, collapse)
    assert rows_of(found, "multiply") == [
        ("multiply", "(2,)"),
        ("a ×2", "(2,)", ""),
        ("the result",),
    ]


@both
def test_several_outputs(device: str, collapse: bool) -> None:
    a, b, c = (leaf(6, device=device) * 2.0).split([1, 2, 3])
    found = check((a * b).sum() + c.sum(), collapse)
    if not collapse:
        assert rows_of(found, "split") == [("split", "3 × (1,)")]
        labels = [w.label for w in found.wires if w.source.rows[0][1][0] == "split"]
        assert labels == ["output 0", "output 1 (2,)", "output 2 (3,)"]
    unused = check(leaf(6, device=device).split(2)[1].sum(), False)
    assert [wire.label for wire in unused.wires] == ["output 1"]
    check(leaf(6, device=device).split(2)[2], False)  # what is drawn is an output itself


def test_where_two_values_leave_a_box_each_arrow_says_which(device: str) -> None:
    def two(x: Tensor) -> tuple[Tensor, Tensor]:
        total = x + x
        return total, total.exp()

    a, b = two(leaf(2, device=device) * 2.0)
    found = check(a * b, True)
    assert [wire.label for wire in found.wires if len(wire.source.wires) > 1] == ["add", "exp"]
    found = check(two(leaf(2, device=device) * 2.0)[1] * 1.0, True)
    assert {wire.label for wire in found.wires} == {""}


@both
def test_broadcasting_is_drawn_as_the_expand_that_it_is(device: str, collapse: bool) -> None:
    x, bias = leaf(4, 3, device=device), leaf(3, device=device)
    found = check((x * 2.0 + bias).sum(), collapse)
    if not collapse:
        assert rows_of(found, "expand") == [("expand", "(4, 3)"), ("x", "(3,)", "")]
        assert rows_of(found, "multiply") == [
            ("multiply", "(4, 3)"),
            ("a", "(4, 3)", ""),
            ("b", "constant"),
        ]


def test_dtype_where_it_is_not_float32(device: str) -> None:
    x = leaf(2, device=device, dtype="float64")
    found = check((x * 1.5).to("float16").sum(), False)
    assert rows_of(found, "multiply")[:2] == [
        ("multiply", "(2,) float64"),
        ("a", "(2,) float64", ""),
    ]
    assert [box.rows[0][1][1] for box in found.boxes] == [
        "(2,) float64",
        "(2,) float16",
        "() float16",
    ]


def test_an_optional_input_left_out_is_no_constant(device: str) -> None:
    found = check(tensor.linear(leaf(2, 3, device=device), leaf(3, 4, device=device), None), False)
    assert rows_of(found, "linear")[1:3] == [("x", "(2, 3)", ""), ("weight", "(3, 4)", "")]
    assert len(rows_of(found, "linear")) == 4


def test_input_names() -> None:
    assert input_of("layer_norm", 1) == ("gain", True)
    assert input_of("linear", 2) == ("bias", False)
    assert input_of("concatenate", 1)[0].endswith("[1]")
    assert input_of("of my own", 3) == ("input 3", True)


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


def test_a_checkpoint_is_one_op(device: str) -> None:
    model = model_on(device, 1)
    layer = model.layers[0]
    found = check(tensor.checkpoint(layer, tensor.ones(2, 4, device=device)).sum(), False, model)
    assert [texts[0] for texts in rows_of(found, "checkpoint")][:3] == [
        "checkpoint",
        "layers.0.norm.gain",
        "layers.0.norm.bias",
    ]


# -- gradients -------------------------------------------------------------------------------------


@both
def test_gradients_are_drawn_once_they_are_there(device: str, collapse: bool) -> None:
    model = model_on(device)
    loss = model.loss()
    rows = [row for box in contents(loss, model, collapse).boxes for row in box.rows]
    assert {texts[2] for kind, texts in rows if kind == "leaf"} == {""}
    idle = leaf(2, device=device)
    loss.backward(retain_graph=True)
    found = check(loss + 0.0 * idle.sum(), collapse, model)
    shown = {texts[2] for box in found.boxes for kind, texts in box.rows if kind == "leaf"}
    norms = {
        f"gradient {np.linalg.norm(p.grad.numpy().astype(float)):.3g}"
        for p in model.parameters()
        if p.grad is not None
    }
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


# -- calls, repeats, sizes -------------------------------------------------------------------------


def test_a_small_graph_is_drawn_op_by_op_and_a_large_one_call_by_call(device: str) -> None:
    small, large = model_on(device, 2), model_on(device, 12)
    assert {box.kind for box in check(small.loss(), None, small).boxes} == {"op", "leaf"}
    found = check(large.loss(), None, large)
    assert sum(box.kind == "call" for box in found.boxes) >= 12
    assert not found.frames


def test_a_call_is_named_by_its_function_and_its_parameters(device: str) -> None:
    model = model_on(device)
    (box,) = [
        box
        for box in contents(model.loss(), model, True).boxes
        if ("soft", ("layers.1",)) in box.rows
    ]
    assert box.rows[0] == ("title", ("Layer.__call__", "(1, 3, 4)"))
    assert box.rows[2] == ("soft", ("4 ops: layer_norm, linear ×2, relu",))
    assert [texts[:2] for kind, texts in box.rows if kind == "leaf"][:3] == [
        ("norm.gain", "(4,)"),
        ("norm.bias", "(4,)"),
        ("inner.weight", "(4, 8)"),
    ]


class Looped(nn.Module):
    def __init__(self) -> None:
        self.a_list_of_layers_whose_name_is_quite_long = [nn.Linear(4, 4) for _ in range(3)]

    def __call__(self, x: Tensor) -> Tensor:
        for layer in self.a_list_of_layers_whose_name_is_quite_long:
            h = layer(x)
            x = h.exp()
        return x


def test_a_frame_has_room_for_its_name(device: str) -> None:
    model = nn.Module()
    name = "a_name_of_many_words." * 12 + "layer"
    setattr(model, name, nn.Linear(4, 4))
    model.to(device=device)

    def side_by_side(x: Tensor) -> tuple[Tensor, Tensor]:
        layer = getattr(model, name)
        return x + layer.bias, x @ layer.weight

    a, b = side_by_side(leaf(4, 4, device=device).exp())
    found = check((a * b).sum(), False, model)
    assert name in [frame.module for frame in found.frames]


@both
def test_each_round_of_a_loop_stands_alone(device: str, collapse: bool) -> None:
    model = Looped().to(device=device)
    found = check(model(tensor.ones(2, 4, device=device)).sum(), collapse, model)
    expected = [f"a_list_of_layers_whose_name_is_quite_long.{i}" for i in range(3)]
    if collapse:
        assert [box.leaves for box in found.boxes[:-1]] == [
            [layer.weight.node, layer.bias.node]
            for layer in model.a_list_of_layers_whose_name_is_quite_long
        ]
    else:
        assert [frame.module for frame in found.frames] == expected


@pytest.mark.parametrize("collapse", [True, False])
def test_the_main_way_is_straight_and_residuals_pass_beside_it(device: str, collapse: bool) -> None:
    x = leaf(3, 4, device=device).exp()
    for layer in model_on(device).layers:
        x = x + layer(x)
        x = x * 2.0
    found = check(x, collapse)
    picture = scene(found)
    middles = {round(a.x + a.width / 2, 3) for _, a in outlines(picture)[1]}
    assert len(middles) == 1
    (middle,) = middles
    strokes = [stroke for curve in curves_of(picture) for stroke in curve.strokes]
    ways = {round(x - middle) for x, _, to, _ in strokes if x == to}
    assert any(way > 60 for way in ways)


def test_without_a_model_leaves_have_the_names_of_inputs(device: str) -> None:
    (box, *_) = [
        box
        for box in contents(model_on(device).loss(), None, True).boxes
        if box.rows[0][1][0] == "Layer.__call__"
    ]
    assert [texts[0] for kind, texts in box.rows if kind == "leaf"][:3] == [
        "gain of layer_norm",
        "bias of layer_norm",
        "weight of linear",
    ]


def test_repeated_blocks_of_a_very_deep_model_are_drawn_once(device: str) -> None:
    model = model_on(device, 150)
    found = check(model.loss(), None, model)
    assert len(found.boxes) < 12
    (repeat,) = [box for box in found.boxes if box.kind == "repeat"]
    of, times = re.fullmatch(
        r"the (\d+) boxes above, (\d+) more times", repeat.rows[0][1][0]
    ).groups()  # type: ignore[union-attr]
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
    with pytest.raises(
        ValueError, match=r"collapse=False would draw 50,000 boxes, and 2,000 is the most"
    ):
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
    steps=st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 99), st.integers(0, 99)),
        min_size=1,
        max_size=25,
    ),
    collapse=st.sampled_from([True, False, None]),
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


@pytest.mark.parametrize("size", [1e300, 1e-200, 1.0, 0.0, float("inf")])
def test_the_norm_of_gradients_of_every_size(size: float) -> None:
    """Also where the square of a number is larger, or smaller, than there are numbers."""
    x = Tensor(np.ones(4), requires_grad=True)
    x.grad = Tensor(np.full(4, -size))
    (box,) = contents((x * 2.0).exp()).boxes[:1]
    assert box.rows[1] == ("leaf", ("a", "(4,) float64", f"gradient {2 * size:.3g}"))


def test_an_op_of_very_many_inputs() -> None:
    leaves = [Tensor([1.0], requires_grad=True) for _ in range(1000)]
    (box,) = check(tensor.concatenate(leaves), None).boxes
    assert len(box.rows) < 50
    assert box.rows[-2] == ("soft", (f"and {1000 - MOST_INPUTS:,} more inputs",))
