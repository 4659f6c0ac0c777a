"""Odd situations on a tape: walks within walks, rules and memory of every kind, and what a tape
must not do.
"""

from __future__ import annotations

import gc
import json
import sys
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, grad, no_grad, optim
from tensor.autograd.recompute import checkpoint
from tensor.gradient_cases import CASES, LAYOUTS
from tensor.ops.op import OPS, compute_op
from tensor.recording import Recording
from tensor.recording.replay import _Recorder
from tests.helpers.recorded import IDS, handed, model, recorded

Array = Any


@pytest.fixture
def op() -> Iterator[Callable[[Any], Any]]:
    """Make ops that are gone after the test."""
    before = dict(OPS)
    yield compute_op
    for name in [name for name in OPS if name not in before]:
        del OPS[name]


# -- walks


def test_a_walk_within_a_walk_counts_for_itself() -> None:
    x, w = Tensor([2.0], requires_grad=True), Tensor([3.0], requires_grad=True)

    def hook(gradient: Tensor) -> None:
        grad((w * w).sum(), w)

    with tensor.record() as tape:
        y = x * w
        y.register_hook(hook)
        (y + y * w).sum().backward()
    assert [came for came in handed(tape) if came[0] in "xw"] == [
        ("w", 1, 2),
        ("w", 1, 2),
        ("w", 2, 2),
        ("x", 1, 1),
        ("w", 2, 2),
    ]


def test_gradients_of_several_walks_are_not_mixed(tmp_path: Path) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with tensor.record() as tape:
        y = x * 3.0
        y.sum().backward(retain_graph=True)
        (y * 10.0).sum().backward()
    tape.save(tmp_path / "tape.npz")
    with np.load(tmp_path / "tape.npz") as arrays:
        for name, last in (("x.grad", 30.0), ("multiply.grad", 10.0)):
            assert tape[name].tolist() == arrays[name].tolist() == [last, last]


def test_gradients_that_nobody_asked_for_are_not_handed_on() -> None:
    x, gain, bias = (
        Tensor([1.0, 2.0], requires_grad=True),
        Tensor([1.0, 1.0], requires_grad=True),
        Tensor([0.0, 0.0], requires_grad=True),
    )
    with tensor.record() as tape:
        grad((tensor.layer_norm(x, gain, bias) ** 2.0).sum(), gain)
    assert handed(tape)[-1] == ("gain", 1, 1)


def test_a_rule_runs_once(op: Any) -> None:
    """A rule may count, or draw: recorded too it must run as often as unrecorded."""
    calls: list[int] = []

    def counted(x: Array) -> Any:
        """y = 2 x"""

        def backward(dy: Array) -> Any:
            calls.append(1)
            return (dy * len(calls),)

        return x * 2, backward

    double = op(counted)
    x = Tensor([1.0], requires_grad=True)
    with tensor.record() as tape:
        (double(x) + double(x)).sum().backward()
    assert len(calls) == 2
    assert x.grad is not None
    assert x.grad.tolist() == [3.0]
    # the first not yet the sum
    assert [
        c.value.array.tolist() for e in tape.backwards for c in e.contributions if c.to == "x"
    ] == [[1.0], [2.0]]


def test_a_rule_that_returns_a_number(op: Any) -> None:
    def doubled(x: Array) -> Any:
        """y = 2 x"""
        return x * 2, lambda dy: (2.0,)

    x = Tensor(np.array(1.0), requires_grad=True)
    with tensor.record() as tape:
        op(doubled)(x).backward()
    assert tape["x.grad"] == 2.0


# -- arrays


def test_minus_zero_is_not_zero() -> None:
    memory = np.zeros(2, np.float32)
    x = Tensor.from_array(memory)
    with tensor.record() as tape:
        x.exp()
        memory[:] = -0.0
        x.exp()
    assert [np.signbit(e.inputs[0].array).tolist() for e in tape.forwards] == [
        [False, False],
        [True, True],
    ]


