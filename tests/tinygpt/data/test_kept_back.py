"""What is kept back to measure on is never learned from, however short the text is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.program import refused
from tinygpt.__main__ import main
from tinygpt.config import TrainConfig
from tinygpt.data import token_files
from tinygpt.data.prepare import prepare
from tinygpt.data.windows import CorpusError
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
    refused(capsys, "train", *flags, "--validation", "0.01", says="--validation 0 keeps none back")
    assert main(["train", *flags, "--validation", "0", "--patience", "1"]) == 0
    out = capsys.readouterr().out
    assert "measured  at the end alone, so --patience will do nothing" in out


@pytest.mark.parametrize("text", ["story", "grammar"])
def test_bug_88_texts_of_which_nothing_can_be_kept_back(
    here: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    says = f"--validation cannot be chosen with --text {text}"
    refused(capsys, "train", "--text", text, "--validation", "0.3", says=says)
