"""Random programs agree with PyTorch, and the ones that do not are found and shrunk."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="the programs run in PyTorch too")

from tensor import Tensor
from tests.faults.programs.__main__ import several
from tests.faults.programs.ops import OPS
from tests.faults.programs.running import replayed
from tests.faults.programs.shrinking import printed, runnable, shrunk
from tests.faults.programs.step import HERE, TORCH, Step

PROGRAMS = 120
# both libraries warn about programs that nobody would write
pytestmark = pytest.mark.filterwarnings("ignore")


def step(name: str, out: str, *inputs: str, **options: object) -> Step:
    return Step(OPS[name].op, name, out, inputs, options)


def test_programs_agree() -> None:
    summary = several(0, PROGRAMS)
    assert summary.ours == []
    assert summary.programs == PROGRAMS
    assert len(summary.ops) > 0.9 * len(OPS)
    assert summary.reasons  # what differs by rule is met, and counted
    assert any("differences without one: 0" in line for line in summary.lines())


def test_a_difference_is_shrunk_and_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sine that gives cosines, and a clone that shares memory."""
    steps = [
        step("leaf", "x0", seed=1, shape=(2, 3), dtype="float64", kind="normal", turned=False),
        step("constant", "x1", seed=2, shape=(3,), dtype="float64", kind="normal", turned=False),
        step("multiply", "x2", "x0", "x1"),
        step("tanh", "x3", "x2"),
        step("clone", "x4", "x1"),
        step("write", "x4", "x4", "1.5", key="1:"),
        step("sin", "x5", "x3"),
        step("backward of sum", "x6", "x5", retain=False),
    ]
    assert replayed(steps).difference is None
    for name, wrong, kind, left in (
        ("sin", Tensor.cos, "value", ["constant", "sin"]),
        ("clone", Tensor.detach, "memory", ["constant", "clone"]),
    ):
        monkeypatch.setattr(Tensor, name, wrong)
        difference = replayed(steps).difference
        assert difference is not None
        assert difference.kind == kind
        shorter = shrunk(steps, difference)
        assert len(shorter) == 2
        assert shorter[-1].name == left[-1]
        text = printed(shorter, replayed(shorter))
        assert text.count(f".{name}()") == 2
        for library in (HERE, TORCH):
            exec(runnable(shorter, library), {})
        monkeypatch.undo()


def test_rounding_is_told_from_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sum that cancels may differ by what was lost, and by no more."""
    steps = [
        step("constant", "x0", seed=1, shape=(4,), dtype="float32", kind="normal", turned=False),
        step("exp", "x1", "x0"),
        step("multiply", "x2", "x1", "1000.5"),
        step("subtract", "x3", "x2", "x2"),
        step("exp", "x4", "x1"),
    ]
    right = Tensor.exp
    for error, faulty in ((2e-7, False), (1e-3, True)):

        def inexact(x: Tensor, error: float = error) -> Tensor:
            return Tensor.from_array(right(x).array * np.float32(1 + error))

        monkeypatch.setattr(Tensor, "exp", inexact)
        assert (replayed(steps).difference is not None) == faulty
        monkeypatch.undo()
