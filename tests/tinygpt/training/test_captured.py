"""A step as a CUDA graph makes the bits of the same step without one."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tensor import kernels
from tensor.optim.captured import MOST, RING, Captured
from tensor.random import Generator, Key
from tinygpt import GPT, GPTConfig
from tinygpt.config import TrainConfig
from tinygpt.data.windows import Windows
from tinygpt.training.step import StepRecord, optimizer_of, train, update

STEPS, BROKEN, RESUMED = 100, 40, 70
IDS = np.random.default_rng(0).integers(0, 30, 2000)


def config(dtype: str, device: str, **options: Any) -> TrainConfig:
    return TrainConfig(
        batch=6, steps=STEPS, lr=3e-3, warmup=10, clip=0.5, dtype=dtype, device=device,
        deterministic=True, **options,
    )  # fmt: skip


def new(config: TrainConfig) -> tuple[GPT, Any]:
    """A model with dropout, and its optimiser."""
    sizes = GPTConfig(vocabulary=30, context=24, width=32, heads=2, layers=2, dropout=0.1)
    model = GPT(sizes, dtype=config.dtype, device=config.device, generator=Generator(0))
    return model, optimizer_of(model, config)


def records(
    model: GPT, optimizer: Any, config: TrainConfig, first: int = 0
) -> Iterator[StepRecord]:
    with kernels.deterministic():
        yield from train(model, Windows(IDS, 24), config, optimizer, first)


def trained(config: TrainConfig, resumes: bool = False) -> tuple[list[list[float]], list[Any]]:
    """Losses and norms of 100 steps, one of which has a gradient that is not finite; and the
    weights and moments after them.
    """
    model, optimizer = new(config)
    numbers, kept = [], None
    steps = records(model, optimizer, config)
    for step in range(STEPS):
        bias = model.final_norm.bias.array
        if step == BROKEN:
            kept = bias.copy()
            bias[:] = math.inf
        record = next(steps)
        numbers.append([record.loss, record.gradient_norm])
        if step == BROKEN:
            assert record.skipped
            bias[:] = kept
        if step + 1 == RESUMED and resumes:
            weights, state = model.state_dict(), optimizer.state_dict()
            model, optimizer = new(config)
            model.load_state_dict(weights)
            optimizer.load_state_dict(state)
            steps = records(model, optimizer, config, RESUMED)
    arrays = [value.numpy() for value in model.state_dict().values()]
    state = optimizer.state_dict()
    arrays += [array.get() for array in state["arrays"].values()]
    assert state["taken"] == STEPS - sum(not math.isfinite(norm) for _, norm in numbers)
    return numbers, arrays


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_captured_steps_have_the_bits_of_steps_as_written(dtype: str, gpu: str) -> None:
    """Over 100 steps with dropout and clipping; one is skipped, and the captured run is resumed."""
    chosen = config(dtype, gpu)
    with kernels.off("training_step"):
        right, weights = trained(chosen)
    kernels.forget()
    found, arrays = trained(chosen, resumes=True)
    assert kernels.latest("training_step")[0] == "cuda_graph"
    np.testing.assert_array_equal(found, right)
    for array, other in zip(arrays, weights, strict=True):
        assert array.tobytes() == other.tobytes()
    assert sum(not math.isfinite(norm) for _, norm in right) >= 1
    assert len({loss for loss, _ in right}) > STEPS - 5  # the steps differ


def takes(gpu: str, **options: Any) -> tuple[Captured, Any]:
    """Captured steps, and a function that takes one on so many rows."""
    chosen = config("float32", gpu, **options)
    model, optimizer = new(chosen)
    captured = Captured(
        lambda x, y, key: update(model, optimizer, x, y, 1.0, chosen.accumulation, key),
        model.train(),
        optimizer,
        model.check_range,
    )

    def take(rows: int, step: int) -> float:
        x, y = Windows(IDS, 24)[np.arange(rows) + step]
        return float(captured(x, y, Key(0, step))[0])

    return captured, take


def test_each_shape_has_a_graph_and_few_are_kept(gpu: str) -> None:
    captured, take = takes(gpu)
    for rows in range(1, MOST + 3):
        for step in range(3):
            assert math.isfinite(take(rows, step))
    assert len(captured.graphs) == MOST
    said = kernels.latest("training_step")
    assert said[0] == "reference"
    assert "other shapes" in said[1]
    take(1, 5)
    assert kernels.latest("training_step")[0] == "cuda_graph"


def test_what_cannot_be_captured_runs_as_written(gpu: str) -> None:
    """Parts of a batch are divided by a count that the host makes; Muon waits for the norm."""
    for options, reason in (
        ({"accumulation": 2}, "cannot be captured"),
        ({"optimizer": "muon"}, "Muon"),
    ):
        _, take = takes(gpu, **options)
        for step in range(4):
            assert math.isfinite(take(4, step))
        assert kernels.latest("training_step")[0] == "reference"
        assert reason in kernels.latest("training_step")[1]


def test_what_cannot_be_captured_is_counted_once(gpu: str) -> None:
    """A step that reads a value of the GPU after its update."""
    model, optimizer = new(config("float32", gpu))

    def step(x: Any, y: Any, key: Key) -> Any:
        loss, norm = update(model, optimizer, x, y, 1.0, 1, key)
        return float(loss), norm  # type: ignore[arg-type]

    take = Captured(step, model.train(), optimizer, model.check_range)
    x, y = Windows(IDS, 24)[np.arange(4)]
    for number in range(5):
        take(x, y, Key(0, number))
    assert "cannot be captured" in kernels.latest("training_step")[1]
    assert optimizer.taken == 5


def test_a_frozen_parameter_needs_another_graph(gpu: str) -> None:
    """And ids that are no tokens raise, as they do without a graph."""
    captured, take = takes(gpu)
    for step in range(3):
        take(4, step)
    table = captured.model.position_embedding
    table.requires_grad = False
    before = table.numpy().copy()
    for step in range(3, 6):
        take(4, step)
    np.testing.assert_array_equal(table.numpy(), before)
    wrong = np.full((4, 24), 30)
    with pytest.raises(IndexError, match="token 30"):
        captured(wrong, wrong, Key(0, 9))


def test_inputs_stay_until_the_gpu_has_read_them(gpu: str) -> None:
    """Here the GPU is late, and memory of the host has its next owner before the GPU reads it. CuPy
    has a list of free memory for each power of two.
    """
    import cupy

    found, sizes = [], [2**n for n in range(4, 10) for _ in range(2 * RING)]
    for late in (False, True):
        captured, take = takes(gpu)
        for step in range(3):
            take(4, step)
        model, batch = captured.model, Windows(IDS, 24)[np.arange(4)]
        if late:
            cupy.cuda.get_current_stream().launch_host_func(lambda _: time.sleep(0.3), None)
        captured(*batch, Key(0, 3))
        del captured, take
        others = [cupy.asarray(np.full(size, -1)) for size in sizes]
        found.append([value.numpy() for value in model.state_dict().values()])
        assert len(others) == len(sizes)
    for array, right in zip(*found, strict=True):
        np.testing.assert_array_equal(array, right)
