"""Writing: logits to a distribution, a distribution to a token, token after token.

    distribution   temperature, then top-k, then top-p; softmax once, at the end
    pick           one draw from it
    steps          the loop: each token drawn joins the input for the next; what came before is in a cache (cache.py)

Distributions are small, and are made on the host in float64 whatever the model computes in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tensor import Tensor, no_grad, random
from tensor.devices import to_host
from tensor.nn import Module
from tinygpt.cache import Cache
from tinygpt.config import check_sampling
from tinygpt.errors import InputError

if TYPE_CHECKING:
    from tinygpt.model import GPT

Floats = np.ndarray[Any, np.dtype[np.float64]]
ROUNDING = 1e-12  # probabilities are sums of rounded numbers: 0.4 + 0.3 reaches 0.7


def distribution(logits: Any, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None) -> Floats:
    """p = softmax(logits / temperature), over the top_k largest logits, and of those over the fewest whose p sums to top_p.

    logits, p: (V,), computed in float64.   temperature 0: all on the largest logit.   Of equal logits the lower id comes first, so that
    exactly k stay.   At least one token always stays.      top-p: Holtzman et al. 2020, section 3.1
    """
    check_sampling(temperature, top_k, top_p)
    x = np.asarray(logits, dtype=np.float64)
    if np.isnan(x).any() or not np.isfinite(x.max()):
        raise InputError("the model's logits are not finite numbers: its weights are broken; take an earlier checkpoint, or train with a lower learning rate")
    if temperature == 0:
        top_k, temperature = 1, 1.0
    kept = _largest(x, top_k, by_size=top_p is not None)
    weights = np.exp((x[kept] - x.max()) / temperature)  # the largest is 1: nothing overflows
    kept_p = weights / weights.sum()
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
    edges = np.cumsum(p)
    return int(np.searchsorted(edges, float(generator.uniform()) * edges[-1], side="right"))


@contextmanager
def evaluating(model: Module, modules: Sequence[Module] | None = None) -> Iterator[None]:
    """Evaluation behaviour inside (no dropout); afterwards each module has the mode it had. `modules`: all of the model's, if known."""
    training = [module for module in (modules or [module for _, module in model.named_modules()]) if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


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


def steps(model: GPT, ids: Any, length: int, temperature: float, top_k: int | None, top_p: float | None, generator: random.Generator | None) -> Iterator[Step]:
    """Continue `ids` by `length` tokens, one at a time; see GPT.generate. What is wrong is raised here, before the first one."""
    check_sampling(temperature, top_k, top_p)
    tokens = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if tokens.size == 0:
        raise InputError("the prompt is empty: the model continues a text, so give it at least one token")
    if tokens.ndim != 1:
        raise InputError(f"ids of shape {tokens.shape}: one sequence of token ids, of shape (T,), is continued at a time")
    if length < 0:
        raise InputError(f"length {length}: at least 0 tokens can be written")
    model.check_ids(tokens[-model.config.context :])
    return _steps(model, tokens.tolist(), length, temperature, top_k, top_p, generator or random.default)


def _steps(
    model: GPT, tokens: list[int], length: int, temperature: float, top_k: int | None, top_p: float | None, generator: random.Generator
) -> Iterator[Step]:
    context, cache, modules = model.config.context, None, [module for _, module in model.named_modules()]
    for _ in range(length):
        with no_grad(), evaluating(model, modules):  # for this token only: what runs between tokens finds everything as it left it
            if cache is None or cache.room == 0:
                window = tokens[-context:]
                cache = Cache(model) if len(window) < context else None  # a full window moves on with each token, and with it every position
            else:
                window = tokens[-1:]
            logits = to_host(model(window, cache, last=True).array)[0, -1]  # (V,)
        token = pick(distribution(logits, temperature, top_k, top_p), generator)
        tokens.append(token)
        yield Step(token, logits)
