"""Where tensors meet NumPy, PyTorch and plain Python: operators from either side, windows, DLPack,
and arrays as others left them in memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor, no_grad
from tensor.errors import (
    ArgumentError,
    DTypeError,
    GraphError,
    MutationError,
    ShapeError,
    ViewError,
)
from tensor.gradient_cases import LAYOUTS
from tensor.memory.devices import Array
from tensor.memory.layout import Shape
from tests.helpers.strategies import broadcastable, layouts, numbered, placed, shapes, view_steps

OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.pow,
    operator.lt,
    operator.le,
    operator.gt,
    operator.ge,
    operator.eq,
    operator.ne,
]
UFUNCS = [np.exp, np.log, np.sqrt, np.sin, np.cos, np.tanh, np.negative, np.absolute]
BINARY_UFUNCS = [
    np.add,
    np.subtract,
    np.multiply,
    np.divide,
    np.power,
    np.maximum,
    np.minimum,
    np.less,
    np.equal,
]


def on_the_cpu(device: str) -> None:
    """NumPy's operators meet CPU tensors only; a GPU tensor does not silently travel."""
    if device != "cpu":
        pytest.skip("NumPy arrays live on the CPU")


# -- operators and ufuncs


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
@given(drawn=broadcastable(2))
def test_an_array_on_either_side_gives_a_tensor(op: Callable[[Any, Any], Any], drawn: Any) -> None:
    a, b = (
        np.random.default_rng(i).uniform(0.5, 2, shape)
        for i, shape in enumerate(drawn.input_shapes)
    )
    for x, y in ((a, Tensor(b)), (Tensor(a), b), (Tensor(a), Tensor(b))):
        z = op(x, y)
        assert type(z) is Tensor
        np.testing.assert_array_equal(z.numpy(), op(a, b))


def test_an_array_times_a_tensor_is_recorded() -> None:
    a, x = np.array([1.0, 2.0]), Tensor([[3.0], [4.0]], dtype="float64", requires_grad=True)
    for y in (
        a * x,
        x * a,
        np.multiply(a, x),
        [1.0, 2.0] * x,
        x * [1.0, 2.0],
        np.float64(3) * x,
        x * np.float64(3),
        np.array(3.0) * x,
    ):
        assert type(y) is Tensor
        assert y.requires_grad
    y = (a / x).sum() + (np.float32(2) - x).sum() + np.exp(x).sum() + (a @ x).sum()
    y.backward()
    assert x.grad is not None
    np.testing.assert_allclose(
        x.grad.numpy(), -3 / x.numpy() ** 2 - 1 + np.exp(x.numpy()) + a[:, None], rtol=1e-14
    )


def test_integers_and_bools_of_numpy() -> None:
    mask, ids = Tensor([True, False]), Tensor([1, 2])
    assert (np.array([True, True]) & mask).tolist() == [True, False]
    assert (np.array([True, True]) ^ mask).tolist() == [False, True]
    assert (np.array([4, 4]) | ids).tolist() == [5, 6]
    assert (~mask).tolist() == [False, True]
    assert (np.int64(2) * ids).dtype == tensor.dtypes.int64
    assert (np.float64(2) * ids).dtype == tensor.float32


@pytest.mark.parametrize("ufunc", UFUNCS, ids=lambda ufunc: ufunc.__name__)
@given(shape=shapes(), layout=layouts)
def test_ufuncs_of_one_tensor(ufunc: Any, shape: Shape, layout: str) -> None:
    a = LAYOUTS[layout](numbered(shape) / 3)
    x = placed(a, "cpu", requires_grad=True)
    y = ufunc(x)
    assert type(y) is Tensor
    assert y.requires_grad
    np.testing.assert_array_equal(y.numpy(), ufunc(a))


@pytest.mark.parametrize("ufunc", BINARY_UFUNCS, ids=lambda ufunc: ufunc.__name__)
def test_ufuncs_of_two(ufunc: Any) -> None:
    a, b = np.array([[1.0], [2.0]]), np.array([2.0, 0.5, 1.0])
    for x, y in ((Tensor(a), b), (a, Tensor(b)), (Tensor(a), Tensor(b))):
        z = ufunc(x, y)
        assert type(z) is Tensor
        np.testing.assert_array_equal(z.numpy(), ufunc(a, b))


