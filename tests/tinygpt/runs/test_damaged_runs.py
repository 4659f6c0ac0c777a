"""Runs whose files were edited by hand, or are in use: two lines say so, and nothing changes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.program import TINY, refused, sampled
from tinygpt.__main__ import main
from tinygpt.runs.ownership import Owner


def test_a_run_is_trained_by_one_process_at_a_time(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("fcntl")
    with Owner(run):
        refused(capsys, "train", "--resume", "story-1", says="is being trained by another process")
        assert sampled(capsys, "story-1", "--length", "3")  # looking at it is allowed
    with Owner(run):  # free again
        pass


@pytest.mark.parametrize(
    ("part", "name", "value", "says"),
    [
        ("training", "text", 5, "got `int` - at `$.training.text`"),
        ("training", "seed", "a", "Expected `int`, got `str` - at `$.training.seed`"),
        ("training", "lr", True, "Expected `float`, got `bool` - at `$.training.lr`"),
        ("model", "dropout", "x", "Expected `float`, got `str` - at `$.model.dropout`"),
        ("model", "bias", 1, "Expected `bool`, got `int` - at `$.model.bias`"),
        ("training", "text", "", "text is empty"),
    ],
)
def test_choices_of_the_wrong_kind(
    part: str, name: str, value: object, says: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run / "config.json"
    choices = json.loads(path.read_text())
    choices[part][name] = value
    path.write_text(json.dumps(choices))
    for command in (["sample"], ["train", "--resume", "story-1"], ["eval"]):
        refused(capsys, *command, says=says)


OPTIMIZER = {"lr": 0.1, "counts": {"a": 1}}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("step", value) for value in (-5, 10**30, 4, "two", 1.5, True, None, [])),
        *(("best", value) for value in (2.0, "x", 1e999, [1])),
        *(("best_step", value) for value in (1, 4, -1, 1e3)),
        *(("worse", value) for value in (4, -1, "x", 0.5)),
        *(("loss", value) for value in ("x", float("nan"), float("inf"), {})),
        *(
            ("files", value)
            for value in (
                [],
                {"model.safetensors": 1},
                {"model.safetensors": {"size": -1, "sha256": "0" * 64}},
                {"x": {"size": 1, "sha256": "g" * 64}},
            )
        ),
        ("surprise", 1),
        *(
            ("optimizer", value)
            for value in (
                None,
                3,
                {},
                {"lr": 0.1},
                OPTIMIZER,
                {**OPTIMIZER, "lr": "x"},
                {**OPTIMIZER, "counts": 5},
                {**OPTIMIZER, "x": 1},
            )
        ),
        *(("optimizer.lr", value) for value in (-1.0, "x", float("nan"), None)),
        *(("optimizer.counts.final_norm.gain", value) for value in (-1, 4, 2**60, 1.5, "x", None)),
        # of float32 there is none
        *(("optimizer.loss_scale", value) for value in ({"value": 1.0, "good": 0}, 5)),
    ],
)
def test_a_state_that_no_training_wrote(
    name: str, value: Any, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Found before a step is taken, whatever it is."""
    path = run / "state.json"
    state = json.loads(path.read_text())
    part, *rest = name.split(".", 2)
    if len(rest) == 2:
        state[part][rest[0]][rest[1]] = value
    elif rest:
        state[part][rest[0]] = value
    else:
        state[part] = value
    path.write_text(json.dumps(state))
    refused(capsys, "train", "--resume", "story-1", says="state.json")


@pytest.mark.parametrize(
    "scale",
    [
        None,
        {"value": 0.0, "good": 0},
        {"value": 1e300, "good": 0},
        {"value": 2.0, "good": 2000},
        {"value": "x", "good": 0},
    ],
)
def test_a_loss_scale_that_cannot_be(
    scale: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *TINY, "--dtype", "float16", "--steps", "3", "--until", "1"]) == 0
    path = here / "runs/story-1/state.json"
    state = json.loads(path.read_text())
    state["optimizer"]["loss_scale"] = scale
    path.write_text(json.dumps(state))
    capsys.readouterr()
    refused(capsys, "train", "--resume", "story-1", says="state.json")


def stands_at(run: Path, step: int) -> None:
    """Let the checkpoint be one of that step."""
    state = json.loads((run / "state.json").read_text())
    state["step"] = step
    state["optimizer"]["counts"] = dict.fromkeys(state["optimizer"]["counts"], step)
    (run / "state.json").write_text(json.dumps(state))


@pytest.mark.parametrize(
    "tail",
    [
        b"\xff\xfe\n",
        b'{"step": 3, "loss',
        b'{"step": 1' + b"0" * 400 + b"}\n",
        b"[" * 100_000,
        b"[" * 50_000 + b"\n",
        b'{"loss": 1}\n',
        bytes(1 << 20),
    ],
)
def test_metrics_that_are_no_text_do_not_stop_a_training(tail: bytes, run: Path) -> None:
    """What is no line of ours goes, with what was noted after the checkpoint."""
    stands_at(run, 2)
    kept = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:2]
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(tail)
    assert main(["train", "--resume", "story-1"]) == 0
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert lines[:2] == kept
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 3]


def test_a_part_of_a_line_before_the_checkpoint_goes(run: Path) -> None:
    """A line that has not been ended would swallow the next one."""
    stands_at(run, 2)
    lines = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (run / "metrics.jsonl").write_bytes(lines[0] + lines[1][:-1])
    assert main(["train", "--resume", "story-1"]) == 0
    assert [
        json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()
    ] == [1, 3, 3]


@pytest.mark.skipif(os.name == "nt", reason="no FIFOs")
def test_metrics_that_are_no_file_are_refused(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stands_at(run, 2)
    (run / "metrics.jsonl").unlink()
    os.mkfifo(run / "metrics.jsonl")
    assert main(["train", "--resume", "story-1"]) == 2
    assert "metrics.jsonl cannot be read or cut (it is no regular file)" in capsys.readouterr().err
