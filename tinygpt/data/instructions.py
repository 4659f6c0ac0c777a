"""Instructions and their answers, as batches of token ids.

    example     input: Tom slept.      instruction: Tell who slept.     answer: Tom

    ids         <|user|> T o ... . <|assistant|> T o m <|end|>
    x           <|user|> T o ... . <|assistant|> T o m
    y           -1       -1 ... -1 T             o m <|end|>

A model learns the answer and its end. The instruction is read, and is no target: a model that
answers need not learn how people ask.      Ouyang et al. 2022, section 3.5
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from tinygpt.data.pairs import held_back
from tinygpt.data.reading import fault_of, name_of, read_text
from tinygpt.data.windows import CorpusError
from tinygpt.files import brief
from tinygpt.ids import ANSWERED, ASSISTANT, IGNORED, PAD, USER, Ids
from tinygpt.terminal import number_of
from tinygpt.tokenizers import SpecialTokenizer, Tokenizer, TokenizerError


class Example(NamedTuple):
    """What is asked, the text that the question is about, and the right answer; then more questions
    and their answers, as a conversation goes on.
    """

    instruction: str
    answer: str
    input: str = ""
    later: tuple[tuple[str, str], ...] = ()

    @property
    def question(self) -> str:
        """The input, and the instruction on the next line."""
        return f"{self.input}\n{self.instruction}" if self.input else self.instruction

    @property
    def text(self) -> str:
        """All that is encoded."""
        return "".join([self.question, self.answer, *chain(*self.later)])


def prompt_of(tokenizer: SpecialTokenizer, question: str) -> list[int]:
    """The ids after which the model writes the answer."""
    user, assistant = (tokenizer.special.index(name) for name in (USER, ASSISTANT))
    return [user, *tokenizer.encode(question), assistant]


def end_of(tokenizer: SpecialTokenizer) -> int:
    """The id that ends an answer."""
    return tokenizer.special.index(ANSWERED)


class Instructions:
    """Examples in the place of windows: i[rows] gives x, y: (len(rows), T), T <= context.

    y is -1 but for the answers and their ends. packing: a row holds as many examples as fit, one
    after the other, and a token sees all tokens of the row before it, also those of other examples;
    else a row is one example. Raises CorpusError for no example, and for one that does not fit.
    """

    example = "example"

    def __init__(
        self,
        examples: Sequence[Example],
        tokenizer: SpecialTokenizer,
        context: int,
        packing: bool = False,
    ):
        if not examples:
            raise CorpusError("no example to learn from or to measure on\ngive at least one")
        self.examples, self.context, self.end = examples, context, end_of(tokenizer)
        self.questions = [example.question for example in examples]
        self.answers = [example.answer for example in examples]
        self.prompts = [prompt_of(tokenizer, question) for question in self.questions]
        rows = [_row(example, tokenizer) for example in examples]
        _check_lengths(examples, rows, context)
        self.rows = _packed(rows, context) if packing else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, numbers: Any) -> tuple[Ids, Ids]:
        rows = [self.rows[number] for number in np.asarray(numbers).tolist()]
        shape = len(rows), max(x.size for x, _ in rows)
        batch_x, batch_y = np.full(shape, PAD), np.full(shape, IGNORED)
        for row, (x, y) in enumerate(rows):
            batch_x[row, : x.size], batch_y[row, : y.size] = x, y
        return batch_x, batch_y


Row = tuple[Ids, Ids]  # x, y: (T,)


def _row(example: Example, tokenizer: SpecialTokenizer) -> Row:
    """One example."""
    texts = (example.question, example.answer), *example.later
    end = end_of(tokenizer)
    return row_of((prompt_of(tokenizer, q), [*tokenizer.encode(a), end]) for q, a in texts)


def row_of(turns: Iterable[tuple[Sequence[int], Sequence[int]]]) -> Row:
    """Prompts, and after each its answer with the end. The last token of a prompt predicts the
    first of the answer.
    """
    ids, counts = list[int](), list[bool]()
    for prompt, answer in turns:
        ids += [*prompt, *answer]
        counts += [False] * len(prompt) + [True] * len(answer)
    whole = np.array(ids)
    return whole[:-1], np.where(counts[1:], whole[1:], IGNORED)


def _packed(rows: Sequence[Row], context: int) -> list[Row]:
    """Rows of as many examples as fit, in their order. The end of each answer stands between."""
    packed: list[Row] = []
    for x, y in rows:
        last_x, last_y = packed[-1] if packed else (np.zeros(context, np.int64), y)
        if last_x.size + 1 + x.size > context:
            packed.append((x, y))
            continue
        end = last_y[-1:]
        joined_x, joined_y = (last_x, end, x), (last_y, [IGNORED], y)
        packed[-1] = np.concatenate(joined_x), np.concatenate(joined_y)
    return packed


def _check_lengths(examples: Sequence[Example], rows: Sequence[Row], context: int) -> None:
    """Raise CorpusError for the first example that does not fit the context."""
    longest = max(x.size for x, _ in rows)
    if longest <= context:
        return
    number = next(i for i, (x, _) in enumerate(rows) if x.size > context)
    raise CorpusError(
        f"example {number + 1} does not fit the context of {context}: "
        f"'{brief(examples[number].instruction)}' and its answer are {rows[number][0].size} tokens"
        f"\nleave the longer examples out, or start from a run with --context {longest} or more"
    )


# -- examples of a file


class Asked(Protocol):
    """What has a question."""

    @property
    def question(self) -> str:
        """The text that comes before the answer."""


Q = TypeVar("Q", bound=Asked)


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A line of a .jsonl file."""

    instruction: str
    answer: str
    input: str = ""
    later: tuple[tuple[str, str], ...] = ()


