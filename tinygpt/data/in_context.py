"""Tasks that are learned from the examples in a text, not from the weights: each text has a rule of
its own, drawn anew.

copy       hqzmekhqzmehqzmewbahqz       a sequence, again and again, other letters between
map        k3b7x1b7k3x1k3b7             letters and their digits; then these letters again
patterns   dzqm qmkd kdzq zqmk          words that go round the same circle of five letters

A rule is a table: for each letter its digit, or the letter that comes after it. The text shows an
answer when a letter comes for the first time. The later answers can be known, and only these count
in the loss. A tenth of all rules is kept back to measure on.
"""

from __future__ import annotations

from collections.abc import Callable
from string import ascii_lowercase, digits
from typing import Any, NamedTuple

import numpy as np

from tensor.random import philox
from tinygpt.data.tasks import withheld
from tinygpt.data.windows import CorpusError
from tinygpt.ids import IGNORED, Ids
from tinygpt.tokenizers import CharacterTokenizer, Tokenizer

LETTERS = len(ascii_lowercase)
SHORTEST, LONGEST = 5, 8  # letters of a sequence that is copied
GAP = 3  # other letters between two copies, at most
PAIRS = 1, 2, 4, 8  # letters of a map
CIRCLE, WORD = 5, 4  # letters of a circle, and of a word
SPACE = LETTERS  # the token after a word
DRAWS = 0xFFFFFFFD  # in the place of a module's number: apart from layers and masks
TEXTS = 1 << 32  # of a training: more than any has time for


class Drawn(NamedTuple):
    """Texts of T tokens, and what is to be known of them."""

    ids: Ids  # (N, T)
    rule: Ids  # (N, LETTERS): the answer to each letter, -1 where the text has no such letter
    examples: Ids  # (N, T): how many come before this answer; -1 for what is no answer
    known: Any  # bools (N, T): whether the text before shows this answer


