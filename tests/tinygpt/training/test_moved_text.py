"""A run goes on with its own text, wherever the text is now."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.program import TINY, refused
from tinygpt.__main__ import main

TEXT = "The cat sat on the mat. The dog ran in the park. " * 4


@pytest.mark.parametrize("folder", [False, True], ids=["file", "tokens"])
def test_bug_50_the_same_text_elsewhere(
    here: Path, capsys: pytest.CaptureFixture[str], folder: bool
) -> None:
    """The same weights as without the move, and the new path is kept; another text is refused."""
    Path("a.txt").write_text(TEXT)
    Path("b.txt").write_text(TEXT.replace("dog", "god"))
    Path("c.txt").write_text(TEXT.replace("dog", "d0g"))  # a character that the run does not know
    before, after = "a.txt", "moved.txt"
    if folder:
        assert main(["tokenize", "a.txt", "--out", "tokens"]) == 0
        before, after = "tokens", "moved"
    flags = ["--text", before, *TINY, "--steps", "4"]
    assert main(["train", *flags, "--out", "whole"]) == 0
    assert main(["train", *flags, "--out", "half", "--until", "2"]) == 0
    os.rename(before, after)
    capsys.readouterr()
    resume = ["train", "--resume", "half"]
    gone = "no file is named 'a.txt'" if not folder else "no file is named 'tokens'"
    refused(
        capsys, *resume, says=f"{gone}: half was trained on it\nrestore '{before}', or say where"
    )
    refused(
        capsys, "step", "half", "--plain", "--train", says=f"trained on it\nrestore '{before}'\n"
    )
    for other in ("b.txt", "c.txt"):
        says = f"'{other}' is not the text that half was trained on: its hash is another"
        refused(capsys, *resume, "--text", other, says=says)
    refused(capsys, *resume, "--text", "none.txt", says="no file is named 'none.txt'")
    refused(capsys, *resume, "--text", "story", says="only a file or a folder can have moved")
    assert main([*resume, "--text", after]) == 0
    assert json.loads(Path("half/config.json").read_text())["training"]["text"] == after
    whole, half = (load_file(f"{run}/model.safetensors") for run in ("whole", "half"))
    assert all(np.array_equal(whole[name], half[name]) for name in whole)


def test_a_text_that_comes_with_tinygpt_does_not_move(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.txt").write_text(TEXT)
    says = "learns from story, and only a file or a folder can have moved"
    refused(capsys, "train", "--resume", "story-1", "--text", "a.txt", says=says)


def test_pairs_move_as_a_text_does(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each message names the flag of pairs."""
    Path("a.tsv").write_text("".join(f"{letter}a\ta{letter}\n" for letter in "abcdefghij"))
    flags = ["--pairs", "a.tsv", *TINY, "--steps", "4"]
    refused(capsys, "train", *flags, "--stride", "2", says="pairs: each pair is read whole")
    assert main(["train", *flags, "--out", "half", "--until", "2"]) == 0
    os.rename("a.tsv", "b.tsv")
    capsys.readouterr()
    resume = ["train", "--resume", "half"]
    refused(capsys, *resume, says="say where it is now: tinygpt train --resume half --pairs PATH\n")
    says = "half learns from a.tsv\nleave it out, or say where that is now: --pairs PATH"
    refused(capsys, *resume, "--text", "b.tsv", says=says)
    init = ["train", "--init", "half", "--text", "story"]
    refused(capsys, *init, says="its kind of model is encoder-decoder, and this training's is gpt")
    assert main([*resume, "--pairs", "b.tsv"]) == 0
