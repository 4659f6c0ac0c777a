"""The ops of each box: one op, the ops of one call, or parts that repeat.

A part is a stretch of the order in which the ops ran, so no arrow between two parts points back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import accumulate, groupby, pairwise
from typing import Any

from tensor.base import Accumulator
from tensor.drawing.boxes import Box
from tensor.graph import Node

COLLAPSE_ABOVE = 40  # boxes: a larger graph is drawn call by call
FOLD_ABOVE = 100  # boxes: above, parts that repeat are drawn once
MERGE_ABOVE = 300  # boxes: above, neighbours share a box
MOST = 2000  # boxes that collapse=False may draw
LONGEST_REPEAT = 64  # parts in one round of a repetition


def parts(nodes: Sequence[Node], collapse: bool | None) -> list[Box]:
    """The parts of these ops, which are in the order they ran. For collapse=None, the number of
    the ops decides.
    """
    found = calls(nodes)
    made = [Box("op", node.op, (node,), call) for node, call in zip(nodes, found, strict=True)]
    if collapse is False:
        if len(made) > MOST:
            raise ValueError(
                f"draw: collapse=False would draw {len(made):,} boxes, and {MOST:,} is the most: "
                "leave collapse out"
            )
        return made
    if collapse or (len(made) > COLLAPSE_ABOVE and found[-1] > 0):
        groups = [list(group) for _, group in groupby(made, key=lambda part: part.call)]
        made = [_joined("call", call_name(group[0].nodes[0]), group) for group in groups]
    if len(made) > FOLD_ABOVE:
        made = folded(made)
    size = -(-len(made) // MERGE_ABOVE)
    groups = [made[i : i + size] for i in range(0, len(made), size)]
    return [_joined("call", f"{len(group)} boxes in one", group) for group in groups]


def calls(nodes: Sequence[Node]) -> list[int]:
    """The number of each op's call. A call ends where another function runs an op. It also ends
    where the same function runs an earlier line: a second call, or the next round of a loop.
    """
    places = [node.called_at for node in nodes]
    ends = (new[0] is not old[0] or new[1] < old[1] for old, new in pairwise(places))
    return list(accumulate(ends, initial=0))


def call_name(node: Node) -> str:
    """The function that ran the op, such as Attention.__call__; at the top of a file, the file."""
    code = node.called_at[0]
    name: str = code.co_qualname.replace(".<locals>", "")
    return name if name != "<module>" else os.path.basename(code.co_filename)


def folded(made: list[Box]) -> list[Box]:
    """Keep the first of three or more equal rounds; one part stands for all the others."""
    numbers: dict[Any, int] = {}
    kinds = [numbers.setdefault(_kind(part), len(numbers)) for part in made]
    result: list[Box] = []
    start = 0
    while start < len(made):
        length, rounds = _repetition(kinds, start)
        first, end = start + length, start + length * rounds
        result += made[start:first]
        if rounds > 1:
            what = "the box above" if length == 1 else f"the {length} boxes above"
            name = f"{what}, {rounds - 1:,} more times"
            result.append(_joined("repeat", name, made[first:end]))
        start = end
    return result


def _joined(kind: str, name: str, members: Sequence[Box]) -> Box:
    """One part of several; a part alone stays as it is."""
    if len(members) == 1:
        return members[0]
    nodes = tuple(node for part in members for node in part.nodes)
    return Box(kind, name, nodes, members[0].call)


def _kind(part: Box) -> Any:
    """Equal for parts that look alike: the same function, ops, shapes and leaves."""
    ops = []
    for node in part.nodes:
        leaves = tuple(parent.shape for parent in node.parents if type(parent) is Accumulator)
        ops.append((node.op, node.shape, node.dtype, leaves))
    return part.nodes[0].called_at[0], tuple(ops)


def _repetition(kinds: Sequence[int], start: int) -> tuple[int, int]:
    """(parts in a round, rounds) of the longest repetition that begins at `start`, or (1, 1)."""
    best = 1, 1
    for length in range(1, LONGEST_REPEAT + 1):
        end = start + length
        while kinds[end : end + length] == kinds[start : start + length]:
            end += length
        rounds = (end - start) // length
        if rounds >= 3 and length * rounds > best[0] * best[1]:
            best = length, rounds
    return best
