"""Recording: how ops, and their backward, come onto a tape.

Switched off, it costs an op one look at the mode. What is recorded stays as it was: all arrays are copies.
"""

from __future__ import annotations

import sys
import time
import weakref
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import numpy as np

from tensor import kernels
from tensor.core import Tensor
from tensor.devices import Array, address, as_array, synchronize, to_host
from tensor.dtypes import NARROW, float32
from tensor.graph import Accumulator, Node, Output
from tensor.mode import Switch
from tensor.nn.module import Module
from tensor.op import FUSED
from tensor.recompute import Recomputed
from tensor.storage import user_frame, user_line
from tensor.tape import find, report
from tensor.tape.entries import UNKNOWN, Backward, Contribution, Entry, Forward, Saved, Value, Work, parameters_of


class Recording(Switch):
    """`with record() as tape:`"""

    def __init__(self, tape: Tape, **changes: Any):
        super().__init__(tape=tape, **changes)
        self._tape = tape

    def __enter__(self) -> Tape:  # type: ignore[override]
        super().__enter__()
        return self._tape


def record(implementation: Literal["as run", "reference"] = "as run", *, values: bool = True) -> Recording:
    """`with record() as tape:` keeps every op that runs inside, forward and backward.

    implementation: "as run" records what does the work, kernels and fused ops among them; "reference" turns the kernels off inside, so that
    every composition runs op by op and every intermediate exists.   values=False keeps shapes, times and bytes, and no array: to measure.
    """
    if implementation not in ("as run", "reference"):
        raise ValueError(f'implementation {implementation!r}: choose "as run" or "reference"')
    off = {"kernels_off": frozenset("*")} if implementation == "reference" else {}
    return Recording(Tape(implementation, values), **off)