@pytest.mark.parametrize(
    "call",
    [
        lambda x, a: np.add(a, x, out=a),
        lambda x, a: np.add.reduce(x),
        lambda x, a: np.add.at(a, [0], x),
        lambda x, a: np.hypot(a, x),
        lambda x, a: np.add(a, x, dtype="float32"),
        lambda x, a: np.add(a, x, where=[True, False]),
        lambda x, a: operator.iadd(a, x),
        lambda x, a: np.copyto(a, x),
        lambda x, a: np.put(a, [0, 1], x),
        lambda x, a: np.putmask(a, [True, True], x),
        lambda x, a: np.place(a, [True, True], x),
        lambda x, a: np.put_along_axis(a, np.array([0, 1]), x, 0),
        lambda x, a: np.full_like(a, x),
        lambda x, a: np.full_like(x, fill_value=x),
    ],
    ids=[
        "out",
        "reduce",
        "at",
        "unknown",
        "dtype",
        "where",
        "iadd",
        "copyto",
        "put",
        "putmask",
        "place",
        "put_along_axis",
        "full_like",
        "full_like_itself",
    ],
)
def test_what_numpy_would_do_behind_the_graph_raises(call: Callable[[Tensor, Array], Any]) -> None:
    """An array cannot hold a graph, so what would write a tensor into one is refused, and nothing
    is written.
    """
    a = np.array([1.0, 2.0])
    with pytest.raises(GraphError, match="would lose its gradient"):
        call(Tensor([3.0, 4.0], requires_grad=True), a)
    assert a.tolist() == [1, 2]


def test_arrays_of_the_shape_of_a_tensor_in_a_graph_are_constants() -> None:
    x = Tensor([3.0, 4.0], requires_grad=True)
    assert np.zeros_like(x).tolist() == [0, 0]
    assert np.full_like(x, 7).tolist() == np.full_like(a=x, fill_value=7).tolist() == [7, 7]
    a = np.zeros(2)
    np.copyto(a, x.detach())
    assert a.tolist() == [3, 4]


def test_ufuncs_with_fractions_give_floats_of_integers() -> None:
    ids = Tensor([64, 3, -1])
    for ufunc in (np.exp2, np.exp, np.degrees, np.radians):
        y = ufunc(ids)
        assert y.dtype == tensor.float32
        np.testing.assert_allclose(y.numpy(), ufunc(ids.numpy()), rtol=1e-6)


# -- windows


@given(data=st.data(), shape=shapes(), layout=layouts.filter(lambda name: name != "expanded"))
def test_numpy_is_a_window(data: st.DataObject, device: str, shape: Shape, layout: str) -> None:
    on_the_cpu(device)
    x = placed(LAYOUTS[layout](numbered(shape)), device)
    y = x
    for _ in range(data.draw(st.integers(0, 3))):
        step = data.draw(view_steps(y.shape))
        if step.name not in ("view", "reshape", "flatten", "contiguous", "expand"):
            y = step.on_tensor(y)
    implicit = np.asarray(y)  # handed out without being asked for by name: to read, not to write
    assert not implicit.flags.writeable
    assert np.shares_memory(implicit, x.array) == (y.size > 0)
    for window in (y.numpy(), np.from_dlpack(y)):
        assert window.shape == y.shape
        assert np.shares_memory(window, x.array) == (y.size > 0)
        window[...] = -1  # and so the tensor, and what it views, changes
    assert y.numpy().tolist() == np.full(y.shape, -1.0).tolist()
    assert int((x.numpy() == -1).sum()) == y.size


def test_windows_on_a_graph_are_read_only(device: str) -> None:
    on_the_cpu(device)
    leaf = Tensor([1.0, 2.0], requires_grad=True)
    constant = Tensor([3.0, 4.0])
    before = constant.numpy()
    assert before.flags.writeable
    y = leaf * constant
    # the product keeps what it multiplied
    for x in (leaf, y, y[1:], y.sum(), constant, constant[::-1]):
        for window in (x.numpy(), np.from_dlpack(x)):
            assert not window.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                window[...] = 0
    assert not np.asarray(constant).flags.writeable
    assert np.array(constant).flags.writeable  # a copy


