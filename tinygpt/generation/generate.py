"""Writing, token after token: each new token joins the input for the next. A cache keeps the
earlier tokens, and several prompts are continued together.

Distributions are small. They are computed on the host in float64, whatever the model computes in;
or on a GPU, by the same rules, where the whole step is done there (on_device.py).
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from tensor import Tensor, random
from tensor.memory.devices import move, to_host
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.on_device import written
from tinygpt.generation.sampling import Step, draw


class Decoder(Protocol):
    """A model that can write: it reads tokens into a cache, and gives the next logits."""

    @property
    def context(self) -> int:
        """How many tokens the model sees at once, T."""

    @property
    def device(self) -> str:
        """Where the model computes."""

    @property
    def slides(self) -> bool:
        """Whether it goes on when the context is full, and sees the last tokens alone. If not, it
        stops there.
        """

    def new_cache(self, rows: int) -> Any:
        """An empty cache for so many sequences side by side."""

    def decode(self, ids: Tensor, cache: Any, last: bool = False) -> Tensor:
        """The logits after each of the tokens ids: (B, T), which join the cache."""

    def check_ids(self, ids: Any) -> Tensor:
        """The ids as integers, (B, T). Raises where the model does not know one."""


def steps(
    model: Decoder,
    prompts: Sequence[Any],
    config: SampleConfig,
    generators: Sequence[random.Generator],
    ended: Container[int] = (),
    with_logits: bool = False,
) -> Iterator[tuple[int, Step]]:
    """Continue each prompt, (T,) ids of its own length, by `config.length` tokens, or as many as
    fit. Yields (number of the prompt, step): one token of each prompt, then the next of each.

    Prompt i draws from generator i. It stops when the caller adds i to `ended`. Wrong prompts raise
    here, before the first step.   with_logits: each step has them; else a GPU may keep them
    """
    texts = [prompt_tokens(model, ids) for ids in prompts]

    def each() -> Iterator[tuple[int, Step]]:
        most = [room(model, text, config.length) for text in texts]
        start, cache = 0, None
        if not with_logits:
            start = yield from written(model, texts, config, generators, most, ended)
        for number in range(start, config.length):
            rows = [i for i in range(len(texts)) if number < most[i] and i not in ended]
            if not rows:
                return
            cache = cache or model.new_cache(len(texts))
            logits = next_logits(model, cache, texts, rows)
            tokens = draw(logits, config, [generators[i] for i in rows])
            for i, token, row in zip(rows, tokens, logits, strict=True):
                texts[i].append(token)
                yield i, Step(token, row)

    return each()


def next_logits(model: Decoder, cache: Any, texts: Sequence[list[int]], rows: list[int]) -> Any:
    """The logits after the texts of these rows, in ascending order: (B, V), on the host. What the
    cache does not hold yet of a text joins the cache.
    """
    context, new = model.context, {}
    together: dict[int, list[int]] = {}  # number of new tokens -> rows with so many
    for i in rows:
        # past the context each token moves the window, and every position changes
        if cache.seen[i] == context:
            cache.seen[i] = 0
        new[i] = texts[i][-context:][cache.seen[i] :]
        together.setdefault(len(new[i]), []).append(i)
    found = []
    for part in together.values():
        ids = Tensor.from_array(move(np.array([new[i] for i in part]), model.device))  # (B, T)
        of_part = cache if len(part) == len(texts) else cache.of(part)
        found.append(to_host(model.decode(ids, of_part, last=True).array)[:, -1])  # (B, V)
    if len(found) == 1:  # in order
        return found[0]
    order = np.argsort([i for part in together.values() for i in part])
    return np.concatenate(found)[order]


def room(model: Decoder, text: Sequence[int], length: int) -> int:
    """How many of `length` more tokens the model can write after a text."""
    # the last one is written, and not read again
    return length if model.slides else min(length, model.context - len(text) + 1)


def prompt_tokens(model: Decoder, ids: Any) -> list[int]:
    """The ids of a prompt as a list. Raises where the model cannot go on after them."""
    tokens = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if tokens.size == 0:
        raise InputError(
            "the prompt is empty: the model continues a text, so give it at least one token"
        )
    if tokens.ndim != 1:
        raise InputError(
            f"ids of shape {tokens.shape}: a prompt is one sequence of token ids, of shape (T,)"
        )
    model.check_ids(tokens[-model.context :] if model.slides else tokens)
    return list(tokens.tolist())
