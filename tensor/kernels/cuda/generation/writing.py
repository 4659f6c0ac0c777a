"""Texts that go on side by side on the GPU: their cache, the state of their rows, and the step that
decodes and draws as one CUDA graph.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from tensor.dtypes import int32
from tensor.kernels import kernel_for
from tensor.kernels.cuda.generation.decoder import Decoder, decoder_of, refusal
from tensor.kernels.cuda.generation.few_rows import FEW, logits_of_few
from tensor.kernels.cuda.generation.many_rows import logits_of_many, read
from tensor.kernels.cuda.generation.sampling import Choice, Rows, draw
from tensor.kernels.cuda.graphs import Graph, Memory
from tensor.memory.devices import Array, cupy
from tensor.memory.pinned import Pinned

CHUNK = 16  # steps that are queued at once: 3 ms for one text of GPT-2
RING = 2 * CHUNK  # the latest tokens that are kept of each row


@functools.cache
def _memory(device: int) -> Memory:
    """What all graphs use for the arrays of a step: one graph runs after the other."""
    return Memory()


class Writer:
    """Texts that go on together, a row each.

    keys, values: (layers, rows, H, capacity, D)
    """

    keys: Array
    values: Array
    state: Rows
    graph: Graph
    choice: Choice
    chunk = CHUNK  # steps that are queued at once

    def __init__(self, decoder: Decoder, rows: int):
        self.rows = rows
        self.decoder = decoder if rows <= FEW else decoder.widened().padded()
        self.sent: deque[tuple[Any, Any]] = deque()  # tokens on their way, and when they are there

    def begin(
        self,
        texts: Sequence[Sequence[int]],
        draws: Array,
        choice: tuple[float, int | None, float | None],
        capacity: int,
    ) -> None:
        """Queue: read the texts, and draw a token after each.

        draws: as `Rows.draws`   choice: as `Choice`   capacity: the tokens of a text that the cache
        holds
        """
        decoder, cp = self.decoder, cupy()
        H = decoder.heads
        shape = len(decoder.blocks), self.rows, H, capacity, decoder.width // H
        self.keys, self.values = cp.empty(shape, decoder.dtype), cp.empty(shape, decoder.dtype)
        lengths = np.array([len(text) for text in texts])
        ids = np.zeros((self.rows, lengths.max()), int32)  # (B, T); nothing looks beyond a text
        for row, text in zip(ids, texts, strict=True):
            row[: len(text)] = text
        token, count = cp.zeros((2, self.rows), int32)
        self.state = Rows(
            token,
            cp.asarray(lengths.astype(int32)),
            count,
            cp.asarray(draws),
            cp.zeros((RING, self.rows), int32),
        )
        self.choice = Choice(*choice)
        h = read(decoder, self.keys, self.values, cp.asarray(ids))
        last = np.arange(self.rows) * ids.shape[1] + lengths - 1
        self._draw(decoder.logits(h[cp.asarray(last)]), joined=0)
        self._send()
        self.graph = Graph(self._step, _memory(cp.cuda.runtime.getDevice()))

    def more(self, steps: int) -> None:
        """Queue so many more tokens of each text, at most CHUNK. Of two calls the tokens of the
        first must be taken before the next one.
        """
        for _ in range(steps):
            self.graph.replay()
        self._send()

    def take(self) -> Any:
        """Wait for the tokens of the first call that were not taken yet: (RING, rows), where number
        i of a text lies at i % RING.
        """
        tokens, there = self.sent.popleft()
        there.synchronize()
        return tokens

    def _send(self) -> None:
        written = self.state.written
        memory = Pinned(written.nbytes)
        tokens = np.asarray(memory).view(int32).reshape(written.shape)
        written.get(out=tokens, blocking=False)
        memory.event.record()
        self.sent.append((tokens, memory.event))

    def _step(self) -> None:
        """Each row reads its token, which joins the cache, and draws the next one."""
        logits_of = logits_of_few if self.rows <= FEW else logits_of_many
        self._draw(logits_of(self.decoder, self.keys, self.values, self.state), joined=1)

    def _draw(self, logits: Array, joined: int) -> None:
        n, most = self.decoder.vocabulary, self.keys.shape[3] - 1
        draw(logits, n, self.state, self.choice, joined, most)


@kernel_for("generate", device="cuda", supports=refusal)
def generate_by_graph(*parameters: Array, rows: int, **options: Any) -> Writer:
    """A writer of so many texts.   parameters: as `decode_in_one_call` takes them   options: as
    there, the scales and the number of heads
    """
    return Writer(decoder_of(*parameters, **options), rows)