def test_numpy_takes_no_values_of_a_graph_unsaid(device: str) -> None:
    """What NumPy asks for by itself would come back as constants: no gradient, and no word."""
    on_the_cpu(device)
    leaf = Tensor([1.0, 2.0], requires_grad=True)
    for x in (leaf, leaf * 2, (leaf * 2)[1:]):
        for call in (
            np.array,
            np.asarray,
            lambda x: np.r_[x, x],
            lambda x: np.c_[x, x],
            lambda x: np.mean([x, x]),
        ):
            with pytest.raises(GraphError, match=r"x.numpy\(\)"):
                call(x)
        assert np.array_equal(x.detach(), x.numpy())
    with tensor.no_grad():
        assert np.array(leaf).tolist() == [1, 2]
    assert Tensor([1.0]).numpy().flags.writeable


def test_asarray_keeps_numpys_promises(device: str) -> None:
    on_the_cpu(device)
    x = Tensor([[1.0, 2.0]], dtype="float32")
    assert np.asarray(x).dtype == np.float32
    assert np.asarray(x, dtype="float64").dtype == np.float64
    assert np.shares_memory(np.array(x, copy=False), x.array)
    assert not np.shares_memory(np.array(x), x.array)
    with pytest.raises(ValueError, match="copy"):
        np.array(x, dtype="float64", copy=False)
    np.testing.assert_array_equal(np.concatenate([x, x]), [[1, 2], [1, 2]])
    assert np.asarray(Tensor([1.5], dtype="bfloat16")).dtype == tensor.bfloat16
    assert np.asarray([Tensor(1.0), Tensor(2.0)]).tolist() == [1, 2]


def test_python_numbers(device: str) -> None:
    x = Tensor([[2.5]], device=device)
    assert (float(x), int(x), bool(x), x.item(), x.tolist()) == (2.5, 2, True, 2.5, [[2.5]])
    assert type(Tensor(3, device=device).item()) is int
    assert type(Tensor(True, device=device).item()) is bool
    assert Tensor([1.5, 2.0], dtype="bfloat16", device=device).tolist() == [1.5, 2]
    assert type(Tensor(1.5, dtype="bfloat16", device=device).item()) is float
    assert [10, 20, 30][Tensor(1, device=device)] == 20
    assert list(range(Tensor([2], device=device))) == [0, 1]
    for call in (
        Tensor([1, 2]).item,
        Tensor([]).item,
        lambda: bool(Tensor([True, False])),
        lambda: float(Tensor([1.0, 2.0])),
    ):
        with pytest.raises(ShapeError):
            call()
    for wrong in (Tensor(1.0), Tensor([1, 2]), Tensor(True)):
        with pytest.raises(TypeError, match="index"):
            operator.index(wrong)
    assert len({x, x, Tensor([[2.5]], device=device)}) == 2  # by identity


# -- DLPack


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool"]
)
def test_dlpack_to_and_from_pytorch(dtype: str, device: str) -> None:
    torch = pytest.importorskip("torch")
    if device != "cpu" and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")
    x = Tensor(np.arange(6).reshape(2, 3) % 2, dtype=dtype, device=device)
    for y in (x, x.T, x[:, ::2], x[1:, 1:], x[0, 0], x[:0], x.unsqueeze(1).expand(2, 4, 3)):
        t = torch.from_dlpack(y)
        assert tuple(t.shape) == y.shape
        assert [s for s, n in zip(t.stride(), t.shape, strict=True) if n > 1] == [
            s for s, n in zip(y.strides, y.shape, strict=True) if n > 1
        ] or not y.size
        back = tensor.from_dlpack(t)
        assert (back.dtype, back.shape, back.device) == (y.dtype, y.shape, y.device)
        np.testing.assert_array_equal(back.numpy(), y.numpy())
    t = torch.from_dlpack(x)
    t[0, 0] = 1
    assert x[0, 0].item() == 1
    back = tensor.from_dlpack(t.T)
    back[1, 1] = 1
    assert x[1, 1].item() == 1
    assert back.strides == (1, 3)


