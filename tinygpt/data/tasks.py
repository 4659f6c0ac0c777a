"""Tasks for an encoder-decoder whose right answer is known, with data made by rule from a seed.

reverse      tinygpt                          tpgynit
sort         tinygpt                          gintpty
dates        the third of March 2021          2021-03-03
translate    the small cats sleep             les petits chats dorment

Each task keeps a tenth of its keys back: strings, dates, or combinations of two words. The pairs to
learn from have none of these keys, and each pair to measure on has one. So a model that answers
well on the second kind has learned the rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date, timedelta
from string import ascii_lowercase
from typing import Any, NamedTuple
from zlib import crc32

from tensor.random import Generator
from tinygpt.data.pairs import Pair
from tinygpt.data.phrases import MOST_DRAWS, phrase

LEARNED, MEASURED = 50_000, 1_000  # pairs of a task
LONGEST = 12  # letters of a string


class Example(NamedTuple):
    """A pair, and its keys: what may be kept back."""

    pair: Pair
    keys: tuple[str, ...]


def task_pairs(
    task: str, seed: int, learned: int = LEARNED, measured: int = MEASURED
) -> tuple[list[Pair], list[Pair]]:
    """The pairs of a task to learn from, and other pairs with different sources to measure on.

    A source to learn from may come several times.
    """
    learn, measure, examples = list[Pair](), dict[str, Pair](), EXAMPLES[task](seed)
    while len(learn) < learned or len(measure) < measured:
        pair, keys = next(examples)
        if not any(withheld(key, seed) for key in keys):
            learn.append(pair)
        elif len(measure) < measured:
            measure[pair.source] = pair
    return learn[:learned], list(measure.values())


def withheld(key: str, seed: int) -> bool:
    """Whether no pair to learn from may have this key: so it is for a tenth of all keys."""
    return crc32(f"{seed} {key}".encode()) % 10 == 0


def draws(seed: int, count: int) -> Iterator[list[float]]:
    """Endless lists of so many numbers, uniform in [0, 1)."""
    generator = Generator(seed)
    while True:
        yield from generator.uniform((1024, count)).tolist()


# -- strings


def strings(seed: int) -> Iterator[str]:
    """Strings of 1 to 12 lower-case letters; each length is as likely, and each letter."""
    for length, *letters in draws(seed, 1 + LONGEST):
        used = letters[: 1 + int(length * LONGEST)]
        yield "".join([ascii_lowercase[int(number * 26)] for number in used])


def reverse(seed: int) -> Iterator[Example]:
    """A string, and the string from its last letter to its first."""
    return (Example(Pair(text, text[::-1]), (text,)) for text in strings(seed))


def sort(seed: int) -> Iterator[Example]:
    """A string, and its letters in the order of the alphabet."""
    return (Example(Pair(text, "".join(sorted(text))), (text,)) for text in strings(seed))


# -- dates

FIRST, LAST = date(1900, 1, 1), date(2099, 12, 31)
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
WEEKDAYS = "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"
UNITS = "first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"
ORDINALS = (
    *UNITS,
    *("tenth", "eleventh", "twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth"),
    *("seventeenth", "eighteenth", "nineteenth", "twentieth"),
    *(f"twenty-{unit}" for unit in UNITS),
    *("thirtieth", "thirty-first"),
)
# 3/4/2021 is left out, for some read April there and some March, and so is 3 March 21
FORMS = [
    "{d} {month} {year}",  # 3 March 2021
    "{dd} {month} {year}",  # 03 March 2021
    "{d} {mon} {year}",  # 3 Mar 2021
    "{dd}-{mon}-{year}",  # 03-Mar-2021
    "{month} {d}, {year}",  # March 3, 2021
    "{mon} {d}, {year}",  # Mar 3, 2021
    "{month} {nth}, {year}",  # March 3rd, 2021
    "{nth} {month} {year}",  # 3rd March 2021
    "{nth} of {month} {year}",  # 3rd of March 2021
    "the {nth} of {month}, {year}",  # the 3rd of March, 2021
    "the {ordinal} of {month} {year}",  # the third of March 2021
    "{month} the {ordinal}, {year}",  # March the third, 2021
    "{weekday}, {d} {month} {year}",  # Wednesday, 3 March 2021
    "{weekday}, {month} {d}, {year}",  # Wednesday, March 3, 2021
    "{year} {month} {d}",  # 2021 March 3
    "{year}/{mm}/{dd}",  # 2021/03/03
    "{d}.{m}.{year}",  # 3.3.2021: with points the day comes first
    "{dd}.{mm}.{year}",  # 03.03.2021
]


def written(day: date, form: str) -> str:
    """The day in that form: March 3rd, 2021."""
    month = MONTHS[day.month - 1]
    ending = {1: "st", 2: "nd", 3: "rd"}.get(day.day % 10 if day.day // 10 != 1 else 0, "th")
    return form.format(
        d=day.day,
        dd=f"{day.day:02}",
        m=day.month,
        mm=f"{day.month:02}",
        mon=month[:3],
        month=month,
        nth=f"{day.day}{ending}",
        ordinal=ORDINALS[day.day - 1],
        weekday=WEEKDAYS[day.weekday()],
        year=day.year,
    )


def dates(seed: int) -> Iterator[Example]:
    """A day of 1900 to 2099 as people write it, and in ISO 8601: year-month-day."""
    days = (LAST - FIRST).days + 1
    for day_number, form_number in draws(seed, 2):
        day = FIRST + timedelta(int(day_number * days))
        text = written(day, FORMS[int(form_number * len(FORMS))])
        yield Example(Pair(text, day.isoformat()), (day.isoformat(),))


# -- phrases


def translate(seed: int) -> Iterator[Example]:
    """An English phrase and its French. The keys are its combinations of two words."""
    for numbers in draws(seed, MOST_DRAWS):
        made = phrase(iter(numbers))
        yield Example(made.pair, made.combinations)


EXAMPLES: dict[str, Callable[[int], Iterator[Example]]] = {
    "reverse": reverse,
    "sort": sort,
    "dates": dates,
    "translate": translate,
}

# What a task takes where nothing was chosen: fields of the model and of its training. Each task
# of pairs is learned in less than 3 minutes on 2 cores.
COMMON = {"width": 64, "heads": 2, "layers": 2, "batch": 32, "lr": 3e-3, "final_lr": 0.01}
LETTERS, WORDS = COMMON | {"tokenizer": "character"}, COMMON | {"tokenizer": "word"}
IN_CONTEXT = {"positions": "sinusoidal", "optimizer": "muon", "batch": 32, "final_lr": 0.01}
DEFAULTS: dict[str, dict[str, Any]] = {
    "reverse": LETTERS | {"context": 13, "steps": 1500},
    "sort": LETTERS | {"context": 13, "steps": 3000, "batch": 64},
    "dates": LETTERS | {"context": 40, "steps": 3500},
    "translate": WORDS | {"context": 24, "steps": 1800},
    # a text has room for 8 examples
    "copy": IN_CONTEXT | {"context": 72, "steps": 600},
    "map": IN_CONTEXT | {"context": 36, "steps": 2500, "batch": 64},
    "patterns": IN_CONTEXT | {"context": 45, "steps": 1000},
    # learned positions and AdamW take several times as many steps
    "masked": {"norm": "pre", "positions": "sinusoidal", "optimizer": "muon"},
}
