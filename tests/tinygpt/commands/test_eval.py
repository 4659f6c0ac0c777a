"""`tinygpt eval`: each target once, in nats, perplexity and bits; on what was kept back, or on any
text; nothing is changed.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from tensor import random
from tests.helpers.program import TINY, contents, created, put_weights, refused
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig, story
from tinygpt.__main__ import main
from tinygpt.commands.eval import byte_count, targets_of
from tinygpt.data import grammar
from tinygpt.data import prepare as data
from tinygpt.data.windows import SideBySide
from tinygpt.ids import IGNORED
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.runs.run import Run
from tinygpt.tokenizers import BytePairTokenizer, ByteTokenizer, Tokenizer, WordTokenizer
from tinygpt.training.measure import batch_of

TEXT = "Es grünt so grün, wenn Spaniens Blüten blühen. " * 8


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """What `tinygpt eval` says, by the first word of the line."""
    assert main(["eval", *arguments]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= 80
    lines: dict[str, str] = dict(line.split(maxsplit=1) for line in out.splitlines())
    return lines


def number(text: str) -> float:
    found = re.match(r"[\d.e+-]+\d", text)
    assert found
    return float(found.group())


def by_hand(model: GPT, ids: list[int]) -> float:
    """The mean of -ln p over the targets: a window, then the next; the last window ends with the
    text and tells what is left.
    """
    context, told_so_far = model.config.context, 0
    losses: list[float] = []
    starts = [*range(0, len(ids) - context - 1, context), len(ids) - context - 1]
    for start in starts:
        logits = model(ids[start : start + context]).detach().numpy()[0].astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        losses += [
            -log_p[t, ids[start + t + 1]] for t in range(context) if start + t + 1 > told_so_far
        ]
        told_so_far = start + context
    assert len(losses) == len(ids) - 1
    return float(np.mean(losses))


def made(tokenizer: Tokenizer, config: GPTConfig, **choices: Any) -> tuple[Path, GPT]:
    """A run with fresh weights, as after no step."""
    model = GPT(config, generator=random.Generator(3))
    run = created(Run(config, TrainConfig(**choices), "The", folder=Path("made")), tokenizer)
    checkpoint.save(
        run.folder,
        {runs.MODEL: {name: w.array for name, w in model.state_dict().items()}},
        checkpoint.State(),
    )
    return run.folder, model


# -- windows


@given(st.integers(2, 60), st.integers(1, 20))
def test_each_token_but_the_first_is_a_target_once(tokens: int, context: int) -> None:
    windows = SideBySide(np.arange(tokens), context)
    x, y = windows[np.arange(len(windows))]
    assert sorted(y[y != IGNORED]) == list(range(1, tokens))
    assert np.array_equal(y[y != IGNORED], x[y != IGNORED] + 1)
    assert x.shape[1] == min(context, tokens - 1)
    assert np.array_equal(targets_of(windows), np.arange(1, tokens))


def test_batches_are_small_where_the_vocabulary_is_large() -> None:
    assert batch_of(GPTConfig(22), 32) == 64
    assert batch_of(GPTConfig(50257, 1024, 768, 12, 12), 1024) == 1


# -- numbers


def test_loss_perplexity_and_bits(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """148 targets at context 8: the last window overlaps the one before, and what that told does
    not count again.
    """
    lines = told(capsys, "story-1", "--text", "story")
    _, model, tokenizer = runs.load(run)
    loss = by_hand(model, tokenizer.encode(story()))
    assert "the mean over 148 targets" in lines["loss"]
    assert number(lines["loss"]) == pytest.approx(loss, abs=6e-5)
    assert number(lines["perplexity"]) == pytest.approx(math.exp(loss), rel=1e-3)
    assert number(lines["bits"]) == pytest.approx(loss / math.log(2), abs=6e-5)
    assert lines["bits"].endswith("over 148 bytes")
    assert told(capsys, "--text", "story")["loss"] == lines["loss"]


def test_weights_in_8_bits(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = told(capsys, "--text", "story", "--int8")
    _, model, tokenizer = runs.load(run, best=True)
    whole = by_hand(model, tokenizer.encode(story()))
    loss = by_hand(model.to_int8(), tokenizer.encode(story()))
    assert loss != whole
    assert lines["run"].endswith("weights, in 8 bits")
    assert number(lines["loss"]) == pytest.approx(loss, abs=6e-5)


def test_nothing_changes(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, drawn = contents(), dict(random.default.state())
    told(capsys)
    assert contents() == before
    assert random.default.state() == drawn


def test_characters_of_two_bytes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Bits are counted over bytes of UTF-8, not over characters; and the first character is no
    target.
    """
    _, model = made(CharacterTokenizer(TEXT), GPTConfig(len(set(TEXT)), 8, 8, 2, 1))
    (here / "text.txt").write_text("ü" + TEXT, encoding="utf-8")
    lines = told(capsys, "made", "--text", "text.txt")
    size = len(TEXT.encode())
    loss = by_hand(model, CharacterTokenizer(TEXT).encode("ü" + TEXT))
    assert lines["bits"].endswith(f"over {size} bytes")
    assert size > len(TEXT)
    assert number(lines["bits"]) == pytest.approx(loss * len(TEXT) / math.log(2) / size, abs=6e-5)


