"""The French of the phrases: gender, number, elision, and the place of adjectives."""

from __future__ import annotations

import re
from itertools import islice, product

import pytest

from tinygpt.data.phrases import (
    ADJECTIVES_AFTER,
    ADJECTIVES_BEFORE,
    DETERMINERS,
    MOST_DRAWS,
    NOUNS,
    PLACES,
    VERBS,
    VERBS_WITH_OBJECT,
    Noun,
    NounPhrase,
    Phrase,
    agreeing,
    phrase,
)
from tinygpt.data.tasks import draws

NOUN = {noun.english[0]: noun for noun in NOUNS}
FRENCH_NOUN = {form: (noun, many) for noun in NOUNS for many, form in enumerate(noun.french)}
ADJECTIVE = {each.english: each for each in ADJECTIVES_BEFORE + ADJECTIVES_AFTER}
VERB = {each.english[1]: each for each in VERBS + VERBS_WITH_OBJECT}
KINDS = {name: kind for kind in DETERMINERS for name in kind}


def some(count: int, seed: int = 0) -> list[Phrase]:
    return [phrase(iter(numbers)) for numbers in islice(draws(seed, MOST_DRAWS), count)]


def french(english: str) -> str:
    """The French of a determiner, some adjectives and a noun."""
    name, *adjectives, word = english.split()
    noun, many = next(
        (noun, bool(many))
        for noun in NOUNS
        for many, form in enumerate(noun.english)
        if form == word
    )
    given = [ADJECTIVE[each] for each in adjectives]
    before = [each for each in given if each in ADJECTIVES_BEFORE]
    after = [each for each in given if each in ADJECTIVES_AFTER]
    made = NounPhrase(KINDS[name.replace("an", "a")], before, noun, after, many)
    assert made.english() == english
    return made.french()


@pytest.mark.parametrize(
    ("english", "expected"),
    [
        # gender and number
        ("the cat", "le chat"),
        ("the mouse", "la souris"),
        ("the mice", "les souris"),
        ("the small black cats", "les petits chats noirs"),
        ("a small black cow", "une petite vache noire"),
        ("my white geese", "mes oies blanches"),
        ("our proud happy hens", "nos poules fières heureuses"),
        ("a lazy cow", "une vache paresseuse"),
        ("the gentle frogs", "les grenouilles douces"),
        # plurals that follow no common rule
        ("the horses", "les chevaux"),
        ("the birds", "les oiseaux"),
        ("the bears", "les ours"),
        ("the owls", "les hiboux"),
        ("our blue swans", "nos cygnes bleus"),
        ("the beautiful fat bears", "les gros beaux ours"),
        # a vowel, a silent h, an aspirated h
        ("the bird", "l'oiseau"),
        ("the bee", "l'abeille"),
        ("the squirrel", "l'écureuil"),
        ("the swallow", "l'hirondelle"),
        ("the owl", "le hibou"),
        ("the hedgehog", "le hérisson"),
        ("the enormous cat", "l'énorme chat"),
        ("the enormous cow", "l'énorme vache"),
        ("the small bird", "le petit oiseau"),
        # other forms before a vowel
        ("a beautiful bird", "un bel oiseau"),
        ("a new elephant", "un nouvel éléphant"),
        ("an old bear", "un vieil ours"),
        ("an old owl", "un vieux hibou"),
        ("a beautiful bee", "une belle abeille"),
        ("this bear", "cet ours"),
        ("this owl", "ce hibou"),
        ("this bee", "cette abeille"),
        ("this enormous cat", "cet énorme chat"),
        ("this small bear", "ce petit ours"),
        ("my goose", "mon oie"),
        ("my small goose", "ma petite oie"),
        ("my enormous cow", "mon énorme vache"),
        ("my cow", "ma vache"),
        # des
        ("some cats", "des chats"),
        ("some black cats", "des chats noirs"),
        ("some small cats", "de petits chats"),
        ("some enormous cats", "d'énormes chats"),
        ("some birds", "des oiseaux"),
    ],
)
def test_determiner_adjectives_and_noun(english: str, expected: str) -> None:
    assert french(english) == expected


def test_every_adjective_and_noun_by_the_endings() -> None:
    """Feminine adjectives end in e, and plural ones in s or x, for every noun."""
    for noun, adjective in product(NOUNS, ADJECTIVE.values()):
        one, many = (agreeing(adjective, noun, many, noun.french[0]) for many in (False, True))
        assert many.endswith(("s", "x"))
        if noun.feminine:
            assert one.endswith("e")
            assert many == one + "s"
        # the root is the same
        assert one[:2] == many[:2] == adjective.french[0][:2]


