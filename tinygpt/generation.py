"""Writing: logits to a distribution, a distribution to a token, token after token.

    distribution   temperature, then top-k, then top-p; softmax once, at the end
    pick           one draw from it
    stream         the loop: each token drawn joins the input for the next

Distributions are small, and are made on the host in float64 whatever the model computes in.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from tensor import Tensor, no_grad, random
from tensor.devices import to_host
from tensor.nn import Module
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
    order = np.argsort(-x, kind="stable")  # likeliest first, equals by id
    if temperature == 0:
        top_k, temperature = 1, 1.0
    kept = order[:top_k]
    weights = np.exp((x[kept] - x[order[0]]) / temperature)  # the largest is 1: nothing overflows
    kept_p = weights / weights.sum()
    if top_p is not None:
        count = 1 + int(np.searchsorted(np.cumsum(kept_p), top_p - ROUNDING))
        kept, kept_p = kept[:count], kept_p[:count] / kept_p[:count].sum()
    p = np.zeros_like(x)
    p[kept] = kept_p
    return p


def pick(p: Floats, generator: random.Generator) -> int:
    """The token i with p[0] + ... + p[i-1] <= u < p[0] + ... + p[i], u uniform in [0, 1)."""
    edges = np.cumsum(p)
    return int(np.searchsorted(edges, float(generator.uniform()) * edges[-1], side="right"))


@contextmanager
def evaluating(model: Module) -> Iterator[None]:
    """Evaluation behaviour inside (no dropout); afterwards each module has the mode it had."""
    modes = [(module, module.training) for _, module in model.named_modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def stream(model: GPT, ids: Any, length: int, temperature: float, top_k: int | None, top_p: float | None, generator: random.Generator | None) -> Iterator[int]:
    """Continue `ids` by `length` tokens, yielded one at a time; see GPT.generate. What is wrong is raised here, before the first one."""
    check_sampling(temperature, top_k, top_p)
    tokens = np.asarray(ids.numpy() if isinstance(ids, Tensor) else ids)
    if tokens.size == 0:
        raise InputError("the prompt is empty: the model continues a text, so give it at least one token")
    if tokens.ndim != 1:
        raise InputError(f"ids of shape {tokens.shape}: one sequence of token ids, of shape (T,), is continued at a time")
    if length < 0:
        raise InputError(f"length {length}: at least 0 tokens can be written")
    model.check_ids(tokens[-model.config.context :])
    return _tokens(model, tokens.tolist(), length, temperature, top_k, top_p, generator or random.default)


def _tokens(
    model: GPT, tokens: list[int], length: int, temperature: float, top_k: int | None, top_p: float | None, generator: random.Generator
) -> Iterator[int]:
    for _ in range(length):
        with no_grad(), evaluating(model):  # for this token only: what runs between tokens finds everything as it left it
            logits = model(tokens[-model.config.context :])[0, -1]  # (V,)
        token = pick(distribution(to_host(logits.array), temperature, top_k, top_p), generator)
        tokens.append(token)
        yield token
