"""Tasks with data made by rule: the answers are right, and no source is learned and measured on."""

from __future__ import annotations

import re
from datetime import date, datetime
from itertools import islice, pairwise

import pytest

from tinygpt.config import EncoderDecoderConfig, TrainConfig
from tinygpt.data.pairs import Pairs
from tinygpt.data.tasks import (
    DEFAULTS,
    EXAMPLES,
    FORMS,
    MONTHS,
    ORDINALS,
    dates,
    reverse,
    sort,
    strings,
    task_pairs,
    translate,
    withheld,
    written,
)
from tinygpt.ids import PAIR_TOKENS
from tinygpt.tokenizers import CharacterTokenizer, SpecialTokenizer, WordTokenizer

each_task = pytest.mark.parametrize("task", EXAMPLES)


@each_task
def test_no_source_is_learned_and_measured_on(task: str) -> None:
    learned, measured = task_pairs(task, 0, learned=5000, measured=500)
    assert (len(learned), len(measured)) == (5000, 500)
    sources = {pair.source for pair in measured}
    assert len(sources) == 500
    assert not sources & {pair.source for pair in learned}
    # the held-out pairs hold no word or letter that training never shows
    seen = {word for pair in learned for word in re.findall(r"\w+|\W", f"{pair}")}
    if task == "translate":
        assert seen >= {word for pair in measured for word in re.findall(r"\w+|\W", f"{pair}")}


@each_task
def test_keys_that_are_kept_back_are_in_no_pair_to_learn_from(task: str) -> None:
    learned, measured = task_pairs(task, 3, learned=3000, measured=100)
    keys = dict(islice(EXAMPLES[task](3), 20_000))
    assert not any(withheld(key, 3) for pair in learned for key in keys[pair])
    assert all(any(withheld(key, 3) for key in keys[pair]) for pair in measured)


@each_task
def test_the_seed_decides(task: str) -> None:
    one, again, other = (task_pairs(task, seed, 200, 20) for seed in (1, 1, 2))
    assert one == again
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_the_dates_to_measure_on_are_other_days() -> None:
    """A day that is learned in one form is not measured on in another."""
    learned, measured = task_pairs("dates", 0, learned=5000, measured=500)
    assert not {pair.target for pair in learned} & {pair.target for pair in measured}


def test_a_tenth_is_kept_back() -> None:
    kept = [withheld(f"{i}", 0) for i in range(5000)]
    assert 0.08 < sum(kept) / 5000 < 0.12
    assert kept != [withheld(f"{i}", 1) for i in range(5000)]


def test_strings() -> None:
    texts = list(islice(strings(0), 3000))
    assert {len(text) for text in texts} == set(range(1, 13))
    assert all(re.fullmatch("[a-z]{1,12}", text) for text in texts)
    assert set("".join(texts)) == set("abcdefghijklmnopqrstuvwxyz")
    for (source, target), keys in islice(reverse(0), 300):
        assert target == "".join(source[i] for i in range(len(source) - 1, -1, -1))
        assert keys == (source,)
    for (source, target), _ in islice(sort(0), 300):
        assert all(before <= after for before, after in pairwise(target))
        assert all(source.count(letter) == target.count(letter) for letter in source + target)


# -- dates


@pytest.mark.parametrize(
    ("day", "text"),
    [
        ("2021-03-03", "3 March 2021"),
        ("2021-03-03", "03 March 2021"),
        ("2021-03-03", "3 Mar 2021"),
        ("2021-03-03", "03-Mar-2021"),
        ("2021-03-03", "March 3, 2021"),
        ("2021-03-03", "Mar 3, 2021"),
        ("2021-03-01", "March 1st, 2021"),
        ("2021-03-02", "2nd March 2021"),
        ("2021-03-03", "3rd of March 2021"),
        ("2021-03-11", "the 11th of March, 2021"),
        ("2021-03-12", "March 12th, 2021"),
        ("2021-03-13", "March 13th, 2021"),
        ("2021-03-21", "March 21st, 2021"),
        ("2021-03-22", "March 22nd, 2021"),
        ("2021-03-31", "March 31st, 2021"),
        ("2021-03-03", "the third of March 2021"),
        ("2000-02-29", "February the twenty-ninth, 2000"),
        ("1999-12-30", "the thirtieth of December 1999"),
        ("1999-12-31", "December the thirty-first, 1999"),
        ("1999-12-20", "the twentieth of December 1999"),
        ("2021-03-03", "Wednesday, 3 March 2021"),
        ("1969-07-20", "Sunday, July 20, 1969"),
        ("2021-03-03", "2021 March 3"),
        ("2021-03-04", "2021/03/04"),
        ("2021-03-04", "4.3.2021"),
        ("2021-03-04", "04.03.2021"),
        ("2021-05-04", "4 May 2021"),
    ],
)
def test_forms_of_a_date(day: str, text: str) -> None:
    assert text in [written(date.fromisoformat(day), form) for form in FORMS]


def test_every_form_names_one_day() -> None:
    """No form writes two days in the same way, and no two forms disagree."""
    days = [date.fromordinal(date(2023, 12, 1).toordinal() + i) for i in range(500)]
    named: dict[str, date] = {}
    for day in days:
        for form in FORMS:
            assert named.setdefault(written(day, form), day) == day
    assert len(ORDINALS) == 31
    assert len(set(ORDINALS)) == 31


def test_dates_are_days_of_the_calendar() -> None:
    """Python's own reader of dates agrees."""
    seen = set()
    for (text, iso), keys in islice(dates(0), 4000):
        day = date.fromisoformat(iso)
        assert 1900 <= day.year <= 2099
        assert keys == (iso,)
        seen.add((day.month, day.day))
        assert str(day.year) in text
        if re.fullmatch(r"\d{1,2} [A-Z][a-z]{3,} \d+", text):
            read = datetime.strptime(text, "%d %B %Y")
            assert read.date() == day
        if re.fullmatch(r"\w+day, \d+ \w+ \d+", text):
            assert datetime.strptime(text, "%A, %d %B %Y").date() == day
            assert text.startswith(day.strftime("%A"))
    assert len(seen) > 360
    assert [date(2021, i, 1).strftime("%B") for i in range(1, 13)] == list(MONTHS)


# -- phrases


def test_phrases_are_measured_on_new_combinations() -> None:
    """Two words of each held-out phrase never stand together in training."""
    combinations = {pair.source: keys for pair, keys in islice(translate(0), 30_000)}
    learned, measured = task_pairs("translate", 0, learned=10_000, measured=500)
    seen = {keys for pair in learned for keys in combinations[pair.source]}
    assert all(set(combinations[pair.source]) - seen for pair in measured)


# -- defaults


@each_task
def test_defaults_fit_the_task(task: str) -> None:
    """Their names are fields of the configuration, and the longest pair fits the context."""
    defaults = DEFAULTS[task]
    assert defaults.keys() <= {
        *TrainConfig.__dataclass_fields__,
        *EncoderDecoderConfig.__dataclass_fields__,
    }
    learned, measured = task_pairs(task, 0)
    texts = "\n".join(f"{source}\n{target}" for source, target in learned)
    words = defaults["tokenizer"] == "word"
    inner = WordTokenizer(texts) if words else CharacterTokenizer(texts)
    tokenizer = SpecialTokenizer(inner, PAIR_TOKENS)
    for pairs in (learned, measured):
        assert len(Pairs(pairs, tokenizer, defaults["context"])) == len(pairs)
