"""Only memory that C may walk reaches it: float32 (int64 for ids) in this machine's byte order, row
after row, on its boundaries.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, kernels, optim
from tensor.errors import DTypeError
from tensor.kernels import KERNELS
from tensor.kernels.cpu import built, compiled
from tensor.ops.op import OPS
from tensor.optim import clip_gradients
from tests.faults import shapes
from tests.faults.shapes import fixed, moved
from tests.helpers.kernel_runs import compiled_kernels, draw, taken
from tests.tensor.kernels.test_edges import CALLS, IDS, TARGETS, leaves, outputs
from tinygpt import GPT, GPTConfig

__all__ = ["compiled_kernels"]
pytestmark = pytest.mark.usefixtures("compiled_kernels")

Array = Any


@pytest.fixture
def watched(compiled_kernels: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the C functions that were called, with arrays in order each time (attention:
    with rows in order), else AssertionError.
    """
    called: list[str] = []

    def watch(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            arrays = [
                a
                for argument in arguments
                for a in (argument if isinstance(argument, tuple) else (argument,))
                if isinstance(a, np.ndarray)
            ]
            for array in arrays:
                assert array.flags.aligned, f"{name} got an array that is not aligned"
                rows = name.startswith("attention") and array.ndim == 4  # of any other strides
                assert array.flags.c_contiguous or (
                    rows and array.strides[-1] in (0, array.itemsize)
                )
                assert array.dtype.isnative
            called.append(name)
            return function(*arguments)

        return call

    for name in built.recipe().functions:
        monkeypatch.setattr(compiled.library, name, watch(name, getattr(compiled.library, name)))
    return called


def off_boundary(x: Array) -> Tensor:
    """The same numbers a byte past a boundary, as files and sockets give them."""
    there = moved(x, 1)
    assert there.flags.c_contiguous
    assert not there.flags.aligned
    return Tensor.from_array(there, requires_grad=True)


@pytest.mark.parametrize("name", CALLS)
def test_bug_18_what_is_not_aligned_is_left_to_the_reference(name: str, watched: list[str]) -> None:
    """One input at a time; attention copies instead."""
    arrays = [draw(*shape, seed=i) for i, shape in enumerate(CALLS[name][1])]
    expected = outputs(name, [Tensor(x) for x in arrays])
    for which in range(len(arrays)):
        xs = [
            off_boundary(x) if i == which else Tensor(x, requires_grad=True)
            for i, x in enumerate(arrays)
        ]
        found = outputs(name, xs)
        if name != "attention":
            assert taken(name)[0] == "reference"
            assert taken(name)[1].split("; ")[0] == "not aligned"
        for y, z in zip(found, expected, strict=True):
            np.testing.assert_allclose(y.numpy(), z.numpy(), rtol=0, atol=1e-5)
        grad(found, xs, [Tensor(draw(*y.shape)) for y in found])


@pytest.mark.parametrize("name", CALLS)
def test_bug_18_gradients_that_are_not_aligned_are_copied(name: str, watched: list[str]) -> None:
    """The engine copies those it is given; the rule of another op may return any."""
    y = outputs(name, leaves(name))[-1]
    dy, node = np.asarray(draw(*y.shape, seed=50)), y.node
    assert node is not None
    expected = node.gradients(dy, wanted=None)
    watched.clear()
    found = node.gradients(off_boundary(dy).array, wanted=None)
    assert watched
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_ids_that_are_not_aligned(watched: list[str]) -> None:
    tables, logits = [Tensor(draw(5, 3)), Tensor(draw(6, 3))], Tensor(draw(2, 3, 5))
    for name, call, ids in (
        ("positional_embedding", lambda ids: tensor.positional_embedding(ids, *tables), IDS),
        ("cross_entropy", lambda ids: tensor.cross_entropy(logits, ids), TARGETS),
    ):
        found = call(Tensor.from_array(moved(ids, 1)))
        assert taken(name) == ("reference", "not aligned")
        np.testing.assert_allclose(found.numpy(), call(Tensor(ids)).numpy(), rtol=0, atol=1e-6)
        foreign = ids.astype(">i8")  # a copy in this machine's byte order
        np.testing.assert_allclose(call(foreign).numpy(), found.numpy(), rtol=0, atol=1e-6)


def test_the_other_byte_order_is_copied_or_refused() -> None:
    for dtype in (">f4", ">i8", ">f8"):
        foreign = np.arange(12).reshape(3, 4).astype(dtype)
        with pytest.raises(DTypeError, match=r"another order: Tensor\(array\) copies"):
            Tensor.from_array(foreign)
        x = Tensor(foreign)
        assert x.dtype.isnative
        assert x.tolist() == foreign.tolist()
        assert (x * foreign).tolist() == (foreign * foreign).tolist()


def test_bug_18_updates_write_only_what_may_be_written(watched: list[str]) -> None:
    """The kernels that write in place leave what is read-only, as a mapped file, to NumPy, which
    raises; an optimiser's own memory is always in order.
    """
    g = fixed(draw(100))
    for name, arguments in (
        ("adamw", [g, g]),
        ("muon", [g, draw(100), draw(100), IDS]),
        ("scale", [g, 2.0]),
    ):
        assert KERNELS[name][0].supports(*arguments) == "read-only"
        assert KERNELS[name][0].supports(g.copy(), *arguments[1:]) is None
    x = Tensor(np.zeros(100, np.float32), requires_grad=True)
    x.grad = Tensor.from_array(g)
    clip_gradients([x], 1e-3)
    np.testing.assert_array_equal(g, draw(100))
    for make in (optim.AdamW, optim.Muon):
        leaves = [off_boundary(draw(4, 5)), Tensor.from_array(fixed(draw(5)), requires_grad=True)]
        optimiser = make(leaves, lr=0.1)
        OPS["linear"](Tensor(draw(3, 4)), *leaves).sum().backward()
        optimiser.step()
        assert not np.array_equal(leaves[1].numpy(), draw(5))


def test_bug_56_rows_of_a_cache_are_counted_from_its_start(watched: list[str]) -> None:
    """C would take row -1 for memory before the cache."""
    model = GPT(GPTConfig(vocabulary=7, context=5, width=6, heads=2, layers=2)).eval()
    whole = model.new_cache(3)
    y = model(np.array([[1, 2]]), whole.of([-1]))
    assert "decode" in watched
    assert whole.seen.tolist() == [0, 0, 2]
    np.testing.assert_array_equal(model(np.array([[1, 2]]), whole.of([0])).numpy(), y.numpy())
    for wrong in (3, -4):
        with pytest.raises(IndexError):
            whole.of([wrong])
    ids = moved(np.array([[1, 2]]), 1)
    np.testing.assert_allclose(
        model(Tensor.from_array(ids), whole.of([1])).numpy(), y.numpy(), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("name", shapes.KERNELS)
def test_random_shapes_and_layouts(name: str, watched: list[str]) -> None:
    """What `python -m tests.faults.sanitizers` runs in great number: kernel and reference agree,
    and nothing out of order reaches C.
    """
    row = shapes.Row()
    for seed in range(25):
        shapes.one(name, seed, row, None)
    assert row.differences == 0
    assert row.taken >= 2
    assert kernels.latest(name)[1] == "kernels are off"  # the second of each pair
