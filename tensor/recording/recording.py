"""Recording: ops, and their backward, tell what they did.

Without a recording an op pays one look at the mode. All arrays here are copies, so that they stay
as they were.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import repeat
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from tensor import kernels
from tensor.autograd.recompute import Recomputed
from tensor.base import Accumulator
from tensor.dtypes import NARROW, float32
from tensor.graph import Node, Output
from tensor.memory.devices import Array, address, as_array, flatten, synchronize, to_host, window
from tensor.memory.storage import user_line
from tensor.mode import Switch
from tensor.ops.op import FUSED
from tensor.recording import find, report
from tensor.recording.entries import (
    UNKNOWN,
    Backward,
    Contribution,
    Forward,
    Recorded,
    Saved,
    Value,
    Work,
    parameters_of,
    value_of,
)
from tensor.recording.naming import Names, elsewhere
from tensor.tensor import Tensor


def record(
    implementation: Literal["as run", "reference"] = "as run", *, values: bool = True
) -> Switch[Recording]:
    """`with record() as tape:` keeps every op that runs inside, forward and backward.

    implementation: "as run" records what does the work, kernels and fused ops among them;
    "reference" turns the kernels off inside, so that
    every composition runs op by op and every intermediate exists.   values=False keeps shapes,
    times and bytes, and no array: to measure.
    A recording inside another takes over until it ends. Other threads are not recorded.
    """
    if implementation not in ("as run", "reference"):
        raise ValueError(f'implementation {implementation!r}: choose "as run" or "reference"')
    off = {"kernels_off": frozenset("*")} if implementation == "reference" else {}
    return Switch(tape=Recording(implementation, values), **off)


class Recording(Recorded):
    """What `record` gives: the ops tell it what they did."""

    def __init__(self, implementation: str = "as run", values: bool = True):
        super().__init__(values)
        self.implementation = implementation
        self._began = time.perf_counter()
        self._names = Names()
        # id of a tensor -> it, and its last copy
        self._copies: dict[int, tuple[weakref.ref[Tensor], Any]] = {}
        # by the order of nodes, a number that no two have: a recording must not keep the graph
        # alive,
        # nor what the graph saved
        self._of: dict[int, Forward] = {}
        # the expand of broadcasting -> the op that it serves, and the input
        self._expanded: dict[int, tuple[Forward, str]] = {}

    # -- called by ops --

    def forward(
        self,
        op: str,
        inputs: Sequence[Any],
        arrays: Sequence[Any],
        options: dict[str, Any],
        out: Any,
        start: float,
        how: str | None = None,
    ) -> None:
        """Note an op that has just run. how: "view"; else what `kernels` says of the last call."""
        outs = out if type(out) is tuple else (out,)
        if outs:
            synchronize(outs[0].array)
        seconds = time.perf_counter() - start
        frame = sys._getframe(2)
        module, within = self._names.place(frame)
        if how:
            implementation, reason = how, "no data moves: another layout of the same memory"
            arguments: tuple[Any, ...] = (inputs[0].layout, *arrays)
        else:
            implementation, reason = _implementation(op)
            arguments = tuple(map(self._argument, inputs, arrays))
        name = self._names.numbered(f"{module}.{op}" if module else op)
        names = parameters_of(op, len(inputs))
        pairs = list(zip(inputs, names, strict=True))
        given = tuple(self._value(x, n, frame) for x, n in pairs if x is not None)
        called = ["y"] if len(outs) == 1 else [f"y[{i}]" for i in range(len(outs))]
        for y, n in zip(outs, called, strict=True):
            self._names.made(y, name + n[1:])
        nodes = [y.node for y in outs if y.node is not None]
        node = (
            nodes[0].parents[0] if nodes and type(nodes[0]) is Output else next(iter(nodes), None)
        )
        entry = Forward(
            number=len(self.entries),
            name=name,
            module=module,
            op=op,
            within=within,
            implementation=implementation,
            reason=reason,
            line=user_line(1),
            inputs=given,
            outputs=tuple(map(self._value, outs, called, repeat(frame))),
            options={n: to_host(v) if hasattr(v, "flags") else v for n, v in options.items()},
            saved=self._saved(node, [*inputs, *outs], [*arrays, *(y.array for y in outs)]),
            arguments=arguments,
            start=start - self._began,
            seconds=seconds,
        )
        self.entries.append(entry)
        if node is None:
            return
        self._of[node.order] = entry
        for parent, (x, n) in zip(node.parents, pairs, strict=False):
            # broadcasting has put an expand between
            if parent is not None and parent is not x.node:
                self._expanded[parent.order] = entry, n
                parent = x.node
            if type(parent) is Accumulator:
                self.leaves_by_order[parent.order] = self._names.of(x, frame)

    def backward_pass(self, nodes: Sequence[Any], wanted: Collection[Any] | None) -> Pass:
        """A backward pass over these nodes begins; `wanted`: the only ones that get gradients."""
        return Pass(self, nodes, wanted)

    def backward(
        self,
        a_pass: Pass,
        node: Node,
        upstream: Sequence[Array | None],
        gradients: Sequence[Any],
        start: float,
    ) -> None:
        """Note a backward that has just run, and which gradients it passes to whom."""
        synchronize(next(dy for dy in upstream if dy is not None))
        seconds = time.perf_counter() - start
        of = self._of.get(node.order)
        serves, through = self._expanded.get(node.order, (of, ""))
        module = serves.module if serves else ""
        name = f"{module}.{node.op}".lstrip(".")
        name = f"{of.name}.backward" if of else self._names.numbered(f"{name}.backward")
        count = len(node.parents)
        names = [through] * count if through else parameters_of(node.op, count)
        contributions = []
        for parent, dx, key in zip(node.parents, gradients, names, strict=True):
            if dx is not None and (arrived := a_pass.arrived(parent)) is not None:
                value = self._gradient(dx, f"d{key}", name, copy=True)
                contributions.append(Contribution(key, self._target(parent), *arrived, value))
        dys = tuple(None if dy is None else self._gradient(dy, "dy", name) for dy in upstream)
        entry = Backward(
            number=len(self.entries),
            name=name,
            module=module,
            op=node.op,
            of=of,
            upstream=dys,
            contributions=tuple(contributions),
            start=start - self._began,
            seconds=seconds,
        )
        self.entries.append(entry)

    def work(self, name: str, start: float) -> None:
        """Note what is no op."""
        seconds = time.perf_counter() - start
        self.entries.append(Work(len(self.entries), name, start - self._began, seconds))

    # -- what is noted --

    def _value(self, x: Any, name: str, frame: FrameType | None) -> Value:
        if not isinstance(x, Tensor):
            # an integer that has no dtype
            x = Tensor(float(x) if type(x) is int and abs(x) >> 63 else x)
        return value_of(x, name, self._names.of(x, frame), self._copy(x) if self.values else None)

    def _gradient(self, dx: Any, name: str, source: str, copy: bool = False) -> Value:
        """copy: of a result, to which the pass may add in place. What a backward function was given
        is written no more.
        """
        array = as_array(dx)  # a backward function may return a scalar
        shown = None
        if self.values:
            shown = _duplicate(to_host(array)) if copy else to_host(array).view()
            shown.flags.writeable = False
        return value_of(Tensor.from_array(array), name, source, shown)

    def _copy(self, x: Tensor) -> Any:
        """The tensor's values as they are now, in the same order of memory; one copy for all
        entries that meet them.
        """
        array = to_host(x.array)
        owner, known = self._copies.get(id(x), (None, None))
        if owner is None or owner() is not x or not _same_bits(known, array):
            known = _duplicate(array)
            self._copies[id(x)] = weakref.ref(x), known
        return known

    def _argument(self, x: Any, array: Any) -> Any:
        """An argument of the op's function, as it can be given to it again: 16-bit floats in
        float32, as ops compute.
        """
        if not isinstance(x, Tensor):
            return array
        if not self.values:
            return UNKNOWN
        copy = self._copy(x)
        return copy.astype(float32) if copy.dtype in NARROW else copy

    def _saved(
        self, node: Node | None, tensors: Sequence[Any], arrays: Sequence[Any]
    ) -> tuple[Saved, ...]:
        """What a node keeps, each array once."""
        if node is None or node.backward is None or not node.saved:
            return ()
        names = {id(value): name for name, value in node.kept().items()}
        owned = [(x, a) for x, a in zip(tensors, arrays, strict=False) if isinstance(x, Tensor)]
        by_array = {id(array): x for x, array in owned}
        by_memory = {id(x._storage): x for x, _ in reversed(owned) if x._storage is not None}
        found: dict[int, Saved] = {}
        for storage, _, array in node.saved:
            # weight.T is the weight's memory
            owner = by_array.get(id(array), by_memory.get(id(getattr(storage, "storage", storage))))
            found[id(array)] = Saved(
                name=names.get(id(array), ""),
                source="" if owner is None else self._names.of(owner, None),
                shape=array.shape,
                dtype=array.dtype.name,
                bytes=int(array.nbytes),
                made=owner is None or owner.node is None or not owner.is_leaf,
                address=address(as_array(array)),
            )
        return tuple(found.values())

    def _target(self, node: Any) -> str:
        """The name of what a gradient belongs to."""
        if type(node) is Accumulator:
            if node.order not in self.leaves_by_order:
                self.leaves_by_order[node.order] = self._names.numbered("leaf")
            return self.leaves_by_order[node.order]
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

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        """An array by its name; see find.py for what a name can be. Raises KeyError with the
        nearest ones.
        """
        return find.array(self, name)

    def table(self) -> str:
        """One line an op."""
        return report.table(self.entries)

    def by(self, what: Literal["module", "op"]) -> list[report.Total]:
        """Calls, time and bytes of each module, or each op, the slowest first."""
        return report.totals(self.entries, what)

    def save(self, path: str | Path) -> None:
        """Write the recording. The suffix says how: .txt the table, .npz all arrays by name, .json
        a trace that Chrome opens (chrome://tracing).
        """
        report.save(self, Path(path))

    def parameter(self, name: str) -> Tensor | None:
        """The parameter of that name, as it is now."""
        return self._names.parameter(name)


class Pass:
    """One backward pass, for the recording: how many gradients each node waits for, and how many
    have come.
    """

    def __init__(self, recording: Recording, nodes: Sequence[Any], wanted: Collection[Any] | None):
        self.recording, self.values, self._wanted = recording, recording.values, wanted
        self._uses: Counter[Any] = Counter()
        self._arrived: Counter[Any] = Counter()
        self.expect(nodes)

    def expect(self, nodes: Sequence[Any]) -> None:
        """Count the gradients that these nodes will bring. A checkpoint itself brings none: those
        of its function are counted when that has run again, and has added its nodes to the pass.
        """
        for node in nodes:
            if type(node) is Node and type(node.backward) is not Recomputed:
                self._uses.update(parent for parent in node.parents if parent is not None)

    def arrived(self, node: Any) -> tuple[int, int] | None:
        """Count a gradient for a node: (the first, of so many). None where none is wanted."""
        if node is None or (self._wanted is not None and node not in self._wanted):
            return None
        self._arrived[node] += 1
        return self._arrived[node], self._uses[node]

    def backward(self, node: Node, *what: Any) -> None:
        """Note a backward that has just run."""
        self.recording.backward(self, node, *what)


def _implementation(op: str) -> tuple[str, str]:
    """What did an op that has just run, and why that."""
    if op not in kernels.KERNELS or not kernels.KERNELS[op]:
        return "reference", "there is no kernel for it"
    name, reason = kernels.latest(op)
    fused = "fused " if op in FUSED.values() else ""
    return (name, reason) if name == "reference" else (f"{fused}kernel {name}", reason)


def _duplicate(array: Any) -> Any:
    """A read-only copy, with the same strides where that takes little more memory: by others, sums
    and products are rounded otherwise.
    """
    flat, layout = flatten(array)
    copy = window(flat.copy(), layout) if flat.size <= 2 * array.size else array.copy(order="K")
    copy.flags.writeable = False
    return copy


def _same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays are the same to the last bit: 0.0 == -0.0, but 1 / 0.0 is not 1 / -0.0."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return np.array_equal(a.view(f"u{a.itemsize}"), b.view(f"u{b.itemsize}"))