def read_examples(path: str, validation: float) -> tuple[list[Example], list[Example]]:
    """The examples of a file to learn from, and those kept back to measure on: the last of the
    different questions, this share of them. A line is a JSON object with "instruction", "answer",
    "input" where the instruction is about a text, and "later" where a conversation goes on: a list
    of pairs of a question and its answer.

    Raises InputError, as `read_parts` does, for a file that is no text, and CorpusError for a line
    that is no example, with its number.
    """
    lines = read_text(path).removesuffix("\n").split("\n")
    examples = [_example(line, f"{name_of(path)}, line {i}") for i, line in enumerate(lines, 1)]
    return learned_and_kept(examples, validation)


def learned_and_kept(items: Sequence[Q], validation: float) -> tuple[list[Q], list[Q]]:
    """Those to learn from, and those kept back: of the different questions the last, this share."""
    kept = held_back([item.question for item in items], validation, "question")
    learned = [item for item in items if item.question not in kept]
    return learned, [item for item in items if item.question in kept]


def _example(line: str, where: str) -> Example:
    """The example of a line. Raises CorpusError where the line is none."""
    try:
        found = msgspec.json.decode(line, type=Line)
    except (ValueError, RecursionError) as error:
        problem = fault_of(line, error)
    else:
        if found.instruction.strip() and found.answer.strip():
            return Example(found.instruction, found.answer, found.input, found.later)
        problem = "the instruction or the answer is empty"
    raise CorpusError(
        f"{where} is no example ({brief(problem)}): '{brief(line)}'\n"
        'write each as a line of its own: {"instruction": "Say hello.", "answer": "Hello."}'
    )


def hash_of(examples: Sequence[tuple[Any, ...]]) -> str:
    """SHA-256 of the examples."""
    return sha256(json.dumps(examples).encode("utf-8", "surrogatepass")).hexdigest()


def check_known(tokenizer: Tokenizer, texts: Sequence[str], unit: str = "example") -> None:
    """Raise CorpusError for the text of an example that the tokenizer cannot encode, with the
    number of the example.   unit: what an example is called
    """
    for number, text in enumerate(texts, 1):
        try:
            tokenizer.encode(text)
        except TokenizerError as error:
            problem = str(error).partition("\n")[0]  # the rest is advice for a training
            raise CorpusError(
                f"{unit} {number} of {number_of(len(texts), unit)}: {problem}\n"
                "write it with the base run's characters, or start from a run whose --tokenizer is "
                "byte or bpe"
            ) from None
