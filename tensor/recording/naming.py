"""What stands on a tape under which name: modules by their path in the model, tensors by the
model's name for them, by the op that made them, or by the variable that held them first.

No name is given twice: a second thing of one name has #2 behind it. Of several models the first
gives its names bare, another begins them with the name of its class. All is known by weak
reference, so a name keeps nothing alive and is not inherited by what comes later at the same
address.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tensor.memory.storage import user_frame
from tensor.nn.module import Module, Parameter
from tensor.ops.op import FUSED, OPS
from tensor.tensor import Tensor


class Names:
    """The names on one tape."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()  # how often a name came
        self._modules = _Known()
        self._tensors = _Known()
        # the modules that no other is known to hold -> what their names begin with
        self._roots = _Known()

    def numbered(self, name: str) -> str:
        """The name, with #2 behind it when it comes a second time."""
        self._times[name] += 1
        return name if self._times[name] == 1 else f"{name}#{self._times[name]}"

    # -- modules --

    def place(self, frame: FrameType | None) -> tuple[str, tuple[str, ...]]:
        """(the path of the innermost module whose method is running, the fused ops that are). Of
        the outermost module, the method's name.
        """
        owners: list[Module] = []
        within: list[str] = []
        method = ""
        while frame is not None:
            code = frame.f_code
            if code in FUSED:
                within.insert(0, FUSED[code])
            if code.co_varnames[:1] == ("self",) and isinstance(
                owner := frame.f_locals.get("self"), Module
            ):
                method = method or code.co_name
                owners.append(owner)
            frame = frame.f_back
        if not owners:
            return "", tuple(within)
        if self._modules.get(owners[-1]) is None:
            self._adopt(owners[-1])
        # it ran by itself before
        apart = owners[0] is not owners[-1] and self._roots.get(owners[0]) is not None
        if apart or self._modules.get(owners[0]) is None:  # a model may have got new parts
            for root in self._roots:
                if root is not owners[0]:
                    self._adopt(root)
        if self._modules.get(owners[0]) is None:  # an attribute of none
            self._adopt(owners[0])
        path = self._modules.get(owners[0]) or ""
        if self._roots.get(owners[0]) is not None and method != "__call__":
            path = f"{path}.{method.strip('_')}".lstrip(".")
        return path, tuple(within)

    def _adopt(self, root: Module) -> None:
        """Learn the names of a model's modules, parameters and buffers. Those of a part that ran by
        itself before are given anew.
        """
        modules = dict(root.named_modules())
        parts = [
            module
            for module in modules.values()
            if module is not root and self._roots.get(module) is not None
        ]
        anew = {id(module) for part in parts for _, module in part.named_modules()}
        anew |= {id(x) for part in parts for _, x in _tensors_of(part)}
        if (start := self._roots.get(root)) is None:
            bare = not self._roots or any(self._roots.get(part) == "" for part in parts)
            name = self.numbered(type(root).__name__)
            start = "" if bare else name
        for part in parts:
            self._roots.forget(part)
        self._roots.set(root, start)
        for path, module in modules.items():
            if self._modules.get(module) is None or id(module) in anew:
                self._modules.set(module, f"{start}.{path}".strip("."))
        for name, x in _tensors_of(root):
            if self._tensors.get(x) is None or id(x) in anew:
                self._tensors.set(x, self.numbered(f"{start}.{name}".lstrip(".")))

    # -- tensors --

    def made(self, x: Tensor, name: str) -> None:
        """An op has made it."""
        self._tensors.set(x, name)

    def of(self, x: Any, frame: FrameType | None) -> str:
        """What made a tensor, or what it is called: by the model, or by the variable in the user's
        code that holds it.
        """
        if not isinstance(x, Tensor):
            return "constant"
        if (known := self._tensors.get(x)) is None and isinstance(x, Parameter):
            for root in self._roots:  # it may have come into a model since
                self._adopt(root)
            known = self._tensors.get(x)
        if known is not None:
            return known
        variables = list(user_frame(frame).f_locals.items()) if frame else []
        name = next((key for key, value in variables if value is x and key.isidentifier()), None)
        if name is None and x.node is None:
            return "constant"
        if name is None and not x.is_leaf:
            return elsewhere(x.node.op)
        self._tensors.set(x, known := self.numbered(name or "leaf"))
        return known

    def parameter(self, name: str) -> Tensor | None:
        """The leaf of that name, as it is now; None where it is gone."""
        return next((x for x in self._tensors if x.is_leaf and self._tensors.get(x) == name), None)


def elsewhere(op: str) -> str:
    """What made something, where that is no entry: an op that ran before the recording or on
    another tape, or a checkpoint.
    """
    return f"{op}, not on this tape" if op in OPS else op


def _tensors_of(root: Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and buffers: tensors that are no parameters."""
    yield from root.named_parameters()
    for path, module in root.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not isinstance(value, Parameter):
                yield f"{path}.{name}".lstrip("."), value


class _Known:
    """Objects that live -> what is said of them; by identity."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Any], str]] = {}

    def get(self, thing: Any) -> str | None:
        known = self._found.get(id(thing))
        return known[1] if known is not None and known[0]() is thing else None

    def set(self, thing: Any, what: str) -> None:
        self._found[id(thing)] = weakref.ref(thing), what

    def forget(self, thing: Any) -> None:
        del self._found[id(thing)]

    def __iter__(self) -> Iterator[Any]:
        """Those that are known when their turn comes."""
        return (
            thing for ref, _ in list(self._found.values()) if self.get(thing := ref()) is not None
        )

    def __bool__(self) -> bool:
        return bool(self._found)