@pytest.mark.parametrize(
    "scalar", [2**70, True, float("nan"), -0.0, np.float64(2), np.int8(3), [1, 2], np.array(2.0)]
)
def test_numbers_of_every_kind(scalar: Any) -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    plain = x * scalar
    with tensor.record() as tape:
        y = x * scalar
    assert y.dtype == plain.dtype
    np.testing.assert_array_equal(tape.forwards[-1].lines()[-1].values["return"], plain.numpy())


# whose gaps are not worth their memory
@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "step 2"])
@pytest.mark.parametrize("name", ["sum", "matmul", "power"])
def test_an_op_runs_again_on_memory_of_the_same_order(name: str, layout: str) -> None:
    """Sums are rounded by the order in which they run; lines() must end with what the op returned,
    to the last bit.
    """
    for case in [case for case in CASES if case.op == name]:
        with tensor.record("reference") as tape:
            case.call(*(Tensor.from_array(LAYOUTS[layout](x)) for x in case.inputs(1)))
        for entry in tape.forwards:
            if entry.implementation != "view":
                np.testing.assert_array_equal(
                    entry.lines()[-1].values["return"], entry.outputs[0].array
                )


def test_an_op_without_outputs() -> None:
    with tensor.record() as tape:
        assert tensor.zeros(0).split([]) == ()
    assert "none" in tape.table()
    with pytest.raises(KeyError):
        tape["split"]


def test_entries_can_be_compared() -> None:
    with tensor.record() as tape:
        tensor.ones(3) * 2.0
    with tensor.record() as other:
        tensor.ones(3) * 2.0
    assert tape.forwards[-1] != other.forwards[-1]
    assert tape.forwards[-1].inputs[0] in tape.forwards[-1].inputs
    assert other.forwards[-1].inputs[0] not in tape.forwards[-1].inputs


# -- files


def test_saving_every_name_and_dtype(tmp_path: Path) -> None:
    def run() -> Recording:
        file, allow_pickle = (
            Tensor([1.0, 2.0], requires_grad=True),
            Tensor([3.0, 4.0], requires_grad=True),
        )
        narrow = Tensor([1.5], dtype="bfloat16", requires_grad=True)
        with tensor.record() as tape:
            (file * allow_pickle).sum().backward()
            a, _ = (narrow * narrow).expand(2).split(1)
            a.sum().backward()
            with no_grad():
                file[...] = 9.0
            file.exp()
        return tape

    tape = run()  # the leaves themselves are gone
    tape.save(tmp_path / "tape.npz")
    with np.load(tmp_path / "tape.npz", allow_pickle=False) as arrays:
        assert arrays["file"].tolist() == tape["file"].tolist() == [1.0, 2.0]
        assert arrays["file.grad"].tolist() == [3.0, 4.0]
        assert arrays["allow_pickle.grad"].tolist() == [1.0, 2.0]
        assert (arrays["narrow.grad"].dtype, arrays["narrow.grad"].tolist()) == (np.float32, [3.0])
        assert "split[0].grad" in arrays
        assert "split[1].grad" not in arrays
    tape.save(tmp_path / "tape.json")
    assert json.loads((tmp_path / "tape.json").read_text())["traceEvents"]


# -- memory


def _tapes() -> dict[str, Callable[[], Recording]]:
    def of_a_forward_pass() -> Recording:
        x = Tensor([1.0, 2.0], requires_grad=True)
        with tensor.record() as tape:
            x * x
        return tape

    def of_a_checkpoint() -> Recording:
        x = Tensor([1.0, 2.0], requires_grad=True)
        with tensor.record() as tape:
            checkpoint(lambda x: x * x, x) * 2.0
        return tape

    def of_a_model() -> Recording:
        return recorded(model())

    def of_an_error() -> Recording:
        with pytest.raises(ValueError), tensor.record() as tape:  # noqa: PT011
            tensor.ones(2) @ tensor.ones(3)
        return tape

    def that_was_read() -> Recording:
        tape = recorded(model())
        tape["blocks.0.attention.weights"]
        tape["blocks.1.attention.dscores"]
        return tape

    return {
        f.__name__: f
        for f in (of_a_forward_pass, of_a_checkpoint, of_a_model, of_an_error, that_was_read)
    }


