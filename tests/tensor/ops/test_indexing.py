"""Reading and writing by position, against NumPy; gradients by following each element's number
through the index.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tensor
from tensor import Tensor, grad, no_grad
from tensor.errors import DTypeError, MutationError, ShapeError
from tensor.gradient_cases import LAYOUTS
from tensor.memory.devices import Array
from tensor.memory.layout import Shape
from tests.helpers.strategies import advanced_keys, basic_keys, layouts, numbered, placed, shapes

seeds = st.integers(0, 1000)
# an element that has several indices may not be written
written = layouts.filter(lambda name: name != "expanded")


@st.composite
def in_another_form(draw: st.DrawFn, key: Any) -> Any:
    """The same key, its arrays given as lists, Tensors, arrays of narrower integers; its ints as
    0-d arrays and Tensors.
    """
    parts = []
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, np.ndarray):
            forms = (
                [part, Tensor(part)]
                + [part.tolist()] * (part.size > 0)
                + [part.astype("int32"), part.astype("int8")] * (part.dtype != bool)
            )
            part = draw(st.sampled_from(forms))
        elif isinstance(part, int):
            part = draw(st.sampled_from([part, np.int32(part), np.array(part), Tensor(part)]))
        parts.append(part)
    return tuple(parts) if isinstance(key, tuple) else parts[0]


def check_gradient(x: Tensor, y: Tensor, number: Array, seed: int) -> None:
    """dx of an element is the sum of dy over the places where its number stands."""
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    (dx,) = grad(y, x, placed(dy, x.device))
    assert dx is not None
    expected = np.bincount(
        np.asarray(number).ravel().astype(int) - 1, weights=dy.ravel(), minlength=x.size
    ).reshape(x.shape)
    np.testing.assert_allclose(dx.numpy(), expected, rtol=1e-12, atol=1e-12)


# -- reading


@given(data=st.data(), shape=shapes(), layout=layouts, seed=seeds)
def test_bug_27_basic_indices(
    data: st.DataObject, device: str, shape: Shape, layout: str, seed: int
) -> None:
    """Integers, slices, None and `...` give views."""
    key = data.draw(basic_keys(shape))
    x = placed(LAYOUTS[layout](numbered(shape)), device, requires_grad=True)
    y = x[data.draw(in_another_form(key))]
    np.testing.assert_array_equal(y.numpy(), x.numpy()[key])
    assert y.storage is x.storage
    check_gradient(x, y, numbered(shape)[key], seed)


@given(data=st.data(), shape=shapes(), layout=layouts, seed=seeds)
def test_bug_27_arrays_and_masks_as_indices(
    data: st.DataObject, device: str, shape: Shape, layout: str, seed: int
) -> None:
    """Integer arrays that repeat and count from the end, masks of several axes, mixed with
    everything basic.
    """
    key = data.draw(advanced_keys(shape))
    x = placed(LAYOUTS[layout](numbered(shape)), device, requires_grad=True)
    try:
        expected = x.numpy()[key]
    # a mask chose a number of elements that does not broadcast with the arrays beside it
    except IndexError:
        with pytest.raises(IndexError):
            x[key]
        return
    y = x[data.draw(in_another_form(key))]
    np.testing.assert_array_equal(y.numpy(), expected)
    assert y.storage is not x.storage
    check_gradient(x, y, numbered(shape)[key], seed)


@given(data=st.data(), shape=shapes(min_dims=1, min_side=1), seed=seeds)
def test_bug_27_integer_arrays_add_up_repeats(
    data: st.DataObject, device: str, shape: Shape, seed: int
) -> None:
    key = data.draw(
        hnp.integer_array_indices(shape, result_shape=hnp.array_shapes(max_dims=2, max_side=5))
    )
    x = placed(numbered(shape), device, requires_grad=True)
    check_gradient(x, x[key], numbered(shape)[key], seed)


def test_bug_27_few_elements_by_hand(device: str) -> None:
    def found(y: Tensor, *upstream: float) -> list[float]:
        (dx,) = grad(y, x, placed(np.array(upstream), device))
        assert dx is not None
        return dx.tolist()

    x = placed(np.array([1.0, 2.0, 3.0, 4.0]), device, requires_grad=True)
    assert found(x[[0, 2, 0, -1]], 1.0, 10.0, 100.0, 1000.0) == [101, 0, 10, 1000]
    assert found(x[::-2], 1.0, 10.0) == [0, 10, 0, 1]
    assert found(x[x > 2], 1.0, 10.0) == [0, 0, 1, 10]
    for empty in (x[4:], x[[]], x[x > 9], x[np.zeros((0, 3), dtype=int)]):
        assert empty.size == 0
        (dx,) = grad(empty, x, empty.detach())
        assert dx is not None
        assert dx.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "int64", "int8", "uint8", "bool"]
)
def test_indices_keep_every_dtype(dtype: str, device: str) -> None:
    x = Tensor([[0, 1, 1], [1, 0, 1]], dtype=dtype, device=device)
    for key in (
        0,
        (slice(None), [2, 0]),
        np.array([[True, False, True], [False, True, False]]),
        (..., None, 1),
    ):
        y = x[key]
        assert y.dtype == x.dtype
        np.testing.assert_array_equal(y.numpy(), x.numpy()[key])


KEYS_THAT_RAISE: dict[str, Any] = {
    "too large": 3,
    "too small": -4,
    "huge": 10**30,
    "too many": (0, 0, 0),
    "two dots": (..., ...),
    "too many arrays": ([0], [0], [0]),
    "array too large": [0, 3],
    "array too small": [-4],
    "huge in an array": [10**30],
    "floats": [0.5],
    "a float": 1.5,
    "a float scalar": np.float64(1),
    "a string": "a",
    "mask too short": [True, False],
    "mask too large": np.ones((3, 5), dtype=bool),
    "shapes": ([0, 1], [0, 1, 2]),
    "a float tensor": Tensor([1.0]),
    "a dictionary": {},
}


@pytest.mark.parametrize("key", KEYS_THAT_RAISE.values(), ids=KEYS_THAT_RAISE.keys())
def test_what_is_no_index_raises(key: Any, device: str) -> None:
    x = placed(numbered((3, 4)), device)
    with pytest.raises(IndexError):
        x[key]
    with pytest.raises(IndexError):
        x[key] = 0
    np.testing.assert_array_equal(x.numpy(), numbered((3, 4)))


def test_sequences_and_tensors_as_indices(device: str) -> None:
    x = placed(numbered((3, 4)), device)
    one = Tensor(1, device=device)
    np.testing.assert_array_equal(x[range(2)].numpy(), x.numpy()[[0, 1]])
    np.testing.assert_array_equal(x[(0, 2), (1, -1)].numpy(), x.numpy()[[0, 2], [1, -1]])
    np.testing.assert_array_equal(x[one:, : one + 1].numpy(), x.numpy()[1:, :2])
    np.testing.assert_array_equal(x[[one, 2]].numpy(), x.numpy()[[1, 2]])
    np.testing.assert_array_equal(x[x > 6].numpy(), x.numpy()[x.numpy() > 6])
    np.testing.assert_array_equal(x[True].numpy(), x.numpy()[None])
    assert x[Tensor(False)].shape == (0, 3, 4)
    assert x[one].storage is x.storage  # a single integer, wherever it comes from, gives a view
    assert x[10**30 :].shape == (0, 4)
    with pytest.raises(ValueError, match="step"):
        x[::0]
    with pytest.raises(TypeError):
        iter(x[0, 0]).__next__()
    assert [row.tolist() for row in x] == x.tolist()
    assert len(x) == 3


def test_indices_from_pytorch(device: str) -> None:
    torch = pytest.importorskip("torch")
    x = placed(numbered((3, 4)), device)
    np.testing.assert_array_equal(x[torch.tensor([2, 0])].numpy(), x.numpy()[[2, 0]])
    np.testing.assert_array_equal(
        x[:, torch.tensor([True, False, True, False])].numpy(), x.numpy()[:, ::2]
    )
    assert x[torch.tensor(1)].storage is x.storage


# -- writing


@given(data=st.data(), shape=shapes(), layout=written, basic=st.booleans())
def test_writing_is_numpys(
    data: st.DataObject, device: str, shape: Shape, layout: str, basic: bool
) -> None:
    key = data.draw(basic_keys(shape) if basic else advanced_keys(shape))
    a = numbered(shape)
    x = placed(LAYOUTS[layout](a), device)
    base = x.storage
    try:
        value = -a[key]  # repeated elements get one value, whichever write is last
    except IndexError:
        return
    value = (
        data.draw(st.sampled_from([value, 7, placed(np.asarray(value), device), True]))
        if device == "cpu"
        else placed(np.asarray(value), device)
    )
    a[key] = value.numpy() if isinstance(value, Tensor) else value
    x[data.draw(in_another_form(key))] = value
    np.testing.assert_array_equal(x.numpy(), a)
    assert x.storage is base


def test_writing_reaches_every_view_and_only_the_region(device: str) -> None:
    x = placed(numbered((3, 4)), device)
    row, column, whole = x[1], x[:, 2], x.view(12)
    x[1:, ::-2] = placed(np.array([10.0, 20.0]), device)
    assert x.tolist() == [[1, 2, 3, 4], [5, 20, 7, 10], [9, 20, 11, 10]]
    assert row.tolist() == [5, 20, 7, 10]
    column[...] = 0
    assert whole.tolist() == [1, 2, 0, 4, 5, 20, 0, 10, 9, 20, 0, 10]
    x[1:] = x[:-1]  # source and target overlap
    assert x.tolist() == [[1, 2, 0, 4], [1, 2, 0, 4], [5, 20, 0, 10]]


def test_writing_what_does_not_fit_changes_nothing(device: str) -> None:
    x = placed(numbered((3, 4)), device)
    with pytest.raises(ValueError, match="broadcast"):
        x[0] = [1.0, 2.0]
    with pytest.raises(MutationError, match="several indices"):
        x[:1].expand(3, 4)[0:2] = 0
    with no_grad():
        x[:1].expand(3, 4)[0] = 0  # one row of it has no element twice
    assert x.tolist() == [[0, 0, 0, 0], [5, 6, 7, 8], [9, 10, 11, 12]]


# -- by a table of positions


@given(data=st.data(), shape=shapes(min_dims=1, max_dims=3, min_side=1), seed=seeds)
def test_gather_is_take_along_axis(
    data: st.DataObject, device: str, shape: Shape, seed: int
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    sides = [n if data.draw(st.booleans()) else 1 for n in shape]  # size 1 broadcasts
    sides[axis] = data.draw(st.integers(0, 4))
    indices = data.draw(
        hnp.arrays(np.int64, tuple(sides), elements=st.integers(-shape[axis], shape[axis] - 1))
    )
    x = placed(numbered(shape), device, requires_grad=True)
    y = tensor.gather(x, indices, axis=axis)
    expected = np.take_along_axis(numbered(shape), indices, axis)
    np.testing.assert_array_equal(y.numpy(), expected)
    check_gradient(x, y, expected, seed)


def test_positions_out_of_range_raise() -> None:
    x = tensor.zeros(2, 3)
    for ids in ([[3]], [[-4]]):
        with pytest.raises(IndexError, match="outside -3 to 2"):
            tensor.gather(x, ids, axis=1)
    with pytest.raises(ShapeError, match="as many axes"):
        tensor.gather(x, [0])
    for rows in ([2], [-1]):
        with pytest.raises(IndexError, match="outside 0 to 1"):
            tensor.embedding(rows, x)
    with pytest.raises(DTypeError):
        tensor.embedding([0.0], x)
    for weight in (x[0], x[None]):
        with pytest.raises(ShapeError, match=r"a matrix \(V, C\)"):
            tensor.embedding([0], weight)
    with pytest.raises(IndexError):
        tensor.one_hot([0, 3], count=3)


@given(data=st.data(), ids_shape=shapes(max_dims=3), layout=layouts, seed=seeds)
def test_embedding_rows(
    data: st.DataObject, device: str, ids_shape: Shape, layout: str, seed: int
) -> None:
    ids = data.draw(hnp.arrays(np.int64, ids_shape, elements=st.integers(0, 4)))
    weight = placed(LAYOUTS[layout](numbered((5, 3))), device, requires_grad=True)
    y = tensor.embedding(ids, weight)
    np.testing.assert_array_equal(y.numpy(), weight.numpy()[ids])
    check_gradient(weight, y, numbered((5, 3))[ids], seed)
    np.testing.assert_array_equal(
        tensor.one_hot(Tensor(ids, device=device), count=5).numpy(),
        np.eye(5, dtype=np.float32)[ids],
    )


def test_embedding_of_no_columns(device: str) -> None:
    weight = tensor.zeros(3, 0, requires_grad=True, device=device)
    y = tensor.embedding([[2, 0]], weight)
    assert y.shape == (1, 2, 0)
    y.sum().backward()
    assert weight.grad is not None
    assert weight.grad.shape == (3, 0)


# -- side by side


@given(data=st.data(), shape=shapes(min_dims=1, max_dims=3), seed=seeds)
def test_concatenate_stack_and_pad(
    data: st.DataObject, device: str, shape: Shape, seed: int
) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    lengths = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    parts = [
        numbered(tuple(n if i == axis % len(shape) else m for i, m in enumerate(shape)))
        for n in lengths
    ]
    xs = [placed(part, device, requires_grad=True) for part in parts]
    y = tensor.concatenate(xs, axis)
    np.testing.assert_array_equal(y.numpy(), np.concatenate(parts, axis))
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    for dx, part in zip(
        grad(y, xs, placed(dy, device)), np.split(dy, np.cumsum(lengths)[:-1], axis), strict=True
    ):
        np.testing.assert_array_equal(dx.numpy(), part)  # type: ignore[union-attr]

    x = placed(numbered(shape), device, requires_grad=True)
    np.testing.assert_array_equal(
        tensor.stack([x, 2 * x], axis).numpy(), np.stack([x.numpy(), 2 * x.numpy()], axis)
    )
    width = [(data.draw(st.integers(0, 2)), data.draw(st.integers(0, 2))) for _ in shape]
    y = tensor.pad(x, width, 5.0)
    np.testing.assert_array_equal(y.numpy(), np.pad(x.numpy(), width, constant_values=5.0))
    dy = np.random.default_rng(seed).standard_normal(y.shape)
    inside = tuple(slice(before, before + n) for (before, _), n in zip(width, shape, strict=True))
    (dx,) = grad(y, x, placed(dy, device))
    assert dx is not None
    np.testing.assert_array_equal(dx.numpy(), dy[inside])


def test_what_cannot_lie_side_by_side_raises() -> None:
    x = tensor.zeros(2, 3)
    for call in (
        lambda: tensor.concatenate([]),
        lambda: tensor.concatenate([x, x.T]),
        lambda: tensor.concatenate([x, x[0]]),
        lambda: tensor.concatenate([x[0, 0], x[0, 0]]),
        lambda: tensor.concatenate([x, x], 2),
        lambda: tensor.stack([]),
        lambda: tensor.stack([x, x[:1]]),
        lambda: tensor.stack([x], 3),
        lambda: tensor.pad(x, -1),
    ):
        with pytest.raises(ShapeError):
            call()
