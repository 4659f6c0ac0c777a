"""Views against two oracles that share no code with them: PyTorch, and NumPy where a step is
negative. And what comes back through them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tensor
from tensor import Tensor
from tensor.errors import ShapeError, ViewError
from tensor.gradient_cases import LAYOUTS
from tensor.memory.devices import Array
from tensor.memory.layout import Shape
from tests.helpers.strategies import (
    gradients,
    layouts,
    numbered,
    placed,
    same_size,
    shapes,
    view_steps,
)


def moving(strides: Shape, shape: Shape) -> list[int]:
    """The strides that matter: of axes longer than 1."""
    return [s for s, n in zip(strides, shape, strict=True) if n > 1]


# -- chains


def check_like_numpy(y: Tensor, b: Array) -> None:
    np.testing.assert_array_equal(y.numpy(), b)
    assert y.shape == b.shape
    assert y.is_contiguous() == b.flags.c_contiguous
    if b.size:
        assert moving(y.strides, y.shape) == moving(
            tuple(s // b.itemsize for s in b.strides), b.shape
        )


@given(data=st.data(), shape=shapes(), layout=layouts)
def test_chains_of_views_agree_with_numpy(
    data: st.DataObject, device: str, shape: Shape, layout: str
) -> None:
    a = LAYOUTS[layout](numbered(shape))
    x = placed(a, device)
    check_like_numpy(x, a)
    for _ in range(data.draw(st.integers(1, 6))):
        step = data.draw(view_steps(x.shape))
        try:
            b = step.on_array(a)
        except ValueError:
            assert step.name == "view"
            with pytest.raises(ViewError):
                step.on_tensor(x)
            continue
        y = step.on_tensor(x)
        check_like_numpy(y, b)
        if b.size:
            assert (y.storage is x.storage) == np.may_share_memory(a, b)
        a, x = b, y


@given(data=st.data(), shape=shapes(), layout=layouts.filter(lambda name: name != "negative step"))
def test_chains_of_views_agree_with_pytorch(
    data: st.DataObject, device: str, shape: Shape, layout: str
) -> None:
    torch = pytest.importorskip("torch")
    host = Tensor.from_array(LAYOUTS[layout](numbered(shape)))
    t = torch.as_strided(
        torch.from_numpy(host.storage.flat.copy()), host.shape, host.strides, host.offset
    )
    x = placed(host.array, device)
    for _ in range(data.draw(st.integers(1, 6))):
        step = data.draw(view_steps(x.shape))
        if step.backwards:
            continue
        try:
            u = step.on_tensor(t)
        except RuntimeError:
            assert step.name == "view"
            with pytest.raises(ViewError):
                step.on_tensor(x)
            continue
        y = step.on_tensor(x)
        np.testing.assert_array_equal(y.numpy(), u.numpy())
        assert y.shape == tuple(u.shape)
        assert y.is_contiguous() == u.is_contiguous()
        if y.size:
            assert moving(y.strides, y.shape) == moving(u.stride(), y.shape)
            assert y.offset == u.storage_offset()
            assert (y.storage is x.storage) == (
                u.untyped_storage().data_ptr() == t.untyped_storage().data_ptr()
            )
        x, t = y, u


@given(data=st.data(), shape=shapes(), layout=layouts, dy_layout=layouts, seed=st.integers(0, 1000))
def test_gradients_find_the_way_back_through_chains(
    data: st.DataObject, device: str, shape: Shape, layout: str, dy_layout: str, seed: int
) -> None:
    """Each element of y is one of x, known by its number: dx there is the sum of dy over all places
    where the number turns up.
    """
    x = y = placed(LAYOUTS[layout](numbered(shape)), device, requires_grad=True)
    number = numbered(shape)
    for _ in range(data.draw(st.integers(1, 5))):
        step = data.draw(view_steps(y.shape))
        try:
            y = step.on_tensor(y)
        except ViewError:
            continue
        number = np.reshape(number, step.args) if step.name == "view" else step.on_array(number)
    dy = LAYOUTS[dy_layout](np.random.default_rng(seed).standard_normal(y.shape))
    (dx,) = gradients([y], [x], [dy])
    expected = np.bincount(
        number.ravel().astype(int) - 1, weights=dy.ravel(), minlength=x.size
    ).reshape(shape)
    np.testing.assert_allclose(dx, expected, rtol=1e-12, atol=1e-12)


@given(data=st.data(), shape=shapes(), layout=layouts)
def test_bug_19_view_never_copies_and_refuses_nothing_legal(
    data: st.DataObject, device: str, shape: Shape, layout: str
) -> None:
    a = LAYOUTS[layout](numbered(shape))
    x = placed(a, device)
    for wanted in (
        data.draw(same_size(shape)),
        data.draw(same_size(shape)),
        (a.size,),
        shape[::-1],
    ):
        try:
            b = np.reshape(a, wanted, copy=False)
        except ValueError:
            with pytest.raises(ViewError):
                x.view(wanted)
            continue
        y = x.view(wanted)
        check_like_numpy(y, b)
        assert y.storage is x.storage


def test_bug_19_views_of_repeated_and_reversed_memory(device: str) -> None:
    x = placed(np.arange(3.0), device)
    repeated = x.unsqueeze(0).expand(4, 3)
    assert repeated.view(2, 2, 3).strides == (0, 0, 1)
    assert repeated.T.view(3, 2, 2).strides == (1, 0, 0)
    with pytest.raises(ViewError):
        repeated.view(12)
    assert x[:1].expand(4).view(2, 2).strides == (0, 0)
    assert x[::-1].view(3, 1).strides[0] == -1
    y = placed(numbered((2, 3)), device)[::-1, ::-1].view(6)
    assert y.strides == (-1,)
    assert y.tolist() == [6, 5, 4, 3, 2, 1]


# -- what users see


def test_a_view_that_cannot_be_teaches(device: str) -> None:
    B, T, H, D = 2, 3, 4, 5
    ctx = tensor.zeros(B, H, T, D, device=device)
    with pytest.raises(ViewError) as caught:
        ctx.transpose(1, 2).view(B, T, H * D)
    assert "axes 2 and 3 clash" in str(caught.value)
    assert "axis 2 steps by 15, joining them needs 5" in str(caught.value)
    assert "480 bytes" in str(caught.value)
    assert ".reshape(2, 3, 20)" in str(caught.value)
    assert ".contiguous().view(2, 3, 20)" in str(caught.value)
    assert isinstance(caught.value, ValueError)  # as NumPy's users expect
    assert isinstance(caught.value, RuntimeError)  # as PyTorch's do
    with pytest.raises(ViewError, match="240 bytes"):
        ctx.to("bfloat16").transpose(1, 2).view(B, T, H * D)


def test_heads_are_merged_as_printed_in_every_guide(device: str) -> None:
    B, T, H, D = 2, 3, 4, 5
    C = H * D
    ctx = placed(numbered((B, H, T, D)), device)  # (B, H, T, D)
    merged = ctx.numpy().swapaxes(1, 2).reshape(B, T, C)
    with pytest.raises(ViewError):
        ctx.transpose(1, 2).view(B, T, C)
    for out in (
        ctx.transpose(1, 2).contiguous().view(B, T, C),
        ctx.transpose(1, 2).reshape(B, T, C),
        ctx.transpose(1, 2).flatten(2, 3),
        ctx.transpose(1, 2).contiguous().flatten(2, 3),
    ):
        np.testing.assert_array_equal(out.numpy(), merged)
    assert ctx.reshape(B, H, T * D).storage is ctx.storage  # where strides allow, nothing is copied
    assert ctx.transpose(1, 2).flatten(2, 3).storage is not ctx.storage
    assert ctx.contiguous() is ctx


def test_the_causal_mask_as_printed_in_every_guide(device: str) -> None:
    T = 4
    wei = placed(numbered((2, T, T)), device)
    tril = tensor.tril(tensor.ones(T, T, device=device))
    wei = wei.masked_fill(tril == 0, float("-inf"))
    np.testing.assert_array_equal(
        wei.numpy(), np.where(np.tril(np.ones((T, T))) == 0, -np.inf, numbered((2, T, T)))
    )
    assert wei.dtype == tensor.float64


def test_shapes_as_arguments_or_as_one_tuple(device: str) -> None:
    x = placed(numbered((2, 3, 4)), device)
    for method, arguments in {
        "view": (4, 6),
        "reshape": (4, -1),
        "permute": (2, 0, -2),
        "expand": (5, -1, 3, 4),
    }.items():
        one, other = getattr(x, method)(*arguments), getattr(x, method)(arguments)
        assert one.shape == other.shape == getattr(x, method)(list(arguments)).shape
        assert one.strides == other.strides
        assert one.shape == getattr(x, method)(*map(np.int64, arguments)).shape
    with pytest.raises(TypeError):
        x.view(4, 6.0)
    assert x.T.shape == (4, 3, 2)
    assert x.mT.shape == (2, 4, 3)
    assert x[0, 0, 0].T.shape == x[0, 0, 0].view().shape == ()
    assert x[0, 0, 0].flatten().shape == x[0, 0, 0].view(-1).shape == (1,)


def test_results_keep_the_memory_order_they_came_in(device: str) -> None:
    """a.T + a.T is column-major, and its strides say so: nothing is copied to pretend otherwise."""
    if device != "cpu":
        pytest.skip("CuPy's results are row-major")
    a = placed(numbered((2, 3)), device)
    y = a.T + a.T
    assert y.shape == (3, 2)
    assert y.strides == (1, 3)
    assert not y.is_contiguous()
    assert y.T.is_contiguous()
    assert y.T.view(6).tolist() == [2, 4, 6, 8, 10, 12]
    with pytest.raises(ViewError):
        y.view(6)
    assert y.reshape(6).tolist() == [2, 8, 4, 10, 6, 12]
    assert y.clone().is_contiguous()


@pytest.mark.parametrize(
    ("length", "size", "lengths"),
    [
        (5, 2, [2, 2, 1]),
        (4, 2, [2, 2]),
        (3, 5, [3]),
        (0, 2, [0]),
        (5, [5], [5]),
        (5, [0, 3, 0, 2], [0, 3, 0, 2]),
        (0, [], []),
        (5, (1, 4), [1, 4]),
        (3, np.int64(2), [2, 1]),
    ],
)
def test_split(length: int, size: Any, lengths: list[int], device: str) -> None:
    x = placed(numbered((2, length)), device)
    pieces = x.split(size, -1)
    assert [piece.shape for piece in pieces] == [(2, n) for n in lengths]
    assert all(piece.storage is x.storage for piece in pieces)
    if pieces:
        np.testing.assert_array_equal(
            np.concatenate([piece.numpy() for piece in pieces], 1), x.numpy()
        )


@pytest.mark.parametrize(
    ("length", "count", "lengths"),
    [
        (6, 3, [2, 2, 2]),
        (5, 3, [2, 2, 1]),
        (5, 4, [2, 2, 1]),
        (2, 3, [1, 1]),
        (0, 3, [0, 0, 0]),
        (3, 1, [3]),
    ],
)
def test_chunk(length: int, count: int, lengths: list[int], device: str) -> None:
    assert [
        piece.shape[0] for piece in placed(numbered((length, 2)), device).chunk(count)
    ] == lengths


MEANINGLESS: dict[str, Callable[[Tensor], Any]] = {
    "split into 0": lambda x: x.split(0),
    "split short": lambda x: x.split([1, 1]),
    "split negative": lambda x: x.split([4, -1]),
    "split axis": lambda x: x.split(1, 2),
    "split scalar": lambda x: x[0, 0].split(1),
    "chunk into 0": lambda x: x.chunk(0),
    "view size": lambda x: x.view(2, 2),
    "reshape -1 twice": lambda x: x.reshape(-1, -1),
    "reshape remainder": lambda x: x.reshape(5, -1),
    "reshape -1 beside 0": lambda x: x[:0].reshape(0, -1),
    "expand 4 to 5": lambda x: x.expand(3, 5),
    "expand to fewer axes": lambda x: x.expand(3),
    "expand to -2": lambda x: x.expand(-2, 3, 4),
    "expand new axis to -1": lambda x: x.expand(-1, 3, 4),
    "expand 1 to -2": lambda x: x[:1].expand(-2, 4),
    "flatten backwards": lambda x: x.flatten(1, 0),
    "flatten axis": lambda x: x.flatten(2),
    "transpose axis": lambda x: x.transpose(0, 2),
    "permute too few": lambda x: x.permute(0),
    "permute none": lambda x: x.permute(),
    "permute twice": lambda x: x.permute(0, -2),
    "squeeze axis": lambda x: x.squeeze(2),
    "unsqueeze axis": lambda x: x.unsqueeze(3),
    "mT of one axis": lambda x: x[0].mT,
}


@pytest.mark.parametrize("call", MEANINGLESS.values(), ids=MEANINGLESS.keys())
def test_what_has_no_meaning_raises(call: Callable[[Tensor], Any], device: str) -> None:
    with pytest.raises(ShapeError):
        call(placed(numbered((3, 4)), device))
