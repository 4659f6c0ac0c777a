"""Random programs agree with PyTorch, and the ones that do not are found and shrunk."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the programs run in PyTorch too")

import torch

import tensor
from tensor import Tensor
from tests.faults.programs import __main__, explained
from tests.faults.programs.__main__ import several
from tests.faults.programs.drawing import Drawer, UnfitError
from tests.faults.programs.ops import OPS
from tests.faults.programs.running import replayed
from tests.faults.programs.shrinking import printed, runnable, shrunk
from tests.faults.programs.step import HERE, TORCH, Step

PROGRAMS = 120
# both libraries warn about programs that nobody would write
pytestmark = pytest.mark.filterwarnings("ignore")


def step(op: str, out: str, /, *inputs: str, **options: object) -> Step:
    return Step(OPS[op].op, op, out, inputs, options)


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


FLOATS = {"dtype": "float32", "kind": "normal", "turned": False}


def new(name: str, out: str, /, *shape: int, seed: int = 1, **options: object) -> Step:
    return step(name, out, **{**FLOATS, "shape": shape, "seed": seed, **options})


def several_roots(terms: str, retain: bool = True) -> Step:
    return step("backward of several", "x9", terms=terms, retain=retain)


BY_RULE = [
    (  # the product with the part of a result carries the freed graph
        "a value that carries a graph is not written",
        [
            new("leaf", "x0", 3),
            step("negative", "x1", "x0"),
            step("backward of sum", "x2", "x1", retain=False),
            step("update a part", "x3", "x1", "1.5", key="1:", sign="*"),
        ],
    ),
    (  # x0.grad grows before the op that kept it has its turn
        "a pass adds to a .grad that an op kept",
        [
            new("leaf", "x0", 3),
            step("backward of sum", "x1", "x0", retain=True),
            step("grad", "x2", "x0"),
            step("multiply", "x3", "x0", "x2"),
            several_roots("(x3 * 2.0).sum() + (x0 * 0.5).sum()"),
        ],
    ),
    (
        "what a checkpoint reads became another tensor",
        [
            new("leaf", "x0", 3),
            step("tanh", "x1", "x0"),
            step("checkpoint", "x2", "x0", body="a * x1"),
            step("update", "x3", "x1", "-2", sign="*", name="mul"),
            step("backward of sum", "x4", "x2", retain=True),
        ],
    ),
    (  # PyTorch finds no way to x2, and so does not look
        "memory that backward needs was written",
        [
            new("constant", "x0", 3),
            step("leaf on memory of others", "x1", "x0", key="..."),
            step("expand", "x2", "x1", shape="1, -1"),
            step("multiply", "x3", "x1", "x2"),
            step("update", "x4", "x0", "0.5", sign="*", name="mul"),
            step("grad()", "x5", "x3", "x3", "x2", retain=True),
        ],
    ),
    (  # a gradient of grad() that an op kept
        "memory that backward needs was written",
        [
            new("leaf", "x0", 3),
            step("grad()", "x1", "x0", "x0", "x0", retain=True),
            step("maximum", "x2", "x0", "x1[0]"),
            step("write", "x3", "x1[0]", "0.0", key="..."),
            step("backward of sum", "x4", "x2", retain=True),
        ],
    ),
    (
        "cat passes over tensors of shape (0,)",
        [
            new("constant", "x0", 0),
            new("constant", "x1", 1, 0),
            step("concatenate", "x2", "x1", "x0", axis=1),
        ],
    ),
    (
        "of matrices without columns it says so in other words",
        [
            new("constant", "x0", 2, 0, dtype="bool"),
            new("constant", "x1", 0, 3, dtype="bool"),
            new("constant", "x2", 3, dtype="bool"),
            step("linear", "x3", "x0", "x1", "x2"),
        ],
    ),
    (  # the product is on the way to a part of x1, but not to x1[0]
        "to a part of a split leads all",
        [
            new("leaf", "x0", 4),
            step("split", "x1", "x0", size=2, axis=0),
            step("multiply", "x2", "x1[1]", "x1[1]"),
            step("grad()", "x3", "x2", "x2", "x1[0]", retain=False),
            step("backward of sum", "x4", "x2", retain=False),
        ],
    ),
]
AGREE = [
    [  # a hook on a part that the loss does not use
        new("leaf", "x0", 4),
        step("split", "x1", "x0", size=2, axis=0),
        step("hook", "x2", "x1[0]"),
        step("grad()", "x3", "x1[1]", "x1[1]", "x1[1]", retain=True),
        several_roots("(x1[0] * 2.0).sum() + (x1[1] * 0.5).sum()"),
    ],
    [
        new("constant", "x0", 2, dtype="bfloat16"),
        new("ids", "x1", 2, dtype="int64", kind="ids"),
        step("mean_squared_error", "x2", "x0", "x1", reduction="none"),
        step("binary_cross_entropy_with_logits", "x3", "x0", "x1", reduction="sum"),
        step("stack", "x4", "x0", "x1", axis=0),
    ],
    [  # thirds of a width of 5
        new("constant", "x0", 2, 3, 5),
        step("multi_head_attention", "x1", "x0", heads=1, causal=True),
    ],
]


@pytest.mark.parametrize(("reason", "steps"), BY_RULE)
def test_a_difference_by_rule(
    reason: str, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has this reason, and no other rule covers it."""
    run = replayed(steps)
    assert run.difference is None
    assert any(reason in said for said in run.reasons), run.reasons
    for side in ("HERE", "THERE"):
        others = [rule for rule in getattr(explained, side) if reason not in rule.reason]
        monkeypatch.setattr(explained, side, others)
    assert replayed(steps).difference is not None