def test_dlpack_from_numpy(device: str) -> None:
    on_the_cpu(device)
    a = np.arange(6.0).reshape(2, 3)[:, ::-1]
    x = tensor.from_dlpack(a)
    assert x.strides == (3, -1)
    assert np.shares_memory(x.array, a)
    frozen = np.arange(3.0)
    frozen.flags.writeable = False
    y = tensor.from_dlpack(frozen)
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 1
    with pytest.raises(DTypeError, match=r"bfloat16.*to\('float32'\)"):
        np.from_dlpack(Tensor([1.0], dtype="bfloat16"))
    with pytest.raises(ArgumentError, match="an array of another library"):
        tensor.from_dlpack([1.0])


def test_pytorch_tensors_as_data_and_operands(device: str) -> None:
    on_the_cpu(device)
    torch = pytest.importorskip("torch")
    t = torch.tensor([1.0, 2.0])
    x = Tensor([3.0, 4.0], requires_grad=True)
    assert Tensor(t).tolist() == [1, 2]
    for y in (x * t, t * x):
        assert type(y) is Tensor
        assert y.tolist() == [3, 8]
        assert y.requires_grad
    with pytest.raises(BufferError):
        tensor.from_dlpack(torch.ones(2, requires_grad=True))


# -- from_array: memory as others left it


def sliding(a: Array) -> Array:
    return np.lib.stride_tricks.sliding_window_view(a, 3)


def aligned_to_nothing(a: Array) -> Array:
    """Doubles that start one byte into a buffer."""
    buffer = np.zeros(8 * a.size + 1, dtype=np.uint8)
    odd = buffer[1:].view(np.float64)
    odd[...] = a
    return odd


ODD_ARRAYS: dict[str, Callable[[], Array]] = {
    "reversed": lambda: np.arange(6.0)[::-1],
    "reversed in part": lambda: numbered((3, 4))[::-1, 1::2],
    "column-major": lambda: np.asfortranarray(numbered((3, 4))),
    "transposed backwards": lambda: numbered((2, 3, 4)).transpose(2, 0, 1)[::-2, :, ::-1],
    "overlapping windows": lambda: sliding(np.arange(6.0)),
    "windows of windows": lambda: sliding(sliding(np.arange(7.0))[:, 0])[::2],
    "repeated": lambda: np.broadcast_to(np.arange(3.0), (2, 3)),
    "repeated backwards": lambda: np.broadcast_to(np.arange(3.0)[::-1, None], (3, 2)),
    "unaligned": lambda: aligned_to_nothing(np.arange(4.0)),
    "read-only": lambda: np.frombuffer(np.arange(4.0).tobytes()),
    "scalar": lambda: np.array(2.5),
    "scalar of a column": lambda: np.arange(4.0)[2:3].reshape(()),
    "empty": lambda: np.zeros((3, 0, 2))[::-1],
    "one long": lambda: np.lib.stride_tricks.as_strided(np.arange(3.0), (1, 3, 1), (-999, 8, 5)),
    "matrix": lambda: np.arange(2.0)[None].view(np.matrix).T,
    "bfloat16": lambda: numbered((3, 4)).astype(tensor.bfloat16)[::-1, ::2],
    "bool": lambda: np.array([True, False, True])[::-2],
}


