"""The names in a recording. A module has its path in the model. A tensor has the model's name for
it, the name of the op that made it, or the name of the first variable that held it.

No name is given twice: the second thing of one name has #2 behind it. The names of the first model
are bare; those of another model begin with the name of its class. Names are kept by weak reference:
a name keeps nothing alive, and a new object at an old address does not inherit it.
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
    """The names in one recording."""

    def __init__(self) -> None:
        self._times: Counter[str] = Counter()  # how often a name came
        self._known = Known()  # modules and tensors -> their names
        self._roots = Known()  # the outermost modules -> how the names of their parts begin

    def numbered(self, name: str) -> str:
        """The name, with #2 behind it at the second time."""
        self._times[name] += 1
        return name if self._times[name] == 1 else f"{name}#{self._times[name]}"

    # -- modules --

    def caller(self, frame: FrameType | None) -> tuple[str, tuple[str, ...]]:
        """(the path of the innermost module with a running method, the running fused ops). The
        path of an outermost module is the name of the method.
        """
        owners: list[Module] = []
        within: list[str] = []
        method = ""
        while frame is not None:
            code = frame.f_code
            if code in FUSED:
                within.insert(0, FUSED[code])
            if code.co_varnames[:1] == ("self",):
                owner = frame.f_locals.get("self")
                if isinstance(owner, Module):
                    method = method or code.co_name
                    owners.append(owner)
            frame = frame.f_back
        path = self._path(owners[0], owners[-1], method) if owners else ""
        return path, tuple(within)

    def _path(self, module: Module, outermost: Module, method: str) -> str:
        """The path of a module, and the names of all modules that are new."""
        if outermost not in self._known:
            self._adopt(outermost)
        ran_alone = module is not outermost and module in self._roots
        if ran_alone or module not in self._known:  # a model may have got new parts
            for root in self._roots:
                if root is not module:
                    self._adopt(root)
        if module not in self._known:  # no model holds it as an attribute
            self._adopt(module)
        path: str = self._known.get(module)
        if module in self._roots and method != "__call__":
            path = f"{path}.{method.strip('_')}".lstrip(".")
        return path

    def _adopt(self, root: Module) -> None:
        """Name a model's modules, parameters and buffers. Those of a part that ran alone before
        are named anew.
        """
        parts = [m for _, m in root.named_modules() if m is not root and m in self._roots]
        start = self._roots.get(root)
        if start is None:
            name = self.numbered(type(root).__name__)
            bare = not self._roots or "" in map(self._roots.get, parts)
            start = "" if bare else name
        for part in parts:
            self._roots.forget(part)
            for _, thing in _things_of(part):
                self._known.forget(thing)
        self._roots.set(root, start)
        for path, thing in _things_of(root):
            if thing not in self._known:
                name = f"{start}.{path}".strip(".")
                is_tensor = isinstance(thing, Tensor)
                self._known.set(thing, self.numbered(name) if is_tensor else name)

    # -- tensors --

    def made(self, x: Tensor, name: str) -> None:
        """Name a tensor that an op made."""
        self._known.set(x, name)

    def of(self, x: Any, frame: FrameType | None) -> str:
        """What made a tensor; of a leaf the model's name for it, or the name of the variable in
        the user's code that holds it.
        """
        if not isinstance(x, Tensor):
            return "constant"
        if x not in self._known and isinstance(x, Parameter):
            for root in self._roots:  # a model may have got the parameter since
                self._adopt(root)
        if x not in self._known:
            variables = list(user_frame(frame).f_locals.items()) if frame else []
            keys = (key for key, value in variables if value is x and key.isidentifier())
            name = next(keys, None)
            if name is None and x.node is None:
                return "constant"
            if name is None and not x.is_leaf:
                return elsewhere(x.node.op)
            self._known.set(x, self.numbered(name or "leaf"))
        return str(self._known.get(x))


def elsewhere(op: str) -> str:
    """The name of an op that is no entry: the op ran before the recording or in another one, or it
    is a checkpoint.
    """
    return f"{op}, not in this recording" if op in OPS else op


def _things_of(root: Module) -> Iterator[tuple[str, Any]]:
    """Modules, parameters, and buffers: tensors that are no parameters."""
    yield from root.named_modules()
    yield from root.named_parameters()
    for path, module in root.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and not isinstance(value, Parameter):
                yield f"{path}.{name}".lstrip("."), value


class Known:
    """A fact about each of some living objects, found by the identity of the object."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[weakref.ref[Any], Any]] = {}

    def get(self, thing: Any) -> Any:
        """What is known of the object; None where nothing is."""
        ref, fact = self._found.get(id(thing), (None, None))
        return fact if ref is not None and ref() is thing else None

    def set(self, thing: Any, fact: Any) -> None:
        self._found[id(thing)] = weakref.ref(thing), fact

    def forget(self, thing: Any) -> None:
        self._found.pop(id(thing), None)

    def __contains__(self, thing: Any) -> bool:
        return self.get(thing) is not None

    def __iter__(self) -> Iterator[Any]:
        """The objects that live and are not forgotten when their turn comes."""
        things = (ref() for ref, _ in list(self._found.values()))
        return (thing for thing in things if thing in self)

    def __bool__(self) -> bool:
        return bool(self._found)
