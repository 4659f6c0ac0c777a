"""Writing on a GPU: the device decodes and draws by itself, and the host reads the tokens in
chunks.

A step is one CUDA graph. It reads each row's last token, and leaves the next one. So the host
queues many steps at once. While it looks at the tokens of a chunk the GPU writes the next one: a
text that ends costs at most the rest of its chunk, and another chunk.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container, Generator, Sequence
from typing import Any

import numpy as np

from tensor import random
from tinygpt.config import SampleConfig
from tinygpt.errors import InputError
from tinygpt.generation.sampling import BROKEN, Step
from tinygpt.ids import Ids


def written(
    model: Any,
    texts: Sequence[list[int]],
    config: SampleConfig,
    generators: Sequence[random.Generator],
    most: Sequence[int],
    ended: Container[int],
) -> Generator[tuple[int, Step], None, int]:
    """Continue the texts, row i by most[i] tokens, as long as all of them fit into the context, and
    return how many tokens each has got. Yields as `steps` does. A token joins its text.

    None at all where no kernel takes the model, or where rows that may end share a generator: then
    the draws of a row depend on the ends of others.
    """
    make = getattr(model, "writer", None)
    longest = max(map(len, texts), default=model.context + 1)
    apart = len(set(map(id, generators))) == len(generators) or ended == ()
    known = all(type(generator) is random.Generator for generator in generators)
    if make is None or not apart or not known or longest > model.context or not max(most):
        return 0
    writer = make(len(texts))
    if writer is None:
        return 0
    choice = config.temperature, config.top_k, config.top_p
    capacity = min(model.context, longest + max(most))
    writer.begin(texts, origins(generators), choice, capacity)
    rooms = [min(n, model.context + 1 - len(text)) for n, text in zip(most, texts, strict=True)]
    return (yield from _taken(writer, texts, config, generators, most, rooms, ended))


def _taken(
    writer: Any,
    texts: Sequence[list[int]],
    config: SampleConfig,
    generators: Sequence[random.Generator],
    most: Sequence[int],
    rooms: Sequence[int],
    ended: Container[int],
) -> Generator[tuple[int, Step], None, int]:
    """`written` by a writer that has begun. Text i has room for rooms[i] of its most[i] tokens."""
    done, sizes = 0, deque([1])  # of the calls whose tokens were not taken yet
    while sizes:
        # all rows that go on have room for so many tokens, or none needs more
        going = [i for i in range(len(texts)) if done < most[i] and i not in ended]
        last = max((rooms[i] for i in going), default=0)
        last = min([last, *(rooms[i] for i in going if rooms[i] < most[i])])
        queued = done + sum(sizes)
        if last > queued:
            sizes.append(min(writer.chunk, last - queued))
            writer.more(sizes[-1])
        block = writer.take()  # (ring, rows)
        for number in range(done, done + sizes.popleft()):
            rows = [i for i in going if number < most[i] and i not in ended]
            if not rows:
                return number
            for i in rows:
                token = int(block[number % len(block), i])
                if token < 0:
                    raise InputError(BROKEN)
                if config.temperature:
                    generators[i].advance()
                texts[i].append(token)
                yield i, Step(token, None)
            done = number + 1
    return done


def origins(generators: Sequence[random.Generator]) -> Ids:
    """For each row the seed, the number of its first draw, and the step to its next draws, (rows,
    3). Rows that share a generator take turns.
    """
    ids = [id(generator) for generator in generators]
    found = []
    for row, generator in enumerate(generators):
        state = generator.state()
        first = state["draws"] + ids[:row].count(ids[row])
        found.append((state["seed"] % 2**64, first % 2**64, ids.count(ids[row])))
    return np.array(found, np.uint64).view(np.int64)