@pytest.mark.parametrize("name", ODD_ARRAYS)
def test_from_array_sees_any_memory(name: str, device: str) -> None:
    """Values, and every view's values, straight from the memory of the array; nothing is copied."""
    on_the_cpu(device)
    a = ODD_ARRAYS[name]()
    x = Tensor.from_array(a)
    b = np.asarray(a)
    assert np.shares_memory(x.storage.flat, b) == (b.size > 0)
    low, high = x.layout.span()
    assert (low >= 0, high <= x.storage.flat.size) == (True, True)
    np.testing.assert_array_equal(x.numpy(), b)
    views = [
        (x.T, b.T),
        (x[..., None], b[..., None]),
        (x.reshape(-1), b.reshape(-1)),
        (x.contiguous(), b),
        (x.expand(2, *x.shape), np.stack([b, b])),
    ]
    if b.ndim:
        views += [(x[::-1], b[::-1]), (x[1:], b[1:]), (x.unsqueeze(0).transpose(0, 1), b[:, None])]
    for y, expected in views:
        np.testing.assert_array_equal(y.numpy(), expected)
    assert not x.numpy().flags.writeable or b.flags.writeable
    if b.dtype != bool:
        np.testing.assert_array_equal((x.T * 2).numpy(), b.T * np.asarray(2, dtype=b.dtype))


def test_from_array_shares_and_respects_read_only(device: str) -> None:
    on_the_cpu(device)
    a = np.arange(4.0)
    x = Tensor.from_array(a)
    x[1:3] = 9
    a[0] = 7
    assert a.tolist() == x.tolist() == [7, 9, 9, 3]
    a.flags.writeable = False
    for y in (Tensor.from_array(a), Tensor.from_array(a)[1:], Tensor.from_array(a[::-1]).T):
        with pytest.raises(ValueError, match="read-only"):
            y[...] = 0
        assert not y.numpy().flags.writeable
    assert a.tolist() == [7, 9, 9, 3]
    overlapping = np.lib.stride_tricks.sliding_window_view(np.arange(4.0), 2, writeable=True)
    with pytest.raises(MutationError, match="several indices"):
        Tensor.from_array(overlapping)[...] = 0


def test_from_array_of_a_memory_map(tmp_path: Path, device: str) -> None:
    on_the_cpu(device)
    a: Any = np.memmap(tmp_path / "weights", dtype=np.float32, mode="w+", shape=(3, 4))
    a[...] = numbered((3, 4))
    x = Tensor.from_array(a)
    assert type(x.array) is np.ndarray
    assert np.shares_memory(x.array, a)
    np.testing.assert_array_equal(x.T[1:, ::2].numpy(), numbered((3, 4)).T[1:, ::2])
    x[0] = 0
    assert a[0].tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(Tensor(a)[1:].numpy(), a[1:])


def test_fields_of_records_have_no_strides_in_elements(device: str) -> None:
    """12 bytes from one double to the next are 1.5 elements: said so, where reading on would give
    other fields' bytes as numbers.
    """
    on_the_cpu(device)
    records = np.zeros(4, dtype=[("value", "f8"), ("count", "f4")])
    records["value"] = [1, 2, 3, 4]
    x = Tensor.from_array(records["value"])
    assert (x * 2).tolist() == [2, 4, 6, 8]
    with pytest.raises(ViewError, match="no multiples of the 8 bytes"):
        x[1:]
    assert Tensor(records["value"])[1:].tolist() == [2, 3, 4]
    assert Tensor.from_array(records["value"][:1])[:].tolist() == [1]  # a single one moves nowhere


def test_bfloat16_windows(device: str) -> None:
    """A dtype that NumPy does not define has no buffer interface; its windows go through bytes."""
    x = Tensor(numbered((4, 6)), dtype="bfloat16", device=device)
    y = x.T[::-2, 1:].unsqueeze(0)
    np.testing.assert_array_equal(y.numpy().astype(float), numbered((4, 6)).T[::-2, 1:][None])
    with no_grad():
        y[0, 0] = 0.5
    assert x.tolist()[1][5] == 0.5
    assert y.storage is x.storage
    assert y.is_contiguous() is False
    assert y.contiguous().dtype == tensor.bfloat16
    assert Tensor(float("-inf"), dtype="bfloat16", device=device).item() == float("-inf")


def test_the_address_of_a_tensor(device: str) -> None:
    x = Tensor(np.arange(6.0).reshape(2, 3), device=device)
    assert x[1:].data_ptr() == x.data_ptr() + 3 * 8
    if device == "cpu":
        assert x.data_ptr() == x.numpy().ctypes.data
