"""Numbers that are read a step late: the same values in the same order, and no wait."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor import Tensor
from tensor.kernels import latest
from tensor.memory.devices import array_module
from tensor.optim import clipping
from tests.helpers.program import TINY, losses
from tinygpt.__main__ import main
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.data.windows import Windows
from tinygpt.model import GPT
from tinygpt.training import loop
from tinygpt.training import step as training_step
from tinygpt.training.reading import Moment, Reading
from tinygpt.training.step import StepRecord, optimizer_of, train

FREE = "seconds"  # what no two runs have alike


class Late(Reading):
    """As of a GPU, which is always a step behind: it is there when the next step was queued."""

    made: list[Late] = []
    reads: list[tuple[int, int]] = []  # (the step that was read, the steps queued by then)

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.made.append(self)
        self.number = len(self.made)

    @property
    def ready(self) -> bool:
        return False

    @property
    def floats(self) -> list[float]:  # type: ignore[override]
        self.reads.append((self.number, len(self.made)))
        return Reading.floats.func(self)  # type: ignore[attr-defined]


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> type[Late]:
    monkeypatch.setattr(Late, "made", [])
    monkeypatch.setattr(Late, "reads", [])
    monkeypatch.setattr(training_step, "Reading", Late)
    return Late


def noted(folder: str) -> list[dict[str, Any]]:
    return [
        {name: x for name, x in record.items() if name != FREE} for record in losses(Path(folder))
    ]


@pytest.mark.usefixtures("here")
def test_a_run_is_the_same_a_step_late(
    late: type[Late], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its metrics, in order; what it says of a skipped step; its checkpoints."""
    text = ["--text", "text.txt", "--evaluate", "4", "--steps", "10", "--snapshots", "0"]
    Path("text.txt").write_text("the cat sat on the mat. " * 40)

    def run(name: str) -> str:
        norms, clip = iter(range(1, 100)), clipping_before

        def spoilt(*arguments: Any) -> float:
            return math.nan if next(norms) in (3, 7, 8) else clip(*arguments)

        monkeypatch.setattr(clipping, "clip_gradients", spoilt)
        assert main(["train", *TINY, *text, "--out", name]) == 0
        return capsys.readouterr().err

    clipping_before = clipping.clip_gradients
    behind = run("late")
    monkeypatch.setattr(training_step, "Reading", Reading)
    assert behind == run("prompt")
    assert noted("late") == noted("prompt")
    states = [json.loads(Path(name, "state.json").read_text()) for name in ("late", "prompt")]
    assert states[0]["step"] == states[1]["step"] == 10
    # each was first read when the next was queued; before a measuring, at once
    first = dict(reversed(late.reads))
    assert first == {step: step if step in (4, 8, 10) else step + 1 for step in range(1, 11)}


@pytest.mark.usefixtures("here", "late")
def test_a_training_that_diverges_ends_at_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clipping, "clip_gradients", lambda *_: math.nan)
    assert main(["train", *TINY, "--steps", "500"]) == 1
    assert len(losses(Path("runs/story-1"))) == loop.HOPELESS


@pytest.mark.usefixtures("here")
def test_a_checkpoint_has_all_its_steps_in_the_metrics(
    late: type[Late], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is killed after a checkpoint resumes with every step noted."""
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    complete: list[bool] = []
    save = loop.runs.save

    def looked(run: Any, content: Any) -> None:
        complete.append(noted(str(run.folder))[-1]["step"] == content.state.step)
        save(run, content)

    monkeypatch.setattr(loop.runs, "save", looked)
    assert main(["train", *TINY, "--steps", "4"]) == 0
    assert complete == [True] * 5


@pytest.mark.usefixtures("here", "late")
def test_what_goes_wrong_later_loses_no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    norm, left = clipping.clip_gradients, iter(range(2))

    def failing(*arguments: Any) -> float:
        if next(left, None) is None:
            raise MemoryError("no more")
        return norm(*arguments)

    monkeypatch.setattr(clipping, "clip_gradients", failing)
    assert main(["train", *TINY, "--steps", "9", "--snapshots", "0"]) == 2
    assert [record["step"] for record in losses(Path("runs/story-1"))] == [1, 2]


def test_numbers_of_the_cpu_are_there_at_once() -> None:
    reading = Reading(Moment("cpu"), 1.5, math.inf)
    assert reading.ready
    assert reading.floats == [1.5, math.inf]
    assert 0 <= reading.seconds < 1


def test_numbers_of_a_gpu(device: str) -> None:
    """Of several dtypes, and as they were when they were asked for."""
    if device == "cpu":
        pytest.skip("needs a GPU, --device cuda")
    given = [Tensor(2.5, dtype=name, device=device) for name in ("float32", "float64", "bfloat16")]
    reading = Reading(Moment(device), given[0], 7.0, *given[1:])
    for number in given:
        number.array[...] = 0
    assert reading.floats == [2.5, 7.0, 2.5, 2.5]
    assert 0 <= reading.seconds < 1
    for _ in range(3):  # dropped before anybody reads
        Reading(Moment(device), *given)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_nothing_in_a_step_waits(dtype: str, device: str) -> None:
    """A step is queued while the GPU still has work of some 0.2 s before it."""
    if device == "cpu":
        pytest.skip("needs a GPU, --device cuda")
    cupy = array_module(device)
    model = GPT(GPTConfig(65, 32, 64, 4, 2), dtype=dtype, device=device)
    config = TrainConfig(batch=8, steps=9, dtype=dtype, device=device, accumulation=2)
    windows = Windows(np.random.default_rng(0).integers(0, 65, 10_000), 32)
    steps = train(model, windows, config, optimizer_of(model, config))
    records: list[StepRecord] = [next(steps) for _ in range(4)]
    if latest("multi_head_attention")[1] != "cuda kernel":
        pytest.skip("the reference of attention looks at its scores, and so waits: needs cuDNN")
    x = cupy.ones((4096, 4096), np.float64)
    start, end = cupy.cuda.Event(), cupy.cuda.Event()
    start.record()
    for _ in range(100):
        x = x @ x * 1e-4
    end.record()
    records += [next(steps), next(steps)]
    assert not end.done
    assert not records[-1].ready
    assert [record.skipped for record in records] == [False] * 6
    assert all(math.isfinite(record.loss) for record in records)
