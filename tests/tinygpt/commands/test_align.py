"""`tinygpt align`: from a run that answers to one that answers better.   Tests: commands/align.py,
training/aligning.py, training/starting.py
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.program import losses, refused
from tinygpt.__main__ import main
from tinygpt.runs import run as runs

STEPS = ["--data", "pairs.jsonl", "--steps", "6", "--batch", "4", "--snapshots", "2"]
PPO = ["align", "run", "--reward", "judge", *STEPS]
DPO = ["align", "run", "--method", "dpo", *STEPS]
WORDS = ["one", "two", "six", "ten", "red", "blue", "green", "cat", "dog", "owl"]


@pytest.fixture
def asked(answering: Path, here: Path) -> Path:
    """A run that answers, pairs of replies, and a reward model that has seen them."""
    shutil.copytree(answering, "run")
    shutil.copytree(answering.parent / "base", "base")
    lines = [{"prompt": f"say {word}", "better": f"{word}!", "worse": word} for word in WORDS]
    lines = [line | {"input": "as it is" * (i % 2)} for i, line in enumerate(lines)]
    Path("pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return here


@pytest.fixture
def judged(asked: Path) -> Path:
    """Beside them a reward model."""
    assert main(["reward", "run", *STEPS, "--steps", "40", "--lr", "0.01", "--out", "judge"]) == 0
    return asked


def same(one: str, other: str, *files: str) -> None:
    """All files of both runs have the same bits, and their metrics but the seconds."""
    for name in (f"{name}.safetensors" for name in files):
        assert Path(one, name).read_bytes() == Path(other, name).read_bytes(), name
    states = [json.loads(Path(folder, "state.json").read_text()) for folder in (one, other)]
    assert states[0] == states[1]
    noted = [
        [{**record, "seconds": 0} for record in losses(Path(folder))] for folder in (one, other)
    ]
    assert noted[0] == noted[1]
    assert {path.name for path in Path(one).iterdir()} == {
        path.name for path in Path(other).iterdir()
    }


@pytest.mark.parametrize(
    "more",
    [
        ["--kl-target", "0.01"],
        ["--optimizer", "muon", "--dtype", "float16", "--lr", "0.1"],
        ["--batches", "random", "--recompute", "--epochs", "1", "--minibatches", "3"],
    ],
)
def test_a_stopped_ppo_goes_on_with_the_same_bits(more: list[str], judged: Path) -> None:
    """Without its base and without the reward run, which the folder has."""
    before = {path: path.read_bytes() for path in Path().glob("*/*.safetensors")}
    assert main([*PPO, *more, "--out", "whole"]) == 0
    assert main([*PPO, *more, "--out", "parts", "--until", "1"]) == 0
    assert all(path.read_bytes() == content for path, content in before.items())
    kept = Path("parts/base.safetensors").stat().st_mtime_ns
    for folder in ("run", "judge"):
        shutil.rmtree(folder)
    for until in (["--until", "3"], ["--until", "4"], []):
        assert main(["align", "--resume", "parts", *until]) == 0
    assert Path("parts/base.safetensors").stat().st_mtime_ns == kept  # written once
    same("whole", "parts", "model", "optimizer", "base")
    prices = [record["kl_price"] for record in losses(Path("whole"))]
    assert len(set(prices)) == (6 if "--kl-target" in more else 1)


@pytest.mark.parametrize("more", [[], ["--accumulation", "3", "--dtype", "bfloat16"]])
def test_a_stopped_dpo_goes_on_with_the_same_bits(more: list[str], asked: Path) -> None:
    assert main([*DPO, *more, "--out", "whole"]) == 0
    assert main([*DPO, *more, "--out", "parts", "--until", "1"]) == 0
    for until in (["--until", "4"], []):
        assert main(["align", "--resume", "parts", *until]) == 0
    same("whole", "parts", "model", "optimizer", "base", "best")


def test_ppo_raises_the_reward_and_the_models_beside_it_stay(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--steps", "40", "--lr", "0.01", "--batch", "16", "--kl", "0.05"]
    assert main([*PPO, *flags, "--out", "al"]) == 0
    said = capsys.readouterr().out
    assert "measured  the replies at the end to the others" in said
    assert "nats a pair" not in said
    assert "replies to 1 prompt, not learned from:" in said
    steps = losses(Path("al"))
    assert abs(steps[0]["reward"]) < 1  # standardised
    assert np.mean([x["reward"] for x in steps[-5:]]) > steps[0]["reward"] + 1
    assert max(x["gap"] for x in steps) < 1e-5
    assert {"reward", "kl", "entropy", "clipped", "length", "kl_price"} <= set(steps[0])
    staying, learned = load_file("al/base.safetensors"), load_file("al/model.safetensors")
    of = {"reference": load_file("run/model.safetensors")}
    of["reward"] = load_file("judge/best.safetensors")
    for name, x in staying.items():
        model, _, rest = name.partition(".")
        if model in of:
            assert np.array_equal(x, of[model][rest]), name
    assert {name.partition(".")[0] for name in staying} == {"reference", "reward", "mean", "spread"}
    for name, x in of["reference"].items():
        assert not np.array_equal(x, learned[f"policy.{name}"]), name
    assert all(learned[f"value.{name}"].any() for name in ("weight", "bias"))


def test_dpo_prefers_the_better_reply(asked: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its KL is measured beside the reference."""
    flags = ["--steps", "60", "--lr", "0.01", "--validation", "0", "--length", "6"]
    assert main([*DPO, *flags, "--out", "al"]) == 0
    said = capsys.readouterr().out
    assert "loss      0.693 nats a pair is ln(2): a model that knows nothing" in said
    assert "replies to 10 prompts, learned from:" in said
    assert float(said.partition("\nkl ")[2].split()[1]) > 0.1
    assert losses(Path("al"))[-1]["loss"] < 0.2


