"""Recording: ops and their backwards report what they did.

An op that is not recorded pays one look at the mode. The arrays of a recording are copies, so later
writes do not change them.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any, Literal

import numpy as np

from tensor import kernels
from tensor.autograd.recompute import Recomputed
from tensor.base import Accumulator
from tensor.dtypes import NARROW, float32
from tensor.graph import Node, Output, op_of
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
    inputs_of,
    value_of,
)
from tensor.recording.naming import Known, Names, elsewhere
from tensor.tensor import Tensor


def record(
    implementation: Literal["as run", "reference"] = "as run", *, values: bool = True
) -> Switch[Recording]:
    """`with record() as recording:` keeps every op that runs inside, forward and backward.

    implementation: "as run" records the kernels and fused ops that do the work. "reference" turns
        the kernels off inside: every fused op runs op by op, and every intermediate exists.
    values: False keeps shapes, times and bytes, and no arrays. This is for measurements.

    A recording inside another one takes over until it ends. Other threads are not recorded.
    """
    if implementation not in ("as run", "reference"):
        raise ValueError(f'implementation {implementation!r}: choose "as run" or "reference"')
    off = {"kernels_off": frozenset("*")} if implementation == "reference" else {}
    return Switch(tape=Recording(implementation, values), **off)


class Recording(Recorded):
    """What `record` gives. Ops call its methods."""

    def __init__(self, implementation: str = "as run", values: bool = True):
        super().__init__(values)
        self.implementation = implementation
        self._began = time.perf_counter()
        self._names = Names()
        self._copies = Known()  # of a tensor its last copy
        # Keys are the orders of nodes, not nodes: a recording must not keep the graph alive.
        self._of: dict[int, Forward] = {}
        # other nodes of an op: an earlier step of a fused op, the expand of a broadcasting input
        # -> (the op, the input or "")
        self._inner: dict[int, tuple[Forward, str]] = {}
        self._targets: dict[int, str] = {}  # the name of what a node's gradient belongs to

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
        """Note an op that has just run. how: "view", or None for an op that computes."""
        outs = out if type(out) is tuple else (out,)
        if outs:
            synchronize(outs[0].array)
        seconds = time.perf_counter() - start
        frame = sys._getframe(2)
        module, within = self._names.caller(frame)
        name = self._names.numbered(f"{module}.{op}".lstrip("."))
        implementation, reason = _implementation(op, how)
        arguments = (inputs[0].layout, *arrays) if how else map(self._argument, inputs, arrays)
        named = list(zip(inputs, inputs_of(op, len(inputs)), strict=True))
        nodes = list(dict.fromkeys(op_of(y.node) for y in outs if y.node is not None))
        entry = Forward(
            number=len(self.entries),
            name=name,
            module=module,
            op=op,
            within=within,
            implementation=implementation,
            reason=reason,
            line=user_line(1),
            inputs=tuple(self._value(x, key, frame) for x, key in named if x is not None),
            outputs=self._outputs(outs, name, frame),
            options={key: to_host(v) if hasattr(v, "flags") else v for key, v in options.items()},
            saved=self._saved(nodes, [*inputs, *outs], [*arrays, *(y.array for y in outs)]),
            arguments=tuple(arguments),
            start=start - self._began,
            seconds=seconds,
        )
        self.entries.append(entry)
        self._follow(nodes, entry, named, frame)

    def _outputs(self, outs: Sequence[Any], name: str, frame: FrameType) -> tuple[Value, ...]:
        """The results of the op `name`, which get names from now on."""
        made = []
        for i, y in enumerate(outs):
            index = f"[{i}]" if len(outs) > 1 else ""
            self._names.made(y, name + index)
            made.append(self._value(y, f"y{index}", frame))
            if y.node is not None:
                target = name if type(y.node) is Output else name + index
                self._targets[op_of(y.node).order] = target
        return tuple(made)

    def _follow(
        self, nodes: Sequence[Node], entry: Forward, named: Sequence[Any], frame: FrameType
    ) -> None:
        """Keep which nodes the op made, the last one for the whole op, and which nodes stand
        between this one and the inputs.
        """
        if not nodes:
            return
        *inner, node = nodes
        self._of[node.order] = entry
        for step in inner:
            self._inner[step.order] = entry, ""
        for parent, (x, key) in zip(node.parents, named, strict=False):
            if not inner and parent is not None and parent is not x.node:
                self._inner[parent.order] = entry, key
                self._targets[parent.order] = f"expand of {key}"
        for x, _ in named:
            if type(getattr(x, "node", None)) is Accumulator:
                self.leaves_by_order[x.node.order] = self._names.of(x, frame)

    def backward_pass(self, nodes: Sequence[Any], wanted: Collection[Any] | None) -> Pass:
        """A backward pass over these nodes begins; only those in `wanted` get gradients."""
        return Pass(self, nodes, wanted)

    def work(self, name: str, start: float) -> None:
        """Note a function that is no op."""
        seconds = time.perf_counter() - start
        self.entries.append(Work(len(self.entries), name, start - self._began, seconds))

    # -- what is noted --

    def _value(self, x: Any, name: str, frame: FrameType | None) -> Value:
        if not isinstance(x, Tensor):
            is_long = type(x) is int and abs(x) >> 63  # too long for int64
            x = Tensor(float(x) if is_long else x)
        return value_of(x, name, self._names.of(x, frame), self._copy(x) if self.values else None)

    def _gradient(self, dx: Any, name: str, source: str, copy: bool = False) -> Value:
        """copy: for a result, which the backward pass may add to in place. A gradient that a
        backward function was given is written no more.
        """
        array = as_array(dx)  # a backward function may return a scalar
        shown = None
        if self.values:
            shown = _duplicate(to_host(array)) if copy else to_host(array).view()
            shown.flags.writeable = False
        return value_of(Tensor.from_array(array), name, source, shown)

    def _copy(self, x: Tensor) -> Any:
        """The values of a tensor as they are now, in the same order of memory. Entries share a
        copy as long as the values are the same.
        """
        array = to_host(x.array)
        known = self._copies.get(x)
        if known is None or not _same_bits(known, array):
            known = _duplicate(array)
            self._copies.set(x, known)
        return known

    def _argument(self, x: Any, array: Any) -> Any:
        """An argument to call the op's function with again. 16-bit floats are widened to float32,
        as for every op.
        """
        if not isinstance(x, Tensor):
            return array
        if not self.values:
            return UNKNOWN
        copy = self._copy(x)
        return copy.astype(float32) if copy.dtype in NARROW else copy

    def _saved(
        self, nodes: Sequence[Node], tensors: Sequence[Any], arrays: Sequence[Any]
    ) -> tuple[Saved, ...]:
        """What the last of these nodes keeps, each array once."""
        if not nodes or not nodes[-1].saved:
            return ()
        node = nodes[-1]
        names = {id(value): name for name, value in node.kept().items()}
        owners: dict[int, Tensor] = {}  # by the ids of their arrays and storages
        for x, array in reversed(list(zip(tensors, arrays, strict=False))):
            if isinstance(x, Tensor):
                owners |= {id(array): x, id(x._storage): x}
        found: dict[int, Saved] = {}
        for storage, _, array in node.saved:
            memory = getattr(storage, "storage", storage)  # weight.T is the weight's memory
            owner = owners.get(id(array), owners.get(id(memory)))
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
        return self._targets.get(node.order) or elsewhere(node.op)

    # -- reading it --

    @property
    def nodes(self) -> int:
        """How many nodes the graph got."""
        return len(self._of) + len(self._inner)

    __getitem__ = find.array
    table = report.table
    save = report.save

    def by(self, what: Literal["module", "op"]) -> list[report.Total]:
        """Calls, time and bytes of each module, or each op, the slowest first."""
        return report.totals(self.entries, what)


class Pass:
    """One backward pass: how many gradients each node waits for, and how many have come."""

    def __init__(self, recording: Recording, nodes: Sequence[Any], wanted: Collection[Any] | None):
        self.recording, self.values, self._wanted = recording, recording.values, wanted
        self._uses: Counter[Any] = Counter()
        self._arrived: Counter[Any] = Counter()
        self.expect(nodes)

    def expect(self, nodes: Sequence[Any]) -> None:
        """Count the gradients that these nodes will pass on. A checkpoint itself passes on none:
        its function runs again first, and then `expect` gets the nodes of that run.
        """
        for node in nodes:
            if type(node) is Node and type(node.backward) is not Recomputed:
                self._uses.update(parent for parent in node.parents if parent is not None)

    def arrived(self, node: Any) -> tuple[int, int] | None:
        """Count a gradient for a node: (its number, the number of all). None where no gradient is
        wanted.
        """
        if node is None or (self._wanted is not None and node not in self._wanted):
            return None
        self._arrived[node] += 1
        return self._arrived[node], self._uses[node]

    def backward(
        self,
        node: Node,
        upstream: Sequence[Array | None],
        gradients: Sequence[Any],
        start: float,
    ) -> None:
        """Note a backward that has just run, and the gradients that it passes on."""
        synchronize(next(dy for dy in upstream if dy is not None))
        seconds = time.perf_counter() - start
        recording = self.recording
        of = recording._of.get(node.order)
        caller, through = recording._inner.get(node.order, (of, ""))
        module = caller.module if caller else ""
        name = f"{module}.{node.op}.backward".lstrip(".")
        name = f"{of.name}.backward" if of else recording._names.numbered(name)
        count = len(node.parents)
        names = [through] * count if through else inputs_of(node.op, count)
        contributions = []
        for parent, dx, key in zip(node.parents, gradients, names, strict=True):
            if dx is not None and (arrived := self.arrived(parent)) is not None:
                value = recording._gradient(dx, f"d{key}", name, copy=True)
                contributions.append(Contribution(key, recording._target(parent), *arrived, value))
        dys = tuple(None if dy is None else recording._gradient(dy, "dy", name) for dy in upstream)
        target = recording._target(node)
        several = [f"{target}[{i}]" for i in range(node.outputs)]
        entry = Backward(
            number=len(recording.entries),
            name=name,
            module=module,
            op=node.op,
            of=of,
            upstream=dys,
            to=tuple(several) if node.outputs > 1 else (target,),
            contributions=tuple(contributions),
            start=start - recording._began,
            seconds=seconds,
        )
        recording.entries.append(entry)


def _implementation(op: str, how: str | None) -> tuple[str, str]:
    """What computed an op that has just run, and why."""
    if how:
        return how, "no data moves: another layout of the same memory"
    if not kernels.KERNELS.get(op):
        return "reference", "there is no kernel for it"
    name, reason = kernels.latest(op)
    fused = "fused " if op in FUSED.values() else ""
    return (name, reason) if name == "reference" else (f"{fused}kernel {name}", reason)


def _duplicate(array: Any) -> Any:
    """A read-only copy, with the same strides where they take little more memory. With other
    strides, sums and products are rounded otherwise.
    """
    flat, layout = flatten(array)
    copy = window(flat.copy(), layout) if flat.size <= 2 * array.size else array.copy(order="K")
    copy.flags.writeable = False
    return copy


def _same_bits(a: Any, b: Any) -> bool:
    """Whether two arrays have the same bits. (0.0 == -0.0, but 1 / 0.0 is not 1 / -0.0.)"""
    bits = f"u{a.itemsize}"
    return a.dtype == b.dtype and np.array_equal(a.view(bits), b.view(bits))
