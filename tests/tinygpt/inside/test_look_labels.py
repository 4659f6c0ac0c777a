"""`tinygpt look` of a classifier: the page leads to the label, which is read at the last token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.browser import Watched
from tests.helpers.program import refused
from tests.tinygpt.inside.test_look import blocks_of, facts_of
from tinygpt.__main__ import main
from tinygpt.runs import run as runs

LABELS = "<b>", "none", "o"
TEXT = "two owl"


@pytest.fixture(scope="module")
def classifying(answering: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learned whether an o stands in a text, and its page."""
    folder = tmp_path_factory.mktemp("classifying")
    words = ["one", "two", "six", "ten", "red"]
    rows = [f"{a} {b},{'o' if 'o' in a + b else 'none'}" for a in words for b in words]
    (folder / "labelled.csv").write_text("\n".join(["text,label", "<b>,<b>", *rows]) + "\n")
    data = ["--data", str(folder / "labelled.csv"), "--validation", "0"]
    how = ["--steps", "20", "--snapshots", "2", "--batch", "4", "--out", str(folder / "run")]
    base = str(answering.parent / "base")
    assert main(["finetune", base, "--task", "classify", *data, *how]) == 0
    page = str(folder / "page.html")
    assert main(["look", str(folder / "run"), "--prompt", TEXT, "--out", page]) == 0
    return folder


def test_labels_stand_in_the_place_of_tokens(classifying: Path) -> None:
    """Their numbers come after those of all tokens; the logits have a column for each label."""
    _, model, tokenizer = runs.load(classifying / "run", best=True)
    logits = model(np.array([tokenizer.encode(TEXT)])).to(dtype="float64")
    p, size = logits.softmax().numpy()[0], tokenizer.size
    text = (classifying / "page.html").read_text()
    facts, blocks = facts_of(text), blocks_of(text)
    assert (facts["labels"], facts["columns"]) == (3, [size, size + 1, size + 2])
    assert [facts["words"][str(number)] for number in facts["columns"]] == list(LABELS)
    number = next(i for i, sight in enumerate(facts["sights"]) if sight["shown"])
    candidates = blocks[f"candidates {number}"].reshape(len(p), 3)
    np.testing.assert_array_equal(candidates, size + np.argsort(-p, axis=-1, kind="stable"))
    np.testing.assert_allclose(blocks["step logits"].reshape(p.shape), logits.numpy()[0], atol=1e-6)
    best = int(p[-1].argmax())
    assert facts["sights"][number]["written"] == f" -> {LABELS[best]} {p[-1].max():.1%}"
    assert all(sight["loss"] is None for sight in facts["sights"])
    assert facts["start"] == len(p) - 1


def test_the_page_of_a_classifier(chromium: Any, classifying: Path) -> None:
    watched = Watched(chromium, classifying / "page.html")
    page = watched.page
    assert page.locator("#outcome").inner_text() == "label"
    assert page.locator("#walking").inner_text() == "From the text to its label, step by step"
    assert page.locator("#next-title").inner_text().endswith("it says")
    assert sorted(page.locator("#candidates bdi").all_inner_texts()) == sorted(LABELS)
    assert "likeliest label is that of the text" in page.locator("#next-note").inner_text()
    names = page.locator("#steps button").all_inner_texts()
    assert names[-1].endswith("Label")
    assert not watched.said


def test_what_a_classifier_refuses(
    classifying: Path,
    preferring: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = str(classifying / "run")
    refused(capsys, "look", run, "--length", "3", says="--length has no meaning")
    refused(capsys, "look", run, "--prompt", "", says="the prompt is empty")
    reward = str(preferring / "reward")
    refused(capsys, "look", reward, says="gives a score to a reply, and predicts nothing")
