"""Where things go: a layered drawing, top to bottom.      after Sugiyama, Tagawa & Toda 1981; straight lines as in Brandes & Koepf 2002

    1. layers     an item lies one layer below the lowest of those it hangs on
    2. lanes      a wire that passes a layer gets a cell of its own there, beside the items; all targets of a wire share its lane
    3. order      in each layer by the mean place of the neighbours, to and fro, as long as fewer wires cross
    4. columns    cells that should be straight below each other become one block, and the blocks are pushed apart

Every step is a loop over lists: nothing recurses.
"""

from __future__ import annotations

import sys
from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

APART = 26.0  # between two items side by side
LANE = 16.0  # between a lane and what is beside it
CHANNEL = 34.0  # between two layers, for the wires to turn
END = 22.0  # the same, between the edge of a frame and what is inside
PORT = 26.0  # between two wires at one side of an item
SWEEPS = 12


@dataclass(eq=False)
class Item:
    """A rectangle to be placed. `entries`, `exits`: where values come in at the top and leave at the bottom, from the left, if that is fixed.

    end: "top" and "bottom" for the points on a frame where wires pass through it; aside: those that need not lead straight on.
    """

    width: float
    height: float
    entries: dict[Any, float] | None = None
    exits: dict[Any, float] | None = None
    end: str = ""
    aside: bool = False
    x: float = 0.0  # the left upper corner
    y: float = 0.0


@dataclass(eq=False)
class Wire:
    """A value on its way from an item to others; `room`: the width of what is written where it leaves."""

    value: Any
    source: Item
    targets: list[Item]
    room: float = 0.0
    strokes: list[tuple[float, float, float, float]] = field(default_factory=list)  # x, y to x, y; upright at both ends
    tips: list[tuple[float, float, Item]] = field(default_factory=list)
    start: tuple[float, float] = (0.0, 0.0)


@dataclass(eq=False)
class Cell:
    """An item, or a wire passing by, in its layer."""

    layer: int
    item: Item | None
    wire: Wire | None
    width: float
    place: int = 0  # from the left
    x: float = 0.0  # the middle
    ups: list[Link] = field(default_factory=list)
    downs: list[Link] = field(default_factory=list)
    block: list[Cell] = field(default_factory=list)
    shift: float = 0.0  # of the middle, from that of the block

    @property
    def solid(self) -> bool:
        """Whether other items should stand straight above or below it."""
        return self.item is not None and not self.item.aside


@dataclass(eq=False)
class Link:
    """The part of a wire between two neighbouring layers."""

    upper: Cell
    lower: Cell
    wire: Wire
    leaves: float = 0.0  # where, from the middle of the upper cell
    enters: float = 0.0

    def fix_ports(self) -> None:
        """Take over the places that a frame prescribes."""
        upper, lower = self.upper.item, self.lower.item
        if upper is not None and upper.exits is not None:
            self.leaves = upper.exits[self.wire.value] - upper.width / 2
        if lower is not None and lower.entries is not None:
            self.enters = lower.entries[self.wire.value] - lower.width / 2


def arrange(items: Sequence[Item], wires: Sequence[Wire], least: float = 0.0) -> tuple[float, float]:
    """Place the items (given so that no wire leads backwards) and draw the wires; the width and height of it all, `least` high."""
    rows, links = _cells(items, wires)
    for link in links:
        link.fix_ports()
    _order(rows)
    _align(rows)
    width = _pack(rows)
    _place_ports(rows)
    return width, _draw(rows, least)


# -- layers and lanes -----------------------------------------------------------------------------------------------------


