"""New tensors: the values of NumPy's functions of the same name, with our dtypes; and tensors from
what Python holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Generator, Tensor
from tensor.dtypes import as_dtype, bool_, float32, float64, int64
from tensor.errors import DeviceError, DTypeError, GraphError, ShapeError
from tensor.memory.layout import Shape
from tests.helpers.strategies import numbered, placed, shapes

DTYPES = [
    "float64",
    "float32",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
]
dtypes = st.sampled_from(DTYPES)


def check(x: Tensor, values: Any, dtype: Any, device: str) -> None:
    """Values, dtype, device; row-major memory of its own."""
    np.testing.assert_array_equal(x.numpy(), np.asarray(values).astype(as_dtype(dtype)))
    assert x.dtype == as_dtype(dtype)
    assert x.shape == np.shape(values)
    assert x.device.split(":")[0] == device.split(":")[0]
    assert x.is_contiguous()
    assert x.is_leaf
    assert x.offset == 0


# -- from a shape


@given(shape=shapes(), dtype=dtypes)
def test_zeros_ones_full_empty(device: str, shape: Shape, dtype: str) -> None:
    check(tensor.zeros(*shape, dtype=dtype, device=device), np.zeros(shape), dtype, device)
    check(tensor.ones(shape, dtype=dtype, device=device), np.ones(shape), dtype, device)
    check(tensor.full(shape, 1, dtype=dtype, device=device), np.ones(shape), dtype, device)
    assert tensor.empty(list(shape), dtype=dtype, device=device).shape == shape
    assert tensor.empty(*shape, dtype=dtype, device=device).dtype == as_dtype(dtype)


@given(shape=shapes(), dtype=dtypes)
def test_like_takes_shape_dtype_and_device(device: str, shape: Shape, dtype: str) -> None:
    x = Tensor(np.zeros(shape), dtype=dtype, device=device).T
    check(tensor.zeros_like(x), np.zeros(x.shape), dtype, device)
    check(tensor.ones_like(x), np.ones(x.shape), dtype, device)
    check(tensor.full_like(x, True), np.ones(x.shape), dtype, device)
    check(
        tensor.ones_like(x, dtype="float32", requires_grad=True).detach(),
        np.ones(x.shape),
        "float32",
        device,
    )
    y = tensor.empty_like(x)
    assert (y.shape, y.dtype, y.device) == (x.shape, x.dtype, x.device)
    for make in (tensor.rand_like, tensor.randn_like):
        z = make(x, dtype="float16")
        assert (z.shape, z.dtype, z.device) == (x.shape, as_dtype("float16"), x.device)
    z = tensor.randint_like(x, 0, 2)
    assert (z.shape, z.dtype, z.device) == (x.shape, x.dtype, x.device)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (2, int64),
        (2.5, float32),
        (True, bool_),
        (np.float64(2.5), float64),
        (np.int8(3), np.dtype("int8")),
        (Tensor(0.1), float32),
    ],
)
def test_full_takes_the_dtype_of_its_value(value: Any, dtype: Any, device: str) -> None:
    for shape in (3, np.int64(3), (3,), [3]):
        check(tensor.full(shape, value, device=device), np.full(3, value), dtype, device)


@pytest.mark.parametrize(
    ("arguments", "dtype"),
    [
        ((5,), int64),
        ((0,), int64),
        ((2, 5), int64),
        ((5, 2), int64),
        ((5, 0, -2), int64),
        ((0, 1, 0.25), float32),
        ((3.5,), float32),
        ((1, 0, -0.3), float32),
        ((np.int32(4),), int64),
    ],
)
def test_arange(arguments: tuple[Any, ...], dtype: Any, device: str) -> None:
    check(tensor.arange(*arguments, device=device), np.arange(*arguments), dtype, device)
    for named in ("float64", "float16", "bfloat16"):
        check(
            tensor.arange(*arguments, dtype=named, device=device),
            np.arange(*arguments),
            named,
            device,
        )


def test_eye_and_triangles(device: str) -> None:
    for dtype in DTYPES:
        check(tensor.eye(2, 3, dtype=dtype, device=device), np.eye(2, 3), dtype, device)
        check(tensor.eye(3, dtype=dtype, device=device), np.eye(3), dtype, device)
    for shape in ((3, 3), (2, 3, 4), (4, 2), (0, 3), (1, 1)):
        a = numbered(shape)
        for diagonal in (-2, 0, 1, 5):
            np.testing.assert_array_equal(
                tensor.tril(placed(a, device), diagonal).numpy(), np.tril(a, diagonal)
            )
            np.testing.assert_array_equal(
                tensor.triu(placed(a, device), diagonal).numpy(), np.triu(a, diagonal)
            )
    x = Tensor([[1.0, float("nan")], [2.0, 3.0]], device=device, requires_grad=True)
    y = tensor.tril(x)
    assert y.tolist() == [[1, 0], [2, 3]]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1, 0], [1, 1]]
    for dtype in ("int64", "bool", "bfloat16"):
        assert tensor.tril(tensor.ones(2, 2, dtype=dtype, device=device)).dtype == as_dtype(dtype)
    with pytest.raises(ShapeError, match="two axes"):
        tensor.tril(tensor.ones(3))


def test_leaves(device: str) -> None:
    for make in (tensor.zeros, tensor.ones, tensor.empty, tensor.rand, tensor.randn):
        assert not make(2, device=device).requires_grad
        assert make(2, device=device, requires_grad=True).requires_grad
    assert tensor.full(2, 1.0, requires_grad=True).requires_grad
    assert tensor.arange(2.0, requires_grad=True).requires_grad
    assert tensor.eye(2, requires_grad=True).requires_grad
    for wrong in (
        lambda: tensor.zeros(2, dtype="int64", requires_grad=True),
        lambda: tensor.arange(3, requires_grad=True),
        lambda: Tensor([True], requires_grad=True),
    ):
        with pytest.raises(DTypeError, match="only floats"):
            wrong()


MEANINGLESS: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "negative": (lambda: tensor.zeros(-1), ValueError),
    "half": (lambda: tensor.zeros(2.5), TypeError),
    "text": (lambda: tensor.zeros("2"), TypeError),
    "dtype": (lambda: tensor.zeros(2, dtype="float31"), DTypeError),
    "complex": (lambda: tensor.zeros(2, dtype="complex128"), DTypeError),
    "device": (lambda: tensor.zeros(2, device="tpu"), DeviceError),
    "step": (lambda: tensor.arange(0, 3, 0), ZeroDivisionError),
    "empty range": (lambda: tensor.randint(3, 3, (2,)), ValueError),
}


@pytest.mark.parametrize("name", MEANINGLESS)
def test_what_has_no_meaning_raises(name: str) -> None:
    make, error = MEANINGLESS[name]
    with pytest.raises(error):
        make()


# -- at random


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_random_floats(dtype: str, device: str) -> None:
    u = tensor.rand(40, 100, dtype=dtype, device=device, generator=Generator(1))
    n = tensor.randn(40, 100, dtype=dtype, device=device, generator=Generator(1))
    assert (u.shape, u.dtype, n.shape, n.dtype) == ((40, 100), as_dtype(dtype)) * 2
    uniform, normal = u.numpy().astype(float), n.numpy().astype(float)
    assert uniform.min() >= 0
    assert uniform.max() < 1  # also after rounding to 8 bits
    assert abs(uniform.mean() - 0.5) < 0.02
    assert abs(uniform.std() - 12**-0.5) < 0.02
    assert abs(normal.mean()) < 0.05
    assert abs(normal.std() - 1) < 0.05
    np.testing.assert_array_equal(
        tensor.rand(40, 100, dtype=dtype, device=device, generator=Generator(1)).numpy(), u.numpy()
    )


def test_rounding_never_makes_one(device: str) -> None:
    """The largest draws, just below 1, in few bits."""

    class Highest(Generator):
        def uniform(self, shape: Shape = (), device: str = "cpu") -> Any:
            return tensor.full(shape, np.nextafter(1, 0), device=device).array

    for dtype in ("float64", "float32", "float16", "bfloat16"):
        assert (
            tensor.rand(3, dtype=dtype, device=device, generator=Highest())
            .to("float64")
            .max()
            .item()
            < 1
        )


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 5, "int64"),
        (-3, 3, "int8"),
        (0, 256, "uint8"),
        (0, 2, "bool"),
        (7, 8, "int32"),
        (-2, 2, "float32"),
    ],
)
def test_randint(low: int, high: int, dtype: str, device: str) -> None:
    x = tensor.randint(low, high, (20, 100), dtype=dtype, device=device, generator=Generator(3))
    assert (x.shape, x.dtype) == ((20, 100), as_dtype(dtype))
    values, counts = np.unique(x.numpy().astype(int), return_counts=True)
    assert values.tolist() == list(range(low, high))
    assert counts.min() > 0.5 * 2000 / (high - low) or high - low > 50
    assert tensor.randint(low, high, 4).shape == (4,)


def test_the_default_generator_restarts(device: str) -> None:
    tensor.manual_seed(5)
    first = [
        tensor.rand(3, device=device).tolist(),
        tensor.randn(3, device=device).tolist(),
        tensor.randint(0, 9, 3, device=device).tolist(),
    ]
    second = tensor.rand(3, device=device).tolist()
    assert second != first[0]
    tensor.manual_seed(5)
    assert first == [
        tensor.rand(3, device=device).tolist(),
        tensor.randn(3, device=device).tolist(),
        tensor.randint(0, 9, 3, device=device).tolist(),
    ]
    tensor.manual_seed(6)
    assert tensor.rand(3, device=device).tolist() != first[0]


# -- from what Python holds


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (2.5, float32),
        (3, int64),
        (True, bool_),
        ([], float32),
        ([[], []], float32),
        ([1, 2], int64),
        ([1, 2.5, True], float32),
        ([True, False], bool_),
        (range(3), int64),
        ((1.0, 2.0), float32),
        ([[1, 2], [3, 4]], int64),
        (np.float64(1.5), float64),
        (np.float32(1.5), float32),
        ([np.float64(1.5), 2.0], float64),
        (np.arange(3.0), float64),
        (np.arange(3, dtype="int8"), np.dtype("int8")),
        ([np.arange(2.0), np.arange(2.0)], float64),
        ([Tensor(1.5), Tensor(2.5)], float32),
        (np.ma.masked_array([1.0, 2.0]), float64),
        (np.array(2.5), float64),
    ],
)
def test_dtype_of_data(data: Any, dtype: Any, device: str) -> None:
    x = Tensor(data, device=device)
    check(x, np.asarray(data), dtype, device)
    check(Tensor(data, dtype="float16", device=device), np.asarray(data), "float16", device)
    assert x.numpy().flags.writeable  # 0-d ones too are arrays, not NumPy's scalars


def test_a_tensor_of_data_is_a_copy(device: str) -> None:
    for a in (
        np.arange(4.0),
        np.arange(4.0)[::-1],
        np.float64(2),
        np.broadcast_to(np.arange(3.0), (2, 3)),
        np.asfortranarray(numbered((2, 3))),
    ):
        x = Tensor(a, device=device)
        np.testing.assert_array_equal(x.numpy(), a)
        x[...] = 9
        assert not np.any(np.asarray(a) == 9)
    x = Tensor([1.0], device=device, requires_grad=True)
    y = Tensor(x)
    assert not y.requires_grad
    assert y.storage is not x.storage


@pytest.mark.parametrize(
    "data", [[[1, 2], [3]], "text", None, 1j, [2**70], [None], np.array(["a"]), {}]
)
def test_what_makes_no_tensor_raises(data: Any) -> None:
    with pytest.raises((ShapeError, DTypeError)):
        Tensor(data)


def test_a_list_of_results_is_no_tensor() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with pytest.raises(GraphError, match="use stack"):
        Tensor([x.sum(), x.sum()])


def test_python_floats_keep_their_bits_in_float64(device: str) -> None:
    """They used to pass through float32, whatever dtype was asked for."""
    given = [0.1, 1e300, 16777217.0]
    assert Tensor(given, dtype="float64", device=device).tolist() == given
    assert Tensor([16777217.0], dtype="int64", device=device).tolist() == [16777217]
    assert tensor.full((2,), 0.1, dtype="float64", device=device).tolist() == [0.1, 0.1]
    x = tensor.zeros(2, dtype="float64", device=device)
    assert tensor.full_like(x, 0.1).tolist() == [0.1, 0.1]
    assert (x + [0.1, 1e300]).tolist() == [0.1, 1e300]
    assert tensor.where(x == 0, [0.1, 0.2], x).tolist() == [0.1, 0.2]


@pytest.mark.parametrize("make", [tensor.zeros, tensor.ones, tensor.empty, tensor.rand])
def test_no_dtype_by_name_is_the_default(make: Any) -> None:
    x = tensor.zeros(2, dtype="float16")
    like: Any = getattr(tensor, f"{make.__name__}_like")
    assert make(2, dtype=None).dtype == tensor.float32
    assert like(x, dtype=None).dtype == tensor.float16
    assert tensor.randint(0, 9, (2,), dtype=None).dtype == np.int64
    assert tensor.full((2,), 1, dtype=None).dtype == np.int64


@pytest.mark.parametrize(
    "make",
    [
        lambda: tensor.arange(127, 130, dtype="int8"),
        lambda: Tensor(300, dtype="int8"),
        lambda: Tensor([[1, -129]], dtype="int8"),
        lambda: Tensor([1e3], dtype="int8"),
        lambda: Tensor([np.nan], dtype="int8"),
        lambda: tensor.full((2,), 300, dtype="int8"),
        lambda: tensor.full_like(tensor.zeros(2, dtype="int8"), 300),
        lambda: tensor.randint(300, 400, (2,), dtype="int8"),
    ],
)
def test_a_number_that_an_integer_dtype_cannot_hold(make: Any) -> None:
    with pytest.raises(OverflowError, match="int8 holds -128 to 127, not"):
        make()
