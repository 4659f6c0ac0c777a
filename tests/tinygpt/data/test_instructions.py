"""Examples as batches: what is a target, and what is kept back.   Tests: data/instructions.py,
data/questions.py
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from tinygpt.data import grammar
from tinygpt.data.instructions import (
    Example,
    Instructions,
    check_known,
    end_of,
    prompt_of,
    read_examples,
)
from tinygpt.data.questions import asked, facts, questions
from tinygpt.data.tasks import withheld
from tinygpt.data.windows import CorpusError
from tinygpt.ids import CHAT_TOKENS
from tinygpt.tokenizers import ByteTokenizer, CharacterTokenizer, SpecialTokenizer, with_special

BYTES = SpecialTokenizer(ByteTokenizer(), CHAT_TOKENS)
EXAMPLES = [Example("a", "xy"), Example("bc", "z", "d"), Example("e", "wwww")]


def targets(y: np.ndarray) -> list[list[str]]:
    """The names of the targets that count, row by row."""
    return [[BYTES.decode([int(i)]) for i in row if i != -1] for row in y]


def test_the_answer_and_its_end_alone_are_learned() -> None:
    x, y = Instructions(EXAMPLES, BYTES, 16)[[0, 1]]
    assert BYTES.decode(x[0]) == "<|user|>a<|assistant|>xy" + 2 * "<|user|>"  # padding
    assert BYTES.decode(x[1]) == "<|user|>d\nbc<|assistant|>z"
    assert targets(y) == [["x", "y", "<|end|>"], ["z", "<|end|>"]]
    # the target of a place is the token after it
    for row_x, row_y in zip(x, y, strict=True):
        places = np.flatnonzero(row_y != -1)
        assert (row_x[places[1:]] == row_y[places[:-1]]).all()
    assert x[0][np.flatnonzero(y[0] != -1)[0]] == prompt_of(BYTES, "a")[-1]
    assert end_of(BYTES) == y[0][np.flatnonzero(y[0] != -1)[-1]]


def test_packed_rows_hold_the_same_targets() -> None:
    one, packed = (Instructions(EXAMPLES, BYTES, 16, packing) for packing in (False, True))
    assert len(packed) == 2
    x, y = packed[[0, 1]]
    assert BYTES.decode(x[0]) == "<|user|>a<|assistant|>xy<|end|><|user|>d\nbc<|assistant|>z"
    assert [*chain(*targets(y))] == [*chain(*targets(one[[0, 1, 2]][1]))]
    assert x.shape[1] <= 16


def test_examples_that_do_not_fit_are_named() -> None:
    with pytest.raises(CorpusError, match=r"example 2 .* of 6: 'bc' .* are 7 tokens"):
        Instructions(EXAMPLES, BYTES, 6)
    with pytest.raises(CorpusError, match="at least one"):
        Instructions([], BYTES, 6)
    known = with_special(CharacterTokenizer("abcxyz\n"), CHAT_TOKENS)
    with pytest.raises(CorpusError, match="example 2 of 3") as raised:
        check_known(known, [example.text for example in EXAMPLES])
    assert str(raised.value).count("\n") == 1


def test_examples_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    lines = [{"instruction": f"ask {i // 2}", "answer": f"{i}"} for i in range(20)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    learned, kept = read_examples(str(path), 0.1)
    assert [example.answer for example in kept] == ["18", "19"]  # one question, two answers
    assert len(learned) == 18
    for wrong, says in (
        ('{"instruction": "a"}', "line 1 is no example .*answer"),
        ('{"instruction": "a", "answer": "b"}\n \n', "line 2 is no example .the line is empty"),
        ('{"instruction": "a", "answer": ""}', "is empty"),
        ('{"instruction": "a", "answer": "b", "output": "c"}', "output"),
        ("[1", "line 1"),
    ):
        path.write_text(wrong)
        with pytest.raises(CorpusError, match=says):
            read_examples(str(path), 0)


def test_special_tokens_keep_their_ids() -> None:
    first = with_special(ByteTokenizer(), ("<|x|>",))
    grown = with_special(first, ("<|x|>", *CHAT_TOKENS))
    assert grown.special == ("<|x|>", *CHAT_TOKENS)
    assert with_special(grown, CHAT_TOKENS).hash == grown.hash
    assert grown.decode(grown.encode("abc")) == "abc"


STORY = (
    "It was a rainy day. Mia was a small dog. She liked the park. She met a cat named Tom. They "
    "slept in the park. The dog and the cat were happy. He went home. Mia stayed in the park. The "
    "rain stopped. They became friends."
)


def test_answers_are_read_off_the_story() -> None:
    assert asked(facts(STORY)) == {
        "Tell who went home.": "Tom",
        "Tell the place.": "park",
        "Tell what they did.": "slept",
        "How many animals are there.": "two",
        "How was the day.": "rainy",
        "Tell the name of the first animal.": "Mia",
        "Tell what the first animal was.": "dog",
        "Tell if the first animal was big or small.": "small",
        "Tell the name of the other animal.": "Tom",
        "Tell what the other animal was.": "cat",
        "Tell if the other animal was big or small.": "not told",
        "Tell who met Tom.": "Mia",
    }


def test_questions_kept_back_have_keys_that_are_not_learned() -> None:
    learned, kept = questions(3, 256, BYTES, 300, 60)
    assert (len(learned), len(kept)) == (300, 60)
    assert not {example.input for example in learned} & {example.input for example in kept}
    assert not any(example.later for example in kept)
    assert sum(len(example.later) for example in learned) > 300
    for example, expected in [*((e, False) for e in learned), *((e, True) for e in kept)]:
        story = facts(example.input)
        for question, answer in ((example.instruction, example.answer), *example.later):
            assert asked(story)[question] == answer
            assert withheld(f"{question} {story.names} {story.place}", 3) is expected
            assert set(example.input + question + answer) <= grammar.alphabet()
    assert questions(3, 256, BYTES, 300, 60)[0] == learned
    assert max(len(example.input) for example in questions(3, 160, BYTES, 50, 5)[0]) <= 139
    with pytest.raises(CorpusError, match="context of 130"):
        questions(3, 130, BYTES)


def test_a_conversation_is_one_row() -> None:
    x, y = Instructions([Example("a", "x", "d", (("b", "yz"),))], BYTES, 16)[[0]]
    assert BYTES.decode(x[0]) == "<|user|>d\na<|assistant|>x<|end|><|user|>b<|assistant|>yz"
    assert targets(y) == [["x", "<|end|>", "y", "z", "<|end|>"]]
