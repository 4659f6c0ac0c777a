"""Masked tokens: which are targets, what stands in their place, and what that follows from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor.random import Key
from tinygpt import CharacterTokenizer, CorpusError, TrainConfig, story
from tinygpt.data import grammar
from tinygpt.data.masked import Masked, inner_context, masked
from tinygpt.data.prepare import prepare
from tinygpt.data.windows import SideBySide, Windows
from tinygpt.ids import CLS, IGNORED, MASK, MASK_TOKENS, PAD
from tinygpt.tokenizers import SpecialTokenizer

SPECIAL = len(MASK_TOKENS)
V = 30
TEXT = np.random.default_rng(0).integers(0, V - SPECIAL, 500)


def restored(x: Any, y: Any) -> Any:
    """The text: each target in its place."""
    return np.where(y == IGNORED, x, y)


def test_the_shares() -> None:
    """15 % of the tokens are targets; 80 % of these are hidden, 10 % replaced, 10 % left."""
    ids = np.random.default_rng(1).integers(SPECIAL, V, 100)
    hidden = replaced = left = 0
    drawn: set[int] = set()
    for number in range(2000):
        x, y = masked(ids, V, Key(7, 0, 0, number))
        targets = y != IGNORED
        assert targets.sum() == 15
        assert np.array_equal(y[targets], ids[targets])
        assert np.array_equal(x[~targets], ids[~targets])
        hidden += np.count_nonzero(x[targets] == MASK)
        replaced += np.count_nonzero((x[targets] != MASK) & (x[targets] != y[targets]))
        left += np.count_nonzero(x[targets] == y[targets])
        drawn |= set(x[targets].tolist())
    total, same = 30_000, 1 / (V - SPECIAL)  # a random token may be the one that was there
    assert hidden / total == pytest.approx(0.8, abs=0.01)
    assert replaced / total == pytest.approx(0.1 * (1 - same), abs=0.01)
    assert left / total == pytest.approx(0.1 * (1 + same), abs=0.01)
    assert drawn == {MASK, *range(SPECIAL, V)}


def test_each_token_is_a_target_as_often() -> None:
    ids = np.full(40, SPECIAL)
    counts = sum((masked(ids, V, Key(0, 0, 0, n))[1] != IGNORED).astype(int) for n in range(2000))
    assert np.abs(counts / 2000 - 0.15).max() < 0.03
    # a short text has a target too
    assert all(np.count_nonzero(masked(ids[:n], V, Key())[1] != IGNORED) == 1 for n in range(1, 10))


def test_rows_depend_on_seed_and_number_alone() -> None:
    """Not on the batch that a row is in; and each draw and each seed hides other tokens."""
    examples = Masked(Windows(TEXT, 20, 7), V, seed=3, masks=5)
    count = len(examples.windows)
    assert len(examples) == 5 * count
    x, y = examples[np.arange(5 * count)]
    for rows in ([3, 0, 2 * count + 1], [5 * count - 1]):
        some = examples[rows]
        assert np.array_equal(some[0], x[rows])
        assert np.array_equal(some[1], y[rows])
    texts = restored(x, y)[:, 1:] - SPECIAL
    for draw in range(5):  # all rows of a window have its text
        assert np.array_equal(
            texts[draw * count : (draw + 1) * count], examples.windows.texts(slice(None))
        )
    for first in range(count):
        assert len({tuple(row) for row in (y[first::count] == IGNORED).tolist()}) >= 4
    other, _ = Masked(Windows(TEXT, 20, 7), V, seed=4)[np.arange(count)]
    assert np.mean((other == x[:count]).all(axis=1)) < 0.05


def test_no_token_is_lost() -> None:
    """A window of context T has T + 1 tokens; together they are the text, with its ends."""
    for windows in (Windows(TEXT, 20, 21), SideBySide(TEXT, 20), Windows(TEXT[:22], 20)):
        x, y = Masked(windows, V, 0)[np.arange(len(windows))]
        assert (x[:, 0] == CLS).all()
        assert (y[:, 0] == IGNORED).all()
        assert x.shape[1] == windows.context + 2
        texts = restored(x, y)[:, 1:] - SPECIAL
        covered = windows.starts(slice(None))[:, None] + np.arange(21)
        assert np.array_equal(texts, np.asarray(windows.tokens)[covered])
        assert {0, len(windows.tokens) - 1} <= set(covered.ravel().tolist())


def test_stories() -> None:
    """[CLS], the story, its line end, padding; a batch is as long as its longest story."""
    text, tokenizer = grammar.grammar_text(2000, 0), grammar.grammar_tokenizer()
    windows = grammar.StoryWindows(text, 250, tokenizer)
    examples = Masked(windows, tokenizer.size + SPECIAL, seed=0)
    special = SpecialTokenizer(tokenizer, MASK_TOKENS)
    for rows in (np.arange(len(windows)), np.array([0])):
        x, y = examples[rows]
        lengths = windows.lengths[rows]
        assert x.shape == (len(rows), 1 + lengths.max())
        for ids, row, length in zip(restored(x, y), rows, lengths, strict=True):
            assert special.decode(ids[1 : 1 + length]) == text.splitlines(keepends=True)[row]
            assert (ids[1 + length :] == PAD).all()
            assert (y[list(rows).index(row), 1 + length :] == IGNORED).all()


def test_the_data_of_a_training() -> None:
    data = prepare(TrainConfig(task="masked"), 24)
    assert isinstance(data.tokenizer, SpecialTokenizer)
    assert data.tokenizer.tokens == (*MASK_TOKENS, *CharacterTokenizer(story()).tokens)
    x, y = data.windows[[0]]
    assert data.tokenizer.decode(restored(x, y)[0]) == "[CLS]" + story()[:23]
    assert data.floor is data.validation is None
    again = prepare(TrainConfig(task="masked"), 24, data.tokenizer)
    assert np.array_equal(again.windows[[0]][0], x)
    with pytest.raises(CorpusError, match="use --context 244"):
        prepare(TrainConfig(task="masked", text="grammar"), 243)
    assert inner_context(3) == 1
    with pytest.raises(CorpusError, match="use a --context of at least 3"):
        inner_context(2)
