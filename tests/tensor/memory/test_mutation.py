"""Writes to what a graph has kept: noticed for every op, through every alias, before a wrong
gradient is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Layout, Tensor, grad, no_grad
from tensor.errors import GraphError, MutationError
from tensor.gradient_cases import CASES, Case
from tests.helpers.making import array, constant, draw, leaf
from tests.helpers.sharing import saved_arrays

Array = Any


def share(a: Array, b: Array) -> bool:
    """Whether two arrays have an element in common, exactly."""
    return bool(addresses(a) & addresses(b))


def addresses(a: Array) -> set[int]:
    """The address of every element. (cupy.shares_memory is wrong about scalars.)"""
    start = a.ctypes.data if isinstance(a, np.ndarray) else a.data.ptr
    return {
        start + sum(i * s for i, s in zip(index, a.strides, strict=True))
        for index in np.ndindex(a.shape)
    }


# -- every op, every saved tensor, every alias

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
    except (MutationError, ValueError) as error:  # ValueError: NumPy's own, for a read-only window
        if not isinstance(error, MutationError) and "read-only" not in str(error):
            raise
        np.testing.assert_array_equal(alias.numpy(), before)
        return False
    assert not np.array_equal(alias.numpy(), before)
    return True


def run(
    case: Case, device: str, intermediate: bool
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """(leaves, inputs of the op, its outputs); intermediate: the inputs are results themselves."""
    leaves = [leaf(x, device) for x in case.inputs(0)]
    inputs = [x * 1.0 for x in leaves] if intermediate else leaves
    out = case.call(*inputs)
    return leaves, inputs, list(out) if isinstance(out, tuple) else [out]


@pytest.mark.parametrize("intermediate", [False, True], ids=["leaves", "results"])
@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{case.op}-{i}") for i, case in enumerate(CASES)]
)
def test_bug_21_in_place_after_save(case: Case, intermediate: bool, device: str) -> None:
    """A write to memory that a closure keeps raises, at the write or at backward; any other is
    allowed and changes no gradient.
    """
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
                    np.testing.assert_array_equal(array(dx), want, err_msg=what)


# what else an op takes: (the call, what is given, what is written over it)
OTHER_INPUTS: dict[str, tuple[Callable[[Tensor, Any], Tensor], list[Any], Any]] = {
    "where": (lambda x, c: tensor.where(c, x, 0.0), [[True, False, True]], False),
    "masked_fill": (lambda x, c: x.masked_fill(c, 0.0), [[True, False, True]], True),
    "embedding": (lambda x, ids: tensor.embedding(ids, x), [0, 2, 2], 1),
    "gather": (lambda x, ids: tensor.gather(x, ids, axis=0), [[0, 2, 1]], 1),
    "take": (lambda x, ids: x[ids], [0, 2, 2], 1),
    "take by mask": (lambda x, c: x[c], [True, False, True], True),
    "cross_entropy": (lambda x, ids: tensor.cross_entropy(x, ids), [0, 2, 1], 1),
    "attention mask": (
        lambda x, c: tensor.attention(x, x, x, mask=c),
        [[True, False, True]] * 3,
        True,
    ),
    "clip": (lambda x, low: x.clip(low=low), [-0.5, 0.0, 0.5], 9.0),
}


@pytest.mark.parametrize(
    "make",
    [lambda given, device: Tensor(given, device=device), lambda given, device: np.array(given)],
    ids=["Tensor", "ndarray"],
)
@pytest.mark.parametrize("name", OTHER_INPUTS)
def test_bug_21_conditions_indices_and_options(
    name: str, make: Callable[[Any, str], Any], device: str
) -> None:
    call, given, written = OTHER_INPUTS[name]
    x, other = leaf(draw(3, 3), device), make(given, device)
    y = call(x, other)
    dy = Tensor(draw(*y.shape, seed=1), device=device)
    expected = array(grad(y, x, dy, retain_graph=True)[0])
    other[...] = written
    try:
        found = array(grad(y, x, dy)[0])
    except MutationError:
        assert isinstance(other, Tensor)
    else:
        np.testing.assert_array_equal(found, expected)


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


# -- views share the version counter

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
    """What is saved through one view of a storage and written through another is noticed; views
    made before or after alike.
    """
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
            with pytest.raises(
                MutationError, match=r"saved by `multiply`.*was written at test_mutation\.py"
            ):
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
        if device == "cpu":
            with pytest.raises(ValueError, match="read-only"):
                t.numpy()[...] = 9.0
        copy = t.numpy().copy()
        copy[...] = 9.0  # a copy is the user's
    e.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(
        x.grad.numpy(), np.array([3.0, 4.0]) * np.exp([3.0, 8.0]), rtol=1e-14
    )
    if device == "cpu":
        free = constant([1.0, 2.0], device)
        free.numpy()[0] = 5.0  # a constant that no graph keeps
        assert free.tolist() == [5, 2]


def test_bug_22_written_through_a_window_taken_before(device: str) -> None:
    """NumPy's writes are not counted: memory that .numpy() gave out to be written is compared
    instead.
    """
    if device != "cpu":
        pytest.skip("from a GPU, numpy() is a copy")
    x, w = Tensor([1.0, 2.0, 3.0]), Tensor([1.0, 1.0, 1.0], requires_grad=True)
    window = x.numpy()
    y = (x * w).sum()
    z = (x * w).sum()
    y.backward()  # untouched so far: nothing is accused
    window[1] = 99.0
    with pytest.raises(
        MutationError,
        match=r"saved by `multiply` at .* was written at an array that \.numpy\(\) or DLPack",
    ):
        z.backward()
    assert w.grad is not None
    assert w.grad.tolist() == [1, 2, 3]


@pytest.mark.parametrize("when", ["before the graph", "in the graph", "a view in the graph"])
def test_a_write_through_dlpack_is_seen(when: str) -> None:
    """PyTorch writes to memory that DLPack calls read-only."""
    torch = pytest.importorskip("torch")
    x, w = Tensor([1.0, 2.0, 3.0]), Tensor([3.0, 4.0, 5.0], requires_grad=True)
    given = torch.from_dlpack(x) if when == "before the graph" else None
    y, z = (x * w).sum(), (x[:1] * w[:1]).sum()
    if given is None:
        given = torch.from_dlpack(x[1:] if "view" in when else x)
    (x * w).sum().backward()  # nothing was written
    given[-1] = 100.0
    assert x.tolist() == [1.0, 2.0, 100.0]
    with pytest.raises(MutationError, match=r"saved by `multiply` at .* DLPack gave out"):
        y.backward()
    z.backward()
    (x * w).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [3.0, 4.0, 103.0]
    for made in (x * w, w * x):  # a counted write after that is a write as ever
        with tensor.no_grad():
            x[:] = 7.0
        with pytest.raises(MutationError, match=r"was written at test_mutation\.py"):
            made.sum().backward()
