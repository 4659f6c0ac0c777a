"""The table of positions: learned, or the sinusoids of Vaswani et al. 2017."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor import Tensor, nn
from tinygpt.config import ConfigError, ModelConfig
from tinygpt.model.sizes import parameter_count

# numbers in the table of sinusoids, at most, beyond as many as the model has parameters
SINUSOIDS = 1 << 22


def position_table(config: ModelConfig) -> Tensor:
    """A row for each position, (T, C): a parameter, or a plain Tensor, which does not learn."""
    context, width = config.context, config.width
    if config.positions == "learned":
        return nn.Parameter(np.zeros((context, width)), role="table")
    most = SINUSOIDS + parameter_count(config)
    if context * width > most:  # no file's size bounds this table
        raise ConfigError(
            f"context {context:,}: a table of {context:,} x {width:,} sinusoids is far larger than "
            "the model\n"
            f"take positions that are learned, or a context of at most {most // width:,}"
        )
    return Tensor(sinusoids(context, width))


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
