"""`tinygpt sample` of an encoder-decoder, which answers; and `--beam` of either kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.helpers.pairs_run import FILE, SOURCES, TOKENIZER, pairs_run
from tests.helpers.program import TINY, refused, sampled
from tinygpt import SampleConfig
from tinygpt.__main__ import main
from tinygpt.generation.answers import answers
from tinygpt.generation.beam import beam_search
from tinygpt.ids import EOS, SOS
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.runs import run as runs

__all__ = ["pairs_run"]
PROMPTS = ["abc", "e", "dade", "bbbb cc", "eeeeeeee"]


def answered(model: EncoderDecoder, prompts: list[str], **options: Any) -> str:
    ids = [TOKENIZER.encode(prompt) for prompt in prompts]
    found = answers(model, ids, SampleConfig(**options))
    lines = [f"{p}\t{TOKENIZER.decode(ids)}\n" for p, ids in zip(prompts, found, strict=True)]
    return "".join(lines)


def test_a_line_is_the_prompt_and_its_answer(
    pairs_run: EncoderDecoder, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of likeliest tokens by default, or drawn; one prompt, or a file of them."""
    model = pairs_run
    assert sampled(capsys) == answered(model, ["bad"], temperature=0)
    assert sampled(capsys, "--prompt", "abc") == answered(model, ["abc"], temperature=0)
    assert sampled(capsys, "--seed", "3") == answered(model, ["bad"], seed=3)
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    greedy = sampled(capsys, "--prompts", "prompts.txt")
    assert greedy == answered(model, PROMPTS, temperature=0)
    assert len({len(line) for line in greedy.splitlines()}) > 2
    hot = sampled(capsys, "--prompts", "prompts.txt", "--temperature", "1.5")
    assert hot == answered(model, PROMPTS, temperature=1.5) != greedy
    assert sampled(capsys, "--prompts", "prompts.txt", "--length", "2") == answered(
        model, PROMPTS, temperature=0, length=2
    )


def test_samples_are_drawn_and_the_best_of_a_beam_are_not(
    pairs_run: EncoderDecoder, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn_texts = sampled(capsys, "--samples", "3").split("---\n")
    assert len(drawn_texts) == 3
    assert drawn_texts[0] == answered(pairs_run, ["bad"])
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    best = sampled(capsys, "--prompts", "prompts.txt", "--beam", "4", "--samples", "2")
    ids = [TOKENIZER.encode(prompt) for prompt in PROMPTS]
    found = beam_search(pairs_run.given(ids), [[SOS]] * 5, 4, 100, EOS, best=2)
    expected = [
        f"{prompt}\t{TOKENIZER.decode(text.tokens).replace('<eos>', '')}\n"
        for prompt, texts in zip(PROMPTS, found, strict=True)
        for text in texts
    ]
    assert best == "---\n".join(expected)
    alone = sampled(capsys, "--prompts", "prompts.txt", "--beam", "4")
    assert alone == "".join(expected[::2])


def test_explained_up_to_the_end(
    pairs_run: EncoderDecoder, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = sampled(capsys, "--prompt", "bbbb cc", "--explain", "2").splitlines()
    assert [line.split()[0] for line in lines[3:]] == ["'b'", "'c'", "'<eos>'"]
    assert lines[0] == "prompt 'bbbb cc'"


def test_stop_cuts_an_answer(pairs_run: EncoderDecoder, capsys: pytest.CaptureFixture[str]) -> None:
    Path("prompts.txt").write_text("\n".join(PROMPTS))
    for options in ([], ["--beam", "3"]):
        whole = sampled(capsys, "--prompts", "prompts.txt", *options).splitlines()
        cut = sampled(capsys, "--prompts", "prompts.txt", *options, "--stop", "e").splitlines()
        parts = [line.split("\t") for line in whole]
        assert cut == [f"{prompt}\t{answer.partition('e')[0]}" for prompt, answer in parts]


def test_what_an_encoder_decoder_cannot_read(
    pairs_run: EncoderDecoder, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "'abcabcabc' has 9 characters, and runs/pairs reads 1 to 8, its context"
    refused(capsys, "sample", "--prompt", "abcabcabc", says=says)
    Path("prompts.txt").write_text("a\n\nabcabcabc\n")
    says = "line 3 of 'prompts.txt': 'abcabcabc' has 9 characters"
    refused(capsys, "sample", "--prompts", "prompts.txt", says=says)
    Path("empty.txt").write_text("\n")
    says = "'' has 0 characters, and runs/pairs reads 1 to 8"
    refused(capsys, "sample", "--prompt-file", "empty.txt", says=says)
    refused(capsys, "sample", "--prompt", "x", says="character 'x' at position 0")


# -- a beam


def test_a_beam_of_a_gpt(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Past the context, up to the length; ended by a token."""
    _, model, tokenizer = runs.load(run)
    ids = tokenizer.encode("The cat")
    for options, end in (([], -1), (["--stop", "t"], tokenizer.encode("t")[0])):
        (texts,) = beam_search(model, [ids], 3, 20, end, best=2)
        new = [tokenizer.decode([i for i in text.tokens if i != end]) for text in texts]
        flags = ["--prompt", "The cat", "--length", "20", "--beam", "3", "--samples", "2", *options]
        assert sampled(capsys, *flags) == f"The cat{new[0]}\n---\nThe cat{new[1]}\n"
    assert sampled(capsys, "--beam", "1", "--length", "9") == sampled(
        capsys, "--temperature", "0", "--length", "9"
    )


def test_what_does_not_go_with_a_beam(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, says in (
        (["--temperature", "0.5"], "so --temperature has no meaning"),
        (["--top-k", "3"], "so --top-k has no meaning"),
        (["--explain", "3"], "so --explain has no meaning"),
        (["--samples", "4"], "--samples 4 of --beam 3: a search finds at most as many"),
        (["--stop", "at"], "--stop 'at' is 2 tokens of this run"),
    ):
        refused(capsys, "sample", "--beam", "3", *flags, says=says)
    refused(capsys, "sample", "--beam", "0", says="--beam 0: a whole number, at least 1")


def test_a_training_ends_with_an_answer(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FILE.write_text("".join(f"{source}\t{source[::-1]}\n" for source in SOURCES))
    assert main(["train", "--pairs", str(FILE), *TINY, "--steps", "1", "--validation", "0.2"]) == 0
    *_, answer, _, more = capsys.readouterr().out.splitlines()
    assert answer.startswith("eb\t")
    assert more == "how many of its answers are right: tinygpt eval runs/own-1"
