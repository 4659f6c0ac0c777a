"""`tinygpt train --profile N`: what it counts is what ran, and the training is the one it would
have been.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import tensor
from tinygpt.__main__ import main
from tinygpt.training.profile import WARM, Profile
from tinygpt.training.reading import Moment, Reading
from tinygpt.training.step import StepRecord

SMALL = [
    "train",
    "--layers",
    "2",
    "--width",
    "8",
    "--heads",
    "2",
    "--context",
    "8",
    "--batch",
    "4",
    "--snapshots",
    "0",
]


def train(*flags: str) -> int:
    return main([*SMALL, *flags])


def losses(folder: Path) -> list[float]:
    return [
        json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]


def test_a_profile_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("--steps", "12", "--out", "plain") == 0
    capsys.readouterr()
    assert train("--steps", "12", "--out", "watched", "--profile", "4") == 0
    printed = capsys.readouterr().out
    assert losses(Path("plain")) == losses(Path("watched"))
    lines = printed.splitlines()
    rows = {
        line.split()[-1]: line.split()
        for line in lines
        if line.endswith(("blocks.*.attention.qkv", "loss", "linear", "Optimizer.step"))
    }
    assert rows["blocks.*.attention.qkv"][4] == "2"  # calls a step: one in each block
    assert rows["loss"][4] == rows["Optimizer.step"][4] == "1"
    # qkv and two projections in each block, and the head; more where compositions run
    assert int(rows["linear"][4]) >= 7
    assert max(map(len, lines[lines.index("") :])) <= 120
    events = json.loads(Path("watched/trace.json").read_text())["traceEvents"]
    assert sum(e["name"] == "Optimizer.step" for e in events) == 4
    assert sum(e["name"] == "cross_entropy" for e in events) == 4
    assert sum(e["name"] == "<- cross_entropy" for e in events) == 4


def test_shares_add_up_to_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("--steps", "8", "--profile", "2") == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(i for i, line in enumerate(lines) if line.endswith("module"))
    rows = lines[start + 1 : lines.index("", start)]
    total = float(
        next(line for line in lines if line.startswith("profile of 2 steps"))
        .split("the ops, ")[1]
        .split()[0]
    )
    assert sum(float(row.split()[0]) for row in rows) == pytest.approx(
        total, abs=0.005 * (len(rows) + 1)
    )
    assert sum(int(row.split()[1][:-1]) for row in rows) == pytest.approx(100, abs=len(rows) / 2)


def records(count: int) -> list[StepRecord]:
    start = Moment("cpu")
    return [StepRecord(i + 1, 0.1, 10, Reading(start, 1.0, 1.0)) for i in range(count)]


@pytest.mark.parametrize("count", [0, 1, WARM, WARM + 1, WARM + 2, WARM + 9])
def test_all_records_pass_through(count: int) -> None:
    profile = Profile(2)
    given = records(count)
    assert list(profile.watch(iter(given))) == given
    assert profile.recorded == given[WARM : WARM + 2]


def test_a_step_that_did_not_end_is_left_out() -> None:
    def stopped() -> Iterator[StepRecord]:
        for record in records(WARM + 1):
            tensor.ones(2).exp()
            yield record
        tensor.ones(2).log()

    profile = Profile(5)
    list(profile.watch(stopped()))
    assert profile.lines()[0].startswith("profile of 1 step: ")
    assert [line.split()[-1] for line in profile.lines() if line.endswith((" exp", " log"))] == [
        "exp"
    ]


def test_too_few_steps_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train("--steps", "2", "--out", "run", "--profile", "5") == 0
    assert "nothing was profiled" in capsys.readouterr().out
    assert json.loads(Path("run/trace.json").read_text())["traceEvents"] == []


@pytest.mark.parametrize("given", ["0", "-3", "1001", "x", "1.5"])
def test_a_wrong_count(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--profile", given) == 2
    assert "--profile" in capsys.readouterr().err