class Numbers:
    """Uniform numbers in [0, 1) for some rows, a function of (seed, row, attempt)."""

    def __init__(self, seed: int, rows: Ids, attempt: int):
        self.seed, self.rows, self.attempt, self.blocks = seed, rows, attempt, 0

    def uniform(self, count: int) -> Any:
        """The next numbers of each row.   (N, count)"""
        blocks = self.blocks + np.arange(-(-count // 4), dtype=np.uint64)[None, :]
        self.blocks += blocks.size
        attempt, module = (np.full((1, 1), n, np.uint64) for n in (self.attempt, DRAWS))
        words = philox((blocks, attempt, module, self.rows[:, None].astype(np.uint64)), self.seed)
        return np.stack(words, axis=-1).reshape(len(self.rows), -1)[:, :count] * 2.0**-32

    def below(self, limit: int | Ids, count: int = 1) -> Ids:
        """Whole numbers from 0 on, below the limit.   (N, count)"""
        whole: Ids = (self.uniform(count) * limit).astype(np.int64)
        return whole

    def letters(self, count: int) -> Ids:
        """Different letters in random order.   (N, count)"""
        order: Ids = np.argsort(self.uniform(LETTERS), axis=1, kind="stable")
        return order[:, :count]


def copy(numbers: Numbers, length: int) -> Drawn:
    """A sequence, again and again, with 0 to 3 other letters between. Each copy is an example."""
    size, places = SHORTEST + numbers.below(LONGEST - SHORTEST + 1), np.arange(length)
    letters = numbers.letters(LETTERS)  # those of the sequence first
    lengths = size + numbers.below(GAP + 1, length // SHORTEST + 1)
    starts = np.cumsum(lengths, axis=1) - lengths  # (N, copies)
    copies = (places[:, None] >= starts[:, None]).sum(axis=2) - 1
    offsets = places - np.take_along_axis(starts, copies, axis=1)
    others = size + numbers.below(LETTERS - size, length)
    ids = np.take_along_axis(letters, np.where(offsets < size, offsets, others), axis=1)
    # nobody can know where the next copy begins
    inside = (offsets > 0) & (offsets < size)
    after = np.where(np.arange(1, LONGEST) < size, letters[:, 1:LONGEST], IGNORED)
    rule = _table(letters[:, : LONGEST - 1], after)
    return Drawn(ids, rule, np.where(inside, copies, IGNORED), inside & (copies > 0))


def key_value(numbers: Numbers, length: int) -> Drawn:
    """Letters and their digits; then these letters again. Measured are the first digit, without
    examples, and the first question, to which all pairs before are examples.
    """
    given = np.array(PAIRS)[numbers.below(len(PAIRS))]  # (N, 1)
    places, most = np.arange(-(-length // 2)), max(PAIRS)
    letters, values = numbers.letters(most), numbers.below(len(digits), most)
    # half of the texts ask in the order in which the pairs were given, which is learned sooner
    ordered, start = numbers.below(2), numbers.below(given)
    again = np.where(ordered, (places + start) % given, numbers.below(given, places.size))
    pairs = np.where(places < given, places, again)
    keys, answers = (np.take_along_axis(each, pairs, axis=1) for each in (letters, values))
    first = (places == 0) | (places == given)
    examples, known = np.where(first, places, IGNORED), places >= given
    return Drawn(
        _row(length, keys, LETTERS + answers),
        _table(keys, answers),
        _row(length, np.full_like(keys, IGNORED), examples),
        _row(length, np.zeros_like(known), known),
    )


def circle(numbers: Numbers, length: int) -> Drawn:
    """Words that go round a circle of letters, each from another place on. Each word before is an
    example.
    """
    letters, words = numbers.letters(CIRCLE), -(-length // (WORD + 1))
    starts = numbers.below(CIRCLE, words)
    places = (starts[..., None] + np.arange(WORD)) % CIRCLE  # (N, words, WORD)
    written = np.take_along_axis(letters[:, None], places, axis=2)
    asked = places[..., :-1]
    # whether a word shows what comes after a letter, and whether a word before does
    shows = (asked[..., None] == np.arange(CIRCLE)).any(axis=2)
    shown = np.cumsum(shows, axis=1) > shows
    known = np.take_along_axis(shown, asked, axis=2)
    before = np.broadcast_to(np.arange(words)[:, None], asked.shape)
    nothing, never = np.full_like(starts, IGNORED), np.zeros_like(starts, bool)
    return Drawn(
        _row(length, written, np.full_like(starts, SPACE)),
        _table(letters, np.roll(letters, -1, axis=1)),
        _row(length, nothing, before, nothing),
        _row(length, never, known, never),
    )


def _row(length: int, *parts: Any) -> Any:
    """Blocks of tokens, one after the other, up to a length.   parts: (N, blocks) or (N, blocks,
    tokens)   (N, length)
    """
    blocks = np.dstack(parts)
    return blocks.reshape(len(blocks), -1)[:, :length]


def _table(letters: Ids, answers: Ids) -> Ids:
    """The answer to each letter, -1 for a letter that is not there.   (N, LETTERS)"""
    rule = np.full((len(letters), LETTERS), IGNORED)
    np.put_along_axis(rule, letters, answers, axis=1)
    return rule


class Task(NamedTuple):
    """A task whose rule is in the text."""

    draw: Callable[[Numbers, int], Drawn]
    tokens: str  # by their ids
    answers: int  # different answers that a guess chooses from
    least: int  # tokens of a text in which something can be known


TASKS = {
    "copy": Task(copy, ascii_lowercase, LETTERS, 2 * LONGEST + GAP),
    "map": Task(key_value, ascii_lowercase + digits, len(digits), 2 * max(PAIRS) + 2),
    "patterns": Task(circle, ascii_lowercase + " ", LETTERS, 2 * (WORD + 1)),
}


class InContext:
    """Texts of a task in the place of windows: t[rows] gives x, y: (len(rows), context).

    Text `row` follows from the seed and the row alone. Of the rules a tenth is kept back: the texts
    to measure on have these rules, the texts to learn from have none of them. y is -1 where nothing
    before shows the answer.
    """

    example = "text"

    def __init__(self, task: str, context: int, seed: int, tokenizer: Tokenizer, measured: int = 0):
        self.task, self.context, self.seed, self.measured = TASKS[task], context, seed, measured
        if context < self.task.least:
            raise CorpusError(
                f"a context of {context} is too short for --task {task}: no answer could be known"
                f"\nuse a --context of at least {self.task.least}"
            )
        ids = [tokenizer.encode(token) for token in self.task.tokens]
        if len({i for (i, *others) in ids if not others}) < len(ids):
            raise CorpusError(
                f"--task {task} needs a token for each of '{self.task.tokens}', and the tokenizer "
                "does not have them\nuse a tokenizer of characters"
            )
        self.ids = np.array(ids)[:, 0]

    def __len__(self) -> int:
        return self.measured or TEXTS

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        texts = self.drawn(rows)
        return texts.ids[:, :-1].copy(), np.where(texts.known, texts.ids, IGNORED)[:, 1:]

    def question(self) -> list[int]:
        """The first text, up to an answer that two examples show, or as many as there are."""
        ids, _, examples, known = (part[0] for part in self.drawn([0]))
        shown = known & (examples >= min(2, examples.max()))
        return [int(i) for i in ids[: shown.argmax()]]

    def drawn(self, rows: Any) -> Drawn:
        """These texts, of context + 1 tokens, by the ids of the tokenizer."""
        rows, attempt = np.asarray(rows), 0
        found = self._attempt(rows, attempt)
        wrong = self._wrong(found.rule)
        while wrong.size:
            attempt += 1
            again = self._attempt(rows[wrong], attempt)
            for whole, part in zip(found, again, strict=True):
                whole[wrong] = part
            wrong = wrong[self._wrong(again.rule)]
        return found._replace(ids=self.ids[found.ids])

    def _attempt(self, rows: Ids, attempt: int) -> Drawn:
        return self.task.draw(Numbers(self.seed, rows, attempt), self.context + 1)

    def _wrong(self, rules: Ids) -> Ids:
        """The numbers of those rules that are for the other kind of texts."""
        kept = [withheld(rule.tobytes().hex(), self.seed) for rule in rules.astype(np.int8)]
        return np.flatnonzero(np.array(kept) != (self.measured > 0))


def task_tokenizer(task: str) -> CharacterTokenizer:
    """A token for each character of the task."""
    return CharacterTokenizer(TASKS[task].tokens)
