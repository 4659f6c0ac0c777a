"""The story, its windows, and the floor of its loss."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygpt import CharacterTokenizer, floor, story, windows
from tinygpt.data.reading import opening, read_text
from tinygpt.data.windows import CorpusError, Windows

# tokens, context, stride
SIZES = st.tuples(st.integers(2, 60), st.integers(1, 20), st.integers(1, 25)).filter(
    lambda sizes: sizes[0] > sizes[1]
)


def story_ids() -> list[int]:
    return CharacterTokenizer(story()).encode(story())


def test_the_story() -> None:
    text = story()
    assert text.startswith("The cat sat on the mat. ")
    assert text.endswith("The dog liked the park.")
    assert (len(text), len(set(text))) == (149, 22)


@given(SIZES)
def test_bug_49_shift_and_last_window(sizes: tuple[int, int, int]) -> None:
    """y is x one token later, nothing else; every token but the first is a target, also those past
    the last whole stride.
    """
    n, context, stride = sizes
    ids = np.arange(n)  # each token is its own position
    x, y = windows(ids, context, stride)
    assert x.shape == y.shape
    assert x.shape[1] == context
    assert np.array_equal(y, x + 1)
    assert np.array_equal(x, x[:, :1] + np.arange(context))
    if stride <= context:
        assert set(y.ravel()) == set(range(1, n))
    assert y[-1, -1] == n - 1
    assert len(set(x[:, 0])) == len(x)  # no window twice
    # only the last may be shifted back
    assert np.array_equal(x[:-1, 0], np.arange(len(x) - 1) * stride)
    assert 0 < x[-1, 0] - x[-2, 0] <= stride if len(x) > 1 else x[0, 0] == 0


@pytest.mark.parametrize("count", [1, 2, 7])
def test_bug_49_each_token_is_a_target_once_an_epoch(count: int) -> None:
    _, y = windows(range(count * 5 + 1), context=5, stride=5)
    assert np.array_equal(np.sort(y.ravel()), np.arange(1, count * 5 + 1))


def test_bug_49_text_of_just_one_window() -> None:
    x, y = windows([7, 8, 9], context=2)
    assert (x.tolist(), y.tolist()) == ([[7, 8]], [[8, 9]])
    x, y = windows([7, 8, 9], context=2, stride=10)
    assert (x.tolist(), y.tolist()) == ([[7, 8]], [[8, 9]])


def test_windows_are_copies() -> None:
    ids = np.arange(10)
    x, _ = windows(ids, 3)
    x[:] = 0
    assert ids[5] == 5


def test_windows_cut_when_asked_for() -> None:
    ids = story_ids()
    lazy, (x, y) = Windows(ids, 16, stride=3), windows(ids, 16, stride=3)
    assert len(lazy) == len(x)
    rows = np.array([4, 0, 4, len(x) - 1])
    assert np.array_equal(lazy[rows][0], x[rows])
    assert np.array_equal(lazy[rows][1], y[rows])


def test_too_short_a_text() -> None:
    with pytest.raises(CorpusError, match=r"(?s)3 tokens are too few for .* at most 2"):
        windows([1, 2, 3], 3)
    with pytest.raises(CorpusError, match="1 token is too few"):
        windows([1], 1)
    with pytest.raises(CorpusError, match="longer text"):
        windows([], 3)
    with pytest.raises(CorpusError, match="at least 1"):
        windows([1, 2, 3], 1, stride=0)


def counted_floor(ids: list[int], context: int) -> float:
    """The definition, by dictionaries: -mean ln( n(prefix, next) / n(prefix) ) over all windows and
    positions.
    """
    whole = [tuple(ids[i : i + context + 1]) for i in range(len(ids) - context)]
    seen = Counter(window[: t + 1] for window in whole for t in range(context))
    followed = Counter(window[: t + 2] for window in whole for t in range(context))
    total = sum(
        math.log(followed[window[: t + 2]] / seen[window[: t + 1]])
        for window in whole
        for t in range(context)
    )
    return -total / (len(whole) * context)


@pytest.mark.parametrize(("context", "value"), [(32, 0.063), (64, 0.028)])
def test_floor_of_the_story(context: int, value: float) -> None:
    ids = story_ids()
    assert round(floor(ids, context), 3) == value
    assert floor(ids, context) == pytest.approx(counted_floor(ids, context), abs=1e-12)


@given(st.lists(st.integers(0, 2), min_size=2, max_size=40), st.integers(1, 8))
def test_floor_counts_prefixes(ids: list[int], context: int) -> None:
    if len(ids) > context:
        assert floor(ids, context) == pytest.approx(counted_floor(ids, context), abs=1e-12)


def test_floor_of_what_can_and_cannot_be_known() -> None:
    assert floor(list(range(50)), 4) == 0
    # after 0 come 1, 0, 1; after 1 come 0, 1, 0
    third = -(math.log(1 / 3) + 2 * math.log(2 / 3)) / 3
    assert floor([0, 1, 0, 0, 1, 1, 0], 1) == pytest.approx(third)


def test_opening_is_the_first_five_words_as_they_stand() -> None:
    assert opening(story()) == "The cat sat on the"
    assert opening("one\n  two three\tfour\n\nfive six") == "one\n  two three\tfour\n\nfive"
    assert opening("  two words ") == "  two words"
    assert opening(" \n ") == " \n "  # no words at all
    assert opening("x" * 200) == "x" * 80


def test_read_text_takes_line_ends_and_byte_order_marks_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    assert read_text(str(path)) == "one\ntwo\rthree\n"