def without_a_sum(x: Tensor, *_: object, **options: object) -> Tensor:
    return -x.min(-1)


def cancelling(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return (1 - y) * x + ((-x).exp() + 1).log()


def writing_half(x: Tensor, key: Tensor, value: float, right: Any = Tensor.__setitem__) -> None:
    right(x, 0, value)
    right(x, key, value)


# PyTorch loses digits there, or writes half. Its side of a program does neither.
CAREFUL = [
    (
        (tensor, "cross_entropy", without_a_sum),
        [
            new("constant", "x0", 1, 2, dtype="bfloat16", kind="ties", seed=25),
            step("multiply", "x1", "x0", "3.0"),
            step("cross_entropy", "x2", "x1", ids=[0], ignored=-100, smoothing=0, reduction="none"),
        ],
    ),
    (
        (Tensor, "logsumexp", without_a_sum),
        [
            new("constant", "x0", 1, 2, dtype="bfloat16", kind="ties", seed=25),
            step("multiply", "x1", "x0", "3.0"),
            step("logsumexp", "x2", "x1", axes=-1, all=-1, keep=False),
        ],
    ),
    (
        (tensor, "binary_cross_entropy_with_logits", cancelling),
        [
            new("constant", "x0", 2, dtype="float64", seed=5),
            step("multiply", "x1", "x0", "8.0"),
            step("multiply", "x2", "x0", "0.0"),
            step("binary_cross_entropy_with_logits", "x3", "x1", "x2", reduction="none"),
        ],
    ),
    (
        (Tensor, "__setitem__", writing_half),
        [
            new("constant", "x0", 2, 1),
            new("ids", "x1", 9, dtype="int32", kind="ids"),
            step("write where", "x2", "x0", "x1", value=0.0),
        ],
    ),
]


@pytest.mark.parametrize(("wrong", "steps"), CAREFUL)
def test_the_faults_of_torch_are_not_asked_for(
    wrong: tuple[Any, str, Any], steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine agrees, and a wrong value is still found."""
    assert replayed(steps).difference is None
    assert replayed(steps).reasons == []
    monkeypatch.setattr(*wrong)
    assert replayed(steps).difference is not None


@pytest.mark.parametrize("steps", AGREE)
def test_programs_that_agree(steps: list[Step]) -> None:
    run = replayed(steps)
    assert (run.difference, run.reasons) == (None, [])
    assert run.tried == steps


def test_an_element_that_is_two_gradients_in_torch() -> None:
    steps = [
        new("leaf", "x0"),
        new("leaf", "x1", seed=2),
        step("stack", "x2", "x0", "x1", axis=0),
        step("backward of sum", "x3", "x2", retain=True),
        step("backward", "x4", "x2", "x2", retain=True),
    ]
    run = replayed(steps)
    assert (run.difference, run.reasons) == (None, [explained.SHARED])
    assert run.tried == steps[:4]


def test_a_write_that_nothing_explains_stays_a_difference() -> None:
    """The same messages without the reason."""
    run = replayed([new("leaf", "x0", 3), step("tanh", "x1", "x0")])
    for message in ("carries a graph would lose", "was written\nsome .grad may have a part"):
        for last in (
            step("write", "x2", "x1", "1.5", key="1:"),
            step("backward of sum", "x2", "x1", retain=True),
        ):
            assert explained.refused_here(run, last, ValueError(message)) is None


def test_an_error_about_bools_is_of_linear_of_bools_alone() -> None:
    run = replayed([new("constant", "x0", 2, 0), new("constant", "x1", 2, 0, dtype="bool")])
    error = RuntimeError("result type Long can't be cast to the desired output type Bool")
    for op, x, reason in (("linear", "x0", False), ("tanh", "x1", False), ("linear", "x1", True)):
        assert bool(explained.refused_there(run, step(op, "x2", x, x, x), None, error)) == reason


def test_a_checkpoint_is_of_floats() -> None:
    """Integers times floats have another dtype in PyTorch."""
    drawer = Drawer(np.random.default_rng(0), "float32", {"x0": torch.ones(3, dtype=torch.int64)})
    drawer.careless = True
    for name in ("checkpoint", "checkpoint of two"):
        with pytest.raises(UnfitError):
            OPS[name].draw(drawer)


def test_a_comparison_that_fails_is_one_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    right = __main__.program

    def program(seed: int) -> object:
        return 1 / 0 if seed == 1 else right(seed)

    monkeypatch.setattr(__main__, "program", program)
    summary = several(0, 3)
    assert summary.programs == 3
    assert [seed for seed, _ in summary.ours] == [1]
    assert "ZeroDivisionError" in summary.ours[0][1]