@pytest.mark.parametrize(
    "tokenizer",
    [
        CharacterTokenizer(TEXT),
        ByteTokenizer(),
        BytePairTokenizer.train(TEXT, 270),
        WordTokenizer(TEXT),
    ],
)
def test_tokens_of_a_text_have_its_bytes(tokenizer: Tokenizer) -> None:
    assert byte_count(tokenizer, np.array(tokenizer.encode(TEXT))) == len(TEXT.encode())


def test_words_it_does_not_know(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(WordTokenizer("so grün"), GPTConfig(4, 8, 8, 2, 1))
    (here / "text.txt").write_text("so grün wie grün")
    assert told(capsys, "made", "--text", "text.txt")["unknown"].startswith("1 of the targets")


def test_a_text_shorter_than_the_context(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "text.txt").write_text("cat")
    lines = told(capsys, "--text", "text.txt")
    _, model, tokenizer = runs.load(run)
    c, a, t = tokenizer.encode("cat")
    assert number(lines["loss"]) == pytest.approx(float(model.loss([c, a], [a, t])), abs=6e-5)


def test_folders(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "texts").mkdir()
    (here / "texts/a.txt").write_text("The cat sat.")
    assert "over 11 targets" in told(capsys, "--text", "texts")["loss"]


# -- which text, which weights


@pytest.fixture
def own(here: Path) -> Path:
    """A run on a text of its own, a quarter of which was kept back."""
    (here / "own.txt").write_text(TEXT, encoding="utf-8")
    assert (
        main(
            [
                "train",
                "--text",
                "own.txt",
                "--validation",
                "0.25",
                *TINY,
                "--steps",
                "2",
                "--out",
                "mine",
            ]
        )
        == 0
    )
    return here / "mine"


def test_by_default_on_what_was_kept_back(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    lines = told(capsys, "mine")
    _, model, tokenizer = runs.load(own, best=True)
    kept = len(TEXT) // 4
    assert lines["text"] == f"own.txt: the last {kept} characters, not learned from"
    assert number(lines["loss"]) == pytest.approx(
        by_hand(model, tokenizer.encode(TEXT[-kept:])), abs=6e-5
    )
    assert f"over {kept - 1} targets" in lines["loss"]


def test_best_and_last_weights(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The best by default, as sample takes them."""
    weights = load_file(own / "model.safetensors")
    weights["token_embedding.weight"] = weights["token_embedding.weight"] * 40
    put_weights(own, weights)
    capsys.readouterr()
    best, last = told(capsys, "mine", "--best"), told(capsys, "mine", "--last")
    assert told(capsys, "mine") == best
    assert (best["run"], last["run"]) == ("mine, its best weights", "mine, its last weights")
    assert number(best["loss"]) < number(last["loss"])


def test_stories_of_the_grammar(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each story in a window of its own, with the floor; not those of the run's own seed."""
    monkeypatch.setattr(data, "GRAMMAR_MEASURED", 2000)
    tokenizer = grammar.grammar_tokenizer()
    config = GPTConfig(tokenizer.size, 400, 8, 2, 1)
    _, model = made(tokenizer, config, text="grammar", seed=5)
    lines = told(capsys, "made")
    stories = grammar.grammar_text(2000, 5 + (1 << 32))
    x, y = (windows := grammar.StoryWindows(stories, 400, tokenizer))[np.arange(len(windows))]
    loss = float(model.loss(x, y))
    assert f"over {len(stories):,} targets" in lines["loss"]
    assert number(lines["loss"]) == pytest.approx(loss, abs=2e-4)
    assert number(lines["floor"]) == pytest.approx(grammar.floor(), abs=6e-5)


def test_stories_in_other_tokens(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data, "GRAMMAR_MEASURED", 500)
    made(ByteTokenizer(), GPTConfig(256, 16, 8, 2, 1))
    lines = told(capsys, "made", "--text", "grammar")
    assert "floor" not in lines
    assert "nats a byte" in lines["loss"]


# -- refusals


def test_refuses(run: Path, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "zebra.txt").write_text("The Zebra")
    (here / "one.txt").write_text("T")
    for arguments, says in (
        (["--text", "zebra.txt"], "character 'Z' at position 4 is not one of the 22"),
        (
            ["--text", "one.txt"],
            "a text of one token leaves nothing to predict\ngive a longer text",
        ),
        (["--text", "nowhere.txt"], "no file is named 'nowhere.txt'"),
        (["--text", "grammar"], "this tokenizer knows"),
        (["--best"], "story-1 has no best weights: no validation loss was measured"),
        (["--best", "--last"], "not allowed with"),
        (["nowhere"], "no run is named 'nowhere'"),
        (["--txt", "a"], "no flag is named --txt; did you mean --text?"),
        (["--device", "gpu"], "no device is named 'gpu'"),
        (["story-1", "more"], "'more' is one word too many"),
    ):
        refused(capsys, "eval", *arguments, says=says)


def test_refuses_a_text_that_has_changed(
    own: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its last quarter is not what was kept back any more."""
    (here / "own.txt").write_text(TEXT + "grün", encoding="utf-8")
    capsys.readouterr()
    refused(
        capsys,
        "eval",
        "mine",
        says="'own.txt' is not the text that mine was trained on: its hash is another\nrestore",
    )
    (here / "own.txt").unlink()
    refused(
        capsys,
        "eval",
        "mine",
        says="no file is named 'own.txt': mine was trained on it\n"
        "restore 'own.txt', or name a text to measure on: --text FILE",
    )


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_refuses_weights_that_give_no_number(
    run: Path, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    """Not `loss nan`, and as unsure as between nan characters."""
    weights = load_file(run / "model.safetensors")
    weights["final_norm.gain"][0] = wrong
    put_weights(run, weights)
    refused(
        capsys,
        "eval",
        says="the loss of runs/story-1 is nan: what its weights give is no finite number\n"
        "restore them from a copy, or train again",
    )


def test_refuses_to_guess_a_text(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(ByteTokenizer(), GPTConfig(256, 8, 8, 2, 1))
    refused(
        capsys,
        "eval",
        "made",
        says="made was not trained here, so no text was kept back\nname one to measure on",
    )


def test_the_line_end_that_editors_put_at_the_end(
    run: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The story has none, so its tokenizer knows none; one in the middle is still refused."""
    text = "The dog sat on the mat. The cat ran in the park."
    (here / "with.txt").write_text(text + "\n")
    (here / "without.txt").write_text(text)
    (here / "middle.txt").write_text(text.replace(". ", ".\n"))
    capsys.readouterr()
    assert (
        told(capsys, "--text", "with.txt")["loss"] == told(capsys, "--text", "without.txt")["loss"]
    )
    refused(capsys, "eval", "--text", "middle.txt", says="at position 23 is not one of the 22")
