"""Bugs of tasks with data made by rule."""

from __future__ import annotations

from tests.zoo.bug import Bug

TASKS = "tests/tinygpt/data/test_tasks.py::"
PHRASES = "tests/tinygpt/data/test_phrases.py::"
NOUN_PHRASE = PHRASES + "test_determiner_adjectives_and_noun"

ZOO = [
    Bug(  # pairs to learn from have keys that are kept back
        row=97,
        file="tinygpt/data/tasks.py",
        old="if not any(withheld(key, seed) for key in keys):",
        new="if not all(withheld(key, seed) for key in keys):",
        test=TASKS + "test_keys_that_are_kept_back_are_in_no_pair_to_learn_from",
    ),
    Bug(  # a day is learned in one form, and measured on in another
        row=97,
        file="tinygpt/data/tasks.py",
        old="(day.isoformat(),))",
        new="(text,))",
        test=TASKS + "test_the_dates_to_measure_on_are_other_days",
    ),
    Bug(  # the same source is measured on twice
        row=97,
        file="tinygpt/data/tasks.py",
        old="measure[pair.source] = pair",
        new="measure[str(len(measure))] = pair",
        test=TASKS + "test_no_source_is_learned_and_measured_on",
    ),
    Bug(  # the 11st of March
        row=97,
        file="tinygpt/data/tasks.py",
        old="day.day % 10 if day.day // 10 != 1 else 0",
        new="day.day % 10",
        test=TASKS + "test_forms_of_a_date",
    ),
    Bug(  # le petites chats
        row=97,
        file="tinygpt/data/phrases.py",
        old="return plural(feminine if noun.feminine else masculine)",
        new="return plural(feminine)",
        test=NOUN_PHRASE,
    ),
    Bug(  # un vieux ours
        row=97,
        file="tinygpt/data/phrases.py",
        old="return before_vowel if elides(following) else masculine",
        new="return masculine",
        test=NOUN_PHRASE,
    ),
    Bug(  # l'hibou
        row=97,
        file="tinygpt/data/phrases.py",
        old=" and not word.startswith(ASPIRATED)",
        new="",
        test=NOUN_PHRASE,
    ),
    Bug(  # le petit chats
        row=97,
        file="tinygpt/data/phrases.py",
        old="article = several if many else singular[noun.feminine]",
        new="article = singular[noun.feminine]",
        test=NOUN_PHRASE,
    ),
    Bug(  # des petits chats
        row=97,
        file="tinygpt/data/phrases.py",
        old='if several == "des" and self.before:',
        new="if False:",
        test=NOUN_PHRASE,
    ),
    Bug(  # les chats dort
        row=97,
        file="tinygpt/data/phrases.py",
        old="french.append(verb.french[many])",
        new="french.append(verb.french[False])",
        test=PHRASES + "test_many_phrases",
    ),
    Bug(  # près de le lac
        row=97,
        file="tinygpt/data/phrases.py",
        old='.replace("de le ", "du ")',
        new="",
        test=PHRASES + "test_places",
    ),
]
