"""The short form of `python -m tests.faults.interrupts`, and what an interrupt at one certain
moment leaves.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn, ops, optim
from tensor.errors import MutationError
from tensor.recording.replay import replay
from tensor.tensor import _in_place
from tests.faults.interrupts import SUBJECTS, Bench, drive


@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.__name__)
def test_bug_83_an_interrupt_leaves_no_switch_on(subject: Callable[[Bench], None]) -> None:
    row = drive(subject, 60, seed=0)
    assert row.inside
    assert row.good, row


def leaf(*values: float) -> Tensor:
    return Tensor(list(values), dtype="float64", requires_grad=True)


def interrupted_after(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, with an interrupt at its end: where Python looks for signals when it has called
    NumPy.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        raise KeyboardInterrupt

    return call


def test_bug_83_a_write_that_was_interrupted_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a graph keeps was written, though the interrupt came before the write could be noted:
    backward finds that out.
    """
    monkeypatch.setattr("tensor.tensor.write", interrupted_after(ops.write))
    c, x = Tensor([1.0, 2.0], dtype="float64"), leaf(3.0, 4.0)
    y = c * x
    with pytest.raises(KeyboardInterrupt):
        c[0] = 5.0
    with pytest.raises(MutationError):
        y.sum().backward()
    z = c * x
    with pytest.raises(KeyboardInterrupt):
        _in_place(interrupted_after(np.add), tensor.add)(c, 1.0)  # type: ignore[arg-type]
    with pytest.raises(MutationError):
        z.sum().backward()


def test_bug_83_a_step_that_was_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """No count goes up before the update is whole; a graph that kept the weights finds them
    written.
    """
    x = leaf(1.0, 2.0)
    optimizer = optim.SGD([x])
    (x * x).sum().backward()
    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "rule", interrupted_after(optimizer.rule))
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert set(optimizer.counts.values()) == {0}
    y = (x * x).sum()
    with monkeypatch.context() as patch:
        patch.setattr(optimizer, "_update_run", interrupted_after(optimizer._update_run))
        with pytest.raises(KeyboardInterrupt):
            optimizer.step()
    assert set(optimizer.counts.values()) == {0}
    with pytest.raises(MutationError):
        y.backward()


def test_bug_83_a_gradient_that_was_interrupted_is_counted() -> None:
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    assert x.grad is not None
    y = (x.grad * x).sum()

    class Interrupting(np.ndarray[Any, Any]):
        def __array_ufunc__(
            self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = (), **_: Any
        ) -> None:
            getattr(ufunc, method)(*(np.asarray(x) for x in inputs), out=out)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        x.node.accumulate(np.ones(2).view(Interrupting), False)
    with pytest.raises(MutationError):
        y.backward()


def test_bug_83_the_second_run_of_a_checkpoint_leaves_the_default_generator_alone() -> None:
    """It draws from another: an interrupt finds nothing to put back, and other threads draw on."""
    seen: list[dict[str, int]] = []
    dropout = nn.Dropout(0.5)

    def function(x: Tensor) -> Tensor:
        y = dropout(x)
        seen.append(contextvars.Context().run(tensor.random.default.state))
        return y

    y = tensor.checkpoint(function, leaf(*range(1, 9)))
    tensor.rand(3)
    state = tensor.random.default.state()
    y.sum().backward()
    assert seen[1] == state == tensor.random.default.state()
    assert seen[0] != state


def test_bug_83_evaluation_of_one_thread_is_not_that_of_another() -> None:
    layer = nn.Dropout(0.5)
    with nn.evaluating():
        assert not layer.learning
        assert layer.training
        assert contextvars.Context().run(lambda: layer.learning)
    assert layer.learning
    assert not layer.eval().learning


def test_bug_83_a_replay_traces_no_thread_but_its_own() -> None:
    seen: list[int] = []

    def function(x: Any) -> Any:
        seen.append(threading.get_ident())
        return x

    assert len(replay(function, [1], {})[1]) == 3
    assert seen[0] != threading.get_ident()
