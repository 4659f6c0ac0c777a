"""A conversation: questions and answers, of which the model has read each token once.

    <|user|> question <|assistant|> answer <|end|> <|user|> question <|assistant|> answer ...

The cache keeps what was read, so a new question costs its own tokens alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from tinygpt.config import SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.generate import Decoder, next_logits
from tinygpt.generation.sampling import draw, draws
from tinygpt.terminal import number_of


class Conversation:
    """What was asked and answered, and the cache of it.

    end: the token after each answer.   ends: the tokens at which the model ends an answer; `end` is
    one of them. An answer has `config.length` tokens at most.   alone: each question is answered by
    itself, as if it was the first; only the draws go on.

    Where the context is full, the oldest turn is forgotten, and the rest is read again. A turn that
    is longer than the context by itself goes on, and the model sees its last tokens.
    """

    def __init__(
        self,
        model: Decoder,
        config: SampleConfig,
        end: int,
        ends: Collection[int],
        alone: bool = False,
    ):
        self.model, self.config, self.end, self.ends = model, config, end, ends
        self.alone = alone
        self.turns: list[list[int]] = []  # each a prompt and its answer, without `end`
        self.forgotten = 0  # turns
        self.cache, self.generator = model.new_cache(1), draws(config.seed, 0)

    @property
    def ids(self) -> list[int]:
        """All tokens that the model is to see: `end` after each turn but the last."""
        *before, last = self.turns
        return [*chain.from_iterable([*turn, self.end] for turn in before), *last]

    def ask(self, prompt: Sequence[int]) -> Iterator[int]:
        """The tokens of the answer to a prompt, one by one, without the end.

        The caller may stop at any token, and ask again: the answer so far stays. Raises InputError
        for a prompt that is longer than the context.
        """
        if len(prompt) > self.model.context:
            raise InputError(
                f"the question has {number_of(len(prompt), 'token')}, and the model sees "
                f"{self.model.context} at once\nask a shorter one"
            )
        turn = list(prompt)
        if self.alone:
            self.cache.clear()
            self.turns.clear()
        self.turns.append(turn)
        for _ in range(self.config.length):
            self._make_room()
            logits = next_logits(self.model, self.cache, [self.ids], [0])
            (token,) = draw(logits, self.config, [self.generator])
            if token in self.ends:
                return
            turn.append(token)
            yield token

    def _make_room(self) -> None:
        """Forget the oldest turns, where all of them are more than the context."""
        while len(self.turns) > 1 and len(self.ids) > self.model.context:
            self.cache.clear()  # first: an interrupt must not leave a cache of other tokens
            del self.turns[0]
            self.forgotten += 1
