"""The grammar: its figures against enumeration and against samples, and its stories against a
reader that knows nothing of it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tensor
from tensor.random import Generator
from tinygpt import CharacterTokenizer
from tinygpt.data import grammar
from tinygpt.data.grammar import (
    END,
    Actor,
    Choice,
    Grammar,
    GrammarError,
    Part,
    Symbol,
    grammar_text,
    grammar_tokenizer,
    story_windows,
)
from tinygpt.data.windows import CorpusError, Windows

TOM, MIA, ANN = Actor("Tom", "cat"), Actor("Mia", "dog"), Actor("Ann", "dog")
IN = "in the park"


def root() -> list[Choice]:
    return [
        Choice(0.25, ("A ", Symbol(noun), Symbol(tail, (1,)))),
        Choice(0.75, ("The ", Symbol(noun), " and ", Symbol(noun), Symbol(tail, (2,)))),
    ]


def noun() -> list[Choice]:
    return [Choice(0.5, ("cat",)), Choice(0.3, ("dog",)), Choice(0.2, ("donkey",))]


def tail(number: int) -> list[Choice]:
    verb = " was" if number == 1 else " were"
    return [
        Choice(0.125 * number, (verb, " here" + END)),
        Choice(1 - 0.125 * number, (verb + " gone" + END,)),
    ]


SMALL = Symbol(root)
PIECES = [
    SMALL,
    Symbol(grammar.closing, ("rainy", "They")),
    Symbol(grammar.closing, (None, "She")),
    Symbol(grammar.subject, (TOM, MIA)),
    Symbol(grammar.subject, (MIA, ANN)),
    Symbol(grammar.parting, ("sunny", TOM, MIA, IN)),
    Symbol(grammar.together, (None, MIA, ANN._replace(kind="cat"), "on the mat")),
    Symbol(grammar.alone, ("rainy", ANN, IN)),
    Symbol(grammar.company, (None, TOM, IN)),
]


def enumerated(parts: tuple[Part, ...]) -> Iterator[tuple[str, float]]:
    """Every text that the parts can make, with the probability of the choices that make it,
    straight from the rules.
    """
    if not parts:
        yield "", 1.0
        return
    head, rest = parts[0], list(enumerated(parts[1:]))
    heads = (
        [(head, 1.0)]
        if isinstance(head, str)
        else [(t, p * q) for p, inner in head.rule(*head.known) for t, q in enumerated(inner)]
    )
    yield from ((a + b, p * q) for a, p in heads for b, q in rest)


def name_of(symbol: Any) -> str:
    return str(symbol.rule.__name__)


# -- the figures


@pytest.mark.parametrize("start", PIECES, ids=name_of)
def test_figures_of_what_can_be_enumerated(start: Symbol) -> None:
    made, piece = list(enumerated((start,))), Grammar(start)
    assert len({text for text, _ in made}) == len(made) > 1  # no text in two ways
    assert math.fsum(p for _, p in made) == pytest.approx(1, rel=1e-12)
    assert piece.entropy() == pytest.approx(-math.fsum(p * math.log(p) for _, p in made), rel=1e-12)
    assert piece.mean_length() == pytest.approx(
        math.fsum(p * len(text) for text, p in made), rel=1e-12
    )
    assert piece.floor() == piece.entropy() / piece.mean_length()
    assert piece.longest() == max(len(text) for text, _ in made)
    assert piece.alphabet() == "".join(sorted(set("".join(text for text, _ in made))))
    for text, p in made[:: 1 + len(made) // 300]:
        assert piece.log_probability(text) == pytest.approx(math.log(p), rel=1e-12)


def test_figures_of_the_small_grammar_by_hand() -> None:
    nouns = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    first, here, both = -0.25 * math.log(0.25) - 0.75 * math.log(0.75), 0.125, 0.25
    ends = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (here, both)]
    assert Grammar(SMALL).entropy() == pytest.approx(
        first + 1.75 * nouns + 0.25 * ends[0] + 0.75 * ends[1], rel=1e-12
    )
    noun_length = 3 + 3 * 0.2
    assert Grammar(SMALL).mean_length() == pytest.approx(
        0.25 * (2 + noun_length + 10) + 0.75 * (4 + 2 * noun_length + 5 + 11), rel=1e-12
    )


def test_figures_of_the_stories_against_samples() -> None:
    whole = grammar.story_grammar()
    told = list(whole.stories(seed=5, count=4000))
    surprise = np.array([-whole.log_probability(each) for each in told])
    length = np.array([len(each) for each in told])
    for sample, exact in ((surprise, whole.entropy()), (length, whole.mean_length())):
        error = sample.std() / math.sqrt(len(told))
        assert error < 0.02 * exact  # or the test could not fail
        assert abs(sample.mean() - exact) < 4 * error
    error = (surprise - whole.floor() * length).std() / math.sqrt(len(told)) / whole.mean_length()
    assert error < 0.01 * whole.floor()
    assert abs(surprise.sum() / length.sum() - whole.floor()) < 4 * error


def test_the_stories_are_as_promised() -> None:
    whole = grammar.story_grammar()
    assert round(whole.floor(), 3) == 0.082
    assert whole.longest() <= 256
    assert len(whole.alphabet()) == 31
    told = list(whole.stories(seed=1, count=2000))
    assert max(map(len, told)) <= whole.longest()
    assert np.quantile([len(each) for each in told], 0.75) < 210
    # nothing is rare
    assert (
        min(choice.probability for choices in whole._choices.values() for choice in choices) >= 0.06
    )
    # bits of choice a word
    assert whole.entropy() / math.log(2) / np.mean([len(each.split()) for each in told]) < 1


# -- one way only


def test_a_text_is_as_likely_as_the_choices_that_made_it() -> None:
    whole, generator = grammar.story_grammar(), Generator(3)
    for _ in range(500):
        told, log_probability = whole.draw(generator)
        assert whole.log_probability(told) == pytest.approx(log_probability, rel=1e-12)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([(0.5, "cat."), (0.5, "cat.")], "two choices .* may both begin with 'cat.'"),
        ([(0.5, "cat"), (0.25, "dog"), (0.25, "cats")], "two choices .* may both begin with 'cat'"),
        ([(0.5, ""), (0.5, "cat")], "two choices"),
        ([(0.5, "x" * 50 + "a"), (0.5, "x" * 50 + "b")], "two choices"),
        ([(0.5, "cat"), (0.4, "dog")], "add up to 1, not to 0.9"),
        ([(1.0, "cat"), (0.0, "dog")], "are positive"),
    ],
)
def test_rules_that_make_no_grammar(parts: list[tuple[float, str]], reason: str) -> None:
    with pytest.raises(GrammarError, match=reason):
        Grammar(Symbol(lambda: [Choice(p, (text,)) for p, text in parts]))


def test_a_rule_that_comes_back() -> None:
    def one() -> list[Choice]:
        return [Choice(0.5, ("a",)), Choice(0.5, ("b", Symbol(other)))]

    def other() -> list[Choice]:
        return [Choice(0.5, ("a",)), Choice(0.5, ("b", Symbol(one)))]

    with pytest.raises(GrammarError, match="the rule one comes back to itself"):
        Grammar(Symbol(one))


GOOD = (
    "It was a rainy day. Mia was a small dog. She liked the park. She met a cat named Tom. "
    "They slept in the park. The dog and the cat were happy. He went home. "
    "Mia stayed in the park. The rain stopped. They became friends.\n"
)


def test_the_story_of_the_documentation() -> None:
    assert " ".join(GOOD.split()) in " ".join(str(grammar.__doc__).split())
    chances = [0.3, 1 / 8, 0.3, 1 / 3, 0.25, 0.4, 1 / 3, 0.25, 0.5, 0.4, 0.5, 0.25, 0.5, 0.5]
    assert grammar.story_grammar().log_probability(GOOD) == pytest.approx(
        math.log(math.prod(chances)), rel=1e-12
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("They slept", "They sleeps"),
        ("cat were happy", "cat was happy"),
        ("She liked", "He liked"),  # Mia
        ("named Tom", "named Mia"),
        ("a cat named", "a dog named"),
        ("They slept in the park", "They slept on the mat"),
        ("Mia stayed", "Tom stayed"),  # he went home
        ("Mia stayed", "He stayed"),
        ("The dog and the cat", "The cat and the dog"),
        ("rain stopped", "sun went down"),
        ("friends.\n", "friends."),
        ("friends.\n", "friends.\n\n"),
        ("friends.\n", "friends.\n" + GOOD),
        ("It was a rainy day.", "It was a rainy day. It was a rainy day."),
        (GOOD, ""),
        (GOOD, "\n"),
        ("Tom", "Tim"),
    ],
)
def test_impossible_texts_raise(old: str, new: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(GrammarError, match="no story of this grammar"):
        grammar.story_grammar().log_probability(GOOD.replace(old, new))


def test_the_error_names_the_place() -> None:
    wrong = GOOD.replace("cat were", "cat was")
    with pytest.raises(
        GrammarError,
        match=rf"'[^']* the cat w', its first {wrong.index('as happy')} characters, 'as happy",
    ):
        grammar.story_grammar().log_probability(wrong)


# -- drawing


def test_a_seed_is_its_stories() -> None:
    whole = grammar.story_grammar()
    first, again, other = ("".join(whole.stories(seed, 50)) for seed in (7, 7, 8))
    assert first == again != other
    # endless, and the same
    assert list(whole.stories(7, 3)) == list(itertools.islice(whole.stories(7), 3))
    generator = Generator(7)
    assert "".join(whole.sample(generator) for _ in range(50)) == first
    state = generator.state()
    following = whole.sample(generator)
    generator.load_state(state)
    assert whole.sample(generator) == following


def test_choices_come_as_often_as_they_say() -> None:
    counts = dict.fromkeys((text for text, _ in enumerated((SMALL,))), 0)
    n = 4000
    for told in Grammar(SMALL).stories(seed=0, count=n):
        counts[told] += 1
    for text, p in enumerated((SMALL,)):
        assert abs(counts[text] - n * p) < 4.5 * math.sqrt(n * p * (1 - p)), text


def test_grammar_text_is_whole_stories() -> None:
    text = grammar_text(5000, seed=2)
    assert 5000 <= len(text) < 5000 + 256
    assert text.endswith(END)
    assert text == "".join(grammar.story_grammar().stories(2, text.count(END)))
    assert len(text) - len(text.splitlines(keepends=True)[-1]) < 5000
    assert grammar_text(0, seed=2) == ""


# -- what the stories say, read without the grammar

HE, SHE = {"Tom", "Ben"}, {"Mia", "Ann"}
INTRODUCED = re.compile(
    r"(?:^|\. )(Tom|Ben|Mia|Ann) was a (?:big |small )?(cat|dog)\."
    r"|a (?:big |small )?(cat|dog) named (Tom|Ben|Mia|Ann)\."
)


def test_agreement_and_reference() -> None:
    seen = set()
    for told in grammar.story_grammar().stories(seed=11, count=1500):
        met = [(a or d, b or c) for a, b, c, d in INTRODUCED.findall(told)]
        names, kinds = {name for name, _ in met}, [kind for _, kind in met]
        two = len(met) == 2
        assert len(met) in (1, 2)
        assert len(names) == len(set(kinds)) == len(met)
        assert not re.search(
            r"They was|(He|She|Tom|Ben|Mia|Ann) were|(?<!and )[Tt]he (cat|dog) were"
            r"|and the (cat|dog) was",
            told,
        )
        assert ("They" in told) == two == ("friends" in told or "stayed" in told)
        assert set(re.findall("Tom|Ben|Mia|Ann", told)) == names
        assert set(re.findall("cat|dog", told)) == set(kinds)
        for pronoun, own in (("He", HE), ("She", SHE)):
            assert not re.search(rf"\b{pronoun}\b", told) or names & own
        places = re.findall(r"(?:liked|in|on) the (park|garden|mat)", told)
        assert len(set(places)) == 1
        assert len(places) >= 2
        assert not re.search("on the (park|garden)|in the mat", told)
        assert "The rain stopped" not in told or "rainy" in told
        assert "The sun went" not in told or "sunny" in told
        if two:
            parting = re.search(r"(?:\. )([^.]*?) went home\. ([^.]*?) stayed", told)
            assert parting, told
            goes, stays = parting.groups()
            who = [meant(phrase, met) for phrase in (goes, stays)]
            assert set(who) == names, told  # one of them each
            seen |= {(goes.split()[0], stays.split()[0])}
        else:
            assert all(
                meant(phrase, met) in names
                for phrase in re.findall(
                    r"\. (\w+|The cat|The dog) (?:went home|played|ran|slept|wanted)", told
                )
            )
    assert {("He", "She"), ("She", "The"), ("Tom", "The"), ("The", "The"), ("Ben", "Ann")} <= seen


def meant(phrase: str, met: list[tuple[str, str]]) -> str:
    """The one of those met that a phrase can mean."""
    own = {"He": HE, "She": SHE}.get(phrase, {phrase})
    (name,) = [name for name, kind in met if name in own or phrase == f"The {kind}"]
    return name


# -- windows


def test_windows_hold_one_story_each() -> None:
    text = grammar_text(4000, seed=4)
    tokenizer, told = grammar_tokenizer(), text.splitlines(keepends=True)
    cut = story_windows(text, 256)
    x, y = cut[:]
    assert isinstance(cut, Windows)
    assert len(cut) == len(told) == len(x)
    assert x.shape == y.shape == (len(told), 256)
    assert x.dtype == y.dtype == np.int64
    assert np.array_equal(cut.mask(slice(None)), y != -1)
    assert (y != -1).sum() == len(text)  # every character is a target once
    for i, each in enumerate(told):
        assert tokenizer.decode(y[i, : len(each)]) == each
        assert (y[i, len(each) :] == -1).all()
        assert tokenizer.decode(x[i, : len(each)]) == END + each[:-1]
    assert x.min() >= 0
    rows = np.array([3, 0, 3])
    assert np.array_equal(cut[rows][0], x[rows])
    assert np.array_equal(cut[rows][1], y[rows])
    x[:] = 0
    assert cut[:][0].any()


def test_windows_just_long_enough_and_not() -> None:
    x, y = story_windows("Tom\nBen ran\n", 8)[:]
    tokenizer = grammar_tokenizer()
    assert [tokenizer.decode(row) for row in x] == ["\nTom\nBen", "\nBen ran"]
    assert y[0, 4:].tolist() == [-1] * 4
    assert tokenizer.decode(y[1]) == "Ben ran\n"
    with pytest.raises(CorpusError, match="a story of 8 characters does not fit a context of 7"):
        story_windows("Tom\nBen ran\n", 7)
    with pytest.raises(CorpusError, match="the last story has no end"):
        story_windows("Tom\nBen ran", 8)
    with pytest.raises(CorpusError, match="or there is none"):
        story_windows("", 8)


def test_a_tokenizer_of_ones_own() -> None:
    text = "ab\nb\n"
    x, y = story_windows(text, 3, CharacterTokenizer(text))[:]
    assert x.tolist() == [[2, 0, 1], [2, 1, 2]]
    assert y.tolist() == [[0, 1, 2], [1, 2, -1]]


def test_the_mean_loss_of_a_model_that_knows_all_is_the_floor(device: str) -> None:
    """The grammar's own chance of each next character, as logits: the mean over the targets that
    count comes to floor().
    """
    piece = Grammar(SMALL)
    chances: dict[str, float] = {}
    for text, p in enumerated((SMALL,)):
        for end in range(len(text) + 1):
            chances[text[:end]] = chances.get(text[:end], 0.0) + p
    told = list(piece.stories(seed=3, count=1500))
    tokenizer = CharacterTokenizer(piece.alphabet())
    _, y = story_windows("".join(told), piece.longest(), tokenizer)[:]
    logits = np.full((*y.shape, tokenizer.size), -np.inf)
    logits[y == -1] = 0
    for i, each in enumerate(told):
        for t in range(len(each)):
            logits[i, t] = [
                math.log(p)
                if (p := chances.get(each[:t] + c, 0.0) / chances[each[:t]])
                else -np.inf
                for c in tokenizer.characters
            ]
    loss = tensor.cross_entropy(
        tensor.Tensor(logits, device=device),
        tensor.Tensor(y, device=device),
        ignore_index=grammar.IGNORED,
    )
    surprise = np.array([-piece.log_probability(each) for each in told])
    lengths = np.array([len(each) for each in told])
    assert loss.item() == pytest.approx(surprise.sum() / lengths.sum(), rel=1e-9)
    error = (surprise - piece.floor() * lengths).std() / math.sqrt(len(told)) / piece.mean_length()
    assert abs(loss.item() - piece.floor()) < 4 * error < 0.1 * piece.floor()
