"""Names on a tape: no two things share one, whatever models do, and what ran elsewhere is said to
have.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensor
from tensor import Tensor, nn
from tensor.autograd.recompute import checkpoint
from tests.helpers.recorded import handed


class Lists(nn.Module):
    """A model whose parameters and layers are in lists."""

    def __init__(self) -> None:
        self.scales = [nn.Parameter([1.0, 2.0]), nn.Parameter([3.0, 4.0])]
        self.blocks = [nn.Linear(2, 2), nn.Linear(2, 2)]

    def __call__(self, x: Tensor) -> Tensor:
        for scale, block in zip(self.scales, self.blocks, strict=True):
            x = block(x * scale)
        return x


# -- names


def test_two_models_do_not_share_names(device: str) -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    first.to(device=device)
    second.to(device=device)
    with tensor.record() as tape:
        second(first(tensor.ones(2, 3, device=device)).relu()).sum().backward()
    assert [e.name for e in tape.forwards] == ["linear", "relu", "Linear#2.linear", "sum"]
    for name, weight in (("weight", first.weight), ("Linear#2.weight", second.weight)):
        assert weight.grad is not None
        np.testing.assert_array_equal(tape[name], weight.numpy())
        np.testing.assert_array_equal(tape[f"{name}.grad"], weight.grad.numpy())
    assert {row.name for row in tape.by("module")} == {"(outside modules)", "Linear#2"}


def test_two_models_of_a_kind_have_modules_of_their_own() -> None:
    first, second = Lists(), Lists()
    with tensor.record() as tape:
        second(first(tensor.ones(1, 2)))
    paths = [e.module for e in tape.forwards if e.op == "linear"]
    assert paths == ["blocks.0", "blocks.1", "Lists#2.blocks.0", "Lists#2.blocks.1"]
    np.testing.assert_array_equal(tape["Lists#2.blocks.1"], tape.forwards[-1].outputs[0].array)


def test_two_tensors_of_one_variable_are_told_apart() -> None:
    def doubled(w: Tensor) -> Tensor:
        return (w * 2.0).sum()

    with tensor.record() as tape:
        (
            doubled(Tensor([1.0], requires_grad=True))
            + doubled(Tensor([5.0, 6.0], requires_grad=True))
        ).backward()
    assert tape["w.grad"].tolist() == [2.0]
    assert tape["w#2.grad"].tolist() == [2.0, 2.0]
    assert tape["w#2"].tolist() == [5.0, 6.0]
    with pytest.raises(KeyError, match=r"near it: .*w#2"):
        tape["w#3"]


def test_leaves_that_nothing_names_are_told_apart() -> None:
    leaves = [Tensor([1.0, 2.0], requires_grad=True), Tensor([3.0], requires_grad=True)]
    with tensor.record() as tape:
        (leaves[0].sum() + leaves[1].exp().sum()).backward()
    assert tape["leaf.grad"].tolist() == [1.0, 1.0]
    assert tape["leaf#2"].tolist() == [3.0]


def test_parameters_in_lists_have_their_names() -> None:
    net = Lists()
    with tensor.record() as tape:
        net(tensor.ones(1, 2)).sum().backward()
    assert {name for name, _ in net.named_parameters()} == tape.leaves
    np.testing.assert_array_equal(tape["scales.1"], net.scales[1].numpy())


def test_a_part_that_ran_by_itself_before_its_model() -> None:
    net = Lists()
    with tensor.record() as tape:
        net.blocks[1](tensor.ones(1, 2))
        net(tensor.ones(1, 2)).sum().backward()
    assert [e.name for e in tape.forwards if e.op == "linear"] == [
        "linear",
        "blocks.0.linear",
        "blocks.1.linear",
    ]
    assert {name for name, _ in net.named_parameters()} <= {to for to, _, _ in handed(tape)}


def test_a_model_that_changes_while_it_is_recorded() -> None:
    net = Lists()
    with tensor.record() as tape:
        net(tensor.ones(1, 2))
        net.scales.append(nn.Parameter([5.0, 6.0]))
        net.blocks.append(nn.Linear(2, 2))
        net.scales[0] = nn.Parameter([7.0, 8.0])
        net(tensor.ones(1, 2)).sum().backward()
    assert tape.forwards[-2].name == "blocks.2.linear"
    assert {"scales.0#2", "scales.1", "scales.2", "blocks.2.weight"} <= {
        to for to, _, _ in handed(tape)
    }
    assert tape["scales.0#2"].tolist() == [7.0, 8.0]


def test_a_module_that_no_model_holds() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            layer = nn.Linear(2, 2)
            self.hidden = lambda: layer  # modules are not looked for in functions

        def recall(self, x: Tensor) -> Tensor:
            return self.hidden()(x) * 2.0

    net = Net()
    with tensor.record() as tape:
        net.recall(tensor.ones(1, 2)).sum().backward()
    assert [e.name for e in tape.forwards] == ["Linear.linear", "recall.multiply", "sum"]
    assert tape.leaves == {"Linear.weight", "Linear.bias"}


def test_names_that_cannot_be_printed(tmp_path: Path) -> None:
    net = nn.Module()
    setattr(net, "a\nb\x1b[31m", nn.Parameter([1.0]))
    ((name, parameter),) = net.named_parameters()

    class Net(nn.Module):
        def __init__(self) -> None:
            self.inner = net

        def __call__(self) -> Tensor:
            return parameter * 2.0

    with tensor.record() as tape:
        Net()().sum().backward()
    lines = tape.table().splitlines()
    assert len(lines) == len(tape.entries) + 1
    assert all(line.isprintable() for line in lines)
    assert tape[f"inner.{name}.grad"].tolist() == [2.0]
    tape.save(tmp_path / "tape.npz")


# -- what ran elsewhere


def test_ops_that_ran_before_are_called_so() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    h = x.exp()
    with tensor.record() as tape:
        (h * h).sum().backward()
    assert handed(tape)[1:3] == [
        ("exp, not in this recording", 1, 2),
        ("exp, not in this recording", 2, 2),
    ]
    assert tape.nodes == 2  # multiply, sum
    assert tape.backwards[-1].contributions[0].input == "x"
    assert tape.leaves == {"leaf"}


def test_a_recording_in_a_recording_takes_over() -> None:
    x = Tensor([1.0, 2.0], requires_grad=True)
    with tensor.record() as outer:
        y = x * 2.0
        with tensor.record() as inner:
            z = y.exp()
        (z * y).sum().backward()
    assert [e.op for e in inner.forwards] == ["exp"]
    assert inner.forwards[0].inputs[0].source == "y"
    assert [e.op for e in outer.forwards] == ["multiply", "multiply", "sum"]
    assert ("exp, not in this recording", 1, 1) in handed(outer)
    assert ("multiply", 2, 2) in handed(outer)


def test_a_checkpoint_records_nothing_once_the_recording_has_ended() -> None:
    x = Tensor([2.0], requires_grad=True)
    with tensor.record() as tape:
        y = checkpoint(lambda x: (x * x).exp(), x).sum()
    count = len(tape.entries)
    y.backward()
    assert len(tape.entries) == count
    with tensor.record() as later:
        checkpoint(lambda x: checkpoint(lambda x: x.exp(), x * 1.5).sin(), x).sum().backward()
    assert [e.op for e in later.forwards] == [
        "multiply",
        "exp",
        "sin",
        "sum",
        "multiply",
        "exp",
        "sin",
        "exp",
    ]
    assert handed(later)[0] == ("checkpoint", 1, 1)
    assert handed(later)[-1] == ("x", 1, 1)
    assert all(number <= count for _, number, count in handed(later))
