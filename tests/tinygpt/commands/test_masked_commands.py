"""A BERT from the command line: trained, resumed, measured, filling in, giving vectors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.program import refused
from tinygpt.__main__ import main
from tinygpt.ids import CLS
from tinygpt.runs import run as runs

SMALL = "--width", "8", "--heads", "2", "--layers", "1", "--context", "16", "--batch", "4"
TEXT = "the cat sat on the mat\n" * 12


def trained(capsys: pytest.CaptureFixture[str], *flags: str) -> str:
    Path("t.txt").write_text(TEXT)
    train = "train", "--task", "masked", "--text", "t.txt", *SMALL, "--steps", "6", "--out", "r"
    assert main([*train, *flags]) == 0
    return capsys.readouterr().out


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def test_trained_and_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = trained(capsys)
    assert "targets   15% of the characters, others each time that a window comes" in said
    assert "\nthe cat[MASK]sat on" in said
    assert "how many tokens it fills in wrong: tinygpt eval r" in said
    run, model, tokenizer = runs.load(Path("r"), best=True)
    assert run.kind == json.loads(Path("r/config.json").read_text())["kind"] == "bert"

    filled = shown(capsys, "sample", "r", "--fill", "the [MASK]at [MASK]at").splitlines()
    assert len(filled) == 1
    assert len(filled[0]) == len("the cat sat")
    assert filled[0][:4] + filled[0][5:8] == "the at "
    explained = "sample", "r", "--fill", "[MASK]he c[MASK]t", "--explain", "2"
    lines = shown(capsys, *explained).splitlines()
    assert lines[0].startswith("filled in")
    assert len(lines) == 4  # a head, two tokens, the text

    measured = shown(capsys, "eval", "r")
    assert "the last 27 characters, not learned from" in measured
    assert "hidden tokens, all filled in at once" in measured
    assert "bits" not in measured
    assert "t.txt: 276 characters" in shown(capsys, "eval", "r", "--text", "t.txt")
    refused(capsys, "eval", "r", "--text", "story", says="is not one of the")

    tree = shown(capsys, "inspect", "r")
    assert "BERT  ids (B, T) -> logits (B, T, V)" in tree
    assert "S C: a row for each segment" in tree
    assert shown(capsys, "plan", "--task", "masked", "--text", "t.txt", *SMALL).startswith(
        f"model        {sum(p.size for p in model.parameters()):,} parameters"
    )

    # vectors: one text alone, several in a file, the same numbers
    Path("texts").write_text("the cat\n\nthe mat sat on\n")
    several = "embed", "r", "--prompts", "texts"
    both = [json.loads(line) for line in shown(capsys, *several).splitlines()]
    assert [line["text"] for line in both] == ["the cat", "the mat sat on"]
    one = json.loads(shown(capsys, "embed", "r", "--prompt", "the cat"))
    np.testing.assert_allclose(one["vector"], both[0]["vector"], rtol=0, atol=1e-6)
    expected = model.vectors([CLS, *tokenizer.encode("the cat")]).numpy()[0]
    np.testing.assert_allclose(one["vector"], expected, rtol=0, atol=1e-6)
    assert "2 texts, 8 numbers each" in shown(capsys, *several, "--out", "v.npy")
    np.testing.assert_allclose(np.load("v.npy"), [line["vector"] for line in both], atol=1e-6)


def test_a_resumed_run_draws_the_same_masks(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stopped after 2 steps and gone on with: the same weights, bit for bit."""
    trained(capsys, "--until", "2")
    shown(capsys, "train", "--resume", "r")
    halves = Path("r/model.safetensors").read_bytes()
    Path("r").rename("first")
    trained(capsys)
    assert Path("r/model.safetensors").read_bytes() == halves


def test_what_a_bert_cannot_do(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(capsys)
    Path("empty").write_text("\n\n")
    for words, says in (
        (["sample", "r"], "fills in hidden tokens, and writes nothing else"),
        (["sample", "r", "--prompt", "the"], "fills in hidden tokens"),
        (["sample", "r", "--fill", "the cat"], "it holds no [MASK] to fill in"),
        (["sample", "r", "--fill", "[MASK]" * 16], "reads at most 15 at once"),
        (["sample", "r", "--fill", "[MASK]X"], "character 'X'"),
        (["sample", "r", "--fill", "[MASK]", "--prompt", "x"], "two ways to say it"),
        (["sample", "r", "--fill", "[MASK]", "--top-k", "2"], "so --top-k has no meaning"),
        (["sample", "r", "--fill", "[MASK]", "--beam", "2"], "so --beam has no meaning"),
        (["sample", "r", "--fill", "[MASK]", "--samples", "2"], "so --samples has no meaning"),
        (["embed", "r"], "give one of the two"),
        (["embed", "r", "--prompts", "empty"], "'empty' holds no text"),
        (["embed", "r", "--prompt", "a" * 16], "has 16 characters, and r reads 1 to 15"),
        (["embed", "r", "--prompt", ""], "has 0 characters"),
        (["embed", "r", "--prompt", "a", "--out", "v.txt"], "an array's name ends in .npy"),
        (["train", "--init", "r", "--text", "t.txt"], "its kind of model is bert"),
        (["train", "--task", "masked", "--text", "t.txt", "--context", "2"], "at least 3"),
        (["look", "r"], "and r is of kind bert"),
        (["step", "r", "--plain"], "and r is of kind bert"),
        (["verify", "r"], "and r is of kind bert"),
        (["export-gpt2", "r", "x"], "takes a run of kind gpt, and r is of kind bert"),
    ):
        refused(capsys, *words, says=says)


def test_what_needs_a_bert(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown(capsys, "train", *SMALL, "--steps", "2", "--out", "r")
    refused(capsys, "sample", "r", "--fill", "[MASK]", says="train a model that fills in")
    refused(
        capsys,
        "embed",
        "r",
        "--prompt",
        "The",
        says="takes a run of kind bert, and r is of kind gpt",
    )
