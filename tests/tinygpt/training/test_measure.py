"""Measuring on the way takes a bounded share of the work, on windows that no clock chooses."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.program import TINY, losses
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig, floor, story
from tinygpt.__main__ import main
from tinygpt.data.prepare import prepare
from tinygpt.runs import metrics
from tinygpt.runs import run as runs
from tinygpt.training.measure import mean_loss, rows_between
from tinygpt.training.step import learning_rate

TEXT = ["--text", "text.txt", "--validation", "0.5"]


@pytest.fixture(autouse=True)
def text(here: Path) -> None:
    (here / "text.txt").write_text(story() * 8, encoding="utf-8")


def test_measuring_takes_a_tenth_of_the_work_at_most() -> None:
    """A token that is learned from costs three times a token that is measured."""
    for share, evaluate, batch, accumulation in (
        (0.1, 5, 8, 1),
        (0.1, 2, 8, 3),
        (0.3, 3, 4, 1),
        (0.01, 40, 4, 1),
    ):
        config = TrainConfig(
            text="text.txt",
            validation=0.5,
            evaluate=evaluate,
            evaluate_share=share,
            batch=batch,
            accumulation=accumulation,
        )
        data = prepare(config, 8)
        rows = rows_between(data, config)
        learned, measured = 3 * 8 * batch * accumulation * evaluate, 8 * len(rows)
        assert measured / (measured + learned) <= share
        assert 2 * measured / (2 * measured + learned) > share
        assert set(np.diff(rows)) == {rows[1]}
        assert data.validation is not None
        assert len(data.validation) - rows[-1] <= rows[1]


def test_one_window_at_least_and_all_where_they_are_few_or_asked_for() -> None:
    options = {"text": "text.txt", "validation": 0.5, "batch": 1, "evaluate": 1}
    counts = {"evaluate_share": [0.001, 1.0], "evaluate": [1000]}
    found = []
    for name, values in counts.items():
        for value in values:
            config = TrainConfig(**{**options, name: value})
            data = prepare(config, 8)
            assert data.validation is not None
            found.append((len(rows_between(data, config)), len(data.validation)))
    assert found == [(1, 75), (75, 75), (75, 75)]


def test_no_loss_is_read_before_the_last_batch_was_asked_for() -> None:
    """Between two of them, a GPU that must answer would have no work."""
    order: list[str] = []

    class Loss:
        def __float__(self) -> float:
            order.append("read")
            return 2.0

    def objective(*_: Any) -> Any:
        order.append("asked")
        return Loss()

    data = prepare(TrainConfig(text="text.txt", validation=0.5), 8)
    model = GPT(GPTConfig(data.tokenizer.size, 8, 8, 1, 1))
    assert mean_loss(model, data.windows, 16, np.arange(48), objective) == 3 * 2 / (48 * 8)
    assert order == ["asked"] * 3 + ["read"] * 3


def test_what_was_measured_on_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """On the way some windows; at the end all of them, with the loss that `eval` finds again."""
    assert main(["train", *TINY, *TEXT, "--steps", "20", "--evaluate", "10"]) == 0
    out, err = capsys.readouterr()
    assert "\nmeasured  every 10 steps on 13 of the others, at the end on all\n" in out
    assert re.findall(r"step (\d+): validation loss \S+ on 13 windows\n", err) == ["10", "20"]
    measured = [record for record in losses(Path("runs/text-1")) if "validation_loss" in record]
    assert [(record["step"], record["windows"]) for record in measured] == [
        (10, 13),
        (20, 13),
        (20, 75),
    ]
    run, model, _ = runs.load(Path("runs/text-1"))
    data = prepare(run.training, 8)
    assert data.validation is not None
    rows = rows_between(data, run.training)
    last = measured[-1]["validation_loss"]
    assert last == pytest.approx(mean_loss(model, data.validation), rel=1e-6)
    best = mean_loss(model, data.validation, rows=rows)
    assert measured[-2]["validation_loss"] == pytest.approx(best, rel=1e-6)
    assert f"validation loss {last:.4f}: the mean over all 75 windows" in out
    assert f"at best {best:.4f} on 13 of them, after step 20\n" in out
    state = json.loads(Path("runs/text-1/state.json").read_text())
    assert (state["loss"], state["best"]) == (last, measured[-2]["validation_loss"])
    found = metrics.read(Path("runs/text-1/metrics.jsonl")).validation
    assert found == [(10, measured[0]["validation_loss"]), (20, last)]
    assert main(["eval"]) == 0
    assert f"\nloss        {last:.4f} nats" in capsys.readouterr().out


def test_the_end_is_measured_after_early_stopping(capsys: pytest.CaptureFixture[str]) -> None:
    """Not where more steps are to come."""
    choices = [*TINY, *TEXT, "--steps", "50", "--evaluate", "2", "--lr", "1e-30", "--patience", "2"]
    assert main(["train", *choices, "--until", "3"]) == 0
    assert "the mean over" not in capsys.readouterr().out
    assert main(["train", "--resume", "text-1"]) == 0
    out = capsys.readouterr().out
    assert "stopped after step 6: 2 measurings in a row gave no loss below" in out
    assert "the mean over all 75 windows" in out


def test_the_floor_of_train_and_eval_is_one_number(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a text that is measured on itself both measure the same windows."""
    assert main(["train", *TINY, "--steps", "3"]) == 0
    said = re.search(r"loss (\S+): the mean over all 141 windows", capsys.readouterr().out)
    assert said is not None
    assert main(["eval"]) == 0
    out = capsys.readouterr().out
    assert f"\nloss        {said[1]} nats a character, the mean over 1,128 targets\n" in out
    least = floor(CharacterTokenizer(story()).encode(story()), 8)
    assert f"\nfloor       {least:.4f}: no model can be better on such windows; " in out


