"""A GPT that learns from the examples in a text, from the command line: trained, resumed, measured,
looked at.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor import Generator, Tensor
from tests.helpers.program import losses, refused
from tinygpt import GPT, GPTConfig
from tinygpt.__main__ import main
from tinygpt.commands.eval import hash_of
from tinygpt.data import prepare
from tinygpt.data.in_context import TASKS, InContext, task_tokenizer
from tinygpt.runs import run as runs
from tinygpt.training.measure import right_answers

SMALL = "--width", "8", "--heads", "2", "--batch", "4"


@pytest.fixture(autouse=True)
def fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    """80 texts to measure on take a moment."""
    monkeypatch.setattr(prepare, "MEASURED", 80)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("task", TASKS)
def test_trained_and_asked(here: Path, capsys: pytest.CaptureFixture[str], task: str) -> None:
    said = shown(capsys, "train", "--task", task, *SMALL, "--steps", "6")
    assert f"text      {task}: new texts each time" in said
    assert "texts     new ones each time, of" in said
    assert "characters, and 80 others to measure on" in said
    assert "24 of the texts, once each" in said
    assert "0.000 is the floor: no model can be better on such texts" in said
    assert f"right answers by the number of examples: tinygpt eval runs/{task}-1" in said
    run, model, tokenizer = runs.load(Path(f"runs/{task}-1"), best=True)
    assert run.kind == "gpt"
    before = {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}

    measured = shown(capsys, "eval")
    assert f"{task}: 80 texts, of rules that were not learned from" in measured
    assert "bits" not in measured
    examples = re.findall(r"examples +0 +1 +2 +4 +8   in the text before", measured)
    shares = re.findall(r"right((?: +[\d.]+%){5})   of answers by unseen rules", measured)
    assert len(examples) == len(shares) == 1
    assert f"chance      {1 / TASKS[task].answers:8.1%}   a guess" in measured
    own = hash_of(model)
    assert f"weights     {own[:16]} before all answers, the same after" in measured
    assert "induction   layer 0: 0." in measured
    kept: Any = InContext(task, run.model.context, 0, tokenizer, 80)
    right = right_answers(model, kept)
    asked = [right[n] for n in (0, 1, 2, 4, 8)]
    assert shares[0].split() == [f"{hits / count:.1%}" for hits, count in asked]

    assert shown(capsys, "sample", "--length", "3", "--prompt", run.opening).startswith(run.opening)
    assert shown(capsys, "plan", "--task", task, *SMALL).startswith(
        f"model        {sum(p.size for p in model.parameters()):,} parameters"
    )
    assert f"T {run.model.context} places" in shown(capsys, "inspect")
    assert before == {path: path.read_bytes() for path in before}
    if task == "map":
        shown(capsys, "look")
        assert (run.folder / "look.html").exists()
        assert shown(capsys, "step", "--plain", "--show", "loss")


def test_goes_on_as_if_it_had_never_stopped(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = "train", "--task", "map", *SMALL, "--steps", "8", "--evaluate", "4"
    shown(capsys, *train, "--out", "whole")
    shown(capsys, *train, "--out", "parts", "--until", "3")
    shown(capsys, "train", "--resume", "parts")
    for name in ("model.safetensors", "best.safetensors", "optimizer.safetensors"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes()
    steps = [[r["loss"] for r in losses(Path(name)) if "lr" in r] for name in ("whole", "parts")]
    assert steps[0] == steps[1]
    shown(capsys, "train", "--init", "whole", "--task", "map", "--seed", "5", "--steps", "2")


def test_what_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = "train", "--task", "copy", "--steps", "2", *SMALL
    for flag, value in (("validation", "0.2"), ("stride", "2"), ("tokens", "9")):
        says = f"--{flag} cannot be chosen with --task copy, which makes its own texts"
        refused(capsys, *train, f"--{flag}", value, says=says)
    refused(capsys, *train, "--tokenizer", "byte", says="--tokenizer cannot be chosen")
    refused(capsys, *train, "--text", "t.txt", says="makes its own examples: leave out text")
    refused(capsys, *train, "--context", "9", says="use a --context of at least 19")
    shown(capsys, *train, "--layers", "1", "--out", "r")
    says = "use another text, or train without --init"
    refused(capsys, "train", "--init", "r", "--task", "map", says=says)
    refused(capsys, "train", "--init", "r", "--task", "sort", says="its kind of model is gpt")


def test_a_masked_text_may_choose_what_is_kept_back(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.txt").write_text("the cat sat on the mat\n" * 12)
    flags = "--text", "t.txt", "--task", "masked", "--context", "16", "--validation", "0.3"
    said = shown(capsys, "train", *flags, *SMALL, "--steps", "2", "--out", "r")
    assert "the last 82 characters, not learned from" in shown(capsys, "eval", "r"), said


class Reader:
    """A model that answers a letter with what stood after it before, and else with a 0."""

    def __call__(self, x: Any) -> Tensor:
        logits = np.zeros((*x.shape, 36))
        for row, ids in enumerate(x):
            noted = dict[int, int]()
            for place, token in enumerate(ids):
                if place:
                    noted[int(ids[place - 1])] = int(token)
                logits[row, place, noted.get(int(token), 26)] = 1
        return Tensor(logits)


def test_right_answers_of_a_model_that_reads_its_text() -> None:
    """With an example all are right, and with none the tenth that a guess hits."""
    texts = InContext("map", 36, 0, task_tokenizer("map"), measured=500)
    right = right_answers(Reader(), texts)
    assert sorted(right) == [0, 1, 2, 4, 8]
    assert right[0][1] == 500
    assert 20 < right[0][0] < 80
    assert all(right[n][0] == right[n][1] for n in (1, 2, 4, 8))
    assert sum(right[n][1] for n in (1, 2, 4, 8)) == 500


def test_the_hash_sees_every_weight() -> None:
    """A change of one number in any weight gives another hash, and back the first one."""
    model = GPT(GPTConfig(5, 4, width=4, heads=1, layers=1), generator=Generator(0))
    before = hash_of(model)
    for weight in model.state_dict().values():
        first = weight.array.flat[0]
        weight.array.flat[0] = first + 1
        assert hash_of(model) != before
        weight.array.flat[0] = first
    assert hash_of(model) == before
