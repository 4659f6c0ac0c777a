"""Writing, token after token: each new token joins the input for the next. A cache keeps the
earlier tokens, and several prompts are continued together.

Distributions are small. They are computed on the host in float64, whatever the model computes in.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from tensor import Tensor, random
from tensor.memory.devices import move, to_host
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.sampling import distribution, pick


class Decoder(Protocol):
    """A model that can write: it reads tokens into a cache, and gives the next logits."""

    @property
    def context(self) -> int:
        """How many tokens the model sees at once, T."""

    @property
    def device(self) -> str:
        """Where the model computes."""

    def new_cache(self, rows: int) -> Any:
        """An empty cache for so many sequences side by side."""

    def decode(self, ids: Tensor, cache: Any, last: bool = False) -> Tensor:
        """The logits after each of the tokens ids: (B, T), which join the cache."""

    def check_ids(self, ids: Any) -> Tensor:
        """The ids as integers, (B, T). Raises where the model does not know one."""


class Step(NamedTuple):
    """A token that was drawn, and the logits it was drawn from: (V,), on the host."""

    token: int
    logits: Any


def steps(
    model: Decoder,
    prompts: Sequence[Any],
    config: SampleConfig,
    generators: Sequence[random.Generator],
    ended: Container[int] = (),
) -> Iterator[tuple[int, Step]]:
    """Continue each prompt, (T,) ids of its own length, by `config.length` tokens. Yields (number
    of the prompt, step): one token of each prompt, then the next of each.

    Prompt i draws from generator i. It stops when the caller adds i to `ended`. Wrong prompts raise
    here, before the first step.
    """
    texts = [_tokens(model, ids) for ids in prompts]

    def each() -> Iterator[tuple[int, Step]]:
        context, cache, device = model.context, model.new_cache(len(texts)), model.device
        new = [text[-context:] for text in texts]  # tokens that are not in the cache yet
        for _ in range(config.length):
            together: dict[int, list[int]] = {}  # number of new tokens -> prompts with so many
            for i, text in enumerate(texts):
                if i not in ended:
                    # past the context each token moves the window, and every position changes
                    if cache.seen[i] == context:
                        cache.seen[i], new[i] = 0, text[-context:]
                    together.setdefault(len(new[i]), []).append(i)
            if not together:
                return
            for rows in together.values():
                ids = Tensor.from_array(move(np.array([new[i] for i in rows]), device))  # (B, T)
                part = cache if len(rows) == len(texts) else cache.of(rows)
                logits = to_host(model.decode(ids, part, last=True).array)[:, -1]  # (B, V)
                for i, row in zip(rows, logits, strict=True):
                    token = pick(distribution(row, config), generators[i])
                    texts[i].append(token)
                    new[i] = [token]
                    yield i, Step(token, row)

    return each()


def _tokens(model: Decoder, ids: Any) -> list[int]:
    tokens = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if tokens.size == 0:
        raise InputError(
            "the prompt is empty: the model continues a text, so give it at least one token"
        )
    if tokens.ndim != 1:
        raise InputError(
            f"ids of shape {tokens.shape}: a prompt is one sequence of token ids, of shape (T,)"
        )
    model.check_ids(tokens[-model.context :])
    return list(tokens.tolist())
