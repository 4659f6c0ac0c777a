"""The data of all that comes after pretraining: instructions and their answers, texts and their
labels, pairs of replies.
"""

from __future__ import annotations

from tinygpt.config import FinetuneConfig, PreferencesConfig
from tinygpt.config.aligning import PREFERENCES
from tinygpt.data.data import Data
from tinygpt.data.instructions import Instructions, check_known, hash_of, read_examples
from tinygpt.data.labels import Labelled, read_labelled
from tinygpt.data.larger import LARGER, larger
from tinygpt.data.preferences import Preferences, read_preferences, texts_of
from tinygpt.data.questions import QUESTIONS, questions
from tinygpt.data.replies import REPLIES, preferences, replies
from tinygpt.data.windows import CorpusError
from tinygpt.files import brief
from tinygpt.terminal import number_of
from tinygpt.tokenizers import SpecialTokenizer, Tokenizer, TokenizerError

# what is made by rule, for people
MADE = {
    QUESTIONS: "questions about stories",
    REPLIES: "questions about stories, and replies",
    PREFERENCES: "pairs of replies to questions about stories",
}


def instructions(config: FinetuneConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """The instructions of a file, or questions about stories."""
    assert isinstance(tokenizer, SpecialTokenizer)
    name = MADE.get(config.learned_from, config.learned_from)
    made = {QUESTIONS: questions, REPLIES: replies}.get(config.data or "")
    try:
        if made is None:
            learned, others = read_examples(config.learned_from, config.validation)
        else:
            learned, others = made(config.seed, context, tokenizer)
    except TokenizerError as error:
        problem = str(error).partition("\n")[0]  # the rest is advice for a training
        raise CorpusError(
            f"the {name} that come with tinygpt: {problem}\n"
            "start from a run whose --tokenizer is byte or bpe, or give examples: --data FILE"
        ) from None
    check_known(tokenizer, [example.text for example in (*learned, *others)])
    return Data(
        name,
        number_of(len(learned), "example"),
        (others or learned)[0].question,
        hash_of([*learned, *others]),
        tokenizer,
        Instructions(learned, tokenizer, context, config.packing),
        Instructions(others, tokenizer, context) if others else None,
        None,
    )


def labels(config: FinetuneConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """The texts and labels of a file, or of stories."""
    if config.data == LARGER:
        learned, others = larger(config.seed, context - (config.base == "bert"))
    else:
        learned, others = read_labelled(config.learned_from, config.validation)
    assert tokenizer is not None
    check_known(tokenizer, [example.text for example in (*learned, *others)])
    windows = Labelled(learned, tokenizer, context, config.base)
    if len(windows.labels) < 2:
        raise CorpusError(
            f"all texts to learn from have the label '{brief(windows.labels[0])}'\n"
            "give texts of at least two labels"
        )
    options = tokenizer, context, config.base, windows.labels
    return Data(
        "stories, and which animal is larger" if config.data == LARGER else config.learned_from,
        f"{number_of(len(learned), 'text')} of {number_of(len(windows.labels), 'label')}",
        (others or learned)[0].text,
        hash_of([*learned, *others]),
        tokenizer,
        windows,
        Labelled(others, *options) if others else None,
        None,
    )


def pairs_of_replies(config: PreferencesConfig, context: int, tokenizer: Tokenizer | None) -> Data:
    """The pairs of a file, or of replies to questions about stories."""
    assert isinstance(tokenizer, SpecialTokenizer)
    if config.data == PREFERENCES:
        learned, others = preferences(config.seed, context, tokenizer)
    else:
        learned, others = read_preferences(config.data, config.validation)
    check_known(tokenizer, texts_of([*learned, *others]), "pair")
    return Data(
        MADE.get(config.data, config.data),
        number_of(len(learned), "pair"),
        (others or learned)[0].question,
        hash_of([*learned, *others]),
        tokenizer,
        Preferences(learned, tokenizer, context),
        Preferences(others, tokenizer, context) if others else None,
        None,
    )
