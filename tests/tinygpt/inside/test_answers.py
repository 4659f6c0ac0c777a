"""`tinygpt look` and `tinygpt step` of a fine-tuned run: the instruction is read, and its answer
alone is predicted.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.program import refused
from tests.tinygpt.inside.test_step import stepped
from tinygpt.config import LookConfig
from tinygpt.data.instructions import prompt_of
from tinygpt.ids import IGNORED
from tinygpt.inside.look import gather, page
from tinygpt.inside.step.training import batch
from tinygpt.runs import run as runs
from tinygpt.training import jobs

QUESTION, END = "say green", 2


def by_hand(run: Path, answer: str) -> tuple[Any, Any]:
    """x and y: the prompt has no targets, but its last token predicts the answer."""
    _, _, tokenizer = runs.load(run)
    prompt: list[int] = prompt_of(tokenizer, QUESTION)  # type: ignore[arg-type]
    ids = [*tokenizer.encode(answer), END]
    return [*prompt, *ids[:-1]], [*[IGNORED] * (len(prompt) - 1), *ids]


@pytest.mark.parametrize(
    ("answer", "more", "why"),
    [("green", [], "as the model writes it"), ("ox", ["--target", "ox"], "as given")],
)
def test_a_step_predicts_the_answer_alone(
    answer: str, more: list[str], why: str, answering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model, _ = runs.load(answering)
    out = " ".join(stepped(capsys, str(answering), "--prompt", QUESTION, *more).split())
    assert "prompt '<|user|>say green<|assistant|>': 11 tokens" in out
    assert f"answer '{answer}<|end|>': {len(answer) + 1} tokens, {why}" in out
    assert f"loss {float(model.loss(*by_hand(answering, answer))):.4f} nats a token" in out


def test_a_step_of_training_tells_its_targets(
    answering: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = batch(jobs.reopened(str(answering)))
    out = " ".join(stepped(capsys, str(answering), "--train").split())
    count = np.count_nonzero(y != IGNORED)
    assert f"4 rows of up to {x.shape[1]} tokens, {count} tokens of answers to predict" in out


def test_a_look_ends_with_the_answer(answering: Path) -> None:
    """The loss is of the answer and its end, and the page begins after the prompt or within the
    answer.
    """
    run, model, tokenizer = runs.load(answering)
    look = gather.gather(run, model, tokenizer, LookConfig(QUESTION))
    x, y = by_hand(answering, "green")
    assert look.text.ids == [*x, END]
    assert look.text.written == "green<|end|>"
    assert look.text.words[-1] == "<|end|>"
    np.testing.assert_allclose(look.sight.loss, float(model.loss(x, y)), rtol=1e-4)
    assert look.text.prompt - 1 <= look.start < len(look.text.ids)
    assert len(look.sights) > 1
    text = page.page(look, tokenizer)
    assert "loss on the answer" in text
    assert "loss on the prompt" not in text
    short = gather.gather(run, model, tokenizer, LookConfig(QUESTION, length=2))
    assert short.text.written == "gr"
    none = gather.gather(run, model, tokenizer, LookConfig(QUESTION, length=0))
    assert none.sight.loss is None
    assert none.start == none.text.prompt - 1


def test_refuses(answering: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(answering)
    for arguments, says in (
        (["step", run, "--plain", "--prompt", "x" * 47], "the prompt has 49 tokens, but the model"),
        (
            ["step", run, "--plain", "--prompt", "x" * 40, "--target", "12345678"],
            "the target has 8 tokens and <|end|>, but the model writes 7",
        ),
        (["look", run, "--prompt", "x" * 47, "--out", "a.html"], "the prompt has 49 tokens"),
        (["plan", run], "is one word too many"),
        (["embed", run, "--prompt", "x"], "takes a run of kind bert"),
        (["sample", run, "--fill", "x[MASK]"], "--fill"),
    ):
        refused(capsys, *arguments, says=says)