def _layers(items: Sequence[Item], wires: Sequence[Wire]) -> dict[Item, int]:
    """The layer of each item; what hangs on nothing lies just above the first that uses it."""
    above: dict[Item, list[Item]] = {item: [] for item in items}
    below: dict[Item, list[Item]] = {item: [] for item in items}
    for wire in wires:
        for target in wire.targets:
            above[target].append(wire.source)
            below[wire.source].append(target)
    first = int(any(item.end == "top" for item in items))
    layer: dict[Item, int] = {}
    for item in items:
        layer[item] = 0 if item.end == "top" else max((layer[other] + 1 for other in above[item]), default=first)
    for item in reversed(items):
        if not above[item] and below[item] and not item.end:
            layer[item] = min(layer[other] for other in below[item]) - 1
    last = max((layer[item] for item in items if item.end != "bottom"), default=0) + 1
    layer.update((item, last) for item in items if item.end == "bottom")
    return layer


def _cells(items: Sequence[Item], wires: Sequence[Wire]) -> tuple[list[list[Cell]], list[Link]]:
    """The cells of each layer, items first, and the links between them."""
    layer = _layers(items, wires)
    rows: list[list[Cell]] = [[] for _ in range(max(layer.values()) + 1)]
    cell_of: dict[Item, Cell] = {}
    for item in items:
        cell_of[item] = Cell(layer[item], item, None, item.width)
        rows[layer[item]].append(cell_of[item])
    links: list[Link] = []

    def join(upper: Cell, lower: Cell, wire: Wire) -> None:
        link = Link(upper, lower, wire)
        upper.downs.append(link)
        lower.ups.append(link)
        links.append(link)

    for wire in wires:
        at = cell_of[wire.source]
        for target in sorted(wire.targets, key=layer.__getitem__):
            while at.layer < layer[target] - 1:
                lane = Cell(at.layer + 1, None, wire, 0.0)
                rows[lane.layer].append(lane)
                join(at, lane, wire)
                at = lane
            join(at, cell_of[target], wire)
    return rows, links


# -- order ------------------------------------------------------------------------------------------------------------------


def _order(rows: list[list[Cell]]) -> None:
    """Give every cell its place in its layer, so that few wires cross."""
    _number(rows)
    best, fewest = [list(row) for row in rows], _crossings(rows)
    for sweep in range(SWEEPS):
        if not fewest:
            break
        down = sweep % 2 == 0
        for row in rows if down else reversed(rows):
            row.sort(key=lambda cell: _mean([link.upper.place if down else link.lower.place for link in (cell.ups if down else cell.downs)], cell.place))
            for place, cell in enumerate(row):
                cell.place = place
        crossings = _crossings(rows)
        if crossings < fewest:
            best, fewest = [list(row) for row in rows], crossings
    rows[:] = best
    _number(rows)


def _number(rows: Iterable[list[Cell]]) -> None:
    for row in rows:
        for place, cell in enumerate(row):
            cell.place = place


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _crossings(rows: Iterable[list[Cell]]) -> int:
    """How many pairs of links cross."""
    crossings = 0
    for row in rows:
        ends: list[int] = []
        for cell in row:
            lower = sorted(link.lower.place for link in cell.downs)
            crossings += sum(len(ends) - bisect_right(ends, place) for place in lower)
            for place in lower:
                insort(ends, place)
    return crossings


# -- columns ----------------------------------------------------------------------------------------------------------------


def _main(cell: Cell, down: bool) -> list[Link]:
    """Of the links on one side those to items, or all if there are none: they attach in the middle, from left to right, and lanes beside them."""
    links = cell.downs if down else cell.ups
    solid = [link for link in links if (link.lower if down else link.upper).solid]
    return sorted(solid or links, key=lambda link: (link.lower if down else link.upper).place)


