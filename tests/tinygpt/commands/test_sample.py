"""`tinygpt sample`: many prompts at once, where to stop, what else was thought of."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.helpers.program import PROGRAM, TINY, environment, put_weights, refused, sampled
from tinygpt.__main__ import main
from tinygpt.commands import sample
from tinygpt.data.grammar import grammar_tokenizer
from tinygpt.generation.generate import Step, steps
from tinygpt.runs import run as runs

# the third is longer than the context
PROMPTS = ["The cat", "T", "The dog ran in the park. The cat", "dog", "The cat sat on the mat."]


def test_prompts_of_a_file_each_as_if_alone(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Twenty of them, more than go side by side, with an empty line between."""
    prompts = [PROMPTS[i % 5] for i in range(20)]
    Path("prompts.txt").write_text("\n\n".join(prompts) + "\n")
    together = sampled(capsys, "--prompts", "prompts.txt", "--length", "15", "--temperature", "0")
    alone = {
        prompt: sampled(capsys, "--prompt", prompt, "--length", "15", "--temperature", "0")
        for prompt in PROMPTS
    }
    assert together == "".join(alone[prompt] for prompt in prompts)


def test_each_prompt_has_draws_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same prompt twenty times gives twenty texts, the first of them that of --prompt; and the
    seed gives them again.
    """
    Path("prompts.txt").write_text("The cat\n" * 20)
    options = ["--length", "15", "--seed", "3"]
    together = sampled(capsys, "--prompts", "prompts.txt", *options)
    assert len(set(together.splitlines())) == 20
    assert (
        together.splitlines()[0] == sampled(capsys, "--prompt", "The cat", *options).splitlines()[0]
    )
    assert sampled(capsys, "--prompts", "prompts.txt", *options) == together
    Path("one.txt").write_text("The cat\n")
    assert sampled(capsys, "--prompts", "one.txt", *options) == sampled(
        capsys, "--prompt", "The cat", *options
    )


@pytest.mark.parametrize("stop", ["h", " g", "dip"])
def test_prompts_stop_where_each_would(
    stop: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    options = ["--prompts", "prompts.txt", "--length", "60"]
    whole = sampled(capsys, *options).splitlines()
    stopped = sampled(capsys, *options, "--stop", stop).splitlines()
    for text, cut, prompt in zip(whole, stopped, PROMPTS, strict=True):
        new, _, _ = text[len(prompt) :].partition(stop)
        assert cut == prompt + new
    assert stopped != whole


def test_stop_at_a_line_end(stories: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`\\n`, as shells hand it over, is one."""
    shutil.copytree(stories / "runs", here / "runs")
    text = sampled(capsys, "--prompt", "Tom", "--length", "200", "--stop", "zzz")
    assert text.count("\n") > 1
    assert (
        sampled(capsys, "--prompt", "Tom", "--length", "200", "--stop", r"\n")
        == text.partition("\n")[0] + "\n"
    )


