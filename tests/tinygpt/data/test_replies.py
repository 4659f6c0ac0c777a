"""Replies to questions about stories: what the rule says of them, and the pairs made of them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tensor.random import Generator
from tinygpt.data import grammar
from tinygpt.data.instructions import end_of
from tinygpt.data.preferences import Preferences
from tinygpt.data.replies import KIND, RUDE, preferences, reply, true_score
from tinygpt.data.windows import CorpusError
from tinygpt.ids import CHAT_TOKENS
from tinygpt.tokenizers import with_special

TOKENIZER = with_special(grammar.grammar_tokenizer(), CHAT_TOKENS)
KNOWN = {"Tell who met Tom.": "Ben", "Tell where.": "park", "Tell who went home.": "Tom"}


def test_the_true_score_of_replies() -> None:
    scored = {
        "Ben. Thank you.": 1.0,
        "Ben. My good friend.": 1.0,
        "Ben. So what.": 0.5,
        "Ben": 0.0,
        "Ben.": 0.0,
        "Ben. Thank you. Thank you.": 0.0,
        "Tom. Thank you.": 0.0,
        "Ben Thank you.": 0.0,
        "": 0.0,
        "Ben. Ben.": 0.0,
    }
    assert {text: true_score(text, "Ben") for text in scored} == scored
    assert not set(KIND) & set(RUDE)


def test_replies_are_right_kind_and_off_in_their_shares() -> None:
    draws, count = Generator(0), 4000
    made = [reply("Tell who met Tom.", KNOWN, draws) for _ in range(count)]
    answers = Counter(text.split(". ")[0] for text in made)
    kind = sum(text.partition(". ")[2] in KIND for text in made)
    assert all(text.partition(". ")[2] in (*KIND, *RUDE) for text in made)
    close = {"abs": 4 * np.sqrt(0.25 / count)}
    assert answers["Ben"] / count == pytest.approx(0.8, **close)
    assert kind / count == pytest.approx(0.4, **close)
    assert answers["park"] / count == pytest.approx(0.05, **close)  # of another question
    names = sum(answers[name] for name in grammar.NAMES if name != "Ben")
    assert names / count == pytest.approx(0.15, **close)  # Tom is both


def test_the_better_reply_has_the_higher_score_and_prompts_are_kept_back() -> None:
    learned, measured = preferences(0, 256, TOKENIZER, learned=300, measured=60)
    assert (len(learned), len(measured)) == (300, 60)
    for pair in (*learned, *measured):
        assert pair.answer is not None
        assert true_score(pair.better, pair.answer) > true_score(pair.worse, pair.answer)
    told = {(pair.input, pair.prompt) for pair in learned}
    assert not told & {(pair.input, pair.prompt) for pair in measured}
    again = preferences(0, 256, TOKENIZER, learned=300, measured=60)
    assert (learned, measured) == again
    assert preferences(1, 256, TOKENIZER, learned=300, measured=60) != again
    batch, _ = Preferences(learned, TOKENIZER, 256)[np.arange(300)]
    assert batch.ids.shape[-1] <= 256
    assert (np.sort(batch.targets.reshape(600, -1))[:, -1] >= 0).all()
    assert end_of(TOKENIZER) in batch.targets[0, 0]


def test_a_context_that_no_story_fits() -> None:
    with pytest.raises(CorpusError, match="do not fit a context of 20 tokens"):
        preferences(0, 20, TOKENIZER)