# -- after the last step


def test_a_run_goes_on_after_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """The learning rate is that of a run of so many steps; the warm-up and the measurings stay."""
    assert main(["train", *TINY, *TEXT, "--steps", "10", "--evaluate-share", "0.02"]) == 0
    assert main(["train", "--resume", "text-1", "--steps", "10"]) == 2
    assert main(["train", "--resume", "text-1"]) == 2
    out, err = capsys.readouterr()
    assert "--steps 10: runs/text-1 has taken 10 steps already\n" in err
    assert "train further: tinygpt train --resume runs/text-1 --steps 20" in err
    assert main(["train", "--resume", "text-1", "--steps", "30", "--until", "20"]) == 0
    out = capsys.readouterr().out
    before = learning_rate(9, TrainConfig(steps=10))
    now = learning_rate(10, TrainConfig(steps=30, warmup=1))
    said = f"learning rate {before:.1e} so far, now {now:.1e}, falling"
    assert f"\nschedule  until step 30; {said}\n" in out
    assert main(["train", "--resume", "text-1"]) == 0
    whole = ["--steps", "30", "--warmup", "1", "--evaluate", "1"]
    assert main(["train", *TINY, *TEXT, *whole, "--until", "1"]) == 0
    one, two = (json.loads(Path(f"runs/text-{n}/config.json").read_text()) for n in (1, 2))
    assert {**one["training"], "evaluate_share": 0.1} == two["training"]
    steps = [record for record in losses(Path("runs/text-1")) if "lr" in record]
    assert [record["step"] for record in steps] == list(range(1, 31))
    assert (steps[9]["lr"], steps[10]["lr"]) == (before, now)
    assert steps[29]["lr"] < now / 5


def test_a_run_that_was_killed_after_its_last_step_gets_its_picture(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    for number, what in enumerate(("measure", "draw"), start=1):
        with monkeypatch.context() as patch:
            patch.setattr(f"tinygpt.training.loop.Training.{what}", killed)
            with pytest.raises(Killed):
                main(["train", *TINY, "--steps", "3"])
        run = Path(f"runs/story-{number}")
        assert not (run / runs.PICTURE).exists()
        assert main(["train", "--resume", run.name]) == 0
        assert "loss.png there shows the curve" in capsys.readouterr().out
        assert (run / runs.PICTURE).exists()
        assert losses(run)[-1]["windows"] == 141
        assert main(["train", "--resume", run.name]) == 2
    os.utime(run / runs.PICTURE, (0, 0))  # of an earlier step
    assert main(["train", "--resume", run.name]) == 0


def test_one_of_a_thing_is_singular(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("text.txt").write_text("The cat sat on the mat. It ran.")
    one = ["--layers", "1", "--heads", "1", "--batch", "1", "--steps", "1", "--width", "8"]
    assert main(["train", "--text", "text.txt", *one, "--context", "8", "--out", "one"]) == 0
    assert main(["eval", "one"]) == 0
    assert main(["plan", *one]) == 0
    assert main(["train", *one, "--context", "148"]) == 0
    out = capsys.readouterr().out
    for said in (
        "1 layer of width 8, 1 head",
        "1 step of 1 window: ",
        "the one window that was not",
    ):
        assert said in out
    assert "tokens: 1 window of 32" in out
    assert "the mean over 1 window, " in out
    plurals = "windows|steps|layers|heads|tokens|targets|bytes|characters|files|measurings"
    assert not re.findall(rf"\b1 ({plurals})\b", out)
