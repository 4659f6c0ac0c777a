"""Where a token stands: the sinusoids of Vaswani et al. 2017."""

from __future__ import annotations

from typing import Any

import numpy as np


def sinusoids(context: int, width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """table[t, 2i] = sin(t / 10000^(2i / width)),   table[t, 2i + 1] = cos of the same.   (T, C)
    Vaswani et al. 2017, section 3.5
    """
    time = np.arange(context)[:, None]  # (T, 1)
    column = np.arange(width)  # (C,)
    # (T, C), the angles
    table: np.ndarray[Any, np.dtype[np.float64]] = time / 10000.0 ** ((column - column % 2) / width)
    np.sin(table[:, 0::2], out=table[:, 0::2])
    np.cos(table[:, 1::2], out=table[:, 1::2])
    return table
