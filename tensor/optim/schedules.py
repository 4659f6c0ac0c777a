"""Learning rates as functions of the step, which counts from 0.

    optimizer = AdamW(model, lr=partial(warmup_cosine, peak=3e-3, warmup=100, total=1000))

An optimiser calls a function that it gets as `lr` at each of its steps.
"""

from __future__ import annotations

import math

from tensor.errors import OptionError


def warmup_constant(step: int, *, peak: float, warmup: int) -> float:
    """Linear to `peak` over `warmup` steps, then `peak`.

    Step s < warmup has peak (s + 1) / (warmup + 1), step `warmup` has the peak.
    """
    return peak * (step + 1) / (warmup + 1) if step < warmup else peak


def warmup_linear(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """As `warmup_constant`, then a straight line to `floor` at step `total`, then `floor`. Raises
    ValueError unless warmup < total.
    """
    progress = _progress(step, warmup, total)
    if step < warmup:
        return warmup_constant(step, peak=peak, warmup=warmup)
    return floor + (peak - floor) * (1 - progress)


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """As `warmup_constant`, then half a cosine to `floor` at step `total`, then `floor`. Raises
    ValueError unless warmup < total.      Loshchilov & Hutter 2017, eq. 5
    """
    progress = _progress(step, warmup, total)
    if step < warmup:
        return warmup_constant(step, peak=peak, warmup=warmup)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def inverse_square_root(step: int, *, width: int, warmup: int, scale: float = 1.0) -> float:
    """scale * width^-0.5 * min(t^-0.5, t * warmup^-1.5), where t = step + 1: linear over `warmup`
    steps, then falling as 1 / sqrt(t).      Vaswani et al. 2017, eq. 3
    """
    t = step + 1
    rising = t * warmup**-1.5 if warmup else math.inf
    return float(scale * width**-0.5 * min(t**-0.5, rising))


def _progress(step: int, warmup: int, total: int) -> float:
    """The share of the way from the end of the warm-up to `total`; 1 after that."""
    if not 0 <= warmup < total:
        raise OptionError(f"warm-up of {warmup} steps in a schedule of {total}: it must be shorter")
    return min(1.0, (step - warmup) / (total - warmup))
