"""Drawing the next token of each row on the GPU: what calls sampling.cu."""

from __future__ import annotations

from typing import Any, NamedTuple

from tensor.dtypes import float32
from tensor.kernels.cuda.launch import Source
from tensor.memory.devices import Array

SAMPLING = Source("generation/sampling.cu", "generation/early.cuh", "philox.cuh")
THREADS = 1024


class Rows(NamedTuple):
    """Where each row of a generation stands, on the GPU, so that kernels move it on.

    token: (rows,), int32, the one to read next   seen: (rows,), int32, the tokens in the cache
    count: (rows,), int32, the tokens drawn   draws: (rows, 3), int64, of its generator: the seed,
    the number of the next draw, the step to the one after   written: (ring, rows), int32, the
    latest tokens; number i lies at i % ring
    """

    token: Array
    seen: Array
    count: Array
    draws: Array
    written: Array


class Choice(NamedTuple):
    """How a token is drawn: temperature, then the top_k largest, then the share top_p."""

    temperature: float
    top_k: int | None
    top_p: float | None


def draw(logits: Array, n: int, state: Rows, choice: Choice, joined: int, most: int) -> None:
    """Draw a token for each row of logits, (rows, pitch), float32, of which the first n columns
    count, and move the state on. -1 is written for a row whose largest logit is not finite. The
    pitch is a multiple of 4.

    joined: the tokens that joined the cache for these logits   most: no row counts more in `seen`
    """
    rows, pitch = logits.shape
    temperature, top_k, top_p = choice
    if temperature == 0:
        temperature, top_k, top_p = 1.0, 1, None
    sizes = n, pitch, len(state.written), joined, most
    numbers = *sizes, min(top_k or n, n), temperature, top_p or 2.0
    kinds: dict[str, Any] = {"dtype": float32, "width": 4, "early": True}
    SAMPLING.launch("sampling_draw", (rows,), (THREADS,), logits, *state, *numbers, **kinds)
