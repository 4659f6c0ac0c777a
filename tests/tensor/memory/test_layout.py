"""Layouts against brute force: every address written out, every pair of strides tried."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tensor.errors import ShapeError, ViewError
from tensor.memory.layout import (
    Layout,
    Shape,
    broadcast_shape,
    contiguous_strides,
    infer_shape,
    normalise_axes,
    normalise_axis,
)
from tests.helpers.strategies import broadcastable, numbered, same_size, shapes


def addresses(layout: Layout) -> list[int]:
    """Where each element lives, in row-major order: the formula of the class, written out."""
    return [
        layout.offset + sum(i * s for i, s in zip(index, layout.strides, strict=True))
        for index in itertools.product(*map(range, layout.shape))
    ]


@st.composite
def any_layouts(draw: st.DrawFn, max_side: int = 4) -> Layout:
    """Strides of any sign, 0 and overlapping ones too: more than views can make."""
    shape = draw(shapes(max_dims=3, max_side=max_side))
    return Layout(shape, tuple(draw(st.integers(-6, 6)) for _ in shape), draw(st.integers(0, 12)))


@st.composite
def viewed_layouts(draw: st.DrawFn) -> Layout:
    """What views make of a contiguous layout: slices of any step, permutations, expansions."""
    layout = Layout.contiguous(draw(shapes(max_dims=3)))
    for _ in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(["permute", "slice", "unsqueeze", "expand"]))
        ndim = len(layout.shape)
        if kind == "permute":
            layout = layout.permute(tuple(draw(st.permutations(range(ndim)))))
        elif kind == "slice" and ndim:
            axis = draw(st.integers(0, ndim - 1))
            layout = layout.slice(
                axis, *draw(st.slices(layout.shape[axis])).indices(layout.shape[axis])
            )
        elif kind == "unsqueeze":
            layout = layout.unsqueeze(draw(st.integers(-ndim - 1, ndim)))
        elif kind == "expand":
            layout = layout.expand(
                tuple(draw(st.integers(1, 3)) if n == 1 else n for n in layout.shape)
            )
    return layout


# -- numbers


def test_strides_by_hand() -> None:
    assert contiguous_strides((2, 3, 4)) == (12, 4, 1)
    assert contiguous_strides(()) == ()
    assert Layout.contiguous((2, 3)).transpose(0, 1) == Layout((3, 2), (1, 3))
    assert Layout.contiguous((2, 3)).slice(1, 2, -1, -1) == Layout((2, 3), (3, -1), 2)
    assert Layout.contiguous((2, 3)).slice(1, 1, 3) == Layout((2, 2), (3, 1), 1)
    assert Layout.contiguous((2, 3)).select(0, -1) == Layout((3,), (1,), 3)
    assert Layout((3,), (1,)).expand((4, -1)) == Layout((4, 3), (0, 1))
    assert Layout.contiguous((2, 3)).unsqueeze(-1).shape == (2, 3, 1)
    assert Layout.contiguous((2, 1, 3, 1)).squeeze((1, -1)).shape == (2, 3)


@given(shapes(max_dims=5))
def test_contiguous_strides_are_numpys(shape: Shape) -> None:
    assert contiguous_strides(shape) == tuple(s // 8 for s in np.empty(shape).strides) or 0 in shape


@given(st.integers(-6, 6), st.integers(0, 4))
def test_normalise_axis(axis: int, ndim: int) -> None:
    if -ndim <= axis < ndim:
        assert normalise_axis(axis, ndim) == list(range(ndim))[axis]
    else:
        with pytest.raises(ShapeError, match=f"axis {axis}"):
            normalise_axis(axis, ndim)


def test_normalise_axes() -> None:
    assert normalise_axes(None, 3) == (0, 1, 2)
    assert normalise_axes(-1, 3) == (2,)
    assert normalise_axes(np.int64(1), 3) == (1,)  # type: ignore[arg-type]
    assert normalise_axes((0, -1), 3) == (0, 2)
    assert normalise_axes([], 3) == ()
    with pytest.raises(ShapeError, match="twice"):
        normalise_axes((0, -3), 3)


@given(shapes(), st.lists(st.integers(-2, 4), max_size=4).map(tuple))
def test_infer_shape_is_numpys(shape: Shape, wanted: Shape) -> None:
    """Also what raises: no -1 beside a 0 where any size would do, two of them, one below."""
    try:
        expected = np.empty(shape).reshape(wanted).shape if min(wanted, default=0) >= -1 else None
    except ValueError:
        expected = None
    if expected is None:
        with pytest.raises(ShapeError):
            infer_shape(math.prod(shape), wanted)
    else:
        assert infer_shape(math.prod(shape), wanted) == expected


@pytest.mark.parametrize(
    ("size", "shape", "inferred"),
    [
        (0, (3, -1), (3, 0)),
        (0, (0, -1), None),
        (0, (-1,), (0,)),
        (1, (-1,), (1,)),
        (1, (), ()),
        (2, (), None),
        (0, (), None),
        (6, (0, -1), None),
        (6, (4, -1), None),
    ],
)
def test_infer_shape_of_few_elements(size: int, shape: Shape, inferred: Shape | None) -> None:
    if inferred is None:
        with pytest.raises(ShapeError):
            infer_shape(size, shape)
    else:
        assert infer_shape(size, shape) == inferred


@given(broadcastable(3))
def test_broadcast_shape_is_numpys(drawn: object) -> None:
    assert broadcast_shape(*drawn.input_shapes) == drawn.result_shape  # type: ignore[attr-defined]


@given(shapes(), shapes())
def test_broadcast_shape_raises_where_numpy_does(a: Shape, b: Shape) -> None:
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(ShapeError, match="axis -"):
            broadcast_shape(a, b)
    else:
        assert broadcast_shape(a, b) == expected


# -- what a layout says of itself


@given(any_layouts())
def test_span_is_the_range_of_addresses(layout: Layout) -> None:
    touched = addresses(layout)
    assert layout.size == len(touched)
    assert layout.span() == (
        (min(touched), max(touched) + 1) if touched else (layout.offset, layout.offset)
    )


@given(any_layouts())
def test_contiguous_means_row_major_without_gaps(layout: Layout) -> None:
    touched = addresses(layout)
    assert layout.is_contiguous == (
        touched == list(range(layout.offset, layout.offset + len(touched)))
    )


@pytest.mark.parametrize("stride", [-7, 0, 1, 5])
@pytest.mark.parametrize(
    ("shape", "strides", "contiguous"),
    [
        ((3, 1, 2), (2, None, 1), True),
        ((1, 3), (None, 1), True),
        ((3, 1), (1, None), True),
        ((1, 1), (None, None), True),
        ((), (), True),
        ((0, 4), (None, None), True),
        ((4, 0), (None, None), True),
        ((2, 0, 3), (None, None, None), True),
        ((3, 1, 2), (1, None, 3), False),
        ((1, 3), (None, 2), False),
        ((2, 1), (0, None), False),
    ],
)
def test_bug_20_strides_of_size_1_and_size_0_axes_do_not_matter(
    shape: Shape, strides: tuple[int | None, ...], contiguous: bool, stride: int
) -> None:
    layout = Layout(shape, tuple(stride if s is None else s for s in strides))
    assert layout.is_contiguous is contiguous
    if contiguous:  # and so every view of it is legal
        assert layout.view((layout.size,)).is_contiguous
    assert not layout.self_overlaps or strides == (0, None)


# -- view


def strides_that_fit(layout: Layout, shape: Shape) -> bool:
    """Whether some strides express `shape`: the only candidates are the steps from [0, ...] to its
    neighbours; then every address must agree.
    """
    flat = np.array(addresses(layout)).reshape(shape)
    first = int(flat.flat[0])
    steps = [
        int(np.moveaxis(flat, axis, 0)[1].flat[0]) - first if n > 1 else 0
        for axis, n in enumerate(shape)
    ]
    return addresses(Layout(shape, tuple(steps), first)) == addresses(layout)


@given(st.data(), st.one_of(any_layouts(), viewed_layouts()))
def test_view_is_legal_exactly_when_strides_exist(data: st.DataObject, layout: Layout) -> None:
    shape = infer_shape(layout.size, data.draw(same_size(layout.shape)))
    if layout.size == 0 or strides_that_fit(layout, shape):
        assert layout.view(shape).shape == shape
        assert addresses(layout.view(shape)) == addresses(layout)
    else:
        with pytest.raises(ViewError) as caught:
            layout.view(shape, 8)
        check_message(str(caught.value), layout, shape)


def check_message(message: str, layout: Layout, shape: Shape) -> None:
    """The two axes named are neighbours that no one run of memory covers, and that the new shape
    wants joined.
    """
    words = message.replace("(", " ").split()
    before, after = (int(words[words.index("axes") + i]) for i in (1, 3))
    assert before < after
    assert all(n == 1 for n in layout.shape[before + 1 : after])
    assert layout.strides[before] != layout.shape[after] * layout.strides[after]
    behind = math.prod(layout.shape[after:])
    assert behind not in [math.prod(shape[i:]) for i in range(len(shape) + 1)]
    assert (
        f"axis {before} steps by {layout.strides[before]}, "
        f"joining them needs {layout.shape[after] * layout.strides[after]}" in message
    )
    assert f"{8 * layout.size:,} bytes" in message
    sizes = ", ".join(map(str, shape))
    assert f".reshape({sizes})" in message
    assert f".contiguous().view({sizes})" in message


@pytest.mark.parametrize(
    ("shape", "strides", "wanted", "result"),
    [
        ((3, 4), (0, 0), (12,), (0,)),  # one element, expanded twice: still one run
        ((3, 4), (0, 1), (3, 2, 2), (0, 2, 1)),
        ((3, 4), (0, 1), (12,), None),
        ((3, 4), (-4, -1), (12,), (-1,)),  # a whole reversal is even
        ((3, 4), (-4, 1), (12,), None),
        ((3, 4), (-4, 1), (3, 1, 2, 2), (-4, 4, 2, 1)),
        ((4, 3), (1, 4), (2, 2, 3), (2, 1, 4)),
        ((4, 3), (1, 4), (12,), None),
        ((2, 1, 3), (3, 99, 1), (6,), (1,)),
        ((1, 1), (7, 7), (), ()),
        ((), (), (1, 1), (1, 1)),
        ((6,), (2,), (2, 3), (6, 2)),
        ((1,), (0,), (1,), (0,)),
    ],
)
def test_view_of_few_axes(
    shape: Shape, strides: Shape, wanted: Shape, result: Shape | None
) -> None:
    if result is None:
        with pytest.raises(ViewError):
            Layout(shape, strides, 20).view(wanted)
    else:
        assert Layout(shape, strides, 20).view(wanted) == Layout(wanted, result, 20)


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda layout: layout.expand((-2, 3)), "expand"),
        (lambda layout: layout.expand((-1, 1, 3)), "expand"),
        (lambda layout: layout.expand((3,)), "expand"),
        (lambda layout: layout.expand((2, 4)), "axis 1 has 3"),
        (lambda layout: layout.permute((0, 0)), "each of the 2 axes once"),
        (lambda layout: layout.permute((0,)), "each of the 2 axes once"),
        (lambda layout: layout.transpose(0, 2), "out of range"),
        (lambda layout: layout.unsqueeze(3), "out of range"),
        (lambda layout: layout.squeeze((0, 0)), "twice"),
        (lambda layout: layout.squeeze(1), "squeeze of axis 1 .* its size is 3"),
        (lambda layout: layout.view((4,)), "do not fit"),
        (lambda layout: layout.view((-1, 2)), "do not divide"),
        (lambda layout: layout.view((-1, -1)), "one of them may be -1"),
    ],
)
def test_shapes_that_do_not_fit_raise(call: object, error: str) -> None:
    with pytest.raises(ShapeError, match=error):
        call(Layout.contiguous((1, 3)))  # type: ignore[operator]


# -- what shares memory


@given(any_layouts(), any_layouts())
def test_overlaps_is_exact(a: Layout, b: Layout) -> None:
    common = bool(set(addresses(a)) & set(addresses(b)))
    assert a.overlaps(b) == common
    assert b.overlaps(a) == common


def test_overlaps_of_columns_and_empties() -> None:
    h = Layout.contiguous((50, 40))
    assert not h.slice(1, 0, 1).overlaps(h.slice(1, 1, 2))
    assert not h.slice(1, 0, 40, 2).overlaps(h.slice(1, 1, 40, 2))
    assert h.slice(1, 0, 40, 2).overlaps(h.slice(1, 0, 40, 3))
    assert not h.slice(0, 3, 3).overlaps(h)
    assert not h.overlaps(Layout((0, 3), (1, 1), 5))


def test_overlaps_gives_up_on_the_safe_side() -> None:
    """More tries than the budget allows count as an overlap: a needless error is better than a
    wrong gradient.
    """
    a = Layout((30, 30, 30), (60, 62, 66), 0)  # even addresses, and odd ones but for one term
    b = Layout((30, 30, 30), (60, 62, 66), 1)
    assert not a.overlaps(b)
    assert Layout((9, 9, 9), (6, 10, 15), 0).overlaps(Layout((9, 9, 9), (6, 10, 15), 1), budget=1)


@given(any_layouts())
def test_self_overlaps_never_misses_one(layout: Layout) -> None:
    touched = addresses(layout)
    if len(set(touched)) < len(touched):
        assert layout.self_overlaps


@given(viewed_layouts())
def test_self_overlaps_is_exact_for_what_views_make(layout: Layout) -> None:
    touched = addresses(layout)
    assert layout.self_overlaps == (len(set(touched)) < len(touched))


# -- each view against NumPy's addresses


@given(st.data(), shapes(min_dims=1))
def test_layouts_name_the_elements_numpy_shows(data: st.DataObject, shape: Shape) -> None:
    """element k of storage 1, 2, 3, ... is k + 1, so the values are the addresses."""
    layout, array = Layout.contiguous(shape), numbered(shape)
    axis = data.draw(st.integers(0, len(shape) - 1))
    piece = data.draw(st.slices(shape[axis]))
    layout, array = (
        layout.slice(axis, *piece.indices(shape[axis])),
        array[(slice(None),) * axis + (piece,)],
    )
    assert [a + 1 for a in addresses(layout)] == array.ravel().tolist()
    if array.shape[axis]:
        place = data.draw(st.integers(-array.shape[axis], array.shape[axis] - 1))
        assert [a + 1 for a in addresses(layout.select(axis, place))] == array.take(
            place, axis
        ).ravel().tolist()
    for place in (array.shape[axis], -array.shape[axis] - 1):
        with pytest.raises(IndexError, match=f"index {place} is out of range"):
            layout.select(axis, place)
