"""Pairs of replies: where a reply stands, files, and what is said of wrong ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.program import refused
from tinygpt.data.preferences import Preference, Preferences, after_prompts, read_preferences
from tinygpt.data.windows import CorpusError
from tinygpt.ids import CHAT_TOKENS, IGNORED
from tinygpt.tokenizers import CharacterTokenizer, SpecialTokenizer
from tinygpt.training.objectives.preferences import ends_of

TOKENIZER = SpecialTokenizer(CharacterTokenizer("abcdef\n"), CHAT_TOKENS)  # a is 3, and \n is 9
PAIRS = [Preference("ab", "c", "def"), Preference("a", "e", "f", input="bc")]


def test_each_reply_stands_after_its_prompt() -> None:
    """And the targets are the token after each, where that is of the reply or its end."""
    x, y = Preferences(PAIRS, TOKENIZER, context=8)[[0, 1]]
    none = IGNORED
    assert x.ids.tolist() == [
        [[0, 3, 4, 1, 5, 2, 0, 0], [0, 3, 4, 1, 6, 7, 8, 2]],
        [[0, 4, 5, 9, 3, 1, 7, 2], [0, 4, 5, 9, 3, 1, 8, 2]],
    ]
    assert x.targets.tolist() == [
        [[none, none, none, 5, 2, none, none, none], [none, none, none, 6, 7, 8, 2, none]],
        [[none] * 5 + [7, 2, none], [none] * 5 + [8, 2, none]],
    ]
    assert y.tolist() == [0, 0]
    assert (len(x), x.size, len(x[[1]])) == (2, 32, 1)
    assert np.array_equal(x[[1]].ids, x.ids[1:])
    # a score is read at <|end|>
    targets = x.targets.reshape(4, 8)
    assert ends_of(targets).tolist() == [5, 7, 7, 7]
    assert (x.ids.reshape(4, 8)[range(4), ends_of(targets)] == 2).all()


def test_a_reply_of_one_token() -> None:
    ids, targets = after_prompts([([5, 6], [7]), ([5], [8, 9])])
    assert ids.tolist() == [[5, 6, 7], [5, 8, 9]]
    assert targets.tolist() == [[IGNORED, 7, IGNORED], [8, 9, IGNORED]]
    assert ends_of(targets).tolist() == [2, 2]


def test_a_pair_that_does_not_fit_and_none(here: Path) -> None:
    Preferences(PAIRS, TOKENIZER, context=8)
    with pytest.raises(CorpusError) as error:
        Preferences(PAIRS, TOKENIZER, context=7)
    assert str(error.value) == (
        "pair 1 does not fit the context of 7: 'ab' and a reply are 8 tokens\n"
        "leave the longer pairs out, or start from a run with --context 8 or more"
    )
    with pytest.raises(CorpusError, match="no pair to learn from"):
        Preferences([], TOKENIZER, context=8)


def test_the_last_questions_are_kept_back(here: Path) -> None:
    """All pairs of one question are on one side."""
    lines = [{"prompt": f"q{i % 5}", "better": f"b{i}", "worse": "w"} for i in range(10)]
    lines[0]["input"] = "text"
    Path("pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    learned, kept = read_preferences("pairs.jsonl", 0.4)
    assert len(learned) + len(kept) == 10
    assert not {x.question for x in learned} & {x.question for x in kept}
    assert learned[0] == Preference("q0", "b0", "w", "text")
    assert learned[0].question == "text\nq0"
    assert {x.question for x in kept} == {"q4", "q0"}
    assert read_preferences("pairs.jsonl", 0)[1] == []


WRONG = {
    "": "line 2 is no pair (the line is empty): ''",
    "Hello": "line 2 is no pair",
    "[1]": "line 2 is no pair",
    '{"prompt": "a", "better": "b"}': "missing required field `worse`",
    '{"prompt": "a", "better": "b", "worse": "c", "score": 1}': "unknown field `score`",
    '{"prompt": "a", "better": 1, "worse": "c"}': "Expected `str`, got `int`",
    '{"prompt": " ", "better": "b", "worse": "c"}': "the prompt or a reply is empty",
    '{"prompt": "a", "better": "b", "worse": ""}': "the prompt or a reply is empty",
    '{"prompt": "a", "better": "b", "worse": "b"}': "the two replies are the same",
    '{"prompt": "a", "better": "%s", "worse": "c"}' % ("b" * 60): "does not fit the context of 48",
}


def test_wrong_lines_are_refused_and_leave_nothing(
    answering: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines that say which line, what is wrong with it, and how to write it."""
    good = '{"prompt": "a", "better": "b", "worse": "c"}'
    for line, said in WRONG.items():
        Path("pairs.jsonl").write_text(f"{good}\n{line}\n{good}\n")
        for command in (["reward"], ["align", "--method", "dpo"]):
            flags = ["--data", "pairs.jsonl", "--validation", "0", "--out", "x"]
            refused(capsys, *command, str(answering), *flags, says=said)
    Path("pairs.jsonl").write_text("")
    refused(capsys, "reward", str(answering), "--data", "pairs.jsonl", says="is empty")
    Path("pairs.jsonl").write_bytes(b"\xff\xfe\x00")
    refused(capsys, "reward", str(answering), "--data", "pairs.jsonl", says="pairs.jsonl")
