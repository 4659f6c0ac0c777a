"""Recording: how ops, and their backward, come onto a tape.

Switched off, it costs an op one look at the mode. What is recorded stays as it was: all arrays are copies.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from tensor import kernels
from tensor.core import Tensor
from tensor.devices import Array, address, as_array, flatten, synchronize, to_host, window
from tensor.dtypes import NARROW, float32
from tensor.graph import Accumulator, Node, Output
from tensor.mode import Switch
from tensor.op import FUSED
from tensor.recompute import Recomputed
from tensor.storage import user_line
from tensor.tape import find, report
from tensor.tape.entries import UNKNOWN, Backward, Contribution, Entry, Forward, Saved, Value, Work, parameters_of
from tensor.tape.naming import Names, elsewhere


def record(implementation: Literal["as run", "reference"] = "as run", *, values: bool = True) -> Switch[Tape]:
    """`with record() as tape:` keeps every op that runs inside, forward and backward.

    implementation: "as run" records what does the work, kernels and fused ops among them; "reference" turns the kernels off inside, so that
    every composition runs op by op and every intermediate exists.   values=False keeps shapes, times and bytes, and no array: to measure.
    A recording inside another takes over until it ends. Other threads are not recorded.
    """
    if implementation not in ("as run", "reference"):
        raise ValueError(f'implementation {implementation!r}: choose "as run" or "reference"')
    off = {"kernels_off": frozenset("*")} if implementation == "reference" else {}
    return Switch(tape=Tape(implementation, values), **off)


class Tape:
    """What `record` gives: entries in the order they ran."""

    def __init__(self, implementation: str = "as run", values: bool = True):
        self.implementation, self.values = implementation, values
        self.entries: list[Entry] = []
        self._began = time.perf_counter()
        self._names = Names()
        self._copies: dict[int, tuple[weakref.ref[Tensor], Any]] = {}  # id of a tensor -> it, and its last copy
        # by the order of nodes, which is a number that no two have: a tape must not keep the graph, and what that saved, alive
        self._of: dict[int, Forward] = {}
        self._leaves: dict[int, str] = {}
        self._expanded: dict[int, tuple[Forward, str]] = {}  # the expand of broadcasting -> the op that it serves, and the input

    # -- called by ops --

    def forward(self, op: str, inputs: Sequence[Any], arrays: Sequence[Any], options: dict[str, Any], out: Any, start: float, how: str | None = None) -> None:
        """Note an op that has just run. how: "view"; else what `kernels` says of its latest call."""
        outs = out if type(out) is tuple else (out,)
        if outs:
            synchronize(outs[0].array)
        end = time.perf_counter()
        frame = sys._getframe(2)
        module, within = self._names.place(frame)
        implementation, reason = (how, "no data moves: another layout of the same memory") if how else _implementation(op)
        name = self._names.numbered(f"{module}.{op}" if module else op)
        names = parameters_of(op, len(inputs))
        given = tuple(self._value(x, n, frame) for x, n in zip(inputs, names, strict=True) if x is not None)
        arguments = (inputs[0].layout, *arrays) if how else tuple(self._argument(x, a) for x, a in zip(inputs, arrays, strict=True))
        results = tuple(self._value(y, "y" if len(outs) == 1 else f"y[{i}]", frame, name) for i, y in enumerate(outs))
        node = next((y.node.parents[0] if type(y.node) is Output else y.node for y in outs if y.node is not None), None)
        kept = {key: to_host(value) if hasattr(value, "flags") else value for key, value in options.items()}
        entry = Forward(
            *(len(self.entries), name, module, op, within, implementation, reason, user_line(1), given, results, kept),
            *(self._saved(node, [*inputs, *outs], [*arrays, *(y.array for y in outs)]), start - self._began, end - start, arguments),
        )
        self.entries.append(entry)
        if node is not None:
            self._of[node.order] = entry
            for parent, x, n in zip(node.parents, inputs, names, strict=False):
                if parent is not None and parent is not x.node:  # broadcasting has put an expand between
                    self._expanded[parent.order] = entry, n
                    parent = x.node
                if type(parent) is Accumulator:
                    self._leaves[parent.order] = self._names.of(x, frame)

    def walk(self, nodes: Sequence[Any], allowed: Collection[Any] | None) -> Walk:
        """A walk back over these nodes begins; `allowed`: the only nodes for which its gradients are wanted."""
        return Walk(self, nodes, allowed)

    def backward(self, walk: Walk, node: Node, upstream: Sequence[Array | None], gradients: Sequence[Any], start: float) -> None:
        """Note a backward that has just run, and what it hands to whom."""
        synchronize(next(dy for dy in upstream if dy is not None))
        end = time.perf_counter()
        of = self._of.get(node.order)
        serves, through = self._expanded.get(node.order, (of, ""))
        module = serves.module if serves else ""
        name = f"{of.name}.backward" if of else self._names.numbered(f"{module}.{node.op}.backward" if module else f"{node.op}.backward")
        names = [through] * len(node.parents) if through else parameters_of(node.op, len(node.parents))
        contributions = []
        for parent, dx, key in zip(node.parents, gradients, names, strict=True):
            if dx is not None and (count := walk.arrived(parent)) is not None:
                contributions.append(Contribution(key, self._target(parent), *count, self._gradient(dx, f"d{key}", name, copy=True)))
        dys = tuple(None if dy is None else self._gradient(dy, "dy", name) for dy in upstream)
        self.entries.append(Backward(len(self.entries), name, module, node.op, of, dys, tuple(contributions), start - self._began, end - start))

    def work(self, name: str, start: float) -> None:
        """Note what is no op."""
        self.entries.append(Work(len(self.entries), name, start - self._began, time.perf_counter() - start))

    # -- what is noted --

    def _value(self, x: Any, name: str, frame: FrameType | None, made: str | None = None) -> Value:
        if not isinstance(x, Tensor):
            x = Tensor(float(x) if type(x) is int and abs(x) >> 63 else x)  # an integer that has no dtype
        if made is not None:
            self._names.made(x, made if name == "y" else f"{made}{name[1:]}")
        layout, dtype = x.layout, x.dtype
        copy = self._copy(x) if self.values else None
        facts = layout.shape, layout.strides, layout.offset, layout.is_contiguous, dtype.name, x.device, layout.size * dtype.itemsize
        return Value(name, self._names.of(x, frame), *facts, copy)

    def _gradient(self, dx: Any, name: str, source: str, copy: bool = False) -> Value:
        """copy: of what a rule hands on, to which the walk may add in place. What was given to a rule is written no more."""
        array = as_array(dx)  # a rule may return a scalar
        x = Tensor.from_array(array)
        facts = x.shape, x.strides, x.offset, x.is_contiguous(), x.dtype.name, x.device, int(array.nbytes)
        if not self.values:
            return Value(name, source, *facts, None)
        shown = _duplicate(to_host(array)) if copy else to_host(array).view()
        shown.flags.writeable = False
        return Value(name, source, *facts, shown)

    def _copy(self, x: Tensor) -> Any:
        """The tensor's values as they are now, in the same order of memory; one copy for all entries that meet them."""
        array = to_host(x.array)
        owner, known = self._copies.get(id(x), (None, None))
        if owner is None or owner() is not x or not _same_bits(known, array):
            known = _duplicate(array)
            self._copies[id(x)] = weakref.ref(x), known
        return known

    def _argument(self, x: Any, array: Any) -> Any:
        """An argument of the op's function, as it can be given to it again: 16-bit floats in float32, as ops compute."""
        if not isinstance(x, Tensor):
            return array
        if not self.values:
            return UNKNOWN
        copy = self._copy(x)
        return copy.astype(float32) if copy.dtype in NARROW else copy

    def _saved(self, node: Node | None, tensors: Sequence[Any], arrays: Sequence[Any]) -> tuple[Saved, ...]:
        """What a node keeps, each array once."""
        if node is None or node.backward is None or not node.saved:
            return ()
        names = {id(value): name for name, value in node.kept().items()}
        owned = [(x, array) for x, array in zip(tensors, arrays, strict=False) if isinstance(x, Tensor)]
        by_array, by_memory = {id(array): x for x, array in owned}, {id(x._storage): x for x, _ in reversed(owned) if x._storage is not None}
        found: dict[int, Saved] = {}
        for storage, _, array in node.saved:
            owner = by_array.get(id(array), by_memory.get(id(getattr(storage, "storage", storage))))  # weight.T is the weight's memory
            made = owner is None or owner.node is None or not owner.is_leaf
            source = "" if owner is None else self._names.of(owner, None)
            found[id(array)] = Saved(names.get(id(array), ""), source, array.shape, array.dtype.name, int(array.nbytes), made, address(as_array(array)))
        return tuple(found.values())

    def _target(self, node: Any) -> str:
        """The name of what a gradient belongs to."""
        if type(node) is Accumulator:
            if node.order not in self._leaves:
                self._leaves[node.order] = self._names.numbered("leaf")
            return self._leaves[node.order]
        if type(node) is Output:
            return f"{self._target(node.parents[0])}[{node.index}]"
        if node.order in self._expanded:
            return f"expand of {self._expanded[node.order][1]}"
        return self._of[node.order].name if node.order in self._of else elsewhere(node.op)

    # -- reading it --

    @property
    def nodes(self) -> int:
        """How many nodes the graph got."""
        return len(self._of) + len(self._expanded)

    @property
    def leaves(self) -> set[str]:
        """The names of the leaves that were used: parameters, and tensors made with requires_grad=True."""
        return set(self._leaves.values())

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """An array by its name; see find.py for what a name can be. Raises KeyError with the nearest ones."""
        return find.array(self, name)

    def table(self) -> str:
        """One line an op."""
        return report.table(self.entries)

    def by(self, what: Literal["module", "op"]) -> list[report.Total]:
        """Calls, time and bytes of each module, or each op, the slowest first."""
        return report.totals(self.entries, what)

    def save(self, path: str | Path) -> None:
        """Write the tape. The suffix says how: .txt the table, .npz all arrays by name, .json a trace that Chrome opens (chrome://tracing)."""
        report.save(self, Path(path))

    @property
    def forwards(self) -> list[Forward]:
        """The ops alone, without their backward."""
        return [entry for entry in self.entries if isinstance(entry, Forward)]

    @property
    def backwards(self) -> list[Backward]:
        """The backward of ops alone."""
        return [entry for entry in self.entries if isinstance(entry, Backward)]

    def parameter(self, name: str) -> Tensor | None:
        """The parameter of that name, as it is now."""
        return self._names.parameter(name)


