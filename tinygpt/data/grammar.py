"""Stories without end, from a grammar that knows how likely each of them is: a corpus whose floor
is known exactly.

    It was a rainy day. Mia was a small dog. She liked the park. She met a cat named Tom. They slept
    in the park. The dog and the cat
    were happy. He went home. Mia stayed in the park. The rain stopped. They became friends.

Each story is a line. What is said early binds what comes late: she is Mia, and he who went home is
Tom, so that it is Mia who stayed;
the dog was there first; they are two, and so they were; where they are is the park; and the rain
that stops had been there. A model
that keeps all this in mind comes down to

    floor = E[-ln p(story)] / E[characters in a story]       0.082 nats a character, the end of the
    line included

and none goes below. Everything here is computed from the grammar, nothing is estimated from
samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain, islice, pairwise
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tensor.random import Generator
from tinygpt.data.windows import CorpusError, Windows
from tinygpt.errors import InputError
from tinygpt.ids import IGNORED, Ids
from tinygpt.tokenizers import CharacterTokenizer

END = "\n"  # the last character of a story, and what stands before the first of the next
LOOKAHEAD = 40  # characters by which two choices must have parted


class GrammarError(InputError):
    """A text that a grammar cannot make, or rules that make no grammar."""


class Symbol(NamedTuple):
    """A stretch of a story still to be told, and what it must agree with: `rule(*known)` are its
    choices.
    """

    rule: Callable[..., list[Choice]]
    known: tuple[Any, ...] = ()


Part: TypeAlias = str | Symbol


class Choice(NamedTuple):
    """One way to tell a symbol: its probability, and what then follows, characters or further
    symbols.
    """

    probability: float
    parts: tuple[Part, ...]


# -- the grammar

NAMES = {"Tom": "He", "Ben": "He", "Mia": "She", "Ann": "She"}
KINDS = "cat", "dog"
PLACES = "in the park", "in the garden", "on the mat"
WEATHER = {"sunny": "The sun went down. ", "rainy": "The rain stopped. "}


class Actor(NamedTuple):
    """Who a story is about."""

    name: str
    kind: str

    @property
    def pronoun(self) -> str:
        return NAMES[self.name]


def evenly(options: Iterable[Sequence[Part]], share: float = 1.0) -> list[Choice]:
    """Choices of equal probability, `share` in all."""
    parts = [tuple(option) for option in options]
    return [Choice(share / len(parts), each) for each in parts]


def story() -> list[Choice]:
    """Any story: with some weather or none."""
    weathers = [(f"It was a {weather} day. ", Symbol(beginning, (weather,))) for weather in WEATHER]
    return [Choice(0.4, (Symbol(beginning, (None,)),)), *evenly(weathers, 0.6)]


def beginning(weather: str | None) -> list[Choice]:
    """Who it is about."""
    actors = [Actor(name, kind) for name in NAMES for kind in KINDS]
    return evenly(
        (f"{one.name} was a ", Symbol(animal, (one.kind,)), ". ", Symbol(liking, (weather, one)))
        for one in actors
    )


def animal(kind: str) -> list[Choice]:
    """The kind, with an adjective or without."""
    return [Choice(0.4, (kind,)), *evenly([(f"big {kind}",), (f"small {kind}",)], 0.6)]


def liking(weather: str | None, one: Actor) -> list[Choice]:
    """A place, which is also where the rest happens; then alone, or with another."""
    return evenly(
        (f"{one.pronoun} liked the {place.split()[-1]}. ", Symbol(company, (weather, one, place)))
        for place in PLACES
    )


def company(weather: str | None, one: Actor, place: str) -> list[Choice]:
    """In 3 of 4 stories somebody else comes, of the other kind and with another name."""
    kind = next(kind for kind in KINDS if kind != one.kind)
    others = [Actor(name, kind) for name in NAMES if name != one.name]
    meetings = [
        (
            f"{one.pronoun} met a ",
            Symbol(animal, (kind,)),
            f" named {two.name}. ",
            Symbol(together, (weather, one, two, place)),
        )
        for two in others
    ]
    return [Choice(0.25, (Symbol(alone, (weather, one, place)),)), *evenly(meetings, 0.75)]


def alone(weather: str | None, one: Actor, place: str) -> list[Choice]:
    """What one does: was, he or she, a friend."""
    who, ending = Symbol(subject, (one, None)), Symbol(closing, (weather, one.pronoun))
    verb, home = Symbol(verbs, (place,)), " went home. "
    return evenly(
        [
            (who, verb, who, home, ending),
            (who, verb, who, " was ", Symbol(feeling), who, home, ending),
        ]
    )


def together(weather: str | None, one: Actor, two: Actor, place: str) -> list[Choice]:
    """What two do: were, they, friends."""
    opening, rest = ("They", Symbol(verbs, (place,))), Symbol(parting, (weather, one, two, place))
    feelings = [
        (*opening, who, Symbol(feeling), rest)
        for who in ("They were ", f"The {one.kind} and the {two.kind} were ")
    ]
    return [Choice(0.5, (*opening, rest)), *evenly(feelings, 0.5)]


def verbs(place: str) -> list[Choice]:
    """The same for one and for two."""
    return evenly((f" {verb} {place}. ",) for verb in ("played", "ran", "slept"))


def feeling() -> list[Choice]:
    """How they were, or one was."""
    return evenly([("happy. ",), ("tired. ",)])


def parting(weather: str | None, one: Actor, two: Actor, place: str) -> list[Choice]:
    """One goes and the other stays, the first more often than the second."""
    ending = Symbol(closing, (weather, "They"))

    def part(goes: Actor, stays: Actor) -> tuple[Part, ...]:
        return (
            Symbol(subject, (goes, stays)),
            " went home. ",
            Symbol(subject, (stays, goes)),
            f" stayed {place}. ",
            ending,
        )

    return [Choice(0.6, part(one, two)), Choice(0.4, part(two, one))]


def subject(who: Actor, other: Actor | None) -> list[Choice]:
    """By name, by kind, or by a pronoun where it can mean one only."""
    called = [(who.name,), (f"The {who.kind}",)]
    if other is not None and other.pronoun == who.pronoun:
        return evenly(called)
    return [Choice(0.5, (who.pronoun,)), *evenly(called, 0.5)]


def closing(weather: str | None, who: str) -> list[Choice]:
    """The last sentence; the weather may change before it, if there was any."""
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


STORY = Symbol(story)


# -- what follows from it


class Grammar:
    """Samples stories, and says how likely any text is as one. Each story can be made in one way
    only, so

        p(story) = product of the probabilities of its choices

    Raises GrammarError for rules that never end, whose probabilities do not add up to 1, or with
    two choices that the first 40
    characters do not tell apart (then, by induction, no two ways give the same story).
    """

    def __init__(self, start: Symbol = STORY):
        self.start = start
        self._choices: dict[Symbol, list[Choice]] = {}  # each symbol after all that it leads to
        self._expand(start, ())
        self._openings: dict[Symbol, frozenset[str]] = {}
        for symbol, choices in self._choices.items():
            self._check(symbol, choices)
        self._draws = int(
            self._fold(
                lambda choices, most: max(
                    1 + sum(most(part) for part in choice.parts) for choice in choices
                ),
                lambda text: 0,
            )
        )

    def _expand(self, symbol: Symbol, above: tuple[Symbol, ...]) -> None:
        if symbol in above:
            raise GrammarError(
                f"the rule {symbol.rule.__name__} comes back to itself: such stories need not end"
            )
        if symbol in self._choices:
            return
        choices = symbol.rule(*symbol.known)
        for part in (part for choice in choices for part in choice.parts):
            if isinstance(part, Symbol):
                self._expand(part, (*above, symbol))
        self._choices[symbol] = choices

    def _check(self, symbol: Symbol, choices: list[Choice]) -> None:
        name, total = symbol.rule.__name__, math.fsum(choice.probability for choice in choices)
        if (
            not math.isclose(total, 1, rel_tol=1e-12)
            or min(choice.probability for choice in choices) <= 0
        ):
            raise GrammarError(
                f"the probabilities of the rule {name} are positive and add up to 1, not to {total}"
            )
        openings = [self._first(choice.parts) for choice in choices]
        for a, b in pairwise(sorted(chain(*openings))):  # what a string opens stands right after it
            if b.startswith(a):
                raise GrammarError(f"two choices of the rule {name} may both begin with {a!r}")
        self._openings[symbol] = frozenset().union(*openings)

    def _first(self, parts: Iterable[Part]) -> set[str]:
        """The first LOOKAHEAD characters of all that the parts can make, or the whole of what is
        shorter.
        """
        found = {""}
        for part in parts:
            after = {part} if isinstance(part, str) else self._openings[part]
            found = {(a + b)[:LOOKAHEAD] if len(a) < LOOKAHEAD else a for a in found for b in after}
        return found

    def _fold(
        self,
        rule: Callable[[list[Choice], Callable[[Part], float]], float],
        text: Callable[[str], float],
    ) -> float:
        """The value of the start, where a symbol's follows from its choices and the values of their
        parts.
        """
        values: dict[Symbol, float] = {}

        def value(part: Part) -> float:
            return text(part) if isinstance(part, str) else values[part]

        for symbol, choices in self._choices.items():
            values[symbol] = rule(choices, value)
        return values[self.start]

    def entropy(self) -> float:
        """H = E[-ln p(story)], nats a story:   H(symbol) = sum over choices p (-ln p + sum over its
        parts H(part)),   H(text) = 0
        """
        return self._fold(
            lambda choices, h: math.fsum(
                p * (sum(map(h, parts)) - math.log(p)) for p, parts in choices
            ),
            lambda text: 0.0,
        )

    def mean_length(self) -> float:
        """L = E[characters in a story], its end included:   L(symbol) = sum over choices p sum over
        its parts L(part)
        """
        return self._fold(
            lambda choices, length: math.fsum(p * sum(map(length, parts)) for p, parts in choices),
            len,
        )

    def floor(self) -> float:
        """entropy / mean length: nats a character, the least that the mean loss over many stories
        comes to.
        """
        return self.entropy() / self.mean_length()

    def longest(self) -> int:
        """Characters in the longest story, its end included."""
        return int(
            self._fold(
                lambda choices, longest: max(sum(map(longest, choice.parts)) for choice in choices),
                len,
            )
        )

    def alphabet(self) -> str:
        """Every character that a story can hold, in order."""
        return "".join(
            sorted(
                {
                    c
                    for choices in self._choices.values()
                    for choice in choices
                    for p in choice.parts
                    if isinstance(p, str)
                    for c in p
                }
            )
        )

    def draw(self, generator: Generator) -> tuple[str, float]:
        """A story, and the log-probability of the choices that made it. Takes one draw of the
        generator.
        """
        numbers = iter(generator.uniform((self._draws,)).tolist())
        told, log_probability = [], 0.0
        ahead: list[Part] = [self.start]
        while ahead:
            part = ahead.pop()
            if isinstance(part, str):
                told.append(part)
                continue
            number, choices = next(numbers), self._choices[part]
            for choice in choices:
                number -= choice.probability
                if number < 0:
                    break  # else the last one: what rounding left of it
            log_probability += math.log(choice.probability)
            ahead += choice.parts[::-1]
        return "".join(told), log_probability

    def sample(self, generator: Generator) -> str:
        """A story drawn with its probability, with its end."""
        return self.draw(generator)[0]

    def stories(self, seed: int, count: int | None = None) -> Iterator[str]:
        """The stories of a seed: `count` of them, or as many as are asked for."""
        generator = Generator(seed)
        return islice(iter(lambda: self.sample(generator), None), count)

    def log_probability(self, story: str) -> float:
        """ln p(story), exactly. Raises GrammarError for a text that is not one whole story, with
        the place up to which it might be.
        """
        reached = 0
        open_ends: list[tuple[int, float, tuple[Part, ...]]] = [(0, 0.0, (self.start,))]
        while open_ends:
            place, log_probability, parts = open_ends.pop()
            if not parts:
                if place == len(story):
                    return log_probability
                continue
            head, rest = parts[0], parts[1:]
            if isinstance(head, Symbol):
                open_ends += [
                    (place, log_probability + math.log(p), inner + rest)
                    for p, inner in self._choices[head]
                ]
                continue
            reached = max(reached, place + _shared(head, story[place:]))
            if story.startswith(head, place):
                open_ends.append((place + len(head), log_probability, rest))
        raise GrammarError(
            f"no story of this grammar: after {story[:reached][-40:]!r}, its first {reached} "
            f"characters, {story[reached:][:20]!r} cannot come"
        )


def _shared(a: str, b: str) -> int:
    """How many characters two texts share before they part."""
    return next(
        (i for i, (one, other) in enumerate(zip(a, b, strict=False)) if one != other),
        min(len(a), len(b)),
    )


# -- as a corpus


@cache
def story_grammar() -> Grammar:
    """The grammar of the stories above."""
    return Grammar()


def grammar_tokenizer() -> CharacterTokenizer:
    """Tokens for every character of the grammar's stories, the same for any text: the end of a
    story is token 0.
    """
    return CharacterTokenizer(story_grammar().alphabet())


def grammar_text(characters: int, seed: int) -> str:
    """Whole stories of that seed, one a line, as many as it takes to have at least so many
    characters.
    """
    text, length = [], 0
    for told in story_grammar().stories(seed):
        if length >= characters:
            break
        text.append(told)
        length += len(told)
    return "".join(text)


class StoryWindows(Windows):
    """A window for each story, all of it and nothing else to be told:

        x    \\n T o m _ w a s ... r i e n d  .  \\n B e n      y[t] is the token after x[t] up to
        the end of the story,
        y    T  o m _ w a s ... r i e n d . \\n  -1 -1 -1      and then -1, which counts for nothing

    The end of the story before is what the first token is told from, so over many stories the sum
    of the losses over the number of
    targets that count comes to `Grammar.floor()` or stays above it. w[rows] gives x, y: (len(rows),
    context).

    `ids` are whole stories, each with its `end`. Raises CorpusError when they are not, and for a
    story longer than the context.
    """

    def __init__(self, ids: Sequence[int] | Ids, context: int, end: int):
        told = np.asarray(ids, dtype=np.int64)
        if len(told) == 0 or told[-1] != end:
            raise CorpusError(
                "the last story has no end, or there is none: each is a line, with a line feed "
                "after it"
            )
        self.context = context
        # x[i] starts at the end before the story
        self.tokens = np.concatenate([[end], told, np.full(context, end)])
        self.story_starts = np.append(0, np.flatnonzero(told[:-1] == end) + 1)
        self.lengths = np.diff(np.append(self.story_starts, len(told)))
        longest = int(self.lengths.max())
        if longest > context:
            raise CorpusError(
                f"a story of {longest} characters does not fit a context of {context}: use a "
                f"context of {longest} or more"
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def starts(self, rows: Any) -> Ids:
        """Where these stories start.   (N,)"""
        starts: Ids = self.story_starts[rows]
        return starts

    def __getitem__(self, rows: Any) -> tuple[Ids, Ids]:
        x, y = super().__getitem__(rows)
        return x, np.where(self.mask(rows), y, IGNORED)

    def mask(self, rows: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """True where a target counts.   (len(rows), context)"""
        counts: np.ndarray[Any, np.dtype[np.bool_]] = (
            np.arange(self.context) < self.lengths[rows][:, None]
        )
        return counts


def story_windows(
    text: str, context: int, tokenizer: CharacterTokenizer | None = None
) -> StoryWindows:
    """The windows of a text of whole stories, in the tokens of `grammar_tokenizer` if no other is
    given.
    """
    tokenizer = tokenizer or grammar_tokenizer()
    return StoryWindows(tokenizer.encode(text), context, tokenizer.encode(END)[0])
