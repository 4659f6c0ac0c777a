"""English phrases of a small world of stories, and their French.

    the small cats sleep                 les petits chats dorment
    an old owl sees this beautiful bird  un vieux hibou voit ce bel oiseau
    some enormous black geese are happy  d'énormes oies noires sont heureuses

The French follows these rules.

gender       a noun is masculine or feminine, and its determiner and its adjectives agree with it
number       determiner, noun, adjectives and verb are singular or plural together
place        some adjectives stand before their noun, and the others after it
elision      le, la and de lose their vowel before a vowel or a silent h (l'oiseau), not before an
             aspirated h (le hibou)
other forms  beau, nouveau, vieux, ce and ma have another form there: bel, nouvel, vieil, cet, mon
des          becomes de before an adjective: de petits chats
près de      de and le become du: près du lac
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

from tinygpt.data.pairs import Pair

T = TypeVar("T")

# -- words: English and French, with those forms that follow no rule

# singular/plural
MASCULINE = """cat chat, dog chien, bird oiseau, rabbit lapin, horse cheval, bear ours, duck canard,
wolf/wolves loup, fox renard, lion lion, elephant éléphant, squirrel écureuil, swan cygne,
butterfly papillon, owl hibou/hiboux, hedgehog hérisson, boy garçon, child/children enfant"""
FEMININE = """mouse/mice souris, cow vache, hen poule, goat chèvre, turtle tortue, frog grenouille,
bee abeille, goose/geese oie, spider araignée, swallow hirondelle, ant fourmi, girl fille"""
# masculine/feminine/masculine before a vowel
BEFORE = """small petit, big grand, beautiful beau/belle/bel, old vieux/vieille/vieil, young jeune,
good bon/bonne, pretty joli, new nouveau/nouvelle/nouvel, enormous énorme, bad mauvais,
nice gentil/gentille, fat gros/grosse"""
AFTER = """black noir, white blanc/blanche, red rouge, grey gris, brown brun, green vert, blue bleu,
tired fatigué, happy heureux, sad triste, hungry affamé, calm calme, shy timide, funny drôle,
clever intelligent, lazy paresseux, curious curieux, quick rapide, strong fort, brave courageux,
gentle doux/douce, proud fier/fière"""
# plural; French: singular/plural of the third person
ACTS = """sleep dort/dorment, run court/courent, eat mange, drink boit/boivent, sing chante,
dance danse, play joue, jump saute, walk marche, laugh rit/rient, cry pleure, smile sourit/sourient,
wait attend/attendent, fall tombe, dream rêve, work travaille, read lit/lisent, think pense"""
ACTS_ON = """see voit/voient, love aime, find trouve, follow suit/suivent, hear entend/entendent,
watch regarde, help aide, know connaît/connaissent, wash lave, call appelle, carry porte,
push pousse, want veut/veulent, protect protège"""
# with the article
WHERE = {
    ("in", "dans"): "park le_parc, garden le_jardin, house la_maison, forest la_forêt",
    ("on", "sur"): "mat le_tapis, bed le_lit, table la_table, roof le_toit, island l'île",
    ("under", "sous"): "tree l'arbre, table la_table, bed le_lit, bridge le_pont",
    ("behind", "derrière"): "house la_maison, tree l'arbre, door la_porte, wall le_mur",
    ("near", "près de"): "lake le_lac, river la_rivière, church l'église, tree l'arbre",
}
MOST_DRAWS = 16  # choices of one phrase
ASPIRATED = "hibou", "hérisson"
# English: singular, plural
# French: masculine, feminine, plural; masculine and feminine before a vowel
DETERMINERS = {
    ("the", "the"): ("le", "la", "les", "l'", "l'"),
    ("a", "some"): ("un", "une", "des", "un", "une"),
    ("my", "my"): ("mon", "ma", "mes", "mon", "mon"),
    ("our", "our"): ("notre", "notre", "nos", "notre", "notre"),
    ("this", "these"): ("ce", "cette", "ces", "cet", "cette"),
}


class Noun(NamedTuple):
    """A noun: singular and plural of both languages, and the gender."""

    english: tuple[str, ...]
    french: tuple[str, ...]
    feminine: bool


class Adjective(NamedTuple):
    """An adjective. French: masculine, feminine, masculine before a vowel."""

    english: str
    french: tuple[str, ...]


class Verb(NamedTuple):
    """The third person of a verb: singular and plural of both languages."""

    english: tuple[str, ...]
    french: tuple[str, ...]


# -- rules for forms


def with_s(word: str) -> str:
    """The plural of an English noun, or the third person of a verb: cats, foxes, butterflies."""
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def plural(word: str) -> str:
    """The plural of a French noun or adjective: chats, ours, oiseaux, chevaux."""
    if word.endswith(("s", "x")):
        return word
    if word.endswith("al"):
        return word[:-1] + "ux"
    return word + ("x" if word.endswith("eau") else "s")


def with_e(word: str) -> str:
    """The feminine of a French adjective: noire, triste, heureuse."""
    if word.endswith("eux"):
        return word[:-1] + "se"
    return word if word.endswith("e") else word + "e"


def elides(word: str) -> bool:
    """Whether le, la and de lose their vowel before this word."""
    return word[0] in "aeiouhéî" and not word.startswith(ASPIRATED)


def _entries(text: str) -> Iterator[tuple[list[str], list[str]]]:
    """The forms of each word of a list, English and French."""
    for entry in text.replace("\n", " ").split(", "):
        english, french = entry.split()
        yield english.split("/"), french.split("/")


def _forms(given: list[str], *rules: Callable[[str], str]) -> tuple[str, ...]:
    """The given forms of a word. The others follow from the first one by their rules."""
    made = [given[0], *(rule(given[0]) for rule in rules)]
    return (*given, *made[len(given) :])


def _nouns(text: str, is_feminine: bool) -> list[Noun]:
    return [Noun(_forms(e, with_s), _forms(f, plural), is_feminine) for e, f in _entries(text)]


def _adjectives(text: str) -> list[Adjective]:
    return [Adjective(e[0], _forms(f, with_e, str)) for e, f in _entries(text)]


def _places() -> list[Pair]:
    """in the park, dans le parc; near the lake, près du lac"""
    made = []
    for (english, french), text in WHERE.items():
        for (noun,), (place,) in _entries(text):
            there = f"{french} {place.replace('_', ' ')}".replace("de le ", "du ")
            made.append(Pair(f"{english} the {noun}", there))
    return made


def _verbs(text: str) -> list[Verb]:
    plural_of = "{}nt".format  # chante, chantent
    return [Verb((with_s(e[0]), e[0]), _forms(f, plural_of)) for e, f in _entries(text)]


NOUNS = [*_nouns(MASCULINE, False), *_nouns(FEMININE, True)]
ADJECTIVES_BEFORE, ADJECTIVES_AFTER = _adjectives(BEFORE), _adjectives(AFTER)
VERBS, VERBS_WITH_OBJECT = _verbs(ACTS), _verbs(ACTS_ON)
PLACES = _places()
BE = Verb(("is", "are"), ("est", "sont"))


# -- phrases


class Phrase(NamedTuple):
    """A phrase in both languages, and the combinations of two words in the phrase."""

    pair: Pair
    combinations: tuple[str, ...]  # "small cat", "cat sleep"


class NounPhrase(NamedTuple):
    """A noun with its determiner, and the adjectives that French writes before and after it."""

    determiner: tuple[str, str]
    before: list[Adjective]
    noun: Noun
    after: list[Adjective]
    many: bool

    def english(self) -> str:
        """the small black cats, an old bear"""
        adjectives = [each.english for each in self.before + self.after]
        first, *others = [*adjectives, self.noun.english[self.many]]
        article = self.determiner[self.many]
        if article == "a" and first[0] in "aeiou":
            article = "an"
        return " ".join([article, first, *others])

    def french(self) -> str:
        """les petits chats noirs, un vieil ours"""
        noun, many = self.noun, self.many
        words = noun.french[many]
        for adjective in self.before:
            words = f"{agreeing(adjective, noun, many, words)} {words}"
        *singular, several, masculine, feminine = DETERMINERS[self.determiner]
        if elides(words):
            singular = [masculine, feminine]
        if several == "des" and self.before:
            several = "d'" if elides(words) else "de"
        article = several if many else singular[noun.feminine]
        after = [agreeing(adjective, noun, many) for adjective in self.after]
        return " ".join([article, words, *after]).replace("' ", "'")

    def combinations(self) -> list[str]:
        """small cat, black cat"""
        return [f"{each.english} {self.noun.english[0]}" for each in self.before + self.after]


def phrase(numbers: Iterator[float]) -> Phrase:
    """A noun phrase, then a verb alone, with a place or with an object, or "is" and an adjective.
    Each choice takes the next of the numbers, which are uniform in [0, 1): at most MOST_DRAWS.
    """
    who = _noun_phrase(numbers)
    many, one = who.many, who.noun.english[0]
    english, french, combinations = [who.english()], [who.french()], who.combinations()
    kind = _pick(numbers, ["alone", "place", "object", "adjective"])
    if kind == "adjective":
        adjective = _pick(numbers, ADJECTIVES_BEFORE + ADJECTIVES_AFTER)
        english += [BE.english[many], adjective.english]
        french += [BE.french[many], agreeing(adjective, who.noun, many)]
        combinations.append(f"{adjective.english} {one}")
    else:
        verb = _pick(numbers, VERBS_WITH_OBJECT if kind == "object" else VERBS)
        english.append(verb.english[many])
        french.append(verb.french[many])
        combinations.append(f"{one} {verb.english[True]}")
    if kind == "place":
        place = _pick(numbers, PLACES)
        english.append(place.source)
        french.append(place.target)
    if kind == "object":
        whom = _noun_phrase(numbers)
        english.append(whom.english())
        french.append(whom.french())
        combinations += [f"{verb.english[True]} {whom.noun.english[0]}", *whom.combinations()]
    return Phrase(Pair(" ".join(english), " ".join(french)), tuple(combinations))


def _noun_phrase(numbers: Iterator[float]) -> NounPhrase:
    """A noun phrase with at most one adjective before the noun and one after it."""
    before = _pick(numbers, [[], [_pick(numbers, ADJECTIVES_BEFORE)]])
    after = _pick(numbers, [[], [_pick(numbers, ADJECTIVES_AFTER)]])
    determiner, noun = _pick(numbers, list(DETERMINERS)), _pick(numbers, NOUNS)
    return NounPhrase(determiner, before, noun, after, _pick(numbers, [False, True]))


def agreeing(adjective: Adjective, noun: Noun, many: bool, following: str = "-") -> str:
    """The French form of an adjective of the noun, before the word `following`."""
    masculine, feminine, before_vowel = adjective.french
    if many:
        return plural(feminine if noun.feminine else masculine)
    if noun.feminine:
        return feminine
    return before_vowel if elides(following) else masculine


def _pick(numbers: Iterator[float], options: Sequence[T]) -> T:
    """One of the options, each as likely."""
    return options[int(next(numbers) * len(options))]
