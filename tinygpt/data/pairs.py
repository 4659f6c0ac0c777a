"""Pairs of a source and a target, as batches of token ids.

    pair        abc -> cba, in a batch whose longest source and target have 4 tokens

    x.source    a     b  c  <pad>            the encoder reads the source
    x.target    <sos> c  b  a      <pad>     the decoder reads the target after <sos>
    y           c     b  a  <eos>  -1        each position predicts the next token, or nothing (-1)

So the target of position t is predicted from the whole source and the targets before t (teacher
forcing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tinygpt.data.reading import name_of, read_text
from tinygpt.data.windows import CorpusError
from tinygpt.files import brief
from tinygpt.ids import EOS, IGNORED, PAD, SOS, Ids, SourceTarget, padded
from tinygpt.terminal import number_of
from tinygpt.tokenizers import SpecialTokenizer


class Pair(NamedTuple):
    """A source text, and the target text that a model is to write for the source."""

    source: str
    target: str


class Pairs:
    """Pairs in the place of windows: p[rows] gives x, y for these pairs.

    x is a SourceTarget. y: (B, T) has the target, EOS, and -1 after. S and T are the longest of the
    batch, at most `context`. Raises CorpusError where there is no pair, where a source has more
    tokens than the context, or where a target and its EOS have more.
    """

    example = "pair"

    def __init__(self, pairs: Sequence[Pair], tokenizer: SpecialTokenizer, context: int):
        if not pairs:
            raise CorpusError("no pairs to learn from or to measure on\ngive at least one pair")
        self.pairs, self.context = pairs, context
        # what is asked and what is right, as text; and the sources as ids
        self.questions = [pair.source for pair in pairs]
        self.answers = [pair.target for pair in pairs]
        self.prompts = [tokenizer.encode(pair.source) for pair in pairs]
        targets = [tokenizer.encode(pair.target) for pair in pairs]
        _check_lengths(pairs, self.prompts, targets, context)
        self.sources, self.source_lengths = padded(self.prompts)
        self.targets, self.target_lengths = padded([[SOS, *target, EOS] for target in targets])

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, rows: Any) -> tuple[SourceTarget, Ids]:
        source = self.sources[rows, : self.source_lengths[rows].max()]
        target = self.targets[rows, : self.target_lengths[rows].max()]
        # a tokenizer never gives EOS or PAD for a text
        read = np.where(target[:, :-1] == EOS, PAD, target[:, :-1])
        predicted = np.where(target[:, 1:] == PAD, IGNORED, target[:, 1:])
        return SourceTarget(source, read), predicted


def _check_lengths(
    pairs: Sequence[Pair], sources: list[list[int]], targets: list[list[int]], context: int
) -> None:
    """Raise CorpusError for the first pair that does not fit the context."""
    longest = max(max(map(len, sources)), max(map(len, targets)) + 1)
    if longest <= context:
        return
    for i, (pair, source, target) in enumerate(zip(pairs, sources, targets, strict=True), 1):
        if max(len(source), len(target) + 1) <= context:
            continue
        kind, text, count = "source", brief(pair.source), f"{len(source)} tokens"
        if len(source) <= context:
            kind, text, count = "target", brief(pair.target), f"{len(target)} tokens and <eos>"
        raise CorpusError(
            f"the {kind} of pair {i} does not fit a context of {context}: '{text}' has {count}\n"
            f"use --context {longest}, which all pairs fit, or leave the longer pairs out"
        )


# -- pairs of a file


def read_pairs(path: str, validation: float) -> tuple[list[Pair], list[Pair]]:
    """The pairs of a UTF-8 file to learn from, and those kept back to measure on. A line is a
    source, a tab and a target.

    Of the different sources, the last are kept back: this share of them. So no source is in both
    lists. Raises InputError, as `read_parts` does, for a file that is no text, and CorpusError for
    a line that is no pair, naming its number, and for a share that keeps back no source.
    """
    lines = read_text(path).removesuffix("\n").split("\n")
    pairs = [_pair(line, f"{name_of(path)}, line {i}") for i, line in enumerate(lines, 1)]
    kept = held_back([pair.source for pair in pairs], validation, "source")
    learned = [pair for pair in pairs if pair.source not in kept]
    return learned, [pair for pair in pairs if pair.source in kept]


def held_back(texts: Sequence[str], validation: float, word: str) -> set[str]:
    """Of the different texts, in their order, the last: this share of them. Raises CorpusError for
    a share that keeps back none. word: for people, what a text is.
    """
    different = list(dict.fromkeys(texts))
    kept = int(len(different) * validation)
    if validation and not kept:
        least = math.ceil(1000 / len(different)) / 1000  # a share that keeps one back
        larger = f"--validation {least:g} or " if least < 1 else ""
        raise CorpusError(
            f"validation {validation:g} of {number_of(len(different), word)} keeps none back to "
            f"measure on\nuse more of them, or {larger}--validation 0, which learns from all"
        )
    return set(different[len(different) - kept :])


def _pair(line: str, where: str) -> Pair:
    """The pair of a line. Raises CorpusError for a line that is not two texts and a tab between."""
    columns = line.split("\t")
    if len(columns) == 2 and all(column.strip() for column in columns):
        return Pair(*columns)
    problem = f"{len(columns)} columns" if len(columns) > 2 else "an empty side"
    if len(columns) == 1:
        problem = "no tab" if line.strip() else "nothing"
    raise CorpusError(
        f"{where} has {problem}: '{brief(line)}'\n"
        "write each pair as a line of its own: the source, one tab, the target"
    )
