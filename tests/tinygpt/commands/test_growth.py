"""Memory and time that grow no faster than what is asked for: long words, long trainings, many
snapshots.
"""

from __future__ import annotations

import json
import random
import tracemalloc
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.tinygpt.tokenizers.test_byte_pair import TEXTS
from tinygpt.__main__ import main
from tinygpt.commands import plot
from tinygpt.commands.plot import Curve
from tinygpt.inside.look import learning
from tinygpt.runs import run as runs
from tinygpt.runs import snapshots
from tinygpt.runs.curves import POINTS, draw, smooth, thin
from tinygpt.runs.metrics import Losses
from tinygpt.tokenizers import BytePairTokenizer
from tinygpt.tokenizers.byte_pair import BYTES, words
from tinygpt.tokenizers.pairs import in_order, integers

# -- byte pairs

LONG = 30_000  # bytes
WORDS: dict[str, Callable[[random.Random], str]] = {  # texts in which words do not end
    "dna": lambda draw: "".join(draw.choices("ACGT", k=LONG)),
    "spaces": lambda draw: " " * LONG,
    "chinese": lambda draw: "".join(
        chr(0x4E00 + int(draw.paretovariate(0.7)) % 4000) for _ in range(LONG // 3)
    ),
}


def peak(work: Callable[[], Any]) -> int:
    """Bytes of Python's and NumPy's memory that it takes at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", WORDS)
def test_bug_95_memory_of_words_that_do_not_end(kind: str) -> None:
    """Below 64 bytes a byte of text, to learn from and to encode; lists took 230."""
    text = WORDS[kind](random.Random(0))
    short = peak(lambda: BytePairTokenizer.train(text[: len(text) // 2], 300))
    assert peak(lambda: BytePairTokenizer.train(text, 300)) - short < 64 * LONG / 2
    tokenizer = BytePairTokenizer.train("the cat sat on the mat", 270)
    assert peak(lambda: tokenizer.encode(text)) < 64 * LONG


@pytest.mark.parametrize(("size", "bytes_each"), [(7, 4), ((1 << 31) - 1, 4), (1 << 31, 8)])
def test_integers(size: int, bytes_each: int) -> None:
    """As wide as the largest of them needs; sorted where they lie."""
    numbers = integers([size, 3, -1], size)
    assert numbers.itemsize == bytes_each
    assert list(in_order(numbers)) == [-1, 3, size]


def tokens_by_rank(word: str, ranks: dict[tuple[bytes, bytes], int]) -> list[bytes]:
    """One merge at a time: that of the lowest rank, of equals the leftmost."""
    parts = [bytes([byte]) for byte in word.encode()]
    while True:
        found = [
            (ranks[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in ranks
        ]
        if not found:
            return parts
        _, place = min(found)
        parts[place : place + 2] = [parts[place] + parts[place + 1]]


def test_bug_95_a_merge_before_the_one_that_makes_its_parts() -> None:
    """It is done as soon as they are made: the first ab takes the next a, and the second ab never
    comes.
    """
    tokenizer = BytePairTokenizer([*BYTES, b"ab", b"aba"], [(b"ab", b"a"), (b"a", b"b")], {})
    assert [tokenizer.tokens[i] for i in tokenizer.encode("abab")] == [b"aba", b"b"]


@given(TEXTS, TEXTS, st.randoms(use_true_random=False))
def test_merges_in_any_order(text: str, other: str, draw: random.Random) -> None:
    learned = BytePairTokenizer.train(text + ".", 300, specials=())
    merges = list(learned.merges)
    draw.shuffle(merges)
    tokenizer = BytePairTokenizer(learned.tokens, merges, {})
    ranks = {merge: rank for rank, merge in enumerate(merges)}
    for each in (text, other):
        tokens = [tokenizer.tokens[i] for i in tokenizer.encode(each)]
        assert tokens == [token for word in words(each) for token in tokens_by_rank(word, ranks)]


# -- pictures


def test_bug_95_a_long_curve_is_drawn_as_a_short_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its spikes stay, matplotlib gets as many points as the picture has, and the mean is that of
    all values.
    """
    drawn: list[Axes] = []

    def savefig(figure: Figure, file: Any, **options: Any) -> None:
        drawn.extend(figure.axes)
        if isinstance(file, Path):
            file.touch()

    monkeypatch.setattr(Figure, "savefig", savefig)
    count = 20_000
    losses = [3.0 + i % 7 / 10 for i in range(count)]
    losses[7777], losses[12345] = 50.0, 0.5
    found = Losses(list(range(count)), losses, list(enumerate(losses)), None)
    curve = Curve("long", b"", "train", found)
    plot.draw([curve], tmp_path / "a.png")
    records: list[dict[str, Any]] = [
        {"step": i, "loss": loss, "lr": 0.1, "validation_loss": loss}
        for i, loss in enumerate(losses)
    ]
    (tmp_path / "metrics.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records)
    )
    draw(tmp_path / "metrics.jsonl", tmp_path / "b.png", unknowing=3.0)
    assert len(drawn) == 2
    for axes in drawn:
        raw, smoothed, dots = axes.lines[:3]
        for line in (raw, dots):
            steps, values = (list(part) for part in line.get_data())
            assert len(steps) <= POINTS
            assert {7777, 12345, 0, count - 1} <= set(steps)
            assert values == [losses[i] for i in steps]
        means = dict(zip(*(list(part) for part in smoothed.get_data()), strict=True))
        assert means[7777] == pytest.approx(sum(losses[7577:7978]) / 401)


@given(st.lists(st.floats(-1e6, 1e6), max_size=100), st.integers(1, 40))
def test_thinned_values(values: list[float], repeated: int) -> None:
    """Increasing places, not more than there is room for; the first, the last, the lowest and the
    highest among them.
    """
    values = values * repeated
    places = thin(values)
    assert places == sorted(set(places))
    assert len(places) <= POINTS
    if values:
        assert {0, len(values) - 1} <= set(places)
        assert {min(values), max(values)} <= {values[i] for i in places}
    whole = smooth(values, range(len(values)))
    assert smooth(values, places) == [whole[i] for i in places]


def test_bug_95_of_many_snapshots_some_are_looked_at(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Evenly spread, the first and the last among them; the others are not even read."""
    for step in range(4, 100):
        (run / "snapshots" / f"{step}.safetensors").write_bytes(
            (run / "snapshots" / "1.safetensors").read_bytes() if step % 9 == 0 else b"not read"
        )
    monkeypatch.setattr(learning, "SNAPSHOTS", 12)
    kept = [step for step, _ in snapshots.load(runs.load(run)[0], 12)]
    assert kept == [0, 9, 18, 27, 36, 45, 54, 63, 72, 81, 90, 99]
    assert main(["look", "--length", "0"]) == 0
    assert capsys.readouterr().out.endswith(
        "snapshots: 12 of 100 are shown, evenly spread; 88 are left out\n"
    )
    monkeypatch.setattr(learning, "SNAPSHOTS", 1000)
    for step in range(4, 100):
        (run / "snapshots" / f"{step}.safetensors").unlink()
    assert main(["look", "--length", "0"]) == 0
    assert "left out" not in capsys.readouterr().out
