"""Logits to a distribution, a distribution to a token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tensor import random
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError

Floats = np.ndarray[Any, np.dtype[np.float64]]

ROUNDING = 1e-12  # probabilities are sums of rounded numbers: 0.4 + 0.3 reaches 0.7

FAR = -1000.0  # e^x is 0 from here on: nothing overflows where the temperature is nearly 0


REPAIR = "take an earlier checkpoint, or train with a lower learning rate"
BROKEN = (
    "the model's logits are not finite numbers: its weights are broken "
    f"(which: tinygpt step RUN --plain --break nan)\n{REPAIR}"
)


class Step(NamedTuple):
    """A token that was drawn, and the logits it was drawn from: (V,), on the host, or None where
    nobody asked for them.
    """

    token: int
    logits: Any


def distribution(logits: Any, config: SampleConfig) -> Floats:
    """p = softmax(logits / temperature), over the top_k largest logits, and of those over the
    fewest whose p sums to top_p.   logits, p: (V,), computed in float64

    temperature 0: all on the largest logit. Of equal logits the lower id comes first, so exactly k
    stay. At least one token always stays.
    top-p: Holtzman et al. 2020, section 3.1
    """
    temperature, top_k, top_p = config.temperature, config.top_k, config.top_p
    if temperature == 0:
        top_k, temperature = 1, 1.0
    x = np.asarray(logits, dtype=np.float64)
    largest = float(x.max())  # NaN if any is
    if not math.isfinite(largest):
        raise InputError(BROKEN)
    kept: Any = slice(None)
    if top_k is not None or top_p is not None:
        kept = _largest(x, top_k, by_size=top_p is not None)
    below = np.maximum(x[kept] - largest, FAR * temperature)
    weights = np.exp(below / temperature)  # the largest is 1
    kept_p: Floats = weights / weights.sum()
    if top_p is not None:
        count = 1 + int(np.searchsorted(np.cumsum(kept_p), top_p - ROUNDING))
        kept, kept_p = kept[:count], kept_p[:count] / kept_p[:count].sum()
    p = np.zeros_like(x)
    p[kept] = kept_p
    return p


def _largest(x: Floats, count: int | None, by_size: bool) -> Any:
    """The ids of the `count` largest (None: of all), of equal ones the lower ids; by id, or the
    largest first.
    """
    if count == 1:
        return np.array([x.argmax()])
    ids = np.arange(len(x))
    if count is not None and count < len(x):
        ids = np.flatnonzero(x >= np.partition(x, -count)[-count])
    ids = ids[np.argsort(-x[ids], kind="stable")[:count]]
    return ids if by_size else np.sort(ids)


def draw(logits: Any, config: SampleConfig, generators: Sequence[random.Generator]) -> list[int]:
    """A token for each row of logits, (B, V), from the row's distribution and its generator."""
    if config.temperature == 0:  # the likeliest: nothing is left to draw
        x = np.asarray(logits, dtype=np.float64)
        likeliest: list[int] = x.argmax(-1).tolist()
        if not np.isfinite(x.max(-1)).all():
            raise InputError(BROKEN)
        return likeliest
    rows = zip(logits, generators, strict=True)
    return [pick(distribution(row, config), generator) for row, generator in rows]


def pick(p: Floats, generator: random.Generator) -> int:
    """The token i with p[0] + ... + p[i-1] <= u < p[0] + ... + p[i], u uniform in [0, 1)."""
    edges = p.cumsum()
    return int(edges.searchsorted(float(generator.uniform()) * edges[-1], side="right"))


def draws(seed: int, number: int) -> random.Generator:
    """A generator for each prompt. The first has the seed's own draws, so a file with one prompt
    and --prompt give the same.
    """
    generator = random.Generator(seed)
    generator.draws = number << 32
    return generator