def test_a_reply_fits_the_context(asked: Path) -> None:
    """Of prompts after which there is little room."""
    lines = [{"prompt": "a" * (38 + i), "better": "b", "worse": "c"} for i in range(7)]
    Path("long.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    flags = ["--data", "long.jsonl", "--validation", "0", "--steps", "2", "--batch", "7"]
    assert main(["reward", "run", *flags, "--out", "judge"]) == 0
    assert main(["align", "run", "--reward", "judge", *flags, "--out", "al"]) == 0
    assert all(record["length"] <= 5 for record in losses(Path("al")))


# what is asked, and what is said
REFUSED: list[tuple[list[str], str]] = [
    (["align", "run", *STEPS], "PPO learns from the scores of a reward model, and none is named"),
    (["align", "base", "--reward", "judge", *STEPS], "teach it: tinygpt finetune base"),
    (["align", "judge", "--reward", "judge", *STEPS], "name one: tinygpt align RUN"),
    (["align", "run", "--reward", "run", *STEPS], "--reward run: it is a run of tinygpt finetune"),
    (["align", "run", "--reward", "none", *STEPS], "no run is named 'none'"),
    ([*PPO, "--true-score"], "no rule knows how good a reply to its prompts is"),
    ([*PPO, "--minibatches", "5"], "a rollout of 4 replies cannot be cut into more parts"),
    ([*PPO, "--accumulation", "2"], "a rollout is cut into --minibatches"),
    ([*PPO, "--patience", "2"], "--patience cannot be chosen with PPO"),
    ([*PPO, "--evaluate", "2"], "--evaluate cannot be chosen with PPO"),
    ([*PPO, "--evaluate-share", "1"], "--evaluate-share cannot be chosen with PPO"),
    ([*PPO, "--data", "nothing.jsonl"], "no file is named 'nothing.jsonl'"),
    ([*PPO, "--until", "7"], "--until 7: a step from 1 to 6"),
    ([*DPO, "--reward", "judge"], "--reward cannot be chosen with --method dpo"),
    ([*DPO, "--kl", "0"], "with beta 0 nothing is learned"),
    *(
        ([*DPO, f"--{name}", "1"], f"--{name} cannot be chosen with --method dpo")
        for name in ("kl-target", "epochs", "minibatches", "clip-range", "gamma", "gae")
    ),
    ([*DPO, "--true-score"], "no rule knows how good a reply to its prompts is"),
    (["align", "run", "--reward", "judge", "--validation", "0.2"], "keeps its own back"),
    (["align", "run", "--reward", "judge"], "do not fit a context of 48 tokens"),
]


def test_what_cannot_be_is_refused_and_leaves_nothing(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(Path().rglob("*"))
    for arguments, said in REFUSED:
        refused(capsys, *arguments, says=said)
        assert sorted(Path().rglob("*")) == before, arguments


def changed(folder: str, **values: Any) -> None:
    """Other values in config.json."""
    path = Path(folder, "config.json")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


def test_a_reward_model_must_read_what_the_policy_writes(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same tokens, and as many of them."""
    shape = "--width 8 --heads 2 --layers 1 --snapshots 0 --steps 1 --validation 0 --batch 2"
    text, tune = ["--text", str(judged / "text.txt")], ["--data", "tune.jsonl"]
    Path("text.txt").write_text("say one two six ten red blue green cat dog owl as it is!\n" * 5)
    Path("tune.jsonl").write_text('{"instruction": "say red", "answer": "red"}\n')
    hows = "--tokenizer byte --context 40", "--context 48", "--tokenizer byte --context 50"
    for name, how in zip(("short", "other", "wide"), hows, strict=True):
        assert main(["train", *text, *shape.split(), *how.split(), "--out", f"{name}-base"]) == 0
        quick = ["--steps", "1", "--snapshots", "0", "--validation", "0"]
        assert main(["finetune", f"{name}-base", *tune, *quick, "--out", f"{name}-run"]) == 0
        flags = ["--data", "pairs.jsonl", *quick, "--out", name]
        assert main(["reward", f"{name}-run", *flags]) == 0
    capsys.readouterr()
    ask = ["align", "run", *STEPS, "--out", "al", "--reward"]
    refused(capsys, *ask, "short", says="its context is 40, and that of run is 48")
    refused(capsys, *ask, "other", says="it reads other tokens than run writes")
    assert not Path("al").exists()
    assert main([*ask, "wide", "--until", "3"]) == 0  # of another size than the policy
    assert main(["align", "--resume", "al"]) == 0


def test_a_state_without_its_price_is_not_gone_on_with(
    judged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*PPO, "--out", "al", "--until", "2"]) == 0
    path = Path("al/state.json")
    state = json.loads(path.read_text())
    assert state["price"] == 0.1
    path.write_text(json.dumps(state | {"price": None}))
    capsys.readouterr()
    refused(capsys, "align", "--resume", "al", says="price None of a nat of KL")


def test_dropout_of_the_base_is_off(judged: Path) -> None:
    """With it the policy that is trained would not be the one that wrote the replies."""
    flags = "--data tune.jsonl --steps 1 --snapshots 0 --validation 0 --dropout 0.5 --out tuned"
    Path("tune.jsonl").write_text('{"instruction": "say red", "answer": "red"}\n')
    assert main(["finetune", "base", *flags.split()]) == 0
    assert main(["align", "tuned", "--reward", "judge", *STEPS, "--out", "al"]) == 0
    assert runs.load(Path("tuned"))[0].model.dropout == 0.5
    assert runs.load(Path("al"))[0].model.dropout == 0
    assert losses(Path("al"))[0]["gap"] < 1e-5


def test_an_aligned_run_is_a_run_as_any_other(judged: Path) -> None:
    """It has the policy alone, and can be aligned again; its reference is then the policy."""
    assert main([*PPO, "--out", "first"]) == 0
    run, model, _ = runs.load(Path("first"))
    assert (run.stage, run.kind, run.answers) == ("align", "gpt", True)
    policy = {name: x.numpy() for name, x in model.state_dict().items()}
    learned = load_file("first/model.safetensors")
    assert all(np.array_equal(x, learned[f"policy.{name}"]) for name, x in policy.items())
    assert main(["align", "first", "--reward", "judge", *STEPS, "--out", "second"]) == 0
    staying = load_file("second/base.safetensors")
    assert all(np.array_equal(x, staying[f"reference.{name}"]) for name, x in policy.items())


def test_an_aligned_run_chats(
    asked: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has seen each prompt by itself, so each question is answered by itself."""
    assert main([*DPO, "--out", "better"]) == 0
    answers = []
    for flags in [], ["--no-remember"]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"say one\nsay two\n")))
        capsys.readouterr()
        assert main(["chat", "better", *flags]) == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != ""
