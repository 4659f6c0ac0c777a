"""Runs whose files were edited by hand, or are in use: told in two lines, and nothing is changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tinygpt.program import refused, sampled
from tinygpt import runs
from tinygpt.__main__ import main


def test_a_run_is_trained_by_one_process_at_a_time(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("fcntl")
    with runs.alone(run):
        refused(capsys, "train", "--resume", "story-1", says="is being trained by another process")
        assert sampled(capsys, "story-1", "--length", "3")  # looking at it is allowed
    with runs.alone(run):  # free again
        pass


@pytest.mark.parametrize(
    ("part", "name", "value", "says"),
    [
        ("training", "text", 5, "text 5: text is needed"),
        ("training", "seed", "a", "seed 'a': a whole number is needed"),
        ("training", "lr", True, "lr True: a number is needed"),
        ("model", "dropout", "x", "dropout 'x': a number is needed"),
        ("model", "bias", 1, "bias 1: true or false is needed"),
        ("training", "text", "", "text is empty"),
    ],
)
def test_choices_of_the_wrong_kind(part: str, name: str, value: object, says: str, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "config.json"
    choices = json.loads(path.read_text())
    choices[part][name] = value
    path.write_text(json.dumps(choices))
    for command in (["sample"], ["train", "--resume", "story-1"], ["eval"]):
        refused(capsys, *command, says=says)


@pytest.mark.parametrize("step", [-5, 10**30, 4, "two", 1.5, True])
def test_steps_that_cannot_be(step: object, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "state.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "step": step}))
    refused(capsys, "train", "--resume", "story-1", says="state.json in runs/story-1 does not fit this run")


def test_metrics_that_are_no_text_do_not_stop_a_training(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = run / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "step": 2}))
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\n")
    assert main(["train", "--resume", "story-1"]) == 0
