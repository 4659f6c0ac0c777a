"""Texts and their labels, as batches of token ids.

    text      label      x                          y
    He ran.   cat        H  e  _  r  a  n  .        -1 -1 -1 -1 -1 -1 2      a GPT
    He ran.   cat        [CLS]  H  e  _  r  a  n  .  2 -1 -1 -1 -1 -1 -1 -1  a BERT

The target stands at the one token that says the class: the last token of a GPT, which alone has
seen the whole text, and [CLS] of a BERT. It is the number of the label, in alphabetical order.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from io import StringIO
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tinygpt.data.pairs import held_back
from tinygpt.data.reading import fault_of, name_of, read_text
from tinygpt.data.windows import CorpusError
from tinygpt.files import brief
from tinygpt.ids import CLS, IGNORED, Ids, padded
from tinygpt.terminal import number_of
from tinygpt.tokenizers import Tokenizer

COLUMNS = "text", "label"
FORM = "text,label and below it a text, a comma and its label in each line"


class Example(NamedTuple):
    """A text, and the name of its class."""

    text: str
    label: str


def labels_of(examples: Sequence[Example]) -> tuple[str, ...]:
    """The different labels, in alphabetical order: whatever the order of the examples is."""
    return tuple(sorted({example.label for example in examples}))


def text_ids(tokenizer: Tokenizer, text: str, base: str) -> list[int]:
    """The ids that a classifier reads. base: "bert" begins with [CLS], "gpt" does not."""
    return [CLS, *tokenizer.encode(text)] if base == "bert" else tokenizer.encode(text)


def text_batch(rows: Sequence[Sequence[int]], base: str) -> tuple[Ids, Ids]:
    """x: (B, T), the rows with padding after each. places: (B,), where each row says its class."""
    x, lengths = padded(rows)
    return x, np.zeros_like(lengths) if base == "bert" else lengths - 1


class Labelled:
    """Examples in the place of windows: l[rows] gives x, y: (len(rows), T), T <= context.

    labels: those of a classifier that there is; by default those of the examples. Raises
    CorpusError for no example, for a label that is not among the labels, and for a text that does
    not fit the context.
    """

    example = target = "text"

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: Tokenizer,
        context: int,
        base: str,
        labels: tuple[str, ...] = (),
    ):
        if not examples:
            raise CorpusError("no text to learn from or to measure on\ngive at least one")
        self.labels, self.context, self.base = labels or labels_of(examples), context, base
        numbers = {label: number for number, label in enumerate(self.labels)}
        for i, (_, label) in enumerate(examples, 1):
            if label not in numbers:
                raise CorpusError(
                    f"text {i} has the label '{brief(label)}', which no text that is learned from "
                    "has\nleave the label out, or learn from texts that have it"
                )
        self.classes: Ids = np.array([numbers[label] for _, label in examples])
        self.rows = [text_ids(tokenizer, text, base) for text, _ in examples]
        longest = max(map(len, self.rows))
        if longest > context:
            i = next(i for i, row in enumerate(self.rows) if len(row) > context)
            raise CorpusError(
                f"text {i + 1} does not fit the context of {context}: "
                f"'{brief(examples[i].text)}' has {number_of(len(self.rows[i]), 'token')}\n"
                f"shorten the longer texts, or start from a run with --context {longest} or more"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: Any) -> tuple[Ids, Ids]:
        numbers = np.asarray(numbers)
        x, places = text_batch([self.rows[number] for number in numbers.tolist()], self.base)
        y = np.full(x.shape, IGNORED)
        y[np.arange(len(x)), places] = self.classes[numbers]
        return x, y


# -- examples of a file


class Line(msgspec.Struct):
    """A line of a .jsonl file. Other fields are not read."""

    text: str
    label: str | int


def read_labelled(path: str, validation: float) -> tuple[list[Example], list[Example]]:
    """The examples of a file to learn from, and those kept back to measure on: of the different
    texts of each label the last, this share of them. So no text is in both lists.

    A file .jsonl has lines {"text": ..., "label": ...}; any other is CSV whose first line names the
    columns text and label. Raises InputError, as `read_parts` does, for a file that is no text, and
    CorpusError for a line that is no example, with its number.
    """
    content, name = read_text(path), name_of(path)
    found = _lines(content, name) if path.endswith(".jsonl") else _table(content, name)
    examples = list(found)
    if not examples:
        raise CorpusError(f"{name} has no line below its first\nwrite {FORM}")
    kept = held_back(_in_turn(examples), validation, "text")
    learned = [example for example in examples if example.text not in kept]
    return learned, [example for example in examples if example.text in kept]


def _in_turn(examples: Sequence[Example]) -> list[str]:
    """The different texts in an order in which each share at the end has its share of each label. A
    text with several labels counts for the first.
    """
    labels = dict[str, str]()
    for text, label in examples:
        labels.setdefault(text, label)
    total, seen = Counter(labels.values()), Counter[str]()
    places = dict[str, float]()
    for text, label in labels.items():
        places[text] = (seen[label] + 0.5) / total[label]
        seen[label] += 1
    return sorted(places, key=places.__getitem__)


def _lines(content: str, name: str) -> Iterator[Example]:
    """The examples of a .jsonl file."""
    for i, line in enumerate(content.removesuffix("\n").split("\n"), 1):
        try:
            found = msgspec.json.decode(line, type=Line)
        except (ValueError, RecursionError) as error:
            problem = brief(fault_of(line, error))
            raise CorpusError(
                f"{name}, line {i} is no text with a label ({problem}): '{brief(line)}'"
                '\nwrite each as a line of its own: {"text": "He ran.", "label": "cat"}'
            ) from None
        yield _example(found.text, str(found.label), f"{name}, line {i}")


def _table(content: str, name: str) -> Iterator[Example]:
    """The examples of a CSV file."""
    rows = csv.DictReader(StringIO(content, newline=""), strict=True)
    try:
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise CorpusError(
                f"the first line of {name} names no column {missing[0]}: "
                f"'{brief(content.partition(chr(10))[0])}'\nwrite {FORM}"
            )
        for row in rows:
            yield _example(row["text"], row["label"], f"{name}, line {rows.line_num}")
    except csv.Error as error:
        raise CorpusError(
            f"{name}, line {rows.reader.line_num} is no CSV: {error}\nwrite {FORM}; put a text "
            'that holds a comma in double quotes, and write " in it as ""'
        ) from None


def _example(text: str | None, label: str | None, where: str) -> Example:
    """The example, with a label without spaces around. Raises CorpusError where a part is empty."""
    if not (text or "").strip() or not (label or "").strip():
        empty = "label" if (text or "").strip() else "text"
        raise CorpusError(
            f"{where} has an empty {empty}\ngive each text a label, or leave the line out"
        )
    return Example(str(text), str(label).strip())
