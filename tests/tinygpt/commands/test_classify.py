"""`tinygpt finetune --task classify`: from a run to a run that names the label of a text.   Tests:
commands/classes.py, training/jobs.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.program import losses, refused, sampled
from tests.tinygpt.inside.test_step import stepped
from tinygpt.__main__ import main
from tinygpt.commands.classes import report
from tinygpt.ids import CLS
from tinygpt.runs import run as runs

BASE = ["train", "--text", "text.txt", "--context", "24", "--width", "16", "--heads", "2"]
BASE += ["--layers", "1", "--steps", "2", "--batch", "4", "--snapshots", "0"]
WORDS = ["one", "two", "six", "ten", "red", "blue", "green", "cat", "dog", "owl"]
QUICK = ["--task", "classify", "--batch", "8", "--snapshots", "0", "--data", "labelled.csv"]
LEARN = ["--steps", "150", "--lr", "0.01", "--validation", "0.2", "--dropout", "0"]


@pytest.fixture
def bases(here: Path) -> Path:
    """A GPT and a BERT of characters, and a file of texts: does an o stand in it?"""
    (here / "text.txt").write_text("one two six ten red blue green cat dog owl\n" * 40)
    assert main([*BASE, "--out", "runs/gpt"]) == 0
    assert main([*BASE, "--task", "masked", "--out", "runs/bert"]) == 0
    texts = [f"{a} {b}" for a in WORDS for b in WORDS]
    lines = [f"{text},{'o' if 'o' in text else 'none'}" for text in texts]
    (here / "labelled.csv").write_text("\n".join(["text,label", *lines]) + "\n")
    return here


@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_a_run_that_classifies(bases: Path, base: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["finetune", base, *QUICK, *LEARN]) == 0
    out = capsys.readouterr().out
    assert "80 texts of 2 labels" in out
    assert "0.693 nats a text is ln(2)" in out
    assert "beside the most frequent: tinygpt eval" in out
    run, model, _ = runs.load(Path("runs/labelled-1"))
    assert (run.kind, run.stage) == (f"{base}-classifier", "finetune")
    assert run.model.labels == model.config.labels == ("none", "o")
    assert main(["eval", "labelled-1"]) == 0
    out = capsys.readouterr().out
    assert "nats a text, the mean over 20 targets" in out
    assert "accuracy    100.00%, 20 of 20 texts" in out
    assert "majority    65.00%: always 'o', the most frequent label" in out
    assert "none     7   0  100.0%" in out
    (bases / "others.jsonl").write_text('{"text": "two owl", "label": "none"}\n')
    assert main(["eval", "labelled-1", "--data", "others.jsonl"]) == 0
    out = capsys.readouterr().out
    assert "accuracy    0.00%, 0 of 1 text" in out
    assert out.endswith("none     0  1   0.0%\no        0  0   none\n")
    assert sampled(capsys, "labelled-1", "--prompt", "two red").startswith("two red\to 9")
    said = sampled(capsys, "labelled-1", "--prompt", "red ten", "--explain", "2")
    assert said.startswith("red ten\tnone 9")
    assert "  o " in said
    (bases / "prompts.txt").write_text("owl\nred\n")
    lines = sampled(capsys, "labelled-1", "--prompts", "prompts.txt").splitlines()
    assert [line.split()[1] for line in lines] == ["o", "none"]
    assert main(["inspect", "labelled-1"]) == 0
    assert "K 2 labels" in capsys.readouterr().out
    assert main(["plot", "labelled-1"]) == 0
    assert main(["step", "labelled-1", "--train", "--plain", "--weight", "head.weight"]) == 0
    assert "nats a text" in capsys.readouterr().out


def test_what_a_classifier_does_not_do(bases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "gpt", *QUICK, "--steps", "1", "--out", "runs/made"]) == 0
    capsys.readouterr()
    taking = "takes a run of kind gpt"
    for words, says in (
        (["look", "made", "--length", "2"], "--length has no meaning"),
        (["step", "made", "--plain", "--target", "x"], "no label has that name"),
        (["step", "made", "--plain", "--prompt", ""], "reads 1 to 24"),
        (["step", "made", "--plain", "--prompt", "one " * 9], "reads 1 to 24"),
        (["verify", "made"], taking),
        (["embed", "made", "--prompt", "one"], "takes a run of kind bert"),
        (["export-gpt2", "made", "folder"], taking),
        (["sample", "made", "--fill", "o[MASK]e"], "--fill"),
        (["sample", "made", "--temperature", "2"], "--temperature has no meaning"),
        (["sample", "made", "--beam", "2"], "--beam has no meaning"),
        (["sample", "made", "--prompt", "one " * 9], "reads 1 to 24"),
        (["sample", "made", "--prompt", " "], "reads 1 to 24"),
        (["sample", "made", "--prompt", "ONE"], "O"),
        (["eval", "made", "--text", "story"], "learned from examples"),
        (["eval", "made", "--beam", "2"], "learned from examples"),
        (["train", "--init", "made"], "its kind of model is gpt-classifier"),
        (["finetune", "made"], "takes a run of kind gpt"),
        (["finetune", "made", *QUICK], "takes a run of kind gpt or bert"),
        (["finetune", "bert", "--data", "labelled.csv"], "takes a run of kind gpt"),
        (["finetune", "gpt", "--task", "classify"], "do not fit 24"),
        (["finetune", "gpt", "--task", "classify", "--data", "questions"], "--task answer"),
        (["finetune", "gpt", "--data", "larger"], "--task classify"),
        (["finetune", "gpt", *QUICK, "--packing"], "packing"),
        (["finetune", "gpt", *QUICK[:-2], "--validation", "0.2"], "--data larger"),
    ):
        refused(capsys, *words, says=says)
    (bases / "owl.csv").write_text("text,label\none,owl\n")
    refused(capsys, "eval", "made", "--data", "owl.csv", says="the label 'owl'")
    (bases / "same.csv").write_text("text,label\none,owl\ntwo,owl\n")
    flags = ["--task", "classify", "--data", "same.csv", "--validation", "0"]
    refused(capsys, "finetune", "gpt", *flags, says="have the label 'owl'")
    (bases / "long.csv").write_text(f"text,label\n{'one ' * 9},owl\ntwo,a\n")
    flags[3] = "long.csv"
    refused(capsys, "finetune", "gpt", *flags, says="does not fit the context of 24")


@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_a_step_walks_to_the_loss_of_the_label(
    bases: Path, base: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["finetune", base, *QUICK, "--steps", "1", "--out", "runs/made"]) == 0
    _, model, tokenizer = runs.load(Path("runs/made"), best=True)
    ids = [CLS] * (base == "bert") + tokenizer.encode("two ox")
    place = 0 if base == "bert" else -1
    p = model(np.array([ids])).to(dtype="float64").softmax().numpy()[0, place]
    for more, number in (([], p.argmax()), (["--target", "o"], 1), (["--target", "none"], 0)):
        out = " ".join(stepped(capsys, "made", "--prompt", "two ox", *more).split())
        label = ("none", "o")[number]
        assert f"predict the label '{label}', {'as given' if more else 'the likeliest'}, at" in out
        assert f"at token {place % len(ids) + 1}, " in out
        assert f"loss {-np.log(p[number]):.4f} nats a text" in out
        assert f"{('none', 'o')[p.argmax()]} {p.max():.1%}, " in out


@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_a_stopped_training_goes_on_with_the_same_bits(bases: Path, base: str) -> None:
    flags = ["finetune", base, *QUICK, "--steps", "6", "--dropout", "0.1"]
    assert main([*flags, "--out", "whole"]) == 0
    assert main([*flags, "--out", "parts", "--until", "3"]) == 0
    (bases / "labelled.csv").rename(bases / "moved.csv")
    assert main(["finetune", "--resume", "parts", "--data", "moved.csv"]) == 0
    for name in ("model.safetensors", "optimizer.safetensors"):
        assert Path("whole", name).read_bytes() == Path("parts", name).read_bytes()
    one, other = ([x.get("loss") for x in losses(Path(name))] for name in ("whole", "parts"))
    assert one == other


def test_the_base_stays_and_is_what_learning_starts_from(bases: Path) -> None:
    before = weights("gpt")
    assert main(["finetune", "gpt", *QUICK, "--steps", "1", "--lr", "1e-9"]) == 0
    after = weights("labelled-1")
    for name, x in weights("gpt").items():
        assert np.array_equal(x, before[name])
        np.testing.assert_allclose(after[name], x, atol=1e-6)


def weights(folder: str) -> dict[str, Any]:
    _, model, _ = runs.load(Path("runs") / folder)
    return {name: x.numpy() for name, x in model.state_dict().items()}


def test_the_report() -> None:
    """Few labels have a table, many the most frequent confusions."""
    lines = list(report(["a", "bb"], np.array([[3, 1], [0, 0]])))
    assert lines[:2] == [
        "accuracy    75.00%, 3 of 4 texts",
        "majority    100.00%: always 'a', the most frequent label",
    ]
    assert lines[-3:] == ["    a  bb  right", "a   3   1  75.0%", "bb  0   0   none"]
    table = np.eye(13, dtype=np.int64)
    table[2, 5], table[7, 1] = 4, 2
    lines = list(report([f"label {i}" for i in range(13)], table))
    assert lines[2:] == [
        "confused    4 times 'label 5' for 'label 2'",
        "confused    2 times 'label 1' for 'label 7'",
    ]


def test_adapters_and_frozen_parts(bases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The head learns in both, and a merged run says the same."""
    assert main(["finetune", "bert", *QUICK, "--steps", "3", "--lora", "2", "--out", "low"]) == 0
    assert main(["merge", "low", "--out", "plain"]) == 0
    capsys.readouterr()
    said = [sampled(capsys, name, "--prompt", "two red") for name in ("low", "plain")]
    assert said[0] == said[1]
    flags = ["--freeze", "blocks,embeddings", "--validation", "0", "--lr", "1", "--out", "runs/top"]
    assert main(["finetune", "gpt", *QUICK, "--steps", "3", *flags]) == 0
    before, after = weights("gpt"), weights("top")
    same = [name for name, x in before.items() if np.array_equal(after[name], x)]
    assert [name for name in before if name not in same] == ["final_norm.gain", "final_norm.bias"]
    assert np.abs(after["head.weight"]).max() > 0.1


def test_damaged_labels(bases: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "gpt", *QUICK, "--steps", "1", "--out", "made"]) == 0
    path = Path("made/config.json")
    content = json.loads(path.read_text())
    for labels, says in (
        ([], "labels: there are 0"),
        (["o", "o"], "labels: two are the same"),
        ("o", "labels"),
        (["a", "b", "c"], "head.weight is (16, 2)"),
    ):
        path.write_text(json.dumps(content | {"model": content["model"] | {"labels": labels}}))
        capsys.readouterr()
        refused(capsys, "sample", "made", "--prompt", "one", says=says)
