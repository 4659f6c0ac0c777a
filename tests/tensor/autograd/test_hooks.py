"""Hooks: what they see, in which order, what they may replace, and that they can spoil nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tensor import Tensor, grad
from tensor.errors import GradientError, GraphError
from tests.helpers.making import draw, leaf, values
from tests.helpers.sharing import assert_nothing_shared


def test_hooks_see_and_replace(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    h = x * 3.0
    log: list[Any] = []
    h.register_hook(lambda g: log.append(("h", g.tolist())))
    x.register_hook(lambda g: log.append(("x", g.tolist())))
    h.register_hook(lambda g: g * 10.0)
    h.register_hook(lambda g: log.append(("h after", g.tolist())))
    (h * h + h).sum().backward()
    # once each, complete, in the order of registering
    assert log == [("h", [7, 13]), ("h after", [70, 130]), ("x", [210, 390])]
    assert values(x.grad) == [210, 390]


def test_what_is_no_hook() -> None:
    with pytest.raises(TypeError, match="takes a function of the gradient, not a int: "):
        leaf([1.0]).register_hook(3)  # type: ignore[arg-type]


def test_a_hook_is_removed_by_a_call_or_by_the_method_of_pytorch(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    first, second = (x.register_hook(lambda g: g * 10.0) for _ in range(2))
    first.remove()
    first()  # once more: nothing to do
    (x * 1.0).sum().backward()
    assert values(x.grad) == [10, 10]
    second()
    (x * 1.0).sum().backward()
    assert values(x.grad) == [11, 11]


def test_hooks_on_leaves_run_once_with_the_sum(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    log: list[Any] = []
    x.register_hook(lambda g: log.append(g.tolist()))
    for _ in range(2):
        (x * 2.0 + x * x + x).sum().backward()
    assert log == [[5, 7], [5, 7]]  # of each pass, not of what .grad holds
    assert values(x.grad) == [10, 14]
    x.register_hook(lambda g: g * 0.0)
    (x * 2.0).sum().backward()
    assert values(x.grad) == [10, 14]


def test_hooks_on_pieces_views_and_roots(device: str) -> None:
    x = leaf(draw(4), device)
    first, last = x.split(2)
    first.register_hook(lambda g: g * 2.0)
    last.register_hook(lambda g: g * 3.0)  # not called: no gradient comes
    view = x[1:]
    view.register_hook(lambda g: g * 5.0)
    y = first.sum() + view.sum()
    y.register_hook(lambda g: g * 7.0)
    y.backward(retain_graph=True)
    assert values(x.grad) == [14, 49, 35, 35]
    dx, dfirst, dy = grad(y, [x, first, y])  # what hooks make of it is what grad() finds, too
    assert values(dx) == [14, 49, 35, 35]
    assert values(dfirst) == [14, 14]
    assert values(dy) == 7


def test_hooks_are_removed(device: str) -> None:
    x = leaf([1.0], device)
    remove_first = x.register_hook(lambda g: g * 2.0)
    remove_second = x.register_hook(lambda g: g * 3.0)
    assert values(grad(x * 1.0, x, np.ones(1))[0]) == [6]
    assert remove_second() is None
    assert values(grad(x * 1.0, x, np.ones(1))[0]) == [2]
    x.register_hook(lambda g: g * 5.0)
    remove_second()  # again: must not take the new one away
    assert values(grad(x * 1.0, x, np.ones(1))[0]) == [10]
    remove_first()
    assert values(grad(x * 1.0, x, np.ones(1))[0]) == [5]
    removers: list[Callable[[], None]] = []
    # one that removes itself while it runs
    removers.append(x.register_hook(lambda g: removers[0]()))
    assert values(grad(x * 1.0, x, np.ones(1))[0]) == [5]
    assert len(x.node.hooks) == 1
    with pytest.raises(GraphError, match="in no graph"):
        x.detach().register_hook(lambda g: None)


def test_hooks_get_copies_and_give_copies(device: str) -> None:
    """A hook that writes to what it is shown, keeps it, or returns memory of others changes nothing
    else.
    """
    x, w = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    kept: list[Tensor] = []
    constant = Tensor(np.array([5.0, 5.0]), device=device)

    def spoil(g: Tensor) -> None:
        kept.append(g)
        g *= 100.0

    for make in (lambda: x * 1.0, lambda: x.clone(), lambda: x.T, lambda: (x + 0.0)[:]):
        h = make()
        h.register_hook(spoil)
        (h + h).sum().backward()
        assert values(x.grad) == [2, 2]
        x.grad = None
    (x * w).sum().backward()
    x.register_hook(lambda g: constant)
    w.register_hook(lambda g: x.grad)
    for _ in range(2):
        (x + w).sum().backward()
        (x + 0.0).sum().backward()
    assert constant.tolist() == [5, 5]
    assert_nothing_shared(
        {"x.grad": x.grad, "w.grad": w.grad},
        {"constant": constant, "x": x, **{f"kept {i}": k for i, k in enumerate(kept)}},
    )


def test_hooks_that_return_the_wrong_thing_are_named(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    for wrong in (lambda g: g[0], lambda g: g.to("float32"), lambda g: g[None]):
        remove = x.register_hook(wrong)
        with pytest.raises(
            GradientError, match=r"hook on `leaf` returned .* for a gradient \(2,\) float64"
        ):
            (x * 2.0).sum().backward()
        remove()
        assert x.grad is None
    x.register_hook(lambda g: g.numpy() * 3.0)  # an ndarray will do
    (x * 2.0).sum().backward()
    assert values(x.grad) == [6, 6]
