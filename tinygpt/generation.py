"""Writing: logits to a distribution, a distribution to a token, token after token.

    distribution   temperature, then top-k, then top-p; softmax once, at the end
    pick           one draw from it
    steps          the loop: each token drawn joins the input for the next; what came before is in a cache (cache.py). Prompts go side by side

Distributions are small, and are made on the host in float64 whatever the model computes in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from tensor import Tensor, random
from tensor.devices import move, to_host
from tinygpt.cache import Cache
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError

if TYPE_CHECKING:
    from tinygpt.model import GPT

Floats = np.ndarray[Any, np.dtype[np.float64]]
ROUNDING = 1e-12  # probabilities are sums of rounded numbers: 0.4 + 0.3 reaches 0.7
FAR = -1000.0  # e^x is 0 from here on: nothing overflows where the temperature is nearly 0


def distribution(logits: Any, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Floats:
    """p = softmax(logits / temperature), over the top_k largest logits, and of those over the fewest whose p sums to top_p.

    logits, p: (V,), computed in float64.   temperature 0: all on the largest logit.   Of equal logits the lower id comes first, so that
    exactly k stay.   At least one token always stays.      top-p: Holtzman et al. 2020, section 3.1
    """
    return sampling(temperature, top_k, top_p)(logits)


Sampling: TypeAlias = "Callable[[Any], Floats]"  # logits (V,) -> p (V,)


def sampling(temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Sampling:
    """`distribution` with these options, which are checked now, as a function of the logits."""
    SampleConfig(temperature=temperature, top_k=top_k, top_p=top_p)  # raises for what cannot be
    if temperature == 0:
        top_k, temperature = 1, 1.0
    return partial(_distribution, temperature, top_k, top_p)


def _distribution(temperature: float, top_k: int | None, top_p: float | None, logits: Any) -> Floats:
    x = np.asarray(logits, dtype=np.float64)
    largest = float(x.max())  # NaN if any is
    if not math.isfinite(largest):
        raise InputError(
            "the model's logits are not finite numbers: its weights are broken (which: tinygpt step RUN --plain --break nan)\n"
            "take an earlier checkpoint, or train with a lower learning rate"
        )
    every = top_k is None and top_p is None
    kept: Any = slice(None) if every else _largest(x, top_k, by_size=top_p is not None)
    below = np.maximum(x[kept] - largest, FAR * temperature)
    weights = np.exp(below / temperature)  # the largest is 1
    kept_p: Floats = weights / weights.sum()
    if every:
        return kept_p
    if top_p is not None:
        count = 1 + int(np.searchsorted(np.cumsum(kept_p), top_p - ROUNDING))
        kept, kept_p = kept[:count], kept_p[:count] / kept_p[:count].sum()
    p = np.zeros_like(x)
    p[kept] = kept_p
    return p


def _largest(x: Floats, count: int | None, by_size: bool) -> Any:
    """Where the `count` largest are (all, if None), of equal ones the first; the largest first, if `by_size`. Sorts no more than it must."""
    if count == 1:
        return np.array([x.argmax()])
    if count is None or count >= len(x):
        places = np.arange(len(x))
    else:
        edge = np.partition(x, len(x) - count)[len(x) - count]  # the smallest that is kept
        above = np.flatnonzero(x > edge)
        places = np.sort(np.concatenate([above, np.flatnonzero(x == edge)[: count - len(above)]]))
    return places[np.argsort(-x[places], kind="stable")] if by_size else places


def pick(p: Floats, generator: random.Generator) -> int:
    """The token i with p[0] + ... + p[i-1] <= u < p[0] + ... + p[i], u uniform in [0, 1)."""
    edges = p.cumsum()
    return int(edges.searchsorted(float(generator.uniform()) * edges[-1], side="right"))


class Step(NamedTuple):
    """A token that was drawn, and the logits it was drawn from: (V,), on the host."""

    token: int
    logits: Any

    def log_probabilities(self) -> Floats:
        """ln softmax(logits), whatever temperature and top-k the draw had: what the model itself thinks.   (V,)"""
        x = np.asarray(self.logits, dtype=np.float64)
        x = x - x.max()
        result: Floats = x - np.log(np.exp(x).sum())
        return result

    def likeliest(self, count: int) -> list[tuple[int, float]]:
        """The `count` likeliest tokens and their probabilities, the likeliest first."""
        log_p = self.log_probabilities()
        return [(int(i), math.exp(log_p[i])) for i in np.argsort(-log_p, kind="stable")[:count]]


def steps(
    model: GPT, prompts: Sequence[Any], length: int, how: Sampling, generators: Sequence[random.Generator], ended: Container[int] = ()
) -> Iterator[tuple[int, Step]]:
    """Continue each prompt, (T,) ids of its own length, by `length` tokens; yields (number of the prompt, step), all of them by one token, then again.

    Prompts that are in `ended`, to which who reads may add, go no further. Each draws from the generator that has its number.
    What is wrong is raised here, before the first step.
    """
    if length < 0:
        raise InputError(f"length {length}: at least 0 tokens can be written")
    return _steps(model, [_tokens(model, ids) for ids in prompts], length, how, generators, ended)


def _tokens(model: GPT, ids: Any) -> list[int]:
    tokens = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if tokens.size == 0:
        raise InputError("the prompt is empty: the model continues a text, so give it at least one token")
    if tokens.ndim != 1:
        raise InputError(f"ids of shape {tokens.shape}: a prompt is one sequence of token ids, of shape (T,)")
    model.check_ids(tokens[-model.config.context :])
    return list(tokens.tolist())


def _steps(
    model: GPT, texts: list[list[int]], length: int, how: Sampling, generators: Sequence[random.Generator], ended: Container[int]
) -> Iterator[tuple[int, Step]]:
    context, cache, device = model.config.context, Cache(model, len(texts)), model.token_embedding.weight.device
    new = [text[-context:] for text in texts]  # what the cache has not seen yet
    for _ in range(length):
        together: dict[int, list[int]] = {}  # numbers of the prompts with so many new tokens
        for i, text in enumerate(texts):
            if i not in ended:
                if cache.seen[i] == context:  # a full window moves on with each token, and with it every position
                    cache.seen[i], new[i] = 0, text[-context:]
                together.setdefault(len(new[i]), []).append(i)
        for rows in together.values():
            ids = Tensor.from_array(move(np.array([new[i] for i in rows]), device))  # (B, T)
            part = cache if len(rows) == len(texts) else cache.of(rows)
            logits = to_host(model.decode(ids, part, last=True).array)[:, -1]  # (B, V)
            for i, row in zip(rows, logits, strict=True):
                token = pick(how(row), generators[i])
                texts[i].append(token)
                new[i] = [token]
                yield i, Step(token, row)