class Tape:
    """What `record` gives: entries in the order they ran."""

    def __init__(self, implementation: str = "as run", values: bool = True):
        self.implementation, self.values = implementation, values
        self.entries: list[Entry] = []
        self._began = time.perf_counter()
        self._modules: dict[int, str] = {}  # id -> path
        self._roots: list[Module] = []  # kept, so that no other object gets those ids
        self._names: dict[int, tuple[weakref.ref[Tensor], str]] = {}  # id of a tensor -> what it is called
        self._copies: dict[int, Any] = {}  # id of a tensor -> its last copy
        self._times: Counter[str] = Counter()  # how often a name came
        self._of: dict[Node, Forward] = {}
        self._leaves: dict[Accumulator, str] = {}
        self._expanded: dict[Node, tuple[Forward, str]] = {}  # the expand of broadcasting -> the op that it serves, and the input
        self._uses: Counter[Any] = Counter()  # contributions that a node waits for, in this walk
        self._arrived: Counter[Any] = Counter()

    # -- called by ops --

    def forward(self, op: str, inputs: Sequence[Any], arrays: Sequence[Any], options: dict[str, Any], out: Any, start: float, how: str | None = None) -> None:
        """Note an op that has just run. how: "view"; else what `kernels` says of its latest call."""
        outs = out if type(out) is tuple else (out,)
        if outs:
            synchronize(outs[0].array)
        end = time.perf_counter()
        frame = sys._getframe(2)
        module, within = self._place(frame)
        implementation, reason = (how, "no data moves: another layout of the same memory") if how else _implementation(op)
        name = self._numbered(f"{module}.{op}" if module else op)
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
            self._of[node] = entry
            for parent, x, n in zip(node.parents, inputs, names, strict=False):
                if type(parent) is Accumulator:
                    self._leaves[parent] = self._source(x, frame)
                elif type(parent) is Node and parent not in self._of:
                    self._expanded[parent] = entry, n
                    if type(leaf := parent.parents[0] if parent.parents else None) is Accumulator:
                        self._leaves[leaf] = self._source(x, frame)

    def expect(self, nodes: Sequence[Any], again: bool = False) -> None:
        """Count the contributions that a walk over these nodes will bring. again: nodes that a checkpoint adds to the walk under way.

        A checkpoint itself brings none: those of its function are counted when that has run again.
        """
        if not again:
            self._uses.clear()
            self._arrived.clear()
        self._uses.update(
            parent for node in nodes if type(node) is Node and type(node.backward) is not Recomputed for parent in node.parents if parent is not None
        )

    def backward(self, node: Node, upstream: Sequence[Array | None], gradients: Sequence[Any], start: float) -> None:
        """Note a backward that has just run, and what it hands to whom."""
        synchronize(next(dy for dy in upstream if dy is not None))
        end = time.perf_counter()
        of = self._of.get(node)
        serves, through = self._expanded.get(node, (of, "x"))
        module = serves.module if serves else ""
        name = f"{of.name}.backward" if of else self._numbered(f"{module}.{node.op}.backward" if module else f"{node.op}.backward")
        names = parameters_of(node.op, len(node.parents)) if of else [through] * len(node.parents)
        contributions = []
        for parent, dx, key in zip(node.parents, gradients, names, strict=True):
            if parent is not None and dx is not None:
                self._arrived[parent] += 1
                contributions.append(Contribution(key, self._target(parent), self._arrived[parent], self._uses[parent], self._gradient(dx, f"d{key}", name)))
        dys = tuple(None if dy is None else self._gradient(dy, "dy", name) for dy in upstream)
        self.entries.append(Backward(len(self.entries), name, module, node.op, of, dys, tuple(contributions), start - self._began, end - start))

    def work(self, name: str, start: float) -> None:
        """Note what is no op."""
        self.entries.append(Work(len(self.entries), name, start - self._began, time.perf_counter() - start))

    # -- what is noted --

    def _place(self, frame: FrameType | None) -> tuple[str, tuple[str, ...]]:
        """(the path of the innermost module whose method is running, the fused ops that are). Of the outermost module, the method's name."""
        modules: list[Module] = []
        within: list[str] = []
        method = ""
        while frame is not None:
            code = frame.f_code
            if code in FUSED:
                within.insert(0, FUSED[code])
            if code.co_varnames[:1] == ("self",) and isinstance(owner := frame.f_locals.get("self"), Module):
                method = method or code.co_name
                modules.append(owner)
            frame = frame.f_back
        if not modules:
            return "", tuple(within)
        if id(modules[0]) not in self._modules:
            self._adopt(modules[-1])
        path = self._modules.get(id(modules[0]), type(modules[0]).__name__)
        return path or method.strip("_").replace("call", ""), tuple(within)

    def _adopt(self, root: Module) -> None:
        """Learn the names of a model's modules, parameters and buffers."""
        self._roots.append(root)
        for path, module in root.named_modules():
            self._modules.setdefault(id(module), path)
            for name, value in vars(module).items():
                if isinstance(value, Tensor):
                    self._names.setdefault(id(value), (weakref.ref(value), f"{path}.{name}" if path else name))

    def _numbered(self, name: str) -> str:
        self._times[name] += 1
        return name if self._times[name] == 1 else f"{name}#{self._times[name]}"

    def _source(self, x: Any, frame: FrameType | None) -> str:
        """What made a tensor, or what it is called: by the model, or by the variable in the user's code that holds it."""
        if not isinstance(x, Tensor):
            return "constant"
        made = self._names.get(id(x))
        if made is not None and made[0]() is x:
            return made[1]
        variables = user_frame(frame).f_locals if frame else {}
        name = next((key for key, value in variables.items() if value is x), None)
        if name is None:
            return "constant" if x.node is None else "leaf" if x.is_leaf else f"{x.node.op}, before the recording"
        self._names[id(x)] = weakref.ref(x), name
        return name

    def _value(self, x: Any, name: str, frame: FrameType | None, made: str | None = None) -> Value:
        if not isinstance(x, Tensor):
            x = Tensor(x)
        if made is not None:
            self._names[id(x)] = weakref.ref(x), made if name == "y" else f"{made}{name[1:]}"
        layout, dtype = x.layout, x.dtype
        copy = self._copy(x) if self.values else None
        facts = layout.shape, layout.strides, layout.offset, layout.is_contiguous, dtype.name, x.device, layout.size * dtype.itemsize
        return Value(name, self._source(x, frame), *facts, copy)

    def _gradient(self, dx: Array, name: str, source: str) -> Value:
        """No copy: the walk adds in place only to arrays that no rule was given, and none of those is shown here."""
        x = Tensor.from_array(dx)
        facts = x.shape, x.strides, x.offset, x.is_contiguous(), x.dtype.name, x.device, int(dx.nbytes)
        if not self.values:
            return Value(name, source, *facts, None)
        window = as_array(to_host(dx)).view()  # as_array: a rule may return a NumPy scalar
        window.flags.writeable = False
        return Value(name, source, *facts, window)

    def _copy(self, x: Tensor) -> Any:
        """The tensor's values as they are now; one copy for all entries that meet them."""
        array, known = to_host(x.array), self._copies.get(id(x))
        if known is None or known.shape != array.shape or known.dtype != array.dtype or not np.array_equal(known, array, equal_nan=True):
            known = self._copies[id(x)] = array.copy()
            known.flags.writeable = False
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
        owners = {id(array): x for x, array in zip(tensors, arrays, strict=False) if isinstance(x, Tensor)}
        found: dict[int, Saved] = {}
        for _, _, array in node.saved:
            owner = owners.get(id(array))
            made = owner is None or owner.node is None or not owner.is_leaf
            source = "" if owner is None else self._source(owner, None)
            found[id(array)] = Saved(names.get(id(array), ""), source, array.shape, array.dtype.name, int(array.nbytes), made, address(as_array(array)))
        return tuple(found.values())

    def _target(self, node: Any) -> str:
        """The name of what a gradient belongs to."""
        if type(node) is Accumulator:
            return self._leaves.get(node, "leaf")
        if type(node) is Output:
            return f"{self._target(node.parents[0])}[{node.index}]"
        if node in self._expanded:
            return f"expand of {self._expanded[node][1]}"
        return self._of[node].name if node in self._of else f"{node.op}, before the recording"

    # -- reading it --

    @property
    def nodes(self) -> int:
        """How many nodes the graph got."""
        return len(self._of) + len(self._expanded)

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
        return next((x for ref, known in self._names.values() if known == name and (x := ref()) is not None and x.is_leaf), None)


def _implementation(op: str) -> tuple[str, str]:
    """What did an op that has just run, and why that."""
    if op not in kernels.KERNELS or not kernels.KERNELS[op]:
        return "reference", "there is no kernel for it"
    name, reason = kernels.latest(op)
    fused = "fused " * any(op == known for known in FUSED.values())
    return (name, reason) if name == "reference" else (f"{fused}kernel {name}", reason)
