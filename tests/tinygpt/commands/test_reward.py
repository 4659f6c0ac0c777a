"""`tinygpt reward`: from a run that answers to one that scores replies.   Tests:
commands/reward.py, training/starting.py
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.program import losses, refused
from tinygpt.__main__ import main
from tinygpt.runs import run as runs

WORDS = ["one", "two", "six", "ten", "red", "blue", "green", "cat", "dog", "owl"]
STEPS = ["--data", "pairs.jsonl", "--steps", "6", "--batch", "4", "--snapshots", "2"]


@pytest.fixture
def asked(answering: Path, here: Path) -> str:
    """A run that answers, and pairs beside it: a word is better than two."""
    lines = [{"prompt": f"say {word}", "better": word, "worse": f"{word} {word}"} for word in WORDS]
    Path("pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(answering)


def test_a_reward_model_prefers_the_better_replies(
    asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also to questions that were kept back; the run it starts from stays."""
    before = {path.name: path.read_bytes() for path in Path(asked).iterdir() if path.is_file()}
    flags = ["--steps", "80", "--lr", "0.01", "--validation", "0.3", "--out", "judge"]
    assert main(["reward", asked, *STEPS, *flags]) == 0
    said = capsys.readouterr().out
    assert "pairs     7 of at most 48 bytes, and 3 others to measure on" in said
    assert "loss      0.693 nats a pair is ln(2): a model that knows nothing" in said
    assert f"tinygpt align {asked} --reward judge --data pairs.jsonl\n" in said
    after = {path.name: path.read_bytes() for path in Path(asked).iterdir() if path.is_file()}
    assert after == before
    run, model, _ = runs.load(Path("judge"), best=True)
    assert (run.kind, run.stage, run.model.labels) == ("gpt-classifier", "reward", ("reward",))
    assert not run.answers
    measured = [x["validation_loss"] for x in losses(Path("judge")) if "validation_loss" in x]
    assert min(measured) < 0.1
    own, started = model.state_dict(), load_file(Path(asked, "model.safetensors"))
    assert set(own) == {*started, "head.weight"}
    assert not any(np.array_equal(own[name].numpy(), x) for name, x in started.items())


@pytest.mark.parametrize(
    "more", [["--accumulation", "3"], ["--dtype", "float16", "--optimizer", "muon"]]
)
def test_a_stopped_reward_model_goes_on_with_the_same_bits(
    more: list[str], asked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next command has a place for the run to align, which a resumed run does not know."""
    assert main(["reward", asked, *STEPS, *more, "--out", "whole"]) == 0
    assert main(["reward", asked, *STEPS, *more, "--out", "parts", "--until", "2"]) == 0
    capsys.readouterr()
    assert main(["reward", "--resume", "parts"]) == 0
    said = capsys.readouterr().out
    assert "tinygpt align RUN --reward parts --data pairs.jsonl\n" in said
    for name in ("model.safetensors", "optimizer.safetensors", "best.safetensors"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes(), name


def test_unknown_characters_are_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the number of the pair."""
    shape = "--width 8 --heads 2 --layers 1 --context 32 --snapshots 0 --steps 1 --validation 0"
    Path("text.txt").write_text("say red or blue\n" * 20)
    Path("tune.jsonl").write_text('{"instruction": "say red", "answer": "red"}\n')
    Path("pairs.jsonl").write_text(
        '{"prompt": "say red", "better": "red", "worse": "blue"}\n'
        '{"prompt": "say blue", "better": "blue", "worse": "QED"}\n'
    )
    assert main(["train", "--text", "text.txt", *shape.split(), "--out", "base"]) == 0
    quick = ["--steps", "1", "--snapshots", "0", "--validation", "0", "--out"]
    assert main(["finetune", "base", "--data", "tune.jsonl", *quick, "tuned"]) == 0
    capsys.readouterr()
    for command in (["reward", "tuned"], ["align", "tuned", "--method", "dpo"]):
        flags = ["--data", "pairs.jsonl", *quick, "x"]
        refused(capsys, *command, *flags, says="pair 2 of 2 pairs: ")
