"""How often each pair of tokens stands side by side in a text, while pairs become tokens."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from heapq import heapify, heappop, heappush
from typing import TypeAlias

import numpy as np

Pair: TypeAlias = tuple[int, int]

GAP = -1  # the id between two words


def integers(values: Iterable[int], size: int) -> array[int]:
    """The values, none above `size`, in 4 bytes each, or in 8 where they need them. A list takes 40
    bytes, and a word may be as long as the text.
    """
    return array("i" if size < 1 << 31 else "q", values)


def in_order(positions: array[int]) -> array[int]:
    """The same array, sorted."""
    if len(positions) > 1:
        np.frombuffer(positions, positions.typecode).sort()
    return positions


class Pairs:
    """How often each pair of neighbours occurs in a text, kept right while pairs become tokens.

    The different words lie in a row with gaps between them. Each position knows its neighbours:

        position   0 1 2 3 4 5 6 7 8         0 1 2 3 4 5 6 7 8
        id         _ t h e _ t h y _    ->   _ T . e _ T . y _       th became T

    Only pairs beside a merge change, and are counted again.
    """

    def __init__(self, counts: Mapping[str, int]):
        size = 1 + sum(count * (len(word.encode()) + 1) for word, count in counts.items())
        # weights: how often the word of this position occurs in the text
        self.ids, self.weights = integers([GAP], size), integers([0], size)
        for word, count in counts.items():
            letters = word.encode()
            self.ids.extend(letters)
            self.ids.append(GAP)
            self.weights.extend(integers([count], size) * (len(letters) + 1))
        self.before = integers(range(-1, len(self.ids) - 1), size)
        self.after = integers(range(1, len(self.ids) + 1), size)
        self.counts: Counter[Pair] = Counter()
        # positions of the first id of each pair; some may have changed since
        self.positions: defaultdict[Pair, array[int]] = defaultdict(lambda: integers((), size))
        for position in range(len(self.ids) - 1):
            self._count(position, +1)
        # a count in the heap is the true one or, where pairs went, too high
        self.heap = [(-count, pair) for pair, count in self.counts.items() if count > 1]
        heapify(self.heap)

    def _count(self, position: int, sign: int) -> Pair:
        """Add the pair that begins at this position to the counts, or take it out."""
        pair = self.ids[position], self.ids[self.after[position]]
        if GAP not in pair:
            self.counts[pair] += sign * self.weights[position]
            if sign > 0:
                self.positions[pair].append(position)
            elif not self.counts[pair]:
                del self.counts[pair]
                self.positions.pop(pair, None)
        return pair

    def most_frequent(self) -> Pair | None:
        """The pair that occurs most often, of equals the one with the smallest ids. None where no
        pair occurs twice.
        """
        while self.heap:
            count, pair = heappop(self.heap)
            if -count == self.counts[pair]:
                return pair if -count > 1 else None
            if self.counts[pair] > 1:
                heappush(self.heap, (-self.counts[pair], pair))
        return None

    def merge(self, pair: Pair, token: int) -> None:
        """Put `token` wherever the pair stands, from left to right: a a a -> Z a."""
        ids, before, after = self.ids, self.before, self.after
        changed = set()
        for position in in_order(self.positions.pop(pair)):
            other = after[position]
            if (ids[position], ids[other]) != pair:  # one of the two is part of another token
                continue
            for old in (before[position], position, other):
                self._count(old, -1)
            ids[position], ids[other] = token, GAP
            after[position] = after[other]
            before[after[other]] = position
            changed |= {self._count(before[position], +1), self._count(position, +1)}
        for new in changed:
            if self.counts[new] > 1:
                heappush(self.heap, (-self.counts[new], new))
