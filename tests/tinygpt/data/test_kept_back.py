"""What is kept back to measure on is never learned from, however short the text is."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.program import refused
from tinygpt.__main__ import main
from tinygpt.config import TrainConfig
from tinygpt.data import token_files
from tinygpt.data.prepare import prepare
from tinygpt.data.windows import CorpusError, kept_back
from tinygpt.tokenizers import ByteTokenizer

SMALL = ["--tokenizer", "byte", "--width", "8", "--layers", "1", "--heads", "1", "--steps", "2"]


def test_bug_88_any_split_of_any_text_is_kept(here: Path) -> None:
    """Of every length, share and context: the first tokens are learned from, the others are
    measured on, or an error says the numbers. A token folder does the same.
    """
    shares = (0.02, 0.1, 0.3, 0.6, 0.97)
    lengths = (1, 9, 20, 40, 96, 200)
    outcomes = set[bool]()
    for length, share in ((n, s) for n in lengths for s in shares):
        ids = [i % 256 for i in range(length)]
        text, kept = bytes(i % 128 for i in range(length)), int(length * share)
        Path("text.txt").write_bytes(text)
        for context in (1, 8, 32):
            possible = kept >= 2 and length - kept > context
            outcomes.add(possible)
            config = TrainConfig(text="text.txt", tokenizer="byte", validation=share)
            if not possible:
                with pytest.raises(CorpusError, match=rf"\b{kept} (kept )?back|too few"):
                    prepare(config, context)
                continue
            data = prepare(config, context)
            assert data.validation is not None
            learned, others = data.windows.tokens, data.validation.tokens
            assert [*learned, *others] == [i % 128 for i in ids]
            assert len(others) == kept
            assert data.validation.context == min(context, kept - 1)
            y = data.validation[np.arange(len(data.validation))][1]
            assert int((y >= 0).sum()) == kept - 1
    assert outcomes == {True, False}


def test_bug_88_a_token_folder_keeps_what_it_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer, text = ByteTokenizer(), "The cat sat on the mat. " * 4
    token_files.write(Path("made"), tokenizer, [text], validation=0.3)
    data = prepare(TrainConfig(text="made"), 32)
    assert data.validation is not None
    assert (len(data.windows.tokens), len(data.validation.tokens)) == (68, 28)
    with pytest.raises(CorpusError, match=r"validation 0\.01 of 96 tokens keeps 0 back"):
        token_files.write(Path("none"), tokenizer, [text], validation=0.01)
    assert not Path("none").exists()
    token_files.write(Path("all"), tokenizer, [text], validation=0)
    assert prepare(TrainConfig(text="all"), 32).validation is None


def test_bug_88_a_short_text_is_measured_on_a_shorter_window(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("text.txt").write_text("The cat sat on the mat. " * 4)
    flags = ["--text", "text.txt", *SMALL, "--context", "32"]
    assert main(["train", *flags, "--validation", "0.3", "--patience", "1"]) == 0
    out = capsys.readouterr().out
    assert "windows   36 of 32 bytes, and a shorter one of 27 to measure on" in out
    assert "validation loss" in out
    refused(capsys, "train", *flags, "--validation", "0.7", says="leave 29: too few for a context")
    refused(
        capsys,
        "train",
        *flags,
        "--validation",
        "0.01",
        says="--validation 0, which keeps",
    )
    assert main(["train", *flags, "--validation", "0", "--patience", "1"]) == 0
    out = capsys.readouterr().out
    assert "measured  at the end alone, so --patience will do nothing" in out


@pytest.mark.parametrize("text", ["story", "grammar"])
def test_bug_88_texts_of_which_nothing_can_be_kept_back(
    here: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    says = f"--validation cannot be chosen with --text {text}"
    refused(capsys, "train", "--text", text, "--validation", "0.3", says=says)
    says = "--validation cannot be chosen with --task sort, which makes its own pairs to measure on"
    refused(capsys, "train", "--task", "sort", "--validation", "0.3", says=says)


def refusal(tokens: int, share: float, context: int) -> CorpusError | None:
    try:
        kept_back(tokens, share, context)
    except CorpusError as error:
        return error
    return None


def advised(error: CorpusError, share: float, context: int) -> list[tuple[float, int]]:
    """The share and the context of each change that the error names."""
    choices = []
    for change in str(error).partition("\nuse a longer text")[2].split(" or "):
        contexts = re.findall(r"--context (?:of at most )?(\d+)", change)
        shares = re.findall(r"--validation ([\d.]+)", change)
        if contexts or shares:
            given = int(contexts[0]) if contexts else context
            choices.append((float(shares[0]) if shares else share, given))
    return choices


def test_the_advice_of_a_text_that_is_too_short_helps() -> None:
    """Each change works, and there is one wherever any choice works: from two tokens on."""
    lengths, shares = (1, 2, 3, 5, 11, 19, 20, 21, 40, 96, 1500), (0.0, 0.01, 0.1, 0.5, 0.97)
    refusals = 0
    for tokens, share, context in product(lengths, shares, (1, 4, 17, 18, 19, 20, 32, 2000)):
        error = refusal(tokens, share, context)
        if error is not None:
            refusals += 1
            choices = advised(error, share, context)
            assert bool(choices) == (tokens > 1), error
            assert not [choice for choice in choices if refusal(tokens, *choice)]
    assert refusals > 100


def test_a_text_and_a_token_folder_name_a_context_that_fits(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.txt").write_text("abcdefghij abcdefghi")
    token_files.write(Path("made"), ByteTokenizer(), ["abcdefghij abcdefghi"], validation=0.1)
    for text in ("a.txt", "made"):
        for context in ("32", "19", "18"):
            flags = ["train", "--text", text, *SMALL, "--context"]
            if text == "made":
                flags = [flag for flag in flags if flag not in ("--tokenizer", "byte")]
            refused(capsys, *flags, context, says="a --context of at most 17")
        assert main([*flags, "17"]) == 0
        capsys.readouterr()
    assert main(["train", "--text", "a.txt", "--init", "a-1"]) == 0
    Path("b.txt").write_text("abcdefghij abcdefg")
    capsys.readouterr()
    refused(capsys, "train", "--text", "b.txt", "--init", "a-1", says="train without --init")