def _middle(cell: Cell, down: bool) -> Link | None:
    """The link that should lead straight on, if there is one in the middle."""
    links = _main(cell, down)
    return links[len(links) // 2] if len(links) % 2 else None


def _align(rows: list[list[Cell]]) -> None:
    """Join cells into blocks, each a straight column; lanes before items, and never two that cross."""
    for row in rows:
        for cell in row:
            cell.block, cell.shift = [cell], 0.0
    for row in rows:
        links = [link for cell in row for link in cell.downs]
        straight = [link for link in links if not link.upper.item and not link.lower.item]
        straight += [link for link in links if link.upper.solid and link.lower.solid and _middle(link.upper, True) is link is _middle(link.lower, False)]
        straight += [link for link in links if not (link.upper.solid and link.lower.solid) and _middle(link.upper, True) is link is _middle(link.lower, False)]
        taken = [(-1, -1), (len(row), sys.maxsize)]  # where columns leave this layer and enter the next: rising in both
        for link in straight:
            here = link.upper.place, link.lower.place
            after = bisect_right(taken, here)
            if all(left[0] < right[0] and left[1] < right[1] for left, right in pairwise((taken[after - 1], here, taken[after]))):
                taken.insert(after, here)
                link.lower.shift = link.upper.shift + link.leaves - link.enters
                link.lower.block = link.upper.block
                link.lower.block.append(link.lower)


def _apart(left: Cell, right: Cell) -> float:
    """The least distance of two neighbours' middles."""
    return left.width / 2 + right.width / 2 + (APART if left.item and right.item else LANE)


def _pack(rows: list[list[Cell]]) -> float:
    """Set every cell's x: halfway between all blocks pushed left and all pushed right, then each drawn to its neighbours. The width."""
    blocks = list({id(cell.block): cell.block for row in rows for cell in row}.values())
    number = {id(block): i for i, block in enumerate(blocks)}
    rights: list[list[tuple[int, float]]] = [[] for _ in blocks]  # the blocks right of each, and how far at least
    lefts: list[list[tuple[int, float]]] = [[] for _ in blocks]
    for row in rows:
        for left, right in pairwise(row):
            a, b, far = number[id(left.block)], number[id(right.block)], _apart(left, right) + left.shift - right.shift
            rights[a].append((b, far))
            lefts[b].append((a, far))
    order = _sorted(lefts, rights)
    low = [max(cell.width / 2 - cell.shift for cell in block) for block in blocks]
    for b in order:
        low[b] = max([low[b], *(low[a] + far for a, far in lefts[b])])
    width = max(low[i] + cell.shift + cell.width / 2 for i, block in enumerate(blocks) for cell in block)
    high = [min(width - cell.width / 2 - cell.shift for cell in block) for block in blocks]
    for a in reversed(order):
        high[a] = min([high[a], *(high[b] - far for b, far in rights[a])])
    at = [(x + y) / 2 for x, y in zip(low, high, strict=True)]
    for sweep in range(SWEEPS):
        for i in order if sweep % 2 else reversed(order):
            least = max((at[a] + far for a, far in lefts[i]), default=-float("inf"))
            most = min((at[b] - far for b, far in rights[i]), default=float("inf"))
            at[i] = min(max(_wish(blocks[i], at, number, at[i]), least), most)
    edge = min(at[i] + cell.shift - cell.width / 2 for i, block in enumerate(blocks) for cell in block)
    for i, block in enumerate(blocks):
        for cell in block:
            cell.x = at[i] + cell.shift - edge
    return max(cell.x + cell.width / 2 for row in rows for cell in row)


def _sorted(lefts: list[list[tuple[int, float]]], rights: list[list[tuple[int, float]]]) -> list[int]:
    """The blocks from left to right. There is such an order, because no two columns cross."""
    waiting = [len(others) for others in lefts]
    order = [i for i, count in enumerate(waiting) if not count]
    for a in order:  # grows
        for b, _ in rights[a]:
            waiting[b] -= 1
            if not waiting[b]:
                order.append(b)
    return order


def _wish(block: list[Cell], at: list[float], number: dict[int, int], otherwise: float) -> float:
    """Where a block's wires would be as upright as they can be; those to lanes count little, for lanes make way."""
    total = weight = 0.0
    for cell in block:
        for link, other, mine, theirs in (
            *((link, link.upper, link.enters, link.leaves) for link in cell.ups),
            *((link, link.lower, link.leaves, link.enters) for link in cell.downs),
        ):
            if other.block is not block:
                w = 1.0 if link.upper.solid and link.lower.solid else 0.02
                total += w * (at[number[id(other.block)]] + other.shift + theirs - mine - cell.shift)
                weight += w
    return total / weight if weight else otherwise


# -- ports, heights, lines ----------------------------------------------------------------------------------------------------


def _place_ports(rows: Iterable[list[Cell]]) -> None:
    """Where wires attach to items that leave it open: those to items around the middle, those to lanes on the lane's side."""
    for cell in (cell for row in rows for cell in row if cell.item):
        assert cell.item is not None
        for down, fixed in ((False, cell.item.entries), (True, cell.item.exits)):
            if fixed is not None:
                continue
            main = list(dict.fromkeys(link.wire for link in _main(cell, down)))
            others = list(dict.fromkeys(link.wire for link in (cell.downs if down else cell.ups) if link.wire not in main))
            far = {wire: _mean([(k.lower if down else k.upper).x for k in (cell.downs if down else cell.ups) if k.wire is wire], 0.0) for wire in others}
            others.sort(key=far.__getitem__)
            wires = [w for w in others if far[w] < cell.x] + main + [w for w in others if far[w] >= cell.x]
            middle = wires.index(main[0]) + (len(main) - 1) / 2 if main else 0.0
            room = max((wire.room + 12.0 for wire in wires), default=0.0) if down else 0.0
            offset = _spread(wires, middle, max(PORT, room), max(cell.width / 2 - max(12.0, room / 2), 0.0))
            for link in cell.downs if down else cell.ups:
                if down:
                    link.leaves = offset[link.wire]
                else:
                    link.enters = offset[link.wire]


def _spread(wires: Sequence[Wire], middle: float, gap: float, reach: float) -> dict[Wire, float]:
    """Places at one side of an item, from its middle: that of number `middle` is 0, where all are then within reach on either side."""
    last = len(wires) - 1
    gap = min(gap, 2 * reach / last) if last else gap
    left, right = -middle * gap, (last - middle) * gap
    shift = -reach - left if left < -reach else min(reach - right, 0.0)
    return {wire: left + i * gap + shift for i, wire in enumerate(wires)}


def _draw(rows: list[list[Cell]], least: float) -> float:
    """Set every item's corner and every wire's strokes; the height."""
    tops, bottoms, y = [], [], 0.0
    for row in rows:
        height = max((cell.item.height for cell in row if cell.item), default=0.0)
        tops.append(y)
        bottoms.append(y + height)
        widest = max((abs(link.upper.x + link.leaves - link.lower.x - link.enters) for cell in row for link in cell.downs), default=0.0)
        past = all(link.upper.item is None or link.upper.item.end or (link.lower.item and link.lower.item.end) for cell in row for link in cell.downs)
        y += height + (END if past else CHANNEL) + min(0.08 * widest, 40.0)
    if bottoms[-1] < least and tops[-1] == bottoms[-1]:  # the points where wires leave a frame
        tops[-1] = bottoms[-1] = least
    for row, top, bottom in zip(rows, tops, bottoms, strict=True):
        for cell in row:
            if cell.item:
                cell.item.x, cell.item.y = cell.x - cell.width / 2, top + (bottom - top - cell.item.height) / 2
            elif cell.wire:
                cell.wire.strokes.append((cell.x, top, cell.x, bottom))
    for row in rows:
        for link in (link for cell in row for link in cell.downs):
            _connect(link, bottoms[link.upper.layer], tops[link.lower.layer])
    return max(bottoms[-1], least)


def _connect(link: Link, bottom: float, top: float) -> None:
    """The strokes of a link: from the item down to the end of its layer, over the channel, down to the next item."""
    wire, x, to = link.wire, link.upper.x + link.leaves, link.lower.x + link.enters
    if (item := link.upper.item) is not None:
        wire.start = (x, item.y + item.height)
        wire.strokes.append((x, item.y + item.height, x, bottom))
    wire.strokes.append((x, bottom, to, top))
    if (item := link.lower.item) is not None:
        wire.strokes.append((to, top, to, item.y))
        wire.tips.append((to, item.y, item))
