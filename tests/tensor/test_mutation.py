"""Writes: what a graph still needs is never changed unseen, what it does not need may be, and a refusal leaves every bit as it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import tensor
from tensor import Layout, Tensor, grad, no_grad
from tensor.errors import GraphError, MutationError
from tensor.gradient_cases import CASES, Case
from tests.tensor.sharing import saved_arrays

Array = Any


def leaf(values: Any, device: str) -> Tensor:
    return Tensor(np.asarray(values, dtype=np.float64), device=device, requires_grad=True)


def constant(values: Any, device: str) -> Tensor:
    return Tensor(np.asarray(values, dtype=np.float64), device=device)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def line() -> int:
    """The number of the line that calls this."""
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def share(a: Array, b: Array) -> bool:
    """Whether two arrays have an element in common, exactly."""
    if isinstance(a, np.ndarray):
        return bool(np.shares_memory(a, b))
    import cupy

    return bool(cupy.shares_memory(a, b))


# -- every op, every saved tensor, every alias --------------------------------------------------------------------------------

ALIASES: dict[str, Callable[[Tensor], Tensor]] = {
    "itself": lambda t: t,
    "a view of itself": lambda t: t[...],
    "detach()": lambda t: t.detach(),
    "its first row, detached": lambda t: t.detach()[:1] if t.ndim else t.detach()[None],
    "its transpose, detached": lambda t: t.detach().T,
    "a view of a view, detached": lambda t: t.detach().unsqueeze(0).transpose(0, -1)[..., ::-1],
    "the storage": lambda t: Tensor.over(t.storage, Layout.contiguous((t.storage.flat.size,))),
    "NumPy": lambda t: t,
    "NumPy, detached": lambda t: t.detach(),
}


def write(alias: Tensor, through_numpy: bool) -> bool:
    """Change what the alias shows; False when that is refused, which must leave it as it was."""
    before = alias.numpy().copy()
    try:
        if through_numpy and isinstance(alias.array, np.ndarray):
            alias.numpy()[...] += 1.5
        else:
            with no_grad():
                alias[...] = alias.detach() + 1.5
    except (MutationError, ValueError) as error:
        assert isinstance(error, MutationError) or "read-only" in str(error)
        np.testing.assert_array_equal(alias.numpy(), before)
        return False
    assert not np.array_equal(alias.numpy(), before)
    return True


def run(case: Case, device: str, intermediate: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """(leaves, inputs of the op, its outputs); intermediate: the inputs are results themselves."""
    leaves = [leaf(x, device) for x in case.inputs(0)]
    inputs = [x * 1.0 for x in leaves] if intermediate else leaves
    out = case.call(*inputs)
    return leaves, inputs, list(out) if isinstance(out, tuple) else [out]


@pytest.mark.parametrize("intermediate", [False, True], ids=["leaves", "results"])
@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.op}-{i}") for i, case in enumerate(CASES)])
def test_bug_21_in_place_after_save(case: Case, intermediate: bool, device: str) -> None:
    """A write to memory that a closure keeps raises, at the write or at backward; any other is allowed and changes no gradient."""
    leaves, inputs, outs = run(case, device, intermediate)
    upstream = [Tensor(draw(*y.shape, seed=i), device=device) for i, y in enumerate(outs)]
    expected = [dx.numpy() for dx in grad(outs, leaves, upstream) if dx is not None]
    for which in range(len(inputs) + len(outs)):
        for name, view in ALIASES.items():
            leaves, inputs, outs = run(case, device, intermediate)
            target = [*inputs, *outs][which]
            kept = list(saved_arrays(*outs).values())
            with no_grad():
                alias = view(target)
            if not alias.size:
                continue
            needed = any(share(alias.array, array) for array in kept)
            written = write(alias, name.startswith("NumPy"))
            what = f"{case.op}: wrote tensor {which} through {name}, kept: {needed}"
            try:
                found = grad(outs, leaves, upstream)
            except MutationError:
                assert written, f"{what}: raised though nothing was written"
                assert needed, f"{what}: accused of a write that harms nothing"
            else:
                assert not (written and needed), f"{what}: not noticed"
                for dx, want in zip(found, expected, strict=True):
                    np.testing.assert_array_equal(dx.numpy(), want, err_msg=what)  # type: ignore[union-attr]


OTHER_INPUTS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], list[Any]]] = {
    "where": (lambda x, c: tensor.where(c, x, 0.0), [[True, False, True]]),
    "masked_fill": (lambda x, c: x.masked_fill(c, 0.0), [[True, False, True]]),
    "embedding": (lambda x, ids: tensor.embedding(ids, x), [0, 2, 2]),
    "gather": (lambda x, ids: tensor.gather(x, ids, axis=0), [[0, 2, 1]]),
    "take": (lambda x, ids: x[ids], [0, 2, 2]),
    "take by mask": (lambda x, c: x[c], [True, False, True]),
    "cross_entropy": (lambda x, ids: tensor.cross_entropy(x, ids), [0, 2, 1]),
    "attention mask": (lambda x, c: tensor.attention(x, x, x, mask=c), [[True, False, True]] * 3),
    "clip": (lambda x, low: x.clip(low=low), [-0.5, 0.0, 0.5]),
}


@pytest.mark.parametrize("name", OTHER_INPUTS)
def test_bug_21_conditions_indices_and_options(name: str, device: str) -> None:
    call, values = OTHER_INPUTS[name]
    for given_as in (lambda v: Tensor(v, device=device), np.array):
        x, other = leaf(draw(3, 3), device), given_as(values)
        y = call(x, other)
        dy = Tensor(draw(*y.shape, seed=1), device=device)
        expected = grad(y, x, dy, retain_graph=True)[0]
        other[...] = 1 - Tensor.wrap(other).numpy() if name != "clip" and Tensor.wrap(other).dtype != bool else (not values[0]) if name != "clip" else 9.0
        try:
            found = grad(y, x, dy)[0]
        except MutationError:
            assert isinstance(other, Tensor)
        else:
            assert found is not None
            assert expected is not None
            np.testing.assert_array_equal(found.numpy(), expected.numpy())


def test_options_that_carry_a_graph_are_refused(device: str) -> None:
    x, low = leaf(draw(3), device), leaf([0.0, 0.0, 0.0], device)
    with pytest.raises(GraphError, match=r"option 'low' of `clip` is a constant.*detach"):
        x.clip(low=low)
    assert x.clip(low=low.detach()).requires_grad


def test_arrays_and_lists_as_operands_are_copied(device: str) -> None:
    x, array, numbers = leaf([1.0, 2.0], device), np.array([3.0, 4.0]), [5.0, 6.0]
    y = x * array + x * numbers + Tensor(array, device=device) * x
    array[...] = np.nan
    numbers[0] = float("nan")
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [11, 14]


# -- views share the version counter ----------------------------------------------------------------------------------------------

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "the base": lambda b: b,
    "detach()": lambda b: b.detach(),
    "detach() twice": lambda b: b.detach().detach(),
    "a slice": lambda b: b[1:3],
    "a slice of a slice": lambda b: b[1:][:2, 1:],
    "steps backwards": lambda b: b[::-1, ::-1],
    "one column": lambda b: b[:, 1],
    "one element": lambda b: b[1, 1],
    "transpose": lambda b: b.T,
    "view": lambda b: b.view(2, 8),
    "flatten": lambda b: b.flatten(),
    "unsqueeze": lambda b: b.unsqueeze(1),
    "a piece": lambda b: b.split(2, 1)[0],
    "permuted piece": lambda b: b.chunk(2)[0].permute(1, 0).unsqueeze(-1),
    "expanded": lambda b: b[1:2, 1:2].expand(3, 2),
    "itself by reshape": lambda b: b.reshape(4, 4),
    "contiguous": lambda b: b.contiguous(),
}


@pytest.mark.parametrize("saved_through", VIEWS)
def test_bug_22_view_loses_the_version_counter(saved_through: str, device: str) -> None:
    """What is saved through one view of a storage and written through another is noticed; views made before or after alike."""
    for written_through in VIEWS:
        if written_through == "expanded":
            continue
        for early in (False, True):
            base, w = constant(draw(4, 4), device), leaf(2.0, device)
            early_view = VIEWS[written_through](base)
            saved = VIEWS[saved_through](base)
            y = (w * saved).sum()
            target = early_view if early else VIEWS[written_through](base)
            assert target.storage is saved.storage is base.storage
            target += 1.0
            with pytest.raises(MutationError, match=r"saved by `multiply`.*was written at test_mutation\.py"):
                y.backward()
            assert w.grad is None


def test_bug_22_leaves_and_results_through_views(device: str) -> None:
    x = leaf(draw(3, 3), device)
    row = x.detach()[0]  # made before the graph
    h = x * 2.0
    seen = h.detach().T.unsqueeze(0)
    for target in (row, seen):
        y = (x * x).sum() + (h * h).sum()
        target += 1.0
        with pytest.raises(MutationError):
            y.backward()
        y = (x * x).sum() + (h * h).sum()  # anew, on the new values
        assert grad(y, x, retain_graph=True)[0] is not None
    with no_grad():
        x[1] = 0.0
    with pytest.raises(MutationError):
        y.backward()
    assert x.grad is None


def test_bug_22_numpy_windows_are_read_only_while_a_graph_needs_them(device: str) -> None:
    x, data = leaf([1.0, 2.0], device), constant([3.0, 4.0], device)
    y = x * data
    e = y.exp()
    for t in (x, data, y, e, data.detach(), e.detach(), data[:1], e.detach()[::-1]):
        for window in (t.numpy(), np.asarray(t)):
            if device == "cpu":
                with pytest.raises(ValueError, match="read-only"):
                    window[...] = 9.0
        copy = np.array(t)
        copy[...] = 9.0  # a copy is the user's
    e.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad.numpy(), np.array([3.0, 4.0]) * np.exp([3.0, 8.0]), rtol=1e-14)
    if device == "cpu":
        free = constant([1.0, 2.0], device)
        free.numpy()[0] = 5.0  # a constant that no graph keeps
        assert free.tolist() == [5, 2]


# -- what must not be accused ---------------------------------------------------------------------------------------------------------


def test_writes_beside_what_was_saved_are_allowed(device: str) -> None:
    h, w = constant(draw(4, 6), device), leaf(2.0, device)
    before = h.numpy().copy()
    beside: list[tuple[Any, Any]] = [
        ((slice(None), 0), (slice(None), 1)),  # columns interleave
        ((slice(None, None, 2),), (slice(1, None, 2),)),
        ((0,), (slice(1, None),)),
        ((slice(None), slice(0, 3)), (slice(None), slice(3, 6))),
        ((slice(None), slice(None, None, 2)), (slice(None), slice(None, None, -2))),  # even columns, and 5, 3, 1
        ((0, 0), (3, 5)),
    ]
    for saved, written in beside:
        for a, b in ((saved, written), (written, saved)):
            y = (w * h[a]).sum()
            h[b] += 1.0
            h.T[tuple(reversed(b)) if len(b) == 2 else (slice(None), *b)] -= 1.0  # and through another view
            np.testing.assert_allclose(grad(y, w)[0].numpy(), before[a].sum(), rtol=1e-12)  # type: ignore[union-attr]


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
    assert grad(y, h, retain_graph=True)[0].tolist() == [1, 1]  # type: ignore[union-attr]
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
    with pytest.raises(MutationError, match=r"saved by `multiply` at test_mutation\.py:\d+ .* was written at test_mutation\.py:\d+ `data\[0\] = 99\.0`"):
        y.sum().backward()
    assert x.grad is None


def test_many_regions_are_remembered(device: str) -> None:
    """Past 64 regions the oldest are merged: more may be accused than was written, never less."""
    h, w = constant(draw(400), device), leaf(2.0, device)
    y, z = (w * h[10]).sum(), (w * h[399]).sum()
    for i in range(0, 300):
        h[i] = float(i)
    with pytest.raises(MutationError):
        y.backward()
    z.backward()
    assert w.grad is not None


# -- refusals ------------------------------------------------------------------------------------------------------------------------


def test_errors_name_the_op_and_both_lines(device: str) -> None:
    w, x = leaf([1.0, 2.0], device), constant([3.0, 4.0], device)
    saved_at = line() + 1
    y = w * x
    written_at = line() + 1
    x[0] = 7.0
    with pytest.raises(MutationError) as caught:
        y.backward(np.ones(2))
    text = str(caught.value)
    assert f"saved by `multiply` at test_mutation.py:{saved_at} `y = w * x`" in text
    assert f"was written at test_mutation.py:{written_at} `x[0] = 7.0`" in text
    assert ".clone()" in text

    y = w.exp() + w * w
    with no_grad():
        written_at = line() + 1
        w *= 2.0
    with pytest.raises(MutationError, match=rf"test_mutation\.py:{written_at} `w \*= 2\.0`"):
        y.backward(np.ones(2))
    made_at = line() + 1
    h = w * 2.0
    with pytest.raises(MutationError, match=rf"part of a live graph \(`multiply` at test_mutation\.py:{made_at} `h = w \* 2\.0`"):
        h[0] = 1.0
    with pytest.raises(MutationError, match=r"leaf \(2,\) with requires_grad=True is written outside no_grad\(\)"):
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
        "a leaf, by list": (leaf(draw(3), device), lambda t: t.__setitem__([0, 1], 9.0), MutationError),
        "a result": (h, lambda t: t.__setitem__(0, 9.0), MutationError),
        "a result, -=": (h, lambda t: t.__isub__(9.0), MutationError),
        "a result, /= in no_grad": (h, no_grad()(lambda t: t.__itruediv__(9.0)), MutationError),
        "a view of a result": (h, lambda t: t[0].__setitem__(0, 9.0), MutationError),
        "the transpose of a result": (h, lambda t: t.T.__imul__(9.0), MutationError),
        "a piece of a result": (h, lambda t: t.split(1)[0].__imul__(9.0), MutationError),
        "a view of a leaf": (w, lambda t: t[:2].__setitem__(0, 9.0), MutationError),
        "a value with a graph": (constant(draw(3), device), lambda t: t.__setitem__(0, w.sum()), MutationError),
        "a value with a graph, +=": (constant(draw(3), device), lambda t: add_to(t, w), MutationError),
        "an expanded tensor": (wide, lambda t: t.__setitem__(slice(None), 9.0), MutationError),
        "an expanded tensor, +=": (wide, lambda t: add_to(t, 1.0), MutationError),
        "an index too far": (constant(draw(3), device), lambda t: t.__setitem__(5, 9.0), IndexError),
        "an index array too far": (constant(draw(3), device), lambda t: t.__setitem__([0, 5], 9.0), IndexError),
        "a value of another shape": (constant(draw(3), device), lambda t: t.__setitem__(slice(None), draw(2)), ValueError),
        "a shape that does not fit, +=": (constant(draw(3), device), lambda t: add_to(t, constant(draw(2, 3), device)), ValueError),
        "floats into ints": (Tensor([1, 2, 3], device=device), lambda t: add_to(t, 0.5), TypeError),
    }


@pytest.mark.parametrize("name", refused("cpu"))
def test_bug_23_raise_after_mutating(name: str, device: str) -> None:
    target, attempt, error = refused(device)[name]
    if device != "cpu" and name == "an index array too far":
        pytest.skip("a GPU wraps index arrays silently")
    before, version = target.numpy().copy(), target.storage.version
    with pytest.raises(error):
        attempt(target)
    assert target.numpy().tobytes() == before.tobytes()
    assert target.storage.version == version  # not counted as a write: graphs are not accused of it


def test_bug_23_backward_raises_before_it_deposits(device: str) -> None:
    """The bad node is the last that the walk would meet, behind leaves that it would have filled by then."""
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


def test_bug_24_setitem_outside_the_graph(device: str) -> None:
    """y = 2x; y[0] = c has gradient (0, 2, 2), which a write cannot give: it raises, and says what can."""
    x, c = leaf([1.0, 2.0, 3.0], device), constant(9.0, device)
    for write_to in (
        lambda y: y.__setitem__(0, 9.0),
        lambda y: y.__setitem__(0, c),
        lambda y: y.__setitem__([True, False, False], c),
        lambda y: y[:1].__setitem__(0, c),
        lambda y: y[0].__iadd__(c),
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
    assert x.grad.tolist() == [0, 2, 2]  # type: ignore[union-attr]
    rows = tensor.zeros(2, 3, dtype="float64", device=device)
    for value in (x, 2.0 * x, (2.0 * x)[:1]):  # the other way: a gradient that a write would lose
        with pytest.raises(MutationError, match=r"would lose its gradient: write its \.detach\(\)"):
            rows[0] = value
        with no_grad():
            rows[0] = value
        rows[1] = value.detach()
    assert not rows.requires_grad


def test_bug_25_overlapping_write(device: str) -> None:
    """One element under several indices: adding to each would add several times, or once, as memory happens to be read."""
    base = constant([[1.0], [2.0]], device)
    overlapping: list[Tensor] = [
        base.expand(2, 3),
        base.expand(4, 2, 1),
        base.expand(2, 3).T,
        base.expand(2, 3)[:, 1:],
        base.expand(2, 3)[0],
        base[0].expand(5),
    ]
    strided = np.lib.stride_tricks.as_strided(np.arange(4.0), (3, 2), (8, 8))  # windows (0, 1), (1, 2), (2, 3)
    if device == "cpu":
        overlapping.append(Tensor.from_array(strided))
    for t in overlapping:
        before = t.numpy().copy()
        for attempt in (lambda t=t: t.__iadd__(1.0), lambda t=t: t.__setitem__(..., 5.0), lambda t=t: t.__imul__(t)):
            with pytest.raises(MutationError, match=r"one element has several indices: write to a \.clone\(\)"):
                attempt()
        np.testing.assert_array_equal(t.numpy(), before)
        copy = t.clone()
        copy += 1.0
        np.testing.assert_array_equal(copy.numpy(), before + 1)
    base.expand(1, 2, 1)[0] += 1.0  # expanded to one: each element once
    base.expand(2, 3)[:, 0] += 1.0  # one column of it
    assert base.tolist() == [[3.0], [4.0]]
