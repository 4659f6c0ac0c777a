"""Replies to questions about stories as people might give them: right or wrong, kind or rude. A
rule knows how good each is.

    Tell who went home.     Tom. Thank you.          1      right and kind
                            Tom. A fool can read.    0.5    right
                            Mia. My good friend.     0      wrong
                            garden. Thank you.       0      off the question

A model that learned from such replies gives such replies. Pairs of replies to one question, of
which one is better, say which of them are wanted.

The words use no character but those of the stories, so any run that learned stories can read them.
"""

from __future__ import annotations

from collections.abc import Iterator

from tensor.random import Generator
from tinygpt.data import grammar
from tinygpt.data.instructions import Example
from tinygpt.data.preferences import Preference
from tinygpt.data.questions import MEASURED, cases, check_fitting, questions
from tinygpt.tokenizers import Tokenizer

REPLIES = "replies"  # the name of the data to fine-tune on
LEARNED = 30_000  # pairs
KIND = "Thank you.", "My good friend.", "I am happy to help."
RUDE = "Ask no more.", "A fool can read.", "So what."
RIGHT, POLITE = 0.8, 0.4  # shares of the replies
RIGHT_OF_PAIRS = 0.5  # so that many a pair is of a right answer and a wrong one
# answers to one question that are all possible
POSSIBLE = (
    tuple(grammar.NAMES),
    grammar.KINDS,
    tuple(place.split()[-1] for place in grammar.PLACES),
    (*grammar.WEATHER, "not told"),
    ("big", "small", "not told"),
    ("played", "ran", "slept"),
    ("one", "two"),
)


def reply(question: str, known: dict[str, str], draws: Generator, share: float = RIGHT) -> str:
    """A reply to one of the questions that a story answers: an answer, and a sentence. Of wrong
    answers half are possible ones, and half are right answers to another question. share: of the
    right answers.
    """
    right, manner, which = draws.uniform((3,)).tolist()
    answer = known[question]
    others = {other for group in POSSIBLE if answer in group for other in group}
    if right > (1 + share) / 2:
        others = set(known.values())
    if right > share:
        answer = _drawn(sorted(others - {answer}), draws)
    sentences = KIND if manner < POLITE else RUDE
    return f"{answer}. {sentences[int(which * len(sentences))]}"


def _drawn(options: list[str], draws: Generator) -> str:
    return options[int(draws.uniform((1,)).item() * len(options))]


def true_score(reply: str, answer: str) -> float:
    """1 for the right answer and a kind sentence, 0.5 for the right answer and a rude one, else
    0.
    """
    for score, sentences in ((1.0, KIND), (0.5, RUDE)):
        if reply in [f"{answer}. {sentence}" for sentence in sentences]:
            return score
    return 0.0


def replies(seed: int, context: int, tokenizer: Tokenizer) -> tuple[list[Example], list[Example]]:
    """Replies to learn from, and others to other questions to measure on."""
    return questions(seed, context, tokenizer, reply=reply)


def preferences(
    seed: int,
    context: int,
    tokenizer: Tokenizer,
    learned: int = LEARNED,
    measured: int = MEASURED,
) -> tuple[list[Preference], list[Preference]]:
    """Pairs to learn from, and others to measure on. The stories are not those of `replies`, and
    the same keys are kept back. Raises CorpusError for a context that few stories fit.
    """
    learn, measure = list[Preference](), list[Preference]()
    source = _pairs(seed, context, tokenizer)
    while len(learn) < learned or len(measure) < measured:
        pair, kept = next(source)
        (measure if kept else learn).append(pair)
    return learn[:learned], measure[:measured]


def _pairs(seed: int, context: int, tokenizer: Tokenizer) -> Iterator[tuple[Preference, bool]]:
    """Endless pairs, one a story, and whether each is kept back."""
    draws, fitting = Generator(seed), 0
    for number, case in enumerate(cases(seed, seed + (1 << 34), draws)):
        check_fitting(number, fitting, context)
        for question in case.questions[:1]:
            answer = case.known[question]
            two = [reply(question, case.known, draws, RIGHT_OF_PAIRS) for _ in range(2)]
            scores = [true_score(one, answer) for one in two]
            longest = max(len(tokenizer.encode(one)) for one in two)
            size = len(tokenizer.encode(f"{case.story}\n{question}")) + longest + 3
            if scores[0] != scores[1] and size <= context:
                fitting += 1
                worse, better = two if scores[0] < scores[1] else reversed(two)
                yield Preference(question, better, worse, case.story, answer), case.kept