def test_plurals() -> None:
    for noun in NOUNS:
        assert noun.french[1].endswith(("s", "x"))
        assert noun.english[0] != noun.english[1]
    irregular = {"mice", "geese", "children"}
    assert {noun.english[1] for noun in NOUNS if not noun.english[1].endswith("s")} == irregular
    assert NOUN["butterfly"].english[1] == "butterflies"
    assert NOUN["fox"].english[1] == "foxes"
    assert NOUN["wolf"].english[1] == "wolves"


def test_verbs() -> None:
    assert VERB["watch"] == (("watches", "watch"), ("regarde", "regardent"))
    assert VERB["cry"] == (("cries", "cry"), ("pleure", "pleurent"))
    assert VERB["play"] == (("plays", "play"), ("joue", "jouent"))
    assert VERB["sleep"] == (("sleeps", "sleep"), ("dort", "dorment"))
    for verb in VERB.values():
        assert verb.french[0].endswith(("e", "t", "d"))
        assert verb.french[1].endswith("ent")


def test_places() -> None:
    places = dict(PLACES)
    assert places["in the park"] == "dans le parc"
    assert places["on the island"] == "sur l'île"
    assert places["near the lake"] == "près du lac"
    assert places["near the river"] == "près de la rivière"
    assert places["near the church"] == "près de l'église"
    assert len(places) == len(PLACES)
    assert "_" not in "".join(places.values())


def test_enough_words() -> None:
    assert len(NOUNS) + len(ADJECTIVE) + len(VERB) >= 90
    assert len(NOUN) == len(NOUNS)
    assert len(FRENCH_NOUN) == 2 * len(NOUNS) - 2  # ours and souris have one form
    assert len(ADJECTIVE) == len(ADJECTIVES_BEFORE) + len(ADJECTIVES_AFTER)


def noun_phrases(french_text: str) -> list[tuple[str, Noun, bool]]:
    """The nouns of a French phrase, each with the text before it, and whether it is plural."""
    words = french_text.replace("'", "' ").split()
    return [
        (" ".join(words[:i]), *FRENCH_NOUN[word])
        for i, word in enumerate(words)
        if word in FRENCH_NOUN
    ]


def test_many_phrases() -> None:
    """Nothing stands in a phrase that French forbids; subject and verb agree."""
    vowel = "(?=[aeiouéî]|hirondelle)"
    forbidden = [
        rf"\b(le|la|de|ce|ma|beau|nouveau) {vowel}",
        r"\b(bel|nouvel|vieil|cet) (?![aeiouéî]|hirondelle)",
        r"['](?![aeiouéî]|hirondelle)",
        r"\bde le\b",
        r"\bdes (petit|grand|beau|belle|vieu|vieil|jeune|bon|joli|nouv|énorme|mauvais|gentil|gros)",
        r"  ",
    ]
    phrases = some(3000)
    for made in phrases:
        source, target = made.pair
        for pattern in forbidden:
            assert not re.search(pattern, target), (pattern, target)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", source)
        subject = target.replace("'", "' ").split()[0]
        many = subject in {"les", "des", "de", "d'", "mes", "nos", "ces"}
        verb = {form: i for each in VERB.values() for i, form in enumerate(each.french)}
        verb |= {"est": 0, "sont": 1}
        found = next(word for word in target.split() if word in verb and word not in FRENCH_NOUN)
        assert verb[found] == many, target
        assert made.combinations
    assert len({made.pair.source for made in phrases}) > 2900


def test_both_numbers_of_the_subject_and_the_object() -> None:
    for made in some(500):
        source = made.pair.source.split()
        english = [form for form in source if any(form in noun.english for noun in NOUNS)]
        french_nouns = [noun for _, noun, _ in noun_phrases(made.pair.target)]
        numbers = [many for _, _, many in noun_phrases(made.pair.target)]
        # "ours" and "souris" do not show their number, and "lit" is a bed
        for form, noun, many in zip(english, french_nouns, numbers, strict=True):
            assert form in noun.english
            if noun.french[0] != noun.french[1]:
                assert form == noun.english[many]


def test_combinations_are_of_words_as_in_a_dictionary() -> None:
    for made in some(300):
        words = {word for pair in made.combinations for word in pair.split()}
        assert words <= {*NOUN, *ADJECTIVE, *VERB}
        nouns_in_it = len([word for word in words if word in NOUN])
        assert nouns_in_it >= 1
