"""Which ops share a box: each its own, the ops of one call together, or the like of what was drawn already.

Every part is a stretch of the order in which the ops ran. So whatever the graph, no arrow between two parts points backwards.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from tensor.graph import Accumulator, Node

COLLAPSE_ABOVE = 40  # boxes: past that the ops of one call become one box
FOLD_ABOVE = 100  # boxes: past that what repeats is drawn once
MERGE_ABOVE = 300  # boxes: past that neighbours are drawn as one
MOST = 2000  # boxes, however much is asked for
LONGEST_REPEAT = 64  # parts in one round of what is looked for


class Part(NamedTuple):
    """What one box stands for. `rounds` times the `of` boxes before it, if it is a repetition."""

    nodes: tuple[Node, ...]
    call: int  # the number of the call it belongs to
    name: str = ""  # of the call, where the part is one
    rounds: int = 0
    of: int = 0


def parts(nodes: Sequence[Node], collapse: bool | None) -> list[Part]:
    """The boxes for these ops, which are in the order they ran.   collapse: None decides by their number."""
    found = calls(nodes)
    single = [Part((node,), number) for number, call in enumerate(found) for node in call]
    if collapse is False:
        if len(single) > MOST:
            raise ValueError(f"draw: collapse=False would draw {len(single):,} boxes, and {MOST:,} is the most: leave collapse out")
        return single
    if collapse is None and (len(single) <= COLLAPSE_ABOVE or len(found) == 1):
        made = single
    else:
        made = [Part(tuple(call), number, call_name(call[0]) if len(call) > 1 else "") for number, call in enumerate(found)]
    if len(made) > FOLD_ABOVE:
        made = folded(made)
    if len(made) > MERGE_ABOVE:
        size = -(-len(made) // MERGE_ABOVE)
        groups = [made[i : i + size] for i in range(0, len(made), size)]
        made = [Part(tuple(node for part in group for node in part.nodes), group[0].call, f"{len(group)} boxes in one") for group in groups]
    return made


def calls(nodes: Sequence[Node]) -> list[list[Node]]:
    """Runs of ops that the same function called, one after the other, without jumping back: a further call, or round of a loop, starts anew."""
    found: list[list[Node]] = []
    for before, node in pairwise((None, *nodes)):
        assert node is not None
        if before is None or node.place[0] is not before.place[0] or node.place[1] < before.place[1]:
            found.append([])
        found[-1].append(node)
    return found


def call_name(node: Node) -> str:
    """Attention.__call__, for an op that was called there."""
    code = node.place[0]
    name: str = code.co_qualname.replace(".<locals>", "")
    return name if name != "<module>" else os.path.basename(code.co_filename)


def folded(made: list[Part]) -> list[Part]:
    """Of three rounds or more of the same parts the first is kept, and one part stands for the others."""
    numbers: dict[Any, int] = {}
    same = np.array([numbers.setdefault(_kind(part), len(numbers)) for part in made])
    runs = {period: _runs(same, period) for period in range(1, min(LONGEST_REPEAT, len(made) // 3) + 1)}
    result: list[Part] = []
    at = 0
    while at < len(made):
        covered, period = 0, 1
        for length, run in runs.items():
            rounds = 1 + int(run[at]) // length if at < len(run) else 1
            if rounds >= 3 and rounds * length > covered:
                covered, period = rounds * length, length
        result += made[at : at + period]
        if covered:
            rest = made[at + period : at + covered]
            result.append(Part(tuple(node for part in rest for node in part.nodes), rest[0].call, "", covered // period - 1, period))
        at += max(covered, 1)
    return result


def _kind(part: Part) -> Any:
    """Equal for parts that look alike: the same function, ops, shapes and leaves."""
    code = part.nodes[0].place[0]
    return code, tuple((n.op, n.shape, n.dtype, tuple(p.shape for p in n.parents if type(p) is Accumulator)) for n in part.nodes)


def _runs(same: Any, period: int) -> Any:
    """At each place, how many parts from there on equal the one a period later."""
    differs = np.flatnonzero(same[period:] != same[:-period])
    ends = np.append(differs, len(same) - period)
    places = np.arange(len(same) - period)
    return ends[np.searchsorted(ends, places)] - places
