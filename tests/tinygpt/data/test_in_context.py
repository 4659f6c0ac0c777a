"""Texts with a rule of their own: what counts can be known, and no rule is learned and measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.config.training import IN_CONTEXT
from tinygpt.data.in_context import TASKS, InContext, task_tokenizer
from tinygpt.data.prepare import prepare
from tinygpt.data.tasks import DEFAULTS, withheld
from tinygpt.data.windows import CorpusError
from tinygpt.ids import IGNORED
from tinygpt.tokenizers import (
    ByteTokenizer,
    CharacterTokenizer,
    TokenizerError,
    WordTokenizer,
)

each_task = pytest.mark.parametrize("task", TASKS)


def texts(task: str, seed: int = 0, measured: int = 0) -> InContext:
    return InContext(task, DEFAULTS[task]["context"], seed, task_tokenizer(task), measured)


def keys(found: InContext, count: int) -> list[str]:
    """The rules of the first texts."""
    rules = found.drawn(np.arange(count)).rule.astype(np.int8)
    return [rule.tobytes().hex() for rule in rules]


def asked(task: str, text: str, place: int) -> str | None:
    """What the answer at this place is the answer to; None where nothing is asked."""
    if task == "copy":
        return text[place - 1] if place else None
    if task == "map":
        return text[place - 1] if text[place].isdigit() else None
    return text[place - 1] if " " not in text[max(0, place - 1) : place + 1] and place else None


@each_task
def test_what_counts_is_shown_by_the_text_before(task: str) -> None:
    """A reader who notes each answer by its question knows all answers that count. In maps and
    circles no other answer can be known.
    """
    found = texts(task, seed=3)
    tokenizer = task_tokenizer(task)
    drawn, (x, y) = found.drawn(np.arange(60)), found[np.arange(60)]
    np.testing.assert_array_equal(x, drawn.ids[:, :-1])
    for row in range(60):
        text, noted = tokenizer.decode(drawn.ids[row]), dict[str, str]()
        counts = [IGNORED, *y[row]]
        for place, token in enumerate(text):
            question = asked(task, text, place)
            if counts[place] != IGNORED:
                assert question is not None
                assert noted[question] == token == tokenizer.decode([counts[place]])
            elif task != "copy" and question is not None:
                assert question not in noted
            if question is not None and (task != "copy" or drawn.examples[row, place] >= 0):
                noted[question] = token


@each_task
def test_examples_are_counted(task: str) -> None:
    drawn = texts(task, seed=1).drawn(np.arange(200))
    for ids, _, examples, known in zip(*drawn, strict=True):
        text = task_tokenizer(task).decode(ids)
        for place in np.flatnonzero(examples >= 0):
            before = text[:place]
            if task == "copy":
                assert before.count(text[place - 1 : place + 1]) == examples[place]
            if task == "map":
                assert examples[place] == len(before) // 2 == len(set(before[:-1:2]))
            if task == "patterns":
                assert examples[place] == before.count(" ")
        assert not known[examples == 0].any()
        assert set(examples[known]) & {1, 2, 4, 8}
    assert {0, 1, 2, 4, 8} <= set(np.unique(drawn.examples))


@each_task
def test_no_rule_is_learned_and_measured_on(task: str) -> None:
    learned, measured = keys(texts(task, 5), 4000), keys(texts(task, 5, measured=400), 400)
    assert not set(learned) & set(measured)
    assert not any(withheld(key, 5) for key in learned)
    assert all(withheld(key, 5) for key in measured)
    assert len(set(learned)) > (500 if task == "map" else 3900)


@each_task
def test_a_text_follows_from_the_seed_and_its_number(task: str) -> None:
    found, rows = texts(task, 7), np.array([5, 1 << 31, 2, 70_000])
    x, y = found[rows]
    for i, row in enumerate(rows):
        one = found[np.array([row])]
        np.testing.assert_array_equal(one[0][0], x[i])
        np.testing.assert_array_equal(one[1][0], y[i])
    assert len({text.tobytes() for text in found[np.arange(200)][0]}) > 190
    assert (texts(task, 8)[rows][0] != x).any(axis=1).all()
    assert len(found) > 1 << 30
    assert len(texts(task, 7, measured=20)) == 20


@each_task
def test_every_choice_is_as_likely(task: str) -> None:
    drawn = texts(task, 2).drawn(np.arange(3000))
    first = np.bincount(drawn.ids[:, 0], minlength=26)
    assert 70 < first.min() <= first.max() < 170
    sizes = np.unique((drawn.rule >= 0).sum(axis=1), return_counts=True)
    expected: dict[str, Any] = {
        "copy": [4, 5, 6, 7],
        "map": [1, 2, 4, 8],
        "patterns": [5],
    }
    assert sizes[0].tolist() == expected[task]
    # rules of one pair that are kept back are drawn again
    assert sizes[1].min() > 0.8 * sizes[1].max()


@each_task
def test_data_of_a_training(task: str) -> None:
    context = DEFAULTS[task]["context"]
    data = prepare(TrainConfig(task=task), context)  # type: ignore[arg-type]
    again = prepare(TrainConfig(task=task), context, data.tokenizer)  # type: ignore[arg-type]
    other = prepare(TrainConfig(task=task, seed=1), context)  # type: ignore[arg-type]
    assert data.hash == again.hash != other.hash
    assert (data.floor, data.example, data.unit) == (0, "text", "character")
    assert data.opening
    assert isinstance(data.validation, InContext)
    assert len(data.validation) == 1000
    place = len(data.opening)
    drawn = data.validation.drawn([0])
    assert data.tokenizer.decode(drawn.ids[0, :place]) == data.opening
    assert drawn.known[0, place]


@each_task
def test_defaults_have_room_for_8_examples(task: str) -> None:
    defaults = DEFAULTS[task]
    assert defaults.keys() <= {
        *TrainConfig.__dataclass_fields__,
        *GPTConfig.__dataclass_fields__,
    }
    assert 8 in texts(task).drawn(np.arange(100)).examples
    assert tuple(TASKS) == IN_CONTEXT


@each_task
def test_the_shortest_context(task: str) -> None:
    least, tokenizer = TASKS[task].least, task_tokenizer(task)
    _, y = InContext(task, least, 0, tokenizer)[np.arange(500)]
    share = (y >= 0).any(axis=1).mean()
    assert share == 1 or (task == "patterns" and share > 0.5)
    with pytest.raises(CorpusError, match=f"--context of at least {least}"):
        InContext(task, least - 1, 0, tokenizer)


def test_another_tokenizer() -> None:
    """The same texts, by other ids; without one of the characters there is no text."""
    task, rows = "patterns", np.arange(5)
    own, of_bytes = texts(task), InContext(task, 45, 0, ByteTokenizer())
    assert bytes(of_bytes[rows][0][0].tolist()).decode() == task_tokenizer(task).decode(
        own[rows][0][0]
    )
    with pytest.raises(CorpusError, match="needs a token for each of 'abc"):
        InContext(task, 45, 0, WordTokenizer("the cat sat"))
    with pytest.raises(TokenizerError, match="' '"):
        InContext(task, 45, 0, CharacterTokenizer("abcdefghijklmnopqrstuvwxyz"))
