"""Questions about stories of the grammar, with their answers by rule.

    Tell who went home.                                                         Tom
    Mia was a small dog. She liked the park. She met a cat named Tom. ... He went home. ...

A question and a story are kept back from learning where their key is: the question, the names of
the animals, the place. So it is for a tenth of all keys, and the stories are others. A model that
answers those has learned to read: it never saw the question in a story with these names and this
place.

The answers are read off the text of the story, sentence by sentence. The words use no character but
those of the stories, so any run that learned stories can read them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple, TypeAlias

from tensor.random import Generator
from tinygpt.data import grammar
from tinygpt.data.instructions import Example
from tinygpt.data.tasks import withheld
from tinygpt.data.windows import CorpusError
from tinygpt.tokenizers import Tokenizer

QUESTIONS = "questions"  # the name of this data
LEARNED, MEASURED = 10_000, 500  # examples
KEPT = 0.1  # share of the stories that are kept back too
ORDER = "first animal", "other animal"
TRIED = 100  # stories of which a tenth must fit the context


class Facts(NamedTuple):
    """What a story says."""

    names: tuple[str, ...]  # of one animal, or two
    kinds: tuple[str, ...]
    sizes: tuple[str, ...]  # "" where nothing is said
    place: str
    verb: str
    weather: str  # "" where nothing is said
    home: str  # the name of the one who went home


def facts(story: str) -> Facts:
    """What the sentences of a story say."""
    animals = re.findall(r"(\w+) was a (big |small |)(cat|dog)\.", story)
    animals += [
        (name, size, kind)
        for size, kind, name in re.findall(r"met a (big |small |)(cat|dog) named (\w+)\.", story)
    ]
    names, sizes, kinds = zip(*animals, strict=True)
    weather = re.match(r"It was a (\w+) day\.", story)
    verb = re.search(r" (played|ran|slept) ", story)
    place = re.search(r"liked the (\w+)\.", story)
    goes = re.search(r"([\w ]+) went home\.", story)
    assert verb is not None
    assert place is not None
    assert goes is not None
    told = tuple(size.strip() for size in sizes)
    day = weather[1] if weather else ""
    found = Facts(names, kinds, told, place[1], verb[1], day, home="")
    return found._replace(home=_called(goes[1].strip(), found))


def _called(who: str, story: Facts) -> str:
    """The name of the animal that a name, a kind or a pronoun means."""
    for name, kind in zip(story.names, story.kinds, strict=True):
        if who in (name, f"The {kind}", grammar.NAMES[name]):
            return name
    raise AssertionError(f"{who!r} is nobody in {story}")


def asked(story: Facts) -> dict[str, str]:
    """Each question that the story answers, and the answer."""
    first, *others = story.names
    known = {
        "Tell who went home.": story.home,
        "Tell the place.": story.place,
        "Tell what they did." if others else f"Tell what {first} did.": story.verb,
        "How many animals are there.": "two" if others else "one",
        "How was the day.": story.weather or "not told",
    }
    for order, name, kind, size in zip(ORDER, story.names, story.kinds, story.sizes, strict=False):
        known[f"Tell the name of the {order}."] = name
        known[f"Tell what the {order} was."] = kind
        known[f"Tell if the {order} was big or small."] = size or "not told"
    if others:
        known[f"Tell who met {others[0]}."] = first
    return known


class Case(NamedTuple):
    """A story, and those of its questions that are learned, or else those that are kept back."""

    story: str
    known: dict[str, str]  # every question that the story answers, and the answer
    questions: list[str]  # in any order
    kept: bool


# (question, what the story answers, draws) -> what is answered
Reply: TypeAlias = "Callable[[str, dict[str, str], Generator], str]"


def right(question: str, known: dict[str, str], draws: Generator) -> str:
    """The answer, and no other word."""
    return known[question]


def questions(
    seed: int,
    context: int,
    tokenizer: Tokenizer,
    learned: int = LEARNED,
    measured: int = MEASURED,
    reply: Reply = right,
) -> tuple[list[Example], list[Example]]:
    """Examples to learn from, and others with different keys to measure on. Stories that do not fit
    a context beside a question are left out. Raises CorpusError for a context that few stories fit.
    """
    learn, measure = list[Example](), list[Example]()
    source = _examples(seed, context, tokenizer, reply)
    while len(learn) < learned or len(measure) < measured:
        example, kept = next(source)
        (measure if kept else learn).append(example)
    return learn[:learned], measure[:measured]


def cases(seed: int, stories: int, draws: Generator) -> Iterator[Case]:
    """Endless cases. seed: what decides which keys are kept back.   stories: the seed of the
    stories.
    """
    for story in grammar.stories(stories):
        text = story.removesuffix(grammar.END)
        found = facts(text)
        known = asked(found)
        every = list(known)
        options = [every[i] for i in draws.permutation(len(every))]
        cell = f"{found.names} {found.place}"
        kept = draws.uniform((1,)).item() < KEPT
        chosen = [one for one in options if withheld(f"{one} {cell}", seed) is kept]
        yield Case(text, known, chosen, kept)


def _examples(
    seed: int, context: int, tokenizer: Tokenizer, reply: Reply
) -> Iterator[tuple[Example, bool]]:
    """Endless examples, and whether each is kept back. One to learn from has as many questions
    about a story as fit the context. One that is kept back has one.
    """
    draws, fitting = Generator(seed), 0
    for number, case in enumerate(cases(seed, seed + (1 << 33), draws)):
        check_fitting(number, fitting, context)
        chosen = [(question, reply(question, case.known, draws)) for question in case.questions]
        # with three special tokens for each question, and the line end after the story
        story_size = len(tokenizer.encode(case.story)) + 1
        sizes = [len(tokenizer.encode(f"{question}{answer}")) + 3 for question, answer in chosen]
        if case.kept:
            for (question, answer), size in zip(chosen, sizes, strict=True):
                if story_size + size <= context:
                    yield Example(question, answer, case.story), True
            continue
        count = sum(story_size + size <= context for size in accumulate(sizes))
        if count:
            fitting += 1
            (question, answer), *later = chosen[:count]
            yield Example(question, answer, case.story, tuple(later)), False


def check_fitting(number: int, fitting: int, context: int) -> None:
    """Raise CorpusError where of the first stories too few fit the context."""
    if number == TRIED and fitting < TRIED // 10:
        raise CorpusError(
            f"stories and questions do not fit a context of {context} tokens\n"
            "start from a run with a larger --context, such as 256 for characters"
        )
