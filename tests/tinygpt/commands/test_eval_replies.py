"""`tinygpt eval` of a reward model and of aligned runs.   Tests: commands/replies.py"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.program import refused
from tinygpt.__main__ import main
from tinygpt.data import finetuning
from tinygpt.data.preferences import Preferences, read_preferences
from tinygpt.data.questions import questions
from tinygpt.data.replies import preferences, reply
from tinygpt.model.aligned import Aligned
from tinygpt.runs import run as runs

BASE = "train --text grammar --context 256 --width 16 --heads 2 --layers 1 --batch 2 --steps 1"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main(list(words)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def copied(folder: Path, name: str) -> str:
    return str(shutil.copytree(folder / name, Path(name)))


def test_a_reward_model_orders_what_was_kept_back(
    preferring: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(preferring, "reward")
    (Path(run) / "calibration.png").unlink()  # the training drew one
    out = said(capsys, "eval", run)
    _, model, tokenizer = runs.load(Path(run), best=True)
    _, kept = read_preferences(str(preferring / "preferences.jsonl"), 0.2)
    x, _ = Preferences(kept, tokenizer, 48)[np.arange(len(kept))]  # type: ignore[arg-type]
    ends = (x.ids == 2).sum(axis=-1) - 1  # <|end|> is id 2, and the last token of a reply
    assert (ends == 0).all()
    places = np.argmax(x.ids == 2, axis=-1)
    scores = np.array(
        [[model(row[: n + 1]).numpy()[0, -1, 0] for row, n in zip(*pair, strict=True)]
         for pair in zip(x.ids, places, strict=True)]
    )  # fmt: skip
    gaps = (scores[:, 0] - scores[:, 1]).astype(np.float64)
    loss, right = np.log1p(np.exp(-gaps)).mean(), int((gaps > 0).sum())
    assert f"loss        {loss:.4f} nats a pair, the mean over 18 pairs" in out
    assert f"right       {right / 18:.1%}, {right} of 18 pairs; a guess is right in 50%" in out
    assert "against" not in out  # no rule knows kinds of these pairs
    assert (Path(run) / "calibration.png").exists()


def test_pairs_of_another_file(
    preferring: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Turned pairs are right where the others were wrong."""
    run = copied(preferring, "reward")
    pair = {"prompt": "say red", "better": "red", "worse": "owl"}
    turned = pair | {"better": "owl", "worse": "red"}
    Path("two.jsonl").write_text(f"{json.dumps(pair)}\n{json.dumps(turned)}\n")
    assert "two.jsonl: 2 pairs\n" in said(capsys, "eval", run, "--data", "two.jsonl")
    assert "50.0%, 1 of 2 pairs" in said(capsys, "eval", run, "--data", "two.jsonl")
    refused(capsys, "eval", run, "--text", "two.jsonl", says="learned from pairs of replies")
    refused(capsys, "eval", run, "--beam", "2", says="learned from pairs of replies")
    Path("one.jsonl").write_text('{"prompt": "say red"}\n')
    refused(capsys, "eval", run, "--data", "one.jsonl", says="line 1 is no pair")


@pytest.mark.parametrize("method", ["ppo", "dpo"])
def test_an_aligned_run_is_compared_with_its_reference(
    method: str, preferring: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copied(preferring, method)
    out = said(capsys, "eval", run)
    table = out[out.index(" reference ") :].splitlines()
    numbers = {line.split()[0]: line.split()[1:] for line in table[1:5] if line}
    assert numbers["kl"][0] == "0.000"  # of the reference to itself
    assert numbers["kl"] != ["0.000", "0.000"]
    assert ("reward" in numbers) == (method == "ppo")
    assert ("nats a pair" in out) == (method == "dpo")
    assert out.count("\npolicy  ") == 3
    assert "true score" not in out  # no rule knows the truth
    _, model, _ = runs.load(Path(run), plain=False)
    assert isinstance(model, Aligned)


def test_built_in_pairs_have_kinds_and_true_scores(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(finetuning, "preferences", partial(preferences, learned=40, measured=20))
    few = partial(questions, learned=4, measured=4, reply=reply)
    monkeypatch.setattr(finetuning, "replies", few)
    quick = ["--steps", "2", "--batch", "2", "--snapshots", "0"]
    assert main([*BASE.split(), "--snapshots", "0", "--out", "base"]) == 0
    assert main(["finetune", "base", "--data", "replies", *quick, "--out", "run"]) == 0
    capsys.readouterr()
    assert main(["reward", "run", *quick, "--out", "reward"]) == 0
    assert "of 20 pairs; a guess is right in 50%\n" in capsys.readouterr().out
    assert Path("reward/calibration.png").exists()
    assert "right and kind against wrong\n" in said(capsys, "eval", "reward")
    how = ["--reward", "reward", "--length", "3", *quick, "--out", "aligned"]
    assert main(["align", "run", *how]) == 0
    out = said(capsys, "eval", "aligned")
    assert "\ntrue score      0.000     0.000\n" in out
    assert "true score 0\n" in out
    monkeypatch.setattr(finetuning, "preferences", partial(preferences, learned=41, measured=20))
    says = (
        "makes other 'preferences' than reward learned from\ntake the version that trained it, or"
    )
    refused(capsys, "eval", "reward", says=says)
