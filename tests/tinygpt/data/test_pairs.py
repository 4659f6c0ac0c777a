"""Pairs of a source and a target: their batches, and the file that holds them."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tinygpt import CharacterTokenizer, CorpusError, InputError
from tinygpt.data.pairs import Pair, Pairs, SourceTarget, read_pairs
from tinygpt.ids import EOS, IGNORED, PAD, PAIR_TOKENS, SOS
from tinygpt.tokenizers import SpecialTokenizer

TOKENIZER = SpecialTokenizer(CharacterTokenizer("abcd"), PAIR_TOKENS)
PAIRS = [Pair("abc", "cba"), Pair("abcd", "dcba"), Pair("a", "a"), Pair("ab", "ba")]
A, B, C, D = range(3, 7)

# -- batches


def test_the_target_is_shifted_right() -> None:
    x, y = Pairs(PAIRS, TOKENIZER, context=5)[np.array([0, 1, 2])]
    assert x.source.tolist() == [[A, B, C, PAD], [A, B, C, D], [A, PAD, PAD, PAD]]
    assert x.target.tolist() == [[SOS, C, B, A, PAD], [SOS, D, C, B, A], [SOS, A, PAD, PAD, PAD]]
    assert y.tolist() == [
        [C, B, A, EOS, IGNORED],
        [D, C, B, A, EOS],
        [A, EOS, IGNORED, IGNORED, IGNORED],
    ]
    assert x.source.dtype == x.target.dtype == y.dtype == np.int64


def test_nothing_but_targets_and_eos_is_learned() -> None:
    pairs = Pairs(PAIRS, TOKENIZER, context=5)
    x, y = pairs[np.arange(4)]
    assert PAD not in y
    assert SOS not in y
    assert np.count_nonzero(y != IGNORED) == sum(len(pair.target) + 1 for pair in PAIRS)
    # each token that counts is read at the next position, and nothing else is
    assert np.array_equal(x.target[:, 1:] != PAD, y[:, 1:] != IGNORED)
    assert np.all((x.target[:, 1:] == y[:, :-1]) | (y[:, 1:] == IGNORED))


def test_a_batch_is_as_long_as_its_longest() -> None:
    pairs = Pairs(PAIRS, TOKENIZER, context=50)
    for rows in ([2, 3], slice(2, 4), np.array([2, 3])):
        x, y = pairs[rows]
        assert x.source.tolist() == [[A, PAD], [A, B]]
        assert y.tolist() == [[A, EOS, IGNORED], [B, A, EOS]]
    assert len(pairs) == 4
    assert pairs.context == 50


def test_a_part_of_a_batch() -> None:
    x, _ = Pairs(PAIRS, TOKENIZER, context=5)[np.arange(4)]
    assert len(x) == 4
    assert x.size == x.target.size == 20
    parts = [x[part] for part in np.array_split(np.arange(len(x)), 3)]
    assert [len(part) for part in parts] == [2, 1, 1]
    assert all(isinstance(part, SourceTarget) for part in parts)
    assert np.array_equal(np.concatenate([part.source for part in parts]), x.source)
    assert np.array_equal(np.concatenate([part.target for part in parts]), x.target)


def test_pairs_that_do_not_fit_the_context() -> None:
    with pytest.raises(
        CorpusError,
        match=r"the target of pair 2 does not fit a context of 4: 'dcba' has 4 tokens and <eos>\n"
        r"use --context 5, which all pairs fit",
    ):
        Pairs(PAIRS, TOKENIZER, context=4)
    with pytest.raises(
        CorpusError,
        match=r"the source of pair 2 does not fit a context of 3: 'abcda' has 5 .*\n.*--context 6",
    ):
        Pairs([Pair("a", "a"), Pair("abcda", "a"), Pair("abcdab", "d")], TOKENIZER, context=3)
    with pytest.raises(CorpusError, match="no pairs"):
        Pairs([], TOKENIZER, context=3)


# -- files


def file(folder: Path, text: str) -> str:
    path = folder / "pairs.tsv"
    path.write_bytes(text.encode())
    return str(path)


def test_pairs_of_a_file(tmp_path: Path) -> None:
    path = file(tmp_path, "the cat\tle chat\r\na dog\tun chien \nthé\tté\n")
    expected = [Pair("the cat", "le chat"), Pair("a dog", "un chien "), Pair("thé", "té")]
    assert read_pairs(path, 0.0) == (expected, [])
    assert read_pairs(path, 0.4) == (expected[:2], expected[2:])


def test_no_source_is_in_both_parts(tmp_path: Path) -> None:
    """The same source may stand in the file with several targets."""
    lines = [f"{i % 7}\t{i}\n" for i in range(50)]
    learned, kept = read_pairs(file(tmp_path, "".join(lines)), 0.3)
    assert {pair.source for pair in kept} == {"5", "6"}
    assert {pair.source for pair in learned} == {"0", "1", "2", "3", "4"}
    assert len(learned) + len(kept) == 50


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("the cat", "no tab: 'the cat'"),
        ("a\tb\tc", "3 columns: "),
        ("a\t", "an empty side: "),
        (" \tb", "an empty side: "),
        ("", "nothing: ''"),
    ],
)
def test_a_line_that_is_no_pair(line: str, problem: str, tmp_path: Path) -> None:
    path = file(tmp_path, f"a\tb\n{line}\nc\td\n")
    said = rf"pairs\.tsv', line 2 has {re.escape(problem)}.*\nwrite"
    with pytest.raises(CorpusError, match=said):
        read_pairs(path, 0.1)


def test_a_file_without_pairs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is empty"):
        read_pairs(file(tmp_path, ""), 0.1)
    with pytest.raises(InputError, match="no file is named"):
        read_pairs(str(tmp_path / "none"), 0.1)


def test_a_share_that_keeps_nothing_back(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError,
        match=r"0\.1 of 2 sources keeps none back.*\n.*--validation 0\.5 or --validation 0,",
    ):
        read_pairs(file(tmp_path, "a\tb\nb\ta\na\tc\n"), 0.1)
    with pytest.raises(CorpusError, match=r"--validation 0\.334 or"):
        read_pairs(file(tmp_path, "a\tb\nb\ta\nc\tc\n"), 0.1)
    assert len(read_pairs(file(tmp_path, "a\tb\nb\ta\nc\tc\n"), 0.334)[1]) == 1
    with pytest.raises(CorpusError, match=r"1 source keeps none .*\nuse more of them, or --valid"):
        read_pairs(file(tmp_path, "a\tb"), 0.9)
