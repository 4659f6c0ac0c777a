"""`tinygpt eval` of an encoder-decoder: the loss, and how many answers are right to the letter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.pairs_run import FILE, SOURCES, TOKENIZER, pairs_run
from tests.helpers.program import refused
from tinygpt import SampleConfig
from tinygpt.__main__ import main
from tinygpt.commands import eval as command
from tinygpt.generation.answers import answers
from tinygpt.ids import EOS, SOS
from tinygpt.model.cache import Cache
from tinygpt.model.encoder_decoder import EncoderDecoder, Given

pytestmark = pytest.mark.usefixtures("here")  # `refused` reads all files of the working folder

__all__ = ["pairs_run"]


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["eval", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return [" ".join(line.split()) for line in out.splitlines()]


def by_hand(model: EncoderDecoder, pairs: list[tuple[str, str]]) -> tuple[float, int]:
    """The mean of -ln p over the tokens of the targets and their <eos>, and how many these are."""
    losses: list[float] = []
    for source, target in pairs:
        ids = [*TOKENIZER.encode(target), EOS]
        logits = model([TOKENIZER.encode(source)], [[SOS, *ids[:-1]]])
        log_p = logits.log_softmax().numpy()[0]
        losses += (-log_p[np.arange(len(ids)), ids]).tolist()
    return float(np.mean(losses)), len(losses)


def test_the_pairs_that_were_kept_back(
    pairs_run: EncoderDecoder, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = told(capsys)
    kept = [(source, source[::-1]) for source in SOURCES[-2:]]
    loss, count = by_hand(pairs_run, kept)
    assert lines[1] == "pairs own.tsv: 2 pairs, not learned from"
    assert lines[2] == f"loss {loss:.4f} nats a character, the mean over {count} targets"
    assert lines[3].startswith(f"perplexity {np.exp(loss):.4g}: ")
    assert lines[4] == "exact 0.0%, 0 of 2 answers, of likeliest tokens"
    assert [line.partition(" -> ")[0] for line in lines[5:]] == ["wrong eb", "wrong bad"]
    FILE.unlink()
    refused(capsys, "eval", says="or name pairs to measure on: --pairs FILE")


@pytest.mark.parametrize("beam", [None, 3])
def test_answers_are_right_to_the_letter(
    beam: int | None,
    pairs_run: EncoderDecoder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 40 pairs some targets are what the model writes, others a letter more or less; measured in
    batches of 7. Of more than 20, every second one is answered.
    """
    sources = [a + b + "c" * (i % 3) for i, a in enumerate("abcde") for b in "abcdeabc"]
    ids = [TOKENIZER.encode(source) for source in sources]
    config = SampleConfig(temperature=0, length=8, beam=beam)
    written = [TOKENIZER.decode(tokens) for tokens in answers(pairs_run, ids, config)]
    targets = [(text[: 6 - i % 3] or "a") for i, text in enumerate(written)]
    right = [a == b for a, b in zip(targets, written, strict=True)]
    assert 3 < sum(right) < 37
    lines = [f"{source}\t{target}\n" for source, target in zip(sources, targets, strict=True)]
    Path("more.tsv").write_text("".join(lines))
    flags = ["--pairs", "more.tsv", *([] if beam is None else ["--beam", str(beam)])]
    how = "likeliest tokens" if beam is None else "a beam of 3"
    monkeypatch.setattr(command, "batch_of", lambda *_: 7)
    found = told(capsys, *flags)
    loss, count = by_hand(pairs_run, list(zip(sources, targets, strict=True)))
    assert found[1] == "pairs more.tsv: 40 pairs"
    assert found[2] == f"loss {loss:.4f} nats a character, the mean over {count} targets"
    assert found[4] == f"exact {sum(right) / 40:.1%}, {sum(right)} of 40 answers, of {how}"
    first = right.index(False)
    wrong = f"wrong {sources[first]} -> {written[first]}, right: {targets[first]}"
    assert found[5] == " ".join(wrong.split())
    assert len(found) == 5 + command.WRONG
    monkeypatch.setattr(command, "ANSWERED", 20)
    some = sum(right[::2])
    assert told(capsys, *flags)[4] == f"exact {some / 20:.1%}, {some} of 20 answers, of {how}"


def test_a_wide_beam_answers_fewer_sources_at_once(
    pairs_run: EncoderDecoder,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The number of rows of the cache does not grow with the beam; the answers are the same."""
    rows: list[int] = []
    new_cache = Given.new_cache

    def counted(given: Given, count: int) -> Cache:
        rows.append(count)
        return new_cache(given, count)

    monkeypatch.setattr(Given, "new_cache", counted)
    flags = ["--pairs", "many.tsv", "--beam", "30"]
    Path("many.tsv").write_text("".join(f"{source}\tbad\n" for source in SOURCES))
    assert told(capsys, *flags)[4] == "exact 0.0%, 0 of 10 answers, of a beam of 30"
    assert rows == [60] * 5  # of at most 64
    rows.clear()
    Path("prompts.txt").write_text("\n".join(SOURCES))
    for beam, expected in (("8", [16] * 5), ("30", [30] * 10)):
        assert main(["sample", "--prompts", "prompts.txt", "--beam", beam]) == 0
        assert rows == expected  # of at most 16, or one source
        rows.clear()


def test_flags_of_the_other_kind_of_run(
    run: Path, pairs_run: EncoderDecoder, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.tsv").write_text("abcabcabc\tc\n")
    for flags, says in (
        (["pairs", "--text", "story"], "--text: runs/pairs learned from pairs"),
        (["story-1", "--pairs", "own.tsv"], "--pairs: runs/story-1 learned from a text"),
        (["story-1", "--beam", "2"], "--beam: runs/story-1 learned from a text"),
        (["pairs", "--beam", "0"], "--beam 0: a whole number, at least 1"),
        (["pairs", "--beam", "x"], "--beam: 'x' is not a whole number"),
        (["pairs", "--pairs", "none.tsv"], "no file is named 'none.tsv'"),
        (["pairs", "--pairs", "x.tsv"], "'abcabcabc' has 9 tokens"),
    ):
        refused(capsys, "eval", *flags, says=says)
