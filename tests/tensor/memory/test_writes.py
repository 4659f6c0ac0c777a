"""Writes that harm nothing are allowed, those that would are refused, and a refusal leaves every
bit as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import tensor
from tensor import Tensor, grad, no_grad
from tensor.errors import MutationError
from tests.helpers.making import array, constant, draw, leaf, line, values

Array = Any


# -- what must not be accused


def test_writes_beside_what_was_saved_are_allowed(device: str) -> None:
    h, w = constant(draw(4, 6), device), leaf(2.0, device)
    before = h.numpy().copy()
    beside: list[tuple[Any, Any]] = [
        ((slice(None), 0), (slice(None), 1)),  # columns interleave
        ((slice(None, None, 2),), (slice(1, None, 2),)),
        ((0,), (slice(1, None),)),
        ((slice(None), slice(0, 3)), (slice(None), slice(3, 6))),
        # even columns, and 5, 3, 1
        ((slice(None), slice(None, None, 2)), (slice(None), slice(None, None, -2))),
        ((0, 0), (3, 5)),
    ]
    for saved, written in beside:
        for a, b in ((saved, written), (written, saved)):
            y = (w * h[a]).sum()
            h[b] += 1.0
            # and through another view
            h.T[tuple(reversed(b)) if len(b) == 2 else (slice(None), *b)] -= 1.0
            np.testing.assert_allclose(array(grad(y, w)[0]), before[a].sum(), rtol=1e-12)


def test_large_parts_that_interleave_are_told_apart(device: str) -> None:
    """In a few steps, not by going through all rows."""
    h = Tensor(np.zeros((64, 12, 128, 64), np.float32), device=device)
    w = Tensor(np.ones((), np.float32), device=device, requires_grad=True)
    for saved, written in (
        (h[..., :32], h[..., 32:]),
        (h.transpose(1, 2)[..., ::2], h[..., 1::2]),
        (h[:, 3], h[:, 4]),
        (h[:, :, 5:9, 3], h[:, :, 5:9, 4]),
    ):
        y = (w * saved).sum()
        written += 1.0
        y.backward(retain_graph=True)
        written.T[-1] += 1.0
        y.backward()
        y = (w * saved).sum()
        h[:, 3:5, 5:9] += 1.0
        with pytest.raises(MutationError):
            y.backward()


@given(st.data())
def test_a_write_is_accused_exactly_when_it_touches_what_was_saved(data: st.DataObject) -> None:
    shape = data.draw(npst.array_shapes(min_dims=1, max_dims=3, max_side=5))
    keys = [data.draw(npst.basic_indices(shape, allow_newaxis=True)) for _ in range(2)]
    base, w = constant(draw(*shape), "cpu"), leaf(2.0, "cpu")
    saved, target = (base[key] for key in keys)
    y = (w * saved).sum()
    touched = bool(np.shares_memory(saved.array, target.array)) and target.size > 0
    target += 1.0
    if touched:
        with pytest.raises(MutationError):
            y.backward()
    else:
        y.backward()


def test_writes_at_other_times_are_allowed(device: str) -> None:
    x, data = leaf([1.0, 2.0], device), constant([3.0, 4.0], device)
    data += 1.0  # before
    y = (x * data).sum()
    y.backward()
    data += 1.0  # after
    with no_grad():
        x -= 0.1
    z = x * data
    w = (z * z).sum()
    w.backward()
    z += 1.0  # its graph is gone, so nobody needs the values
    u = (x + data).sum() + x.sum()  # keeps nothing
    data += 1.0
    with no_grad():
        x -= 0.1
    u.backward()
    assert x.grad is not None


def test_only_what_the_walk_uses_is_checked(device: str) -> None:
    x, data = leaf([1.0, 2.0], device), constant([3.0, 4.0], device)
    h = x * data
    y = h.sum()
    data += 1.0
    assert values(grad(y, h, retain_graph=True)[0]) == [1, 1]
    with pytest.raises(MutationError):
        grad(y, x)


def test_a_write_between_two_passes_is_noticed(device: str) -> None:
    x, data = leaf([1.0, 2.0], device), constant([3.0, 4.0], device)
    y = (x * data).sum()
    y.backward(retain_graph=True)
    data[1] = 0.0
    with pytest.raises(MutationError):
        y.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3, 4]


def test_a_write_by_a_hook_during_the_walk_is_noticed(device: str) -> None:
    x, data = leaf([1.0, 2.0], device), constant([3.0, 4.0], device)
    h = x * data
    y = h.exp()

    def spoil(gradient: Tensor) -> None:
        data[0] = 99.0

    y.register_hook(spoil)
    with pytest.raises(
        MutationError,
        match=r"saved by `multiply` at test_writes\.py:\d+ .* "
        r"was written at test_writes\.py:\d+ `data\[0\] = 99\.0`",
    ):
        y.sum().backward()
    assert x.grad is None


def test_many_regions_are_remembered(device: str) -> None:
    """Past 64 regions the oldest are merged: more may be accused than was written, never less."""
    h, w = constant(draw(400), device), leaf(2.0, device)
    y, z = (w * h[10]).sum(), (w * h[399]).sum()
    for i in range(300):
        h[i] = float(i)
    with pytest.raises(MutationError):
        y.backward()
    z.backward()
    assert w.grad is not None


# -- refusals


def test_errors_name_the_op_and_both_lines(device: str) -> None:
    w, x = leaf([1.0, 2.0], device), constant([3.0, 4.0], device)
    saved_at = line() + 1
    y = w * x
    written_at = line() + 1
    x[0] = 7.0
    with pytest.raises(MutationError) as caught:
        y.backward(np.ones(2))
    text = str(caught.value)
    assert f"saved by `multiply` at test_writes.py:{saved_at} `y = w * x`" in text
    assert f"was written at test_writes.py:{written_at} `x[0] = 7.0`" in text
    assert ".clone()" in text

    y = w.exp() + w * w
    with no_grad():
        written_at = line() + 1
        w *= 2.0
    with pytest.raises(MutationError, match=rf"test_writes\.py:{written_at} `w \*= 2\.0`"):
        y.backward(np.ones(2))
    made_at = line() + 1
    h = w * 2.0
    with pytest.raises(
        MutationError,
        match=rf"part of a live graph \(`multiply` at test_writes\.py:{made_at} `h = w \* 2\.0`",
    ):
        h[0] = 1.0
    with pytest.raises(
        MutationError, match=r"leaf \(2,\) with requires_grad=True is written outside no_grad\(\)"
    ):
        w[0] = 1.0


def refused(device: str) -> dict[str, tuple[Tensor, Callable[[Tensor], Any], type[Exception]]]:
    """Writes that must raise: what they write to, how, and what is raised."""
    w = leaf(draw(3), device)
    h = leaf(draw(2, 3), device) * 2.0
    wide = constant(draw(1, 3), device).expand(4, 3)

    def add_to(t: Tensor, value: Any) -> None:
        t += value

    return {
        "a leaf": (leaf(draw(3), device), lambda t: t.__setitem__(0, 9.0), MutationError),
        "a leaf, +=": (leaf(draw(3), device), lambda t: add_to(t, 9.0), MutationError),
        "a leaf, by list": (
            leaf(draw(3), device),
            lambda t: t.__setitem__([0, 1], 9.0),
            MutationError,
        ),
        "a result": (h, lambda t: t.__setitem__(0, 9.0), MutationError),
        "a result, /= in no_grad": (h, no_grad()(lambda t: t.__itruediv__(9.0)), MutationError),
        "a view of a result": (h, lambda t: t[0].__setitem__(0, 9.0), MutationError),
        "the transpose of a result": (h, lambda t: t.T.__setitem__(0, 9.0), MutationError),
        "a piece of a result": (h, lambda t: t.split(1)[0].__setitem__(0, 9.0), MutationError),
        "a view of a leaf": (w, lambda t: t[:2].__setitem__(0, 9.0), MutationError),
        "a value with a graph": (
            constant(draw(3), device),
            lambda t: t.__setitem__(0, w.sum()),
            MutationError,
        ),
        "an expanded tensor": (wide, lambda t: t.__setitem__(slice(None), 9.0), MutationError),
        "an expanded tensor, +=": (wide, lambda t: add_to(t, 1.0), MutationError),
        "an index too far": (
            constant(draw(3), device),
            lambda t: t.__setitem__(5, 9.0),
            IndexError,
        ),
        "an index array too far": (
            constant(draw(3), device),
            lambda t: t.__setitem__([0, 5], 9.0),
            IndexError,
        ),
        "a value of another shape": (
            constant(draw(3), device),
            lambda t: t.__setitem__(slice(None), draw(2)),
            ValueError,
        ),
        "a shape that does not fit, +=": (
            constant(draw(3), device),
            lambda t: add_to(t, constant(draw(2, 3), device)),
            ValueError,
        ),
        "floats into ints": (Tensor([1, 2, 3], device=device), lambda t: add_to(t, 0.5), TypeError),
    }


@pytest.mark.parametrize("name", refused("cpu"))
def test_bug_23_raise_after_mutating(name: str, device: str) -> None:
    target, attempt, error = refused(device)[name]
    before, version = target.numpy().copy(), target.storage.version
    with pytest.raises(error):
        attempt(target)
    assert target.numpy().tobytes() == before.tobytes()
    assert target.storage.version == version  # not counted as a write: graphs are not accused of it


def test_bug_23_backward_raises_before_it_deposits(device: str) -> None:
    """The bad node is the last that the walk would meet, behind leaves that it would have filled by
    then.
    """
    early, data, late = leaf(draw(3), device), constant(draw(3), device), leaf(draw(3), device)
    (late * 1.0).sum().backward()
    assert late.grad is not None
    held, was = late.grad, late.grad.numpy().copy()
    h = early * data
    y = (h + late).exp().sum() + (late * late).sum()
    tensors = [early, data, late, h, y]
    before = [t.numpy().copy() for t in tensors]
    data[0] = data[0]  # counts as a write, though the value stays
    with pytest.raises(MutationError):
        y.backward()
    assert early.grad is None
    assert late.grad is held
    assert late.grad.numpy().tobytes() == was.tobytes()
    for t, b in zip(tensors, before, strict=True):
        assert t.numpy().tobytes() == b.tobytes()
    with pytest.raises(MutationError):  # again, not "a second time": nothing was freed
        y.backward()
    assert grad(y, late)[0] is not None  # and what does not need it can still be had


def test_assignment_to_a_result_makes_a_new_tensor(device: str) -> None:
    """h *= 2 is h = h * 2 where h is a result, or the value carries a graph: nobody else's h
    changes.
    """
    x = leaf([1.0, 2.0], device)
    total = tensor.zeros((), dtype="float64", device=device)
    begun = total
    for _ in range(3):
        total += (x * x).sum()
    h = kept = x * 2
    h *= 2
    h -= x
    h /= 2.0
    h[:1].detach()
    (total + h.sum()).backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6 + 1.5, 12 + 1.5]
    assert begun.item() == 0
    assert kept.tolist() == [2, 4]
    constant_ = same = constant([1.0], device)
    constant_ += 1.0
    assert constant_ is same  # a constant is written in place
    with pytest.raises(MutationError, match="outside no_grad"):
        x += x


def test_a_part_of_a_result_may_be_updated_under_no_grad(device: str) -> None:
    """h[key] *= 2 writes into the view h[key], and then assigns that view to h[key]."""
    x = leaf([[1.0, 2.0], [3.0, 4.0]], device)
    for h in (x.T, x * 1.0):
        before = h.numpy().copy()
        with no_grad():
            h[0] *= 2.0
            h[:, 1:] += 1.0
        before[0] *= 2
        before[:, 1:] += 1
        assert h.tolist() == before.tolist()


def test_bug_24_setitem_outside_the_graph(device: str) -> None:
    """y = 2x; y[0] = c has gradient (0, 2, 2), which a write cannot give: it raises, and says what
    can.
    """

    def add_to_first(y: Tensor) -> None:
        y[0] += c

    x, c = leaf([1.0, 2.0, 3.0], device), constant(9.0, device)
    for write_to in (
        lambda y: y.__setitem__(0, 9.0),
        lambda y: y.__setitem__(0, c),
        lambda y: y.__setitem__([True, False, False], c),
        lambda y: y[:1].__setitem__(0, c),
        add_to_first,
        lambda y: y.view(3, 1).T.__setitem__((0, 0), c),
    ):
        y = 2.0 * x
        with pytest.raises(MutationError, match="where, stack or concatenate"):
            write_to(y)
        y.sum().backward()
        assert x.grad is not None
        assert x.grad.tolist() == [2, 2, 2]
        x.grad = None
    tensor.where([True, False, False], c, 2.0 * x).sum().backward()
    assert values(x.grad) == [0, 2, 2]
    rows = tensor.zeros(2, 3, dtype="float64", device=device)
    for value in (x, 2.0 * x, (2.0 * x)[:1]):  # the other way: a gradient that a write would lose
        with pytest.raises(MutationError, match=r"would lose its gradient: write its \.detach\(\)"):
            rows[0] = value
        with no_grad():
            rows[0] = value
        rows[1] = value.detach()
    assert not rows.requires_grad


def test_bug_25_overlapping_write(device: str) -> None:
    """One element under several indices: adding to each would add several times, or once, as memory
    happens to be read.
    """
    base = constant([[1.0], [2.0]], device)
    overlapping: list[Tensor] = [
        base.expand(2, 3),
        base.expand(4, 2, 1),
        base.expand(2, 3).T,
        base.expand(2, 3)[:, 1:],
        base.expand(2, 3)[0],
        base[0].expand(5),
    ]
    # the windows are 0 1, 1 2 and 2 3
    strided = np.lib.stride_tricks.as_strided(np.arange(4.0), (3, 2), (8, 8))
    if device == "cpu":
        overlapping.append(Tensor.from_array(strided))
    for t in overlapping:
        before = t.numpy().copy()
        for attempt in (
            lambda t=t: t.__iadd__(1.0),
            lambda t=t: t.__setitem__(..., 5.0),
            lambda t=t: t.__imul__(t),
        ):
            with pytest.raises(
                MutationError, match=r"one element has several indices: write to a \.clone\(\)"
            ):
                attempt()
        np.testing.assert_array_equal(t.numpy(), before)
        copy = t.clone()
        copy += 1.0
        np.testing.assert_array_equal(copy.numpy(), before + 1)
    base.expand(1, 2, 1)[0] += 1.0  # expanded to one: each element once
    base.expand(2, 3)[:, 0] += 1.0  # one column of it
    assert base.tolist() == [[3.0], [4.0]]
