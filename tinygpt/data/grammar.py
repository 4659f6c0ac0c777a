"""Endless stories from a grammar that gives the probability of each story, so that the entropy of
the corpus is known exactly.

    It was a rainy day. Mia was a small dog. She liked the park. She met a cat named Tom. They slept
    in the park. The dog and the cat were happy. He went home. Mia stayed in the park. The rain
    stopped. They became friends.

Each story is a line. Early words decide later ones: Mia is "she". Tom is the one who went home, so
Mia is the one who stayed. The dog comes before the cat, because the dog was there first. Two
animals "were" happy. They stay in the park. Only rain that fell can stop. The loss of a model that
keeps all this in mind is

    floor = E[-ln p(story)] / E[characters in a story]

which is 0.082 nats a character, the line end included. No model has a lower loss. The floor is
computed from the grammar, not estimated from samples.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tensor.random import Generator
from tinygpt.data.windows import CorpusError, Windows
from tinygpt.ids import IGNORED, Ids
from tinygpt.tokenizers import CharacterTokenizer, Tokenizer

END = "\n"  # the last character of a story


# A stretch of a story that is not written yet: a rule, and what the rule must know of the story.
# (animal, "cat") is written as one of the choices animal("cat").
Symbol: TypeAlias = tuple[Any, ...]
Part: TypeAlias = str | Symbol


class Choice(NamedTuple):
    """One way to write a symbol: its probability; the characters and symbols that replace it."""

    probability: float
    parts: tuple[Part, ...]


# -- the grammar

NAMES = {"Tom": "He", "Ben": "He", "Mia": "She", "Ann": "She"}
KINDS = "cat", "dog"
PLACES = "in the park", "in the garden", "on the mat"
WEATHER = {"sunny": "The sun went down. ", "rainy": "The rain stopped. "}


class Actor(NamedTuple):
    """An animal of a story."""

    name: str
    kind: str

    @property
    def pronoun(self) -> str:
        return NAMES[self.name]


def evenly(options: Iterable[tuple[Part, ...]], share: float = 1.0) -> list[Choice]:
    """Choices of equal probability, `share` in all."""
    parts = list(options)
    return [Choice(share / len(parts), each) for each in parts]


def story() -> list[Choice]:
    """A story, with weather or without."""
    weathers = [(f"It was a {weather} day. ", (beginning, weather)) for weather in WEATHER]
    return [Choice(0.4, ((beginning, None),)), *evenly(weathers, 0.6)]


def beginning(weather: str | None) -> list[Choice]:
    """The first animal."""
    actors = [Actor(name, kind) for name in NAMES for kind in KINDS]
    return evenly(
        (f"{one.name} was a ", (animal, one.kind), ". ", (liking, weather, one)) for one in actors
    )


def animal(kind: str) -> list[Choice]:
    """The kind, with an adjective or without."""
    return [Choice(0.4, (kind,)), *evenly([(f"big {kind}",), (f"small {kind}",)], 0.6)]


def liking(weather: str | None, one: Actor) -> list[Choice]:
    """The place where everything happens."""
    return evenly(
        (f"{one.pronoun} liked the {place.split()[-1]}. ", (company, weather, one, place))
        for place in PLACES
    )


def company(weather: str | None, one: Actor, place: str) -> list[Choice]:
    """In 3 of 4 stories a second animal comes, of the other kind and with another name."""
    kind = next(kind for kind in KINDS if kind != one.kind)
    others = [Actor(name, kind) for name in NAMES if name != one.name]
    meetings = [
        (
            f"{one.pronoun} met a ",
            (animal, kind),
            f" named {two.name}. ",
            (together, weather, one, two, place),
        )
        for two in others
    ]
    return [Choice(0.25, ((alone, weather, one, place),)), *evenly(meetings, 0.75)]


def alone(weather: str | None, one: Actor, place: str) -> list[Choice]:
    """A story of one animal: "he" or "she", "was"."""
    who, ending = (subject, one, None), (closing, weather, one.pronoun)
    verb, home = (verbs, place), " went home. "
    return evenly(
        [
            (who, verb, who, home, ending),
            (who, verb, who, " was ", (feeling,), who, home, ending),
        ]
    )


def together(weather: str | None, one: Actor, two: Actor, place: str) -> list[Choice]:
    """A story of two animals: "they", "were"."""
    opening, rest = ("They", (verbs, place)), (parting, weather, one, two, place)
    feelings = [
        (*opening, who, (feeling,), rest)
        for who in ("They were ", f"The {one.kind} and the {two.kind} were ")
    ]
    return [Choice(0.5, (*opening, rest)), *evenly(feelings, 0.5)]


def verbs(place: str) -> list[Choice]:
    """A verb, the same for one animal and for two."""
    return evenly((f" {verb} {place}. ",) for verb in ("played", "ran", "slept"))


def feeling() -> list[Choice]:
    """How one animal was, or two were."""
    return evenly([("happy. ",), ("tired. ",)])


def parting(weather: str | None, one: Actor, two: Actor, place: str) -> list[Choice]:
    """One goes and the other stays; the first goes more often than the second."""
    ending = (closing, weather, "They")

    def part(goes: Actor, stays: Actor) -> tuple[Part, ...]:
        return (
            (subject, goes, stays),
            " went home. ",
            (subject, stays, goes),
            f" stayed {place}. ",
            ending,
        )

    return [Choice(0.6, part(one, two)), Choice(0.4, part(two, one))]


def subject(who: Actor, other: Actor | None) -> list[Choice]:
    """A name, a kind, or a pronoun where the pronoun can mean one animal only."""
    called = [(who.name,), (f"The {who.kind}",)]
    if other is not None and other.pronoun == who.pronoun:
        return evenly(called)
    return [Choice(0.5, (who.pronoun,)), *evenly(called, 0.5)]


def closing(weather: str | None, who: str) -> list[Choice]:
    """The last sentence. Before it the weather may change, if there was any."""
    last = evenly(
        [
            ("They became friends." if who == "They" else f"{who} wanted a friend.", END),
            ("It was a good day.", END),
        ]
    )
    if weather is None:
        return last
    return [
        Choice(p / 2, (before, *parts)) for before in ("", WEATHER[weather]) for p, parts in last
    ]


STORY: Symbol = (story,)


@cache
def choices(symbol: Symbol) -> list[Choice]:
    """The ways to write the symbol. Their probabilities add up to 1, and no two of them can begin
    with the same characters, so that each story is made in one way only.
    """
    rule, *known = symbol
    return rule(*known)


# -- entropy and characters


@cache
def entropy(part: Part) -> float:
    """H(symbol) = sum over choices p (-ln p + sum over its parts H(part)),   H(text) = 0.   nats"""
    if isinstance(part, str):
        return 0.0
    return math.fsum(p * (sum(map(entropy, parts)) - math.log(p)) for p, parts in choices(part))


@cache
def mean_length(part: Part) -> float:
    """L(symbol) = sum over choices p sum over its parts L(part),   L(text) = its characters."""
    if isinstance(part, str):
        return len(part)
    return math.fsum(p * sum(map(mean_length, parts)) for p, parts in choices(part))


@cache
def greatest_length(part: Part) -> int:
    """The characters of the longest text that the part can be written as."""
    if isinstance(part, str):
        return len(part)
    return max(sum(map(greatest_length, parts)) for _, parts in choices(part))


def floor(start: Symbol = STORY) -> float:
    """entropy / mean length, nats a character: no model has a lower mean loss over many stories."""
    return entropy(start) / mean_length(start)


@cache
def alphabet(part: Part = STORY) -> frozenset[str]:
    """All characters that the part can hold."""
    if isinstance(part, str):
        return frozenset(part)
    return frozenset().union(*(alphabet(each) for _, parts in choices(part) for each in parts))


def log_probability(start: Symbol, story: str) -> float:
    """ln p(story), by reading the story. Raises ValueError for a text that is not one whole story,
    with the position up to which the text may be one.
    """
    reached = 0
    open_ends: list[tuple[int, float, tuple[Part, ...]]] = [(0, 0.0, (start,))]
    while open_ends:
        position, log_p, parts = open_ends.pop()
        if not parts:
            if position == len(story):
                return log_p
            continue
        head, rest = parts[0], parts[1:]
        if not isinstance(head, str):
            open_ends += [
                (position, log_p + math.log(p), inner + rest) for p, inner in choices(head)
            ]
            continue
        while head and story.startswith(head[0], position):
            head, position = head[1:], position + 1
        reached = max(reached, position)
        if not head:
            open_ends.append((position, log_p, rest))
    raise ValueError(f"no story of this grammar: {story[reached:]!r} cannot come")


# -- drawing


@cache
def most_draws(part: Part) -> int:
    """The most choices that one writing of the part takes."""
    if isinstance(part, str):
        return 0
    return 1 + max(sum(map(most_draws, parts)) for _, parts in choices(part))


def stories(seed: int, start: Symbol = STORY) -> Iterator[str]:
    """Endless stories, each drawn with its probability. They depend on the seed alone."""
    generator = Generator(seed)
    while True:
        yield _write(start, iter(generator.uniform((most_draws(start),)).tolist()))


def _write(start: Symbol, numbers: Iterator[float]) -> str:
    """A story. Each choice takes the next of the numbers, which are uniform in [0, 1)."""
    written: list[str] = []
    ahead: list[Part] = [start]  # what is not written yet, the next part last
    while ahead:
        part = ahead.pop()
        if isinstance(part, str):
            written.append(part)
            continue
        number = next(numbers)
        for choice in choices(part):
            number -= choice.probability
            if number < 0:
                break  # rounding may leave a little: then the last choice is taken
        ahead += choice.parts[::-1]
    return "".join(written)


# -- as a corpus


def grammar_tokenizer() -> CharacterTokenizer:
    """A token for each character of the grammar, the same for any text: the line end is token 0."""
    return CharacterTokenizer("".join(sorted(alphabet())))


def grammar_text(characters: int, seed: int) -> str:
    """The first stories of the seed, one a line, until they have so many characters."""
    text, length, source = list[str](), 0, stories(seed)
    while length < characters:
        text.append(next(source))
        length += len(text[-1])
    return "".join(text)


class StoryWindows(Windows):
    """A window for each story: the whole story and nothing else to predict.

        x    \\n T o m _ w a s ... r i e n d  .  \\n B e n      y[t] is the token after x[t] up to
        y    T  o m _ w a s ... r i e n d . \\n  -1 -1 -1      the end of the story, then -1

    Targets of -1 count for nothing. The first token is predicted from the line end before the
    story. So the mean loss over the targets of many stories is at least `floor()`. w[rows] gives
    x, y: (len(rows), context).

    `text` is whole stories, each with its line end. Raises CorpusError for any other text, and for
    a story longer than the context.
    """

    def __init__(self, text: str, context: int, tokenizer: Tokenizer):
        (end,), ids = tokenizer.encode(END), np.array(tokenizer.encode(text), dtype=np.int64)
        self.of_characters = isinstance(tokenizer, CharacterTokenizer)
        if not text.endswith(END):
            raise CorpusError(
                "the last story has no end, or there is none: each is a line, with a line feed "
                "after it"
            )
        self.context = context
        # window i begins with the end before story i
        self.tokens = np.concatenate([[end], ids, np.full(context, end)])
        ends = np.flatnonzero(ids == end) + 1
        self.lengths = np.diff(ends, prepend=0)
        self.story_starts = ends - self.lengths
        longest = int(self.lengths.max())
        if longest > context:
            raise CorpusError(
                f"a story of {longest} {tokenizer.unit}s does not fit a context of {context}\n"
                f"the longest stories of the grammar fit --context {greatest_length(STORY)}"
            )

    def floor(self) -> float:
        """The mean loss that no model goes below, nats a token: for characters of all stories, for
        other tokens of about these.
        """
        return floor() if self.of_characters else entropy(STORY) / float(self.lengths.mean())

    def __len__(self) -> int:
        return len(self.lengths)

    def starts(self, rows: Any) -> Ids:
        """Where these stories start.   (N,)"""
        return self.story_starts[rows]

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        x, y = super().__getitem__(rows)
        counts = np.arange(self.context) < self.lengths[rows][:, None]
        return x, np.where(counts, y, IGNORED)

    def texts(self, rows: Any) -> Ids:
        """These stories with their line ends, then -1.   (N, context)"""
        return self[rows][1]
