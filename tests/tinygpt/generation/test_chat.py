"""A conversation with a cache is the conversation computed anew for each token."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import pytest

from tests.tinygpt.generation.test_beam import SMALL, drawn
from tinygpt import GPT, GPTConfig, SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.chat import Conversation
from tinygpt.generation.sampling import distribution, draws, pick

END, OTHER = 2, 3  # both end an answer
PROMPTS = [[0, 4, 1], [0, 3, 3, 4, 1], [0, 1], [0, *[4] * 9, 1], [0, 4, 4, 4, 1], [0, 1], [0, 4, 1]]
CONFIG = SampleConfig(length=5, temperature=1.5, seed=3)


def gpt(context: int) -> Any:
    config = GPTConfig(**SMALL | {"vocabulary": 9}, context=context)
    return drawn(GPT(config, dtype="float64"), 0)


class Anew:
    """The same without a cache: whole turns, as many as fit, for each token."""

    def __init__(self, model: Any):
        self.model, self.generator, self.turns = model, draws(CONFIG.seed, 0), list[list[int]]()

    def begin(self, prompt: list[int]) -> None:
        self.turns = [[*turn, END] if turn[-1] != END else turn for turn in self.turns]
        self.turns.append(list(prompt))

    def ask(self, prompt: list[int]) -> Iterator[int]:
        self.begin(prompt)
        for _ in range(CONFIG.length):
            while sum(map(len, self.turns)) > self.model.context and len(self.turns) > 1:
                self.turns.pop(0)
            ids = list(chain(*self.turns))[-self.model.context :]
            token = pick(distribution(self.model(ids).numpy()[0, -1], CONFIG), self.generator)
            if token in (END, OTHER):
                return
            self.turns[-1].append(token)
            yield token


def test_the_cache_changes_no_token() -> None:
    """Also where the oldest turns are forgotten, where one turn is more than the context, and where
    an answer is broken off.
    """
    lengths = set()
    for context in (64, 24, 13, 12):
        model = gpt(context)
        kept, anew = Conversation(model, CONFIG, END, (END, OTHER)), Anew(model)
        for number, prompt in enumerate(PROMPTS * 3):
            most = 2 if number % 3 == 1 else None
            found, needed = (list(islice(way.ask(prompt), most)) for way in (kept, anew))
            assert found == needed
            assert len(kept.turns) + kept.forgotten == number + 1
            assert [[*turn, END] for turn in kept.turns[:-1]] == anew.turns[:-1]
            lengths.add(len(found))
        assert kept.forgotten > 10
    assert {0, 2, CONFIG.length} <= lengths


def test_a_token_is_read_once() -> None:
    model, read = gpt(64), list[int]()
    decode = model.decode

    def reading(ids: Any, *rest: Any, **how: Any) -> Any:
        read.extend(ids.tolist()[0])
        return decode(ids, *rest, **how)

    model.decode = reading
    conversation = Conversation(model, CONFIG, END, [END])
    for prompt in PROMPTS[:3]:
        list(conversation.ask(prompt))
    assert read == conversation.ids[: len(read)]
    assert len(conversation.ids) - len(read) <= 1  # the last one was drawn, and ended the answer


def test_a_question_alone_sees_no_other() -> None:
    """Its answer is that of a new conversation with the same draws."""
    model, greedy = gpt(24), SampleConfig(length=5, temperature=0)
    alone = Conversation(model, greedy, END, [END], alone=True)
    for prompt in PROMPTS:
        stopped = list(islice(alone.ask(prompt), 2))
        assert stopped == list(islice(Conversation(model, greedy, END, [END]).ask(prompt), 2))
        assert alone.turns == [[*prompt, *stopped]]
    assert alone.forgotten == 0


@pytest.mark.parametrize("after", [False, True])
def test_an_interrupt_leaves_cache_and_text_together(after: bool) -> None:
    """Ctrl-C comes before the model reads a token, or after, when nothing was drawn yet."""
    model = gpt(12)
    conversation, anew = Conversation(model, CONFIG, END, [END, OTHER]), Anew(model)
    decode = type(model).decode

    def interrupted(*given: Any, **how: Any) -> None:
        if after:
            decode(model, *given, **how)
        raise KeyboardInterrupt

    for number, prompt in enumerate([prompt for prompt in PROMPTS if len(prompt) < 10] * 2):
        if number % 2:
            model.decode = interrupted
            with pytest.raises(KeyboardInterrupt):
                next(conversation.ask(prompt))
            del model.decode
            anew.begin(prompt)
        else:
            assert list(conversation.ask(prompt)) == list(anew.ask(prompt))


def test_a_question_that_is_too_long() -> None:
    conversation = Conversation(gpt(12), CONFIG, END, [END])
    with pytest.raises(InputError, match=r"the question has 13 tokens, and the model sees 12"):
        next(conversation.ask([0] * 13))
    assert conversation.turns == []
    assert list(conversation.ask([0, 4, 1])) == list(Anew(gpt(12)).ask([0, 4, 1]))
