"""The grammar: its figures against enumeration and against samples, and its stories against a
reader that knows nothing of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from hashlib import sha256
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tests.helpers.program import refused
from tinygpt import CharacterTokenizer
from tinygpt.data import grammar
from tinygpt.data.grammar import (
    END,
    STORY,
    Actor,
    Choice,
    Part,
    StoryWindows,
    Symbol,
    grammar_text,
    grammar_tokenizer,
    log_probability,
    stories,
)
from tinygpt.data.windows import CorpusError, Windows
from tinygpt.tokenizers import BytePairTokenizer

TOM, MIA, ANN = Actor("Tom", "cat"), Actor("Mia", "dog"), Actor("Ann", "dog")
IN = "in the park"


def root() -> list[Choice]:
    return [
        Choice(0.25, ("A ", (noun,), (tail, 1))),
        Choice(0.75, ("The ", (noun,), " and ", (noun,), (tail, 2))),
    ]


def noun() -> list[Choice]:
    return [Choice(0.5, ("cat",)), Choice(0.3, ("dog",)), Choice(0.2, ("donkey",))]


def tail(number: int) -> list[Choice]:
    verb = " was" if number == 1 else " were"
    return [
        Choice(0.125 * number, (verb, " here" + END)),
        Choice(1 - 0.125 * number, (verb + " gone" + END,)),
    ]


SMALL: Symbol = (root,)
PIECES: list[Symbol] = [
    SMALL,
    (grammar.closing, "rainy", "They"),
    (grammar.closing, None, "She"),
    (grammar.subject, TOM, MIA),
    (grammar.subject, MIA, ANN),
    (grammar.parting, "sunny", TOM, MIA, IN),
    (grammar.together, None, MIA, ANN._replace(kind="cat"), "on the mat"),
    (grammar.alone, "rainy", ANN, IN),
    (grammar.company, None, TOM, IN),
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
        else [(t, p * q) for p, inner in grammar.choices(head) for t, q in enumerated(inner)]
    )
    yield from ((a + b, p * q) for a, p in heads for b, q in rest)


LOOKAHEAD = 40  # characters by which two choices must differ


def check(symbol: Symbol, above: tuple[Symbol, ...], known: dict[Symbol, set[str]]) -> set[str]:
    """The first LOOKAHEAD characters of all that the symbol can make, or the whole of what is
    shorter.

    Raises ValueError for rules that never end, whose probabilities do not add up to 1, or with two
    choices that these characters do not tell apart. Where none is found, by induction no two ways
    give the same story.
    """
    if symbol in above:
        raise ValueError(f"the rule {name_of(symbol)} comes back to itself")
    if symbol in known:
        return known[symbol]
    found = grammar.choices(symbol)
    if not all(p > 0 for p, _ in found) or not math.isclose(sum(p for p, _ in found), 1):
        raise ValueError(f"{name_of(symbol)}: probabilities are positive and add up to 1")
    openings = []
    for _, parts in found:
        opening = {""}
        for part in parts:
            after = {part} if isinstance(part, str) else check(part, (*above, symbol), known)
            opening = {
                (a + b)[:LOOKAHEAD] if len(a) < LOOKAHEAD else a for a in opening for b in after
            }
        openings.append(opening)
    for a, b in pairwise(sorted(chain(*openings))):  # what a string opens stands right after it
        if b.startswith(a):
            raise ValueError(f"two choices of {name_of(symbol)} may both begin with {a!r}")
    known[symbol] = set().union(*openings)
    return known[symbol]


def name_of(symbol: Any) -> str:
    return str(symbol[0].__name__)


# -- the figures


@pytest.mark.parametrize("start", PIECES, ids=name_of)
def test_figures_of_what_can_be_enumerated(start: Symbol) -> None:
    made = list(enumerated((start,)))
    assert len({text for text, _ in made}) == len(made) > 1  # no text in two ways
    assert math.fsum(p for _, p in made) == pytest.approx(1, rel=1e-12)
    entropy = -math.fsum(p * math.log(p) for _, p in made)
    length = math.fsum(p * len(text) for text, p in made)
    assert grammar.entropy(start) == pytest.approx(entropy, rel=1e-12)
    assert grammar.mean_length(start) == pytest.approx(length, rel=1e-12)
    assert grammar.floor(start) == grammar.entropy(start) / grammar.mean_length(start)
    assert grammar.alphabet(start) == set("".join(text for text, _ in made))
    for text, p in made[:: 1 + len(made) // 300]:
        assert log_probability(start, text) == pytest.approx(math.log(p), rel=1e-12)


def test_figures_of_the_small_grammar_by_hand() -> None:
    nouns = -sum(p * math.log(p) for p in (0.5, 0.3, 0.2))
    first, here, both = -0.25 * math.log(0.25) - 0.75 * math.log(0.75), 0.125, 0.25
    ends = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in (here, both)]
    assert grammar.entropy(SMALL) == pytest.approx(
        first + 1.75 * nouns + 0.25 * ends[0] + 0.75 * ends[1], rel=1e-12
    )
    noun_length = 3 + 3 * 0.2
    assert grammar.mean_length(SMALL) == pytest.approx(
        0.25 * (2 + noun_length + 10) + 0.75 * (4 + 2 * noun_length + 5 + 11), rel=1e-12
    )


def test_figures_of_the_stories_against_samples() -> None:
    told = list(islice(stories(seed=5), 4000))
    surprise = np.array([-log_probability(STORY, each) for each in told])
    length = np.array([len(each) for each in told])
    mean_length, floor = grammar.mean_length(STORY), grammar.floor()
    for sample, exact in ((surprise, grammar.entropy(STORY)), (length, mean_length)):
        error = sample.std() / math.sqrt(len(told))
        assert error < 0.02 * exact  # or the test could not fail
        assert abs(sample.mean() - exact) < 4 * error
    error = (surprise - floor * length).std() / math.sqrt(len(told)) / mean_length
    assert error < 0.01 * floor
    assert abs(surprise.sum() / length.sum() - floor) < 4 * error


def longest(part: Part) -> int:
    if isinstance(part, str):
        return len(part)
    return max(sum(map(longest, parts)) for _, parts in grammar.choices(part))


def test_the_stories_are_as_promised() -> None:
    assert round(grammar.floor(), 3) == 0.082
    assert longest(STORY) <= 256
    assert len(grammar.alphabet()) == 31
    told = list(islice(stories(seed=1), 2000))
    assert max(map(len, told)) <= longest(STORY)
    assert np.quantile([len(each) for each in told], 0.75) < 210
    symbols: dict[Symbol, set[str]] = {}
    check(STORY, (), symbols)
    # nothing is rare
    assert min(p for symbol in symbols for p, _ in grammar.choices(symbol)) >= 0.06
    # bits of choice a word
    words = np.mean([len(each.split()) for each in told])
    assert grammar.entropy(STORY) / math.log(2) / words < 1


# -- one way only


@pytest.mark.parametrize("start", [STORY, *PIECES], ids=name_of)
def test_each_story_is_made_in_one_way(start: Symbol) -> None:
    check(start, (), {})


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([(0.5, "cat."), (0.5, "cat.")], "two choices .* may both begin with 'cat.'"),
        ([(0.5, "cat"), (0.25, "dog"), (0.25, "cats")], "two choices .* may both begin with 'cat'"),
        ([(0.5, ""), (0.5, "cat")], "two choices"),
        ([(0.5, "x" * 50 + "a"), (0.5, "x" * 50 + "b")], "two choices"),
        ([(0.5, "cat"), (0.4, "dog")], "add up to 1"),
        ([(1.0, "cat"), (0.0, "dog")], "are positive"),
    ],
)
def test_the_check_sees_rules_that_make_no_grammar(
    parts: list[tuple[float, str]], reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        check((lambda: [Choice(p, (text,)) for p, text in parts],), (), {})


def test_the_check_sees_a_rule_that_comes_back() -> None:
    def one() -> list[Choice]:
        return [Choice(0.5, ("a",)), Choice(0.5, ("b", (other,)))]

    def other() -> list[Choice]:
        return [Choice(0.5, ("a",)), Choice(0.5, ("b", (one,)))]

    with pytest.raises(ValueError, match="the rule one comes back to itself"):
        check((one,), (), {})


GOOD = (
    "It was a rainy day. Mia was a small dog. She liked the park. She met a cat named Tom. "
    "They slept in the park. The dog and the cat were happy. He went home. Mia stayed in the park. "
    "The rain stopped. They became friends.\n"
)


def test_the_story_of_the_documentation() -> None:
    assert " ".join(GOOD.split()) in " ".join(str(grammar.__doc__).split())
    chances = [0.3, 1 / 8, 0.3, 1 / 3, 0.25, 0.4, 1 / 3, 0.25, 0.5, 0.4, 0.5, 0.25, 0.5, 0.5]
    expected = math.log(math.prod(chances))
    assert log_probability(STORY, GOOD) == pytest.approx(expected, rel=1e-12)


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
    with pytest.raises(ValueError, match="no story of this grammar"):
        log_probability(STORY, GOOD.replace(old, new))


# -- drawing


def test_a_seed_is_its_stories() -> None:
    first, again, other = ("".join(islice(stories(seed), 50)) for seed in (7, 7, 8))
    assert first == again != other
    assert first.startswith("".join(islice(stories(7), 3)))


@pytest.mark.parametrize(
    ("characters", "seed", "digest"),
    [
        (1000, 0, "c5639c6f194f5737"),
        (100_000, 0, "94dd6938a4059f7c"),
        (5000, 2, "06510edbf7ec6c8d"),
    ],
)
def test_the_text_of_a_seed_is_the_same_in_every_version(
    characters: int, seed: int, digest: str
) -> None:
    assert sha256(grammar_text(characters, seed).encode()).hexdigest()[:16] == digest


def test_choices_come_as_often_as_they_say() -> None:
    counts = dict.fromkeys((text for text, _ in enumerated((SMALL,))), 0)
    n = 4000
    for told in islice(stories(0, SMALL), n):
        counts[told] += 1
    for text, p in enumerated((SMALL,)):
        assert abs(counts[text] - n * p) < 4.5 * math.sqrt(n * p * (1 - p)), text


def test_grammar_text_is_whole_stories() -> None:
    text = grammar_text(5000, seed=2)
    assert 5000 <= len(text) < 5000 + 256
    assert text.endswith(END)
    assert text == "".join(islice(stories(2), text.count(END)))
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
    for told in islice(stories(seed=11), 1500):
        met = [(a or d, b or c) for a, b, c, d in INTRODUCED.findall(told)]
        names, kinds = {name for name, _ in met}, [kind for _, kind in met]
        two = len(met) == 2
        assert len(met) in (1, 2)
        assert len(names) == len(set(kinds)) == len(met)
        assert not re.search(
            r"They was|(He|She|Tom|Ben|Mia|Ann) were"
            r"|(?<!and )[Tt]he (cat|dog) were|and the (cat|dog) was",
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
    cut = StoryWindows(text, 256, tokenizer)
    x, y = cut[:]
    assert isinstance(cut, Windows)
    assert len(cut) == len(told) == len(x)
    assert x.shape == y.shape == (len(told), 256)
    assert x.dtype == y.dtype == np.int64
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
    tokenizer = grammar_tokenizer()
    x, y = StoryWindows("Tom\nBen ran\n", 8, tokenizer)[:]
    assert [tokenizer.decode(row) for row in x] == ["\nTom\nBen", "\nBen ran"]
    assert y[0, 4:].tolist() == [-1] * 4
    assert tokenizer.decode(y[1]) == "Ben ran\n"
    with pytest.raises(CorpusError, match="a story of 8 characters does not fit a context of 7"):
        StoryWindows("Tom\nBen ran\n", 7, tokenizer)
    with pytest.raises(CorpusError, match="the last story has no end"):
        StoryWindows("Tom\nBen ran", 8, tokenizer)
    with pytest.raises(CorpusError, match="or there is none"):
        StoryWindows("", 8, tokenizer)


def test_a_tokenizer_of_ones_own() -> None:
    text = "ab\nb\n"
    x, y = StoryWindows(text, 3, CharacterTokenizer(text))[:]
    assert x.tolist() == [[2, 0, 1], [2, 1, 2]]
    assert y.tolist() == [[0, 1, 2], [1, 2, -1]]


def test_the_mean_loss_of_a_model_that_knows_all_is_the_floor(device: str) -> None:
    """The grammar's own chance of each next character, as logits: the mean over the targets that
    count comes to floor().
    """
    chances: dict[str, float] = {}
    for text, p in enumerated((SMALL,)):
        for end in range(len(text) + 1):
            chances[text[:end]] = chances.get(text[:end], 0.0) + p
    told = list(islice(stories(3, SMALL), 1500))
    tokenizer = CharacterTokenizer("".join(sorted(grammar.alphabet(SMALL))))
    _, y = StoryWindows("".join(told), longest(SMALL), tokenizer)[:]
    logits = np.full((*y.shape, tokenizer.size), -np.inf)
    logits[y == -1] = 0
    for i, each in enumerate(told):
        for t in range(len(each)):
            logits[i, t] = [
                math.log(p)
                if (p := chances.get(each[:t] + c, 0.0) / chances[each[:t]])
                else -np.inf
                for c in tokenizer.tokens
            ]
    loss = tensor.cross_entropy(
        tensor.Tensor(logits, device=device),
        tensor.Tensor(y, device=device),
        ignore_index=grammar.IGNORED,
    )
    surprise = np.array([-log_probability(SMALL, each) for each in told])
    lengths = np.array([len(each) for each in told])
    assert loss.item() == pytest.approx(surprise.sum() / lengths.sum(), rel=1e-9)
    floor = grammar.floor(SMALL)
    error = (surprise - floor * lengths).std() / math.sqrt(len(told)) / grammar.mean_length(SMALL)
    assert abs(loss.item() - floor) < 4 * error < 0.1 * floor


def test_a_context_too_short_for_stories_names_one_that_fits_every_seed(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    says = "does not fit a context of 32\nthe longest stories of the grammar fit --context 242"
    refused(capsys, "train", "--text", "grammar", says=says)
    drawn = max(map(len, islice(stories(3), 20_000)))
    assert 230 <= drawn <= grammar.greatest_length(STORY) == 242


def test_stories_in_other_tokens() -> None:
    """A story is a window, and the floor is the entropy of a story over its mean tokens."""
    text = grammar.grammar_text(20_000, 0)
    known = BytePairTokenizer.train(text, 400)
    windows = grammar.StoryWindows(text, 128, known)
    x, y = windows[np.arange(3)]
    stories = text.splitlines(keepends=True)
    assert [known.decode(row[row != -1]) for row in y] == stories[:3]
    assert known.decode(x[0, :1]) == grammar.END
    tokens = len(known.encode(text)) / len(stories)
    assert windows.floor() == pytest.approx(grammar.entropy(grammar.STORY) / tokens)