def test_stop_at_the_end_of_a_document(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a token of its own, and its text is what the user can type."""
    Path("text.txt").write_text("The cat sat.<|endoftext|>The dog ran.<|endoftext|>" * 4)
    choices = ["--tokenizer", "bpe", "--tokens", "260", "--context", "8", "--width", "8"]
    assert main(["train", "--text", "text.txt", *choices, "--steps", "1"]) == 0
    capsys.readouterr()
    tokenizer = runs.load(runs.find("text-1"))[2]
    ids = tokenizer.encode("at.<|endoftext|>The dog")

    def drawn(*arguments: Any, **_: Any) -> Iterator[tuple[int, Step]]:
        for token in ids:
            if 0 not in arguments[-1]:  # the prompts that have ended
                yield 0, Step(token, None)

    monkeypatch.setattr(sample, "steps", drawn)
    assert sampled(capsys, "text-1", "--prompt", "c", "--stop", "<|endoftext|>") == "cat.\n"
    assert sampled(capsys, "text-1", "--prompt", "c") == "cat.\n"
    assert sampled(capsys, "text-1", "--prompt", "c", "--stop", "t") == "ca\n"


def test_explain_shows_candidates_of_each_prompt(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.txt").write_text("The\ndog\n")
    out = sampled(capsys, "--prompts", "prompts.txt", "--length", "4", "--explain", "2")
    assert out.count("likeliest") == 2
    assert len([line for line in out.splitlines() if line.startswith("'")]) == 8


def test_a_prompt_with_a_character_that_is_not_known(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("prompts.txt").write_text("The\nThe 7\n")
    says = "line 2 of 'prompts.txt': character '7' at position 4 is not one of the 22"
    refused(capsys, "sample", "--prompts", "prompts.txt", says=says)
    refused(capsys, "sample", "--prompts", "none.txt", says="no file is named 'none.txt'")


def test_no_prompts_or_two_kinds_of_them(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("blank.txt").write_text("\n\n")
    refused(capsys, "sample", "--prompts", "blank.txt", says="blank.txt holds no prompt")
    refused(
        capsys,
        "sample",
        "--prompts",
        "blank.txt",
        "--prompt",
        "T",
        says="--prompt and --prompts are two ways to say it",
    )


def test_broken_weights_are_told_on_a_line_of_their_own(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = load_file(run / "model.safetensors")
    weights["final_norm.gain"][0] = np.nan
    put_weights(run, weights)
    assert main(["sample", "--prompt", "The"]) == 2
    out, err = capsys.readouterr()
    assert out == "The\n"
    assert "its weights are broken" in err


def test_a_temperature_near_zero_warns_of_nothing(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.errstate(all="raise", under="ignore"):
        assert sampled(capsys, "--temperature", "1e-308") == sampled(capsys, "--temperature", "0")


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run on stories from the grammar."""
    folder = tmp_path_factory.mktemp("stories")
    options = [
        "--text",
        "grammar",
        "--context",
        "256",
        "--width",
        "8",
        "--heads",
        "2",
        "--layers",
        "1",
        "--batch",
        "1",
        "--steps",
        "1",
    ]
    subprocess.run(
        [*PROGRAM, "train", *options],
        cwd=folder,
        env=environment(),
        check=True,
        capture_output=True,
        timeout=100,
    )
    return folder


def test_a_story_of_the_grammar_is_told_from_its_beginning_to_its_end(
    stories: Path, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It learned each story after a line end, at position 0, and up to the next: so a prompt comes
    after one too, and no story has a second.
    """
    shutil.copytree(stories / "runs", here / "runs")
    given: list[list[int]] = []

    def watched(model: Any, prompts: list[list[int]], *rest: Any, **options: Any) -> Any:
        given.extend(prompts)
        return steps(model, prompts, *rest, **options)

    monkeypatch.setattr(sample, "steps", watched)
    Path("prompts.txt").write_text("Tom was\nAnn\n")
    lines = sampled(capsys, "--prompts", "prompts.txt", "--length", "200").splitlines()
    tokenizer = grammar_tokenizer()
    assert given == [tokenizer.encode("\nTom was"), tokenizer.encode("\nAnn")]
    assert [
        line.startswith(prompt) for line, prompt in zip(lines, ("Tom was", "Ann"), strict=True)
    ] == [True, True]
    # of 31 characters drawn at random one is soon a line end
    assert any(len(line) < 150 for line in lines)
    assert "\n" in sampled(
        capsys, "--prompt", "Tom", "--length", "200", "--stop", "zzz"
    ).removesuffix("\n")


def test_weights_that_are_not_finite_give_one_error(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no warnings of NumPy before."""
    weights = load_file(run / "model.safetensors")
    weights["blocks.0.attention.qkv.weight"][:] = np.inf
    put_weights(run, weights)
    says = "the model's logits are not finite numbers: its weights are broken"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        refused(capsys, "look", says=says)
        assert main(["sample"]) == 2
        out, err = capsys.readouterr()
        assert out == "The cat sat on the\n"
        assert err.startswith(f"tinygpt: error: {says}")
        assert err.count("\n") == 2


def test_without_state_json_a_run_can_be_sampled(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut off, state.json is refused, with what works; without it the weights are read."""
    flags = "story-1", "--length", "5"
    before, state = sampled(capsys, *flags), (run / "state.json").read_bytes()
    (run / "state.json").write_bytes(state[:60])
    says = "state.json is damaged (Input data was truncated)\nrestore it from a copy, or remove it"
    refused(capsys, "sample", *flags, says=says)
    (run / "state.json").unlink()
    assert sampled(capsys, *flags) == before


def test_int8_writes_nearly_the_same(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of a run that has learned it; the run's own weights stay as they are."""
    options = ["--prompt", "The cat", "--length", "15", "--temperature", "0"]
    before = (run / "model.safetensors").read_bytes()
    assert sampled(capsys, *options, "--int8") == sampled(capsys, *options)
    assert (run / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("command", ["sample", "eval"])
def test_int8_is_for_a_gpt(command: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for kind, task in (("encoder-decoder", "reverse"), ("bert", "masked")):
        options = ["--steps", "1", *TINY, "--context", "13", "--out", kind]
        assert main(["train", "--task", task, *options]) == 0
        capsys.readouterr()
        refused(
            capsys,
            *(command, kind, "--int8"),
            says=f"--int8 rounds the weights of a GPT, and {kind} is of another kind: {kind}\n"
            "leave --int8 out",
        )
