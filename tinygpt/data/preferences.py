"""Preferences: two replies to one prompt, of which one is better, as batches of token ids.

    prompt      Tell who slept.     better      Tom.    worse       garden.

    ids         [ <|user|> T e ... . <|assistant|> T  o  m  .  <|end|>              of the better
                  <|user|> T e ... . <|assistant|> g  a  r  d  e  n  .  <|end|> ]   of the worse
    targets     the token after each, where it is of the reply or its end; else -1

A reward model reads a reply at its last token, <|end|>, which has seen all of the reply.

Shapes:   B pairs   T time (tokens)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import numpy as np

from tinygpt.data.instructions import end_of, learned_and_kept, prompt_of
from tinygpt.data.reading import fault_of, name_of, read_text
from tinygpt.data.windows import CorpusError
from tinygpt.files import brief
from tinygpt.ids import IGNORED, Ids, padded
from tinygpt.tokenizers import SpecialTokenizer


class Preference(NamedTuple):
    """A prompt, and two replies. answer: the right one, where a rule knows."""

    prompt: str
    better: str
    worse: str
    input: str = ""
    answer: str | None = None

    @property
    def question(self) -> str:
        """The input, and the prompt on the next line."""
        return f"{self.input}\n{self.prompt}" if self.input else self.prompt


@dataclass(frozen=True)
class Compared:
    """The inputs of a batch. x[rows] are those of some of its pairs, as of an array."""

    ids: Ids  # (B, 2, T): the better reply after its prompt, and the worse
    targets: Ids  # (B, 2, T)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: Any) -> Compared:
        return Compared(self.ids[rows], self.targets[rows])

    @property
    def size(self) -> int:
        """The number of tokens, 2 B T."""
        return self.ids.size


class Preferences:
    """Pairs in the place of windows: p[rows] gives x, y: a `Compared` of these pairs, and zeros
    (len(rows),), the number of the better reply.

    Raises CorpusError for no pair, and for one that does not fit the context.
    """

    example = target = "pair"
    outcomes = 2  # either reply may be the better one

    def __init__(self, pairs: Sequence[Preference], tokenizer: SpecialTokenizer, context: int):
        if not pairs:
            raise CorpusError("no pair to learn from or to measure on\ngive at least one")
        self.pairs, self.tokenizer, self.context = pairs, tokenizer, context
        self.end = end_of(tokenizer)
        self.prompts = [prompt_of(tokenizer, pair.question) for pair in pairs]
        self.replies = [
            ([*tokenizer.encode(pair.better), self.end], [*tokenizer.encode(pair.worse), self.end])
            for pair in pairs
        ]
        longest = self._longest(np.arange(len(pairs)))
        if longest.max() > context:
            i = int(np.argmax(longest > context))
            raise CorpusError(
                f"pair {i + 1} does not fit the context of {context}: "
                f"'{brief(pairs[i].prompt)}' and a reply are {longest[i]} tokens\n"
                "leave the longer pairs out, or start from a run with --context "
                f"{longest.max()} or more"
            )

    def _longest(self, numbers: Ids) -> Ids:
        """The tokens of each of these prompts with its longer reply."""
        replies = [max(map(len, self.replies[i])) for i in numbers]
        return np.array([len(self.prompts[i]) for i in numbers]) + np.array(replies)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, numbers: Any) -> tuple[Compared, Ids]:
        numbers = np.asarray(numbers)
        texts = [(self.prompts[i], reply) for i in numbers.tolist() for reply in self.replies[i]]
        ids, targets = after_prompts(texts)
        shape = len(numbers), 2, ids.shape[1]
        x = Compared(ids.reshape(shape), targets.reshape(shape))
        return x, np.zeros(len(numbers), np.int64)


def after_prompts(texts: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[Ids, Ids]:
    """Prompts and their replies as rows of ids, with padding after each, and the targets: the next
    token where it is of the reply, else -1.   (N, T), (N, T)
    """
    ids, lengths = padded([[*prompt, *reply] for prompt, reply in texts])
    starts = np.array([len(prompt) for prompt, _ in texts])
    following = np.roll(ids, -1, axis=1)
    next_place = np.arange(1, ids.shape[1] + 1)
    of_reply = (next_place >= starts[:, None]) & (next_place < lengths[:, None])
    return ids, np.where(of_reply, following, IGNORED)


# -- pairs of a file


class Line(msgspec.Struct, forbid_unknown_fields=True):
    """A line of a .jsonl file."""

    prompt: str
    better: str
    worse: str
    input: str = ""


def read_preferences(path: str, validation: float) -> tuple[list[Preference], list[Preference]]:
    """The pairs of a file to learn from, and those kept back to measure on: those of the last of
    the different questions, this share of them. A line is a JSON object with "prompt", "better",
    "worse", and "input" where the prompt is about a text.

    Raises InputError, as `read_parts` does, for a file that is no text, and CorpusError for a line
    that is no pair, with its number.
    """
    lines = read_text(path).removesuffix("\n").split("\n")
    pairs = [_pair(line, f"{name_of(path)}, line {i}") for i, line in enumerate(lines, 1)]
    return learned_and_kept(pairs, validation)


def _pair(line: str, where: str) -> Preference:
    """The pair of a line. Raises CorpusError where the line is none."""
    try:
        found = msgspec.json.decode(line, type=Line)
    except (ValueError, RecursionError) as error:
        problem = fault_of(line, error)
    else:
        problem = _fault(found)
        if not problem:
            return Preference(found.prompt, found.better, found.worse, found.input)
    raise CorpusError(
        f"{where} is no pair ({brief(problem)}): '{brief(line)}'\n"
        'write each as a line of its own: {"prompt": "Say hello.", "better": "Hello.", '
        '"worse": "No."}'
    )


def _fault(line: Line) -> str:
    """What is wrong with a pair; "" for nothing."""
    if not all(text.strip() for text in (line.prompt, line.better, line.worse)):
        return "the prompt or a reply is empty"
    return "the two replies are the same" if line.better == line.worse else ""


def texts_of(pairs: Sequence[Preference]) -> list[str]:
    """All that is encoded of each pair."""
    return [f"{pair.question}{pair.better}{pair.worse}" for pair in pairs]
