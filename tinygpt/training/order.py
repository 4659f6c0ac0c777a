"""Which windows come when: a function of the step and the seed."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from tensor.random import Generator
from tinygpt.config import TrainConfig
from tinygpt.ids import Ids

# the draw that shuffles epoch 0: far from the draws that made the weights, which count from 0
EPOCHS = 1 << 32

WHOLE = 1 << 22  # windows of which an epoch is shuffled as a whole: an array of 32 MB
BLOCK = 1 << 16  # windows that are shuffled together in a longer epoch


def rows_of(step: int, config: TrainConfig, windows: int) -> Ids:
    """The numbers of the windows in all batches of a step (from 0), as was chosen."""
    rows = batch_rows if config.batches == "epochs" else random_rows
    return rows(step, config.batch * config.accumulation, windows, config.seed)


def batch_rows(step: int, batch: int, windows: int, seed: int) -> Ids:
    """The numbers of the windows in the batch of a step (from 0).

    All windows in a random order, then all of them in another, and so on, cut into batches: each
    window comes once an epoch. The order follows from the seed alone, so a run can go on anywhere.

    A long epoch is shuffled in blocks, for an order of 10^9 windows takes 8 GB. Block b of n holds
    the windows b, b + n, b + 2 n, ..., so each block is spread over the whole text. The windows
    that are left over, fewer than n, end the epoch.
    """
    blocks = 1 if windows <= WHOLE else -(-windows // BLOCK)
    size = windows // blocks
    rows = np.empty(batch, np.int64)
    for i in range(batch):
        epoch, position = divmod(step * batch + i, windows)
        block, in_block = divmod(position, size)
        if block == blocks:
            rows[i] = position  # left over
        else:
            order = _shuffled(epoch * blocks + block, size, seed)
            rows[i] = order[in_block] * blocks + block
    return rows


def random_rows(step: int, batch: int, windows: int, seed: int) -> Ids:
    """The numbers of windows drawn at random, with replacement, for the batch of a step (from 0): a
    function of seed and step.
    """
    generator = Generator(seed)
    generator.draws = EPOCHS + step
    rows: Ids = generator.integers(0, windows, (batch,))
    return rows


@lru_cache(maxsize=2)  # a batch may reach from one block into the next
def _shuffled(number: int, count: int, seed: int) -> Ids:
    """0 to count - 1 in the random order that has this number."""
    generator = Generator(seed)
    generator.draws = EPOCHS + number
    return generator.permutation(count)