@pytest.mark.parametrize("which", _tapes())
def test_a_tape_goes_when_it_is_dropped(which: str) -> None:
    """By reference counting alone: no cycle keeps its arrays until the collector comes."""
    gc.collect()
    gc.disable()
    try:
        tape = weakref.ref(_tapes()[which]())
        assert tape() is None
    finally:
        gc.enable()


def test_a_replay_leaves_no_cycle() -> None:
    """The frame that ran again holds its recorder: neither waits for the collector."""
    recording = recorded(model())
    gc.collect()
    gc.disable()
    try:
        recording["blocks.0.attention.weights"]
        for _ in range(100):  # the thread of the replay may end a little later
            left = sum(type(one) is _Recorder for one in gc.get_objects())
            if left == 0:
                break
            time.sleep(0.01)
        assert left == 0
    finally:
        gc.enable()


def test_a_tape_keeps_neither_the_model_nor_the_graph() -> None:
    gpt = model()
    optim.AdamW(gpt)
    gc.collect()
    gc.disable()
    try:
        with tensor.record(values=False) as tape:
            loss = gpt.loss(IDS, IDS)
        kept = weakref.ref(gpt), weakref.ref(loss.node)
        del gpt, loss
        assert kept[1]() is None
        # before Python 3.13 a frame keeps what it was last asked for
        sys._getframe().f_locals  # noqa: B018
        assert kept[0]() is None
    finally:
        gc.enable()
    assert tape.table()


# -- run again


def test_lines_at_the_prompt_of_a_debugger() -> None:
    """A debugger runs what is typed within its trace function, where Python traces nothing."""
    with tensor.record() as tape:
        tensor.softmax(tensor.ones(3) * 2.0)
    softmax = tape.forwards[-1]
    found: list[Any] = []

    def debugger(frame: Any, event: str, argument: Any) -> Any:
        if event == "line" and not found:
            found.append(softmax.lines())
        return debugger

    def debugged() -> int:
        return 1

    outer = sys.gettrace()
    sys.settrace(debugger)
    try:
        debugged()
        assert sys.gettrace() is debugger
    finally:
        sys.settrace(outer)
    assert [(m.number, m.values.keys()) for m in found[0]] == [
        (m.number, m.values.keys()) for m in softmax.lines()
    ]


def test_lists_of_arrays_stay_as_they_were(op: Any) -> None:
    def added(*arrays: Array) -> Any:
        """y = 2 a + 2 b + ..."""
        parts = []
        for x in arrays:
            parts.append(x * 2)  # noqa: PERF401
        parts[0] += 1
        return sum(parts), lambda dy: tuple(dy * 2 for _ in arrays)

    with tensor.record() as tape:
        op(added)(Tensor([1.0]), Tensor([5.0]))
    seen = [
        [part.tolist() for part in m.values["parts"]]
        for m in tape.forwards[-1].lines()
        if "parts" in m.values
    ]
    assert seen == [[], [[2.0]], [[2.0], [10.0]], [[3.0], [10.0]]]


def test_an_op_without_a_source_file(op: Any) -> None:
    code = "def typed(x: Array, *, k=2.0):\n    y = x * k\n    return y, lambda dy: (dy * k,)\n"
    space: dict[str, Any] = {}
    exec(compile(code, "<stdin>", "exec"), space)
    typed = op(space["typed"])
    with tensor.record() as tape:
        typed(Tensor([1.0], requires_grad=True)).sum().backward()
    assert [m.text for m in tape.forwards[0].lines()] == [""] * 3
    assert tape["y"].tolist() == [2.0]
    assert tape.backwards[-1].lines()[-1].values["return"][0].tolist() == [2.0]
