"""`--recompute`: the same training, bit for bit, for less memory."""

from __future__ import annotations

import tracemalloc
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor import kernels
from tensor.graph import Node, reachable
from tensor.random import Generator, Key, keyed
from tests.helpers.program import TINY, losses
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig, story
from tinygpt.__main__ import main
from tinygpt.data.windows import Windows
from tinygpt.runs import run as runs
from tinygpt.training.measure import mean_loss
from tinygpt.training.step import train

WINDOWS = Windows(CharacterTokenizer(story()).encode(story()), 8)


def trained(
    device: str, dtype: str, recompute: bool, model: dict[str, Any], training: dict[str, Any]
) -> tuple[list[float], dict[str, Any]]:
    gpt = GPT(
        GPTConfig(22, 8, 16, 2, 3, dropout=0.2, **model),
        generator=Generator(1),
        dtype=dtype,
        device=device,
    )
    config = TrainConfig(
        steps=4, batch=5, recompute=recompute, dtype=dtype, device=device, **training
    )
    records = [(record.loss, record.gradient_norm) for record in train(gpt, WINDOWS, config)]
    return [number for pair in records for number in pair], {
        name: weights.numpy().copy() for name, weights in gpt.state_dict().items()
    }


@pytest.mark.parametrize(
    ("dtype", "model", "training"),
    [
        ("float32", {}, {}),
        ("float64", {"tied": False, "bias": False}, {"accumulation": 3}),
        (
            "float32",
            {"norm": "post", "activation": "relu", "positions": "sinusoidal"},
            {"accumulation": 2},
        ),
        ("bfloat16", {}, {"optimizer": "muon"}),
        ("float16", {}, {}),
    ],
    ids=str,
)
@pytest.mark.parametrize("on", [True, False])
def test_weights_and_losses_are_the_same_bits(
    dtype: str, model: dict[str, Any], training: dict[str, Any], on: bool, device: str
) -> None:
    """With dropout, whose masks backward draws again; with kernels and without."""
    with nullcontext() if on else kernels.off(), np.errstate(all="ignore"):
        (numbers, weights), (expected, others) = (
            trained(device, dtype, recompute, model, training) for recompute in (True, False)
        )
    if device != "cpu":  # the embedding's gradient is summed by atomics, in no fixed order
        assert numbers == pytest.approx(expected, rel=1e-3)
        return
    assert numbers == expected
    for name, weight in weights.items():
        assert np.array_equal(weight, others[name]), name


def test_each_block_is_one_node_that_keeps_its_input(device: str) -> None:
    """In training alone: what is measured, or sampled from, is computed as ever."""
    model = GPT(GPTConfig(22, 8, 16, 2, 3), generator=Generator(1), device=device).train()
    x, y = WINDOWS[:4]
    model.recompute = True
    nodes = [node for node in reachable([model.loss(x, y).node]) if type(node) is Node]
    again = [node for node in nodes if node.op == "checkpoint"]
    assert len(again) == 3
    assert [node.kept()["inputs"][0].shape for node in again] == [(4, 8, 16)] * 3
    assert not {"linear_gelu", "multi_head_attention", "attention"} & {node.op for node in nodes}
    assert all(
        node.op != "checkpoint"
        for node in reachable([model.eval().loss(x, y).node])
        if type(node) is Node
    )
    assert mean_loss(model.train(), WINDOWS, 16) == mean_loss(
        GPT(model.config, generator=Generator(1), device=device), WINDOWS, 16
    )


def test_memory_grows_by_an_input_a_layer() -> None:
    """At the peak of a step: with twelve layers, less than a third, and what each further layer
    takes is its input and its parameters.
    """
    peaks: dict[tuple[int, bool], int] = {}
    ids = np.zeros((4, 64), int)
    for layers in (4, 12):
        for recompute in (False, True):
            model = GPT(
                GPTConfig(22, 64, 32, 2, layers, dropout=0.1), generator=Generator(0)
            ).train()
            model.recompute = recompute
            model.pack()
            tracemalloc.start()
            try:
                with keyed(Key(1)):
                    model.loss(ids, ids).backward()
                peaks[layers, recompute] = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
    activation = 4 * 64 * 32 * 4
    assert peaks[12, True] < peaks[12, False] / 3
    assert 8 * activation <= peaks[12, True] - peaks[4, True] < 8 * 1.5 * activation


@pytest.mark.usefixtures("here")
def test_the_flag(capsys: pytest.CaptureFixture[str]) -> None:
    """The same losses and weights. The run keeps the choice: --resume goes on with it."""
    choices = [*TINY, "--layers", "2", "--dropout", "0.1", "--steps", "4"]
    assert main(["train", *choices]) == 0
    assert main(["train", *choices, "--recompute", "--until", "2"]) == 0
    assert main(["train", "--resume", "story-2"]) == 0
    first, second = (Path("runs/story-1"), Path("runs/story-2"))
    assert [record["loss"] for record in losses(first)] == [
        record["loss"] for record in losses(second)
    ]
    for name in (runs.MODEL, runs.OPTIMIZER):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    assert runs.load(second)[0].training.recompute
    capsys.readouterr()
    assert main(["plan", *choices, "--recompute"]) == 0
    planned = capsys.readouterr().out
    assert main(["plan", *choices, "--no-recompute"]) == 0
    assert " of its " in planned
    assert " of its " not in capsys.readouterr().out
