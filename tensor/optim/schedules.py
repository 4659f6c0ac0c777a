"""Learning rate over steps."""

from __future__ import annotations

import math


def warmup_cosine(step: int, *, peak: float, warmup: int, total: int, floor: float = 0.0) -> float:
    """Linear to `peak` over `warmup` steps, then half a cosine to `floor` at step `total`, then
    `floor`.      Loshchilov & Hutter 2017, eq. 5

    Steps count from 0: step s < warmup has peak (s + 1) / (warmup + 1), step `warmup` has the peak.
    Raises ValueError unless warmup < total.
    """
    if not 0 <= warmup < total:
        raise ValueError(f"warm-up of {warmup} steps in a schedule of {total}: it must be shorter")
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / (total - warmup))
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * progress))
