"""`--tensorboard`: what TensorBoard reads is what the metrics say."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import TINY, losses, refused
from tinygpt.__main__ import main

pytestmark = pytest.mark.usefixtures("here")
CHOICES = [*TINY, "--text", "text.txt", "--validation", "0.3", "--evaluate", "2", "--tensorboard"]


@pytest.fixture(autouse=True)
def text(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("the cat sat on the mat. " * 20, encoding="utf-8")


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """tag: (step, value), as TensorBoard's own reader finds them."""
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.plugin_event_accumulator"
    )
    tensor_util = pytest.importorskip("tensorboard.util.tensor_util")
    events = accumulator.EventAccumulator(str(run), tensor_size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [
            (e.step, float(tensor_util.make_ndarray(e.tensor_proto))) for e in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


def expected(run: Path) -> dict[str, list[tuple[int, float]]]:
    table: dict[str, list[tuple[int, float]]] = {}
    for record in losses(run):
        numbers: dict[str, Any]
        if "lr" in record:
            numbers = {
                "loss": record["loss"],
                "learning_rate": record["lr"],
                "gradient_norm": record["gradient_norm"],
                "tokens_per_second": record["tokens"] / record["seconds"],
            }
        elif "validation_loss" in record:
            numbers = {"validation_loss": record["validation_loss"]}
        else:
            numbers = {"final_loss": record["loss"]}
        for tag, value in numbers.items():
            if value is not None:
                table.setdefault(tag, []).append((record["step"], value))
    return table


def assert_same(run: Path) -> None:
    found, wanted = scalars(run), expected(run)
    assert found.keys() == wanted.keys()
    for tag, points in wanted.items():
        assert [step for step, _ in found[tag]] == [step for step, _ in points], tag
        assert [value for _, value in found[tag]] == pytest.approx(
            [value for _, value in points], rel=1e-6
        ), tag


def test_scalars_are_those_of_the_metrics(here: Path) -> None:
    pytest.importorskip("tensorboard")
    assert main(["train", *CHOICES, "--steps", "5"]) == 0
    run = here / "runs" / "text-1"
    assert set(expected(run)) == {
        "loss",
        "learning_rate",
        "gradient_norm",
        "tokens_per_second",
        "validation_loss",
    }
    assert_same(run)
    assert main(["train", *TINY, "--steps", "2", "--tensorboard"]) == 0
    assert set(expected(here / "runs" / "story-1")) >= {"final_loss"}
    assert_same(here / "runs" / "story-1")


def test_a_run_that_goes_on_has_each_step_once(here: Path) -> None:
    """Also where the one before was killed after its last checkpoint: what it had written then is
    left out.
    """
    pytest.importorskip("tensorboard")
    from tinygpt.runs.metrics import EventFile

    assert main(["train", *CHOICES, "--steps", "6", "--until", "3"]) == 0
    run = here / "runs" / "text-1"
    ghost = EventFile(run, 3)
    for step in (4, 5):
        ghost.add(
            {
                "step": step,
                "loss": 99.0,
                "lr": 99.0,
                "gradient_norm": None,
                "validation_loss": math.pi,
            }
        )
    ghost.close()
    assert main(["train", "--resume", "text-1"]) == 0
    assert len(list(run.glob("events.out.tfevents.*"))) == 3
    assert_same(run)


def test_without_the_flag_there_is_no_file_and_no_import(here: Path) -> None:
    assert main(["train", *TINY, "--steps", "1"]) == 0
    assert list(here.rglob("events.*")) == []


def test_a_missing_package_is_explained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorboard" else find(name, *rest),
    )
    refused(
        capsys,
        "train",
        *CHOICES,
        says="--tensorboard needs the package tensorboard, which is not here\n"
        "install it: pip install 'tinygpt[tensorboard]'",
    )