class Walk:
    """One walk back over the graph, for the tape: how many contributions each node waits for, and how many have come."""

    def __init__(self, tape: Tape, nodes: Sequence[Any], allowed: Collection[Any] | None):
        self.tape, self.values, self._allowed = tape, tape.values, allowed
        self._uses: Counter[Any] = Counter()
        self._arrived: Counter[Any] = Counter()
        self.expect(nodes)

    def expect(self, nodes: Sequence[Any]) -> None:
        """Count the contributions that these nodes will bring. A checkpoint itself brings none: those of its function are counted when that has
        run again, and has added its nodes to the walk."""
        rules = (node for node in nodes if type(node) is Node and type(node.backward) is not Recomputed)
        self._uses.update(parent for node in rules for parent in node.parents if parent is not None)

    def arrived(self, node: Any) -> tuple[int, int] | None:
        """Count a contribution to a node: (it is the first, of so many). None where none is wanted."""
        if node is None or (self._allowed is not None and node not in self._allowed):
            return None
        self._arrived[node] += 1
        return self._arrived[node], self._uses[node]

    def backward(self, node: Node, upstream: Sequence[Array | None], gradients: Sequence[Any], start: float) -> None:
        """Note a backward that has just run."""
        self.tape.backward(self, node, upstream, gradients, start)


def _implementation(op: str) -> tuple[str, str]:
    """What did an op that has just run, and why that."""
    if op not in kernels.KERNELS or not kernels.KERNELS[op]:
        return "reference", "there is no kernel for it"
    name, reason = kernels.latest(op)
    fused = "fused " * any(op == known for known in FUSED.values())
    return (name, reason) if name == "reference" else (f"{fused}kernel {name}", reason)


def _duplicate(array: Any) -> Any:
    """A read-only copy, with the same strides where that takes little more memory: by others, sums and products are rounded otherwise."""
    flat, layout = flatten(array)
    copy = window(flat.copy(), layout) if flat.size <= 2 * array.size else array.copy(order="K")
    copy.flags.writeable = False
    return copy


def _same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays hold the same to the last bit: 0.0 == -0.0, but 1 / 0.0 is not 1 / -0.0."""
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))
