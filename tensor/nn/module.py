"""Module: a thing with parameters, found by walking its attributes in the order they were set."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from tensor import files, graph
from tensor.dtypes import FLOATS, DTypeLike, as_dtype
from tensor.errors import ArgumentError, DTypeError, GraphError, brief
from tensor.memory.devices import move
from tensor.mode import MODE, Switch, switch
from tensor.nn.answers import ModuleNames
from tensor.nn.packing import Flat, group_of, pack
from tensor.nn.state import check
from tensor.nn.tree import tree
from tensor.ops.views import targets_of
from tensor.tensor import Tensor

M = TypeVar("M", bound="Module")
Named = TypeVar("Named", bound=Tensor)


class Parameter(Tensor):
    """A leaf that a model learns: it requires gradients by default.

    `role` is what the numbers are for, and optimisers ask for it: "matrix" maps vectors to vectors,
    "table" has a row for each token or position, "head" turns a vector into logits, "vector" is a
    gain or a bias. By default a parameter of two or more axes is a matrix.
    """

    __slots__ = ("role",)

    def __init__(
        self, data: Any, *, requires_grad: bool = True, role: str | None = None, **options: Any
    ):
        super().__init__(data, requires_grad=requires_grad, **options)
        self.role = role or ("matrix" if self.ndim >= 2 else "vector")


def role_of(parameter: Tensor) -> str:
    """The role of a parameter; a tensor that is none counts as a matrix."""
    return getattr(parameter, "role", "matrix")


def _found(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Modules and parameters in an attribute, with their dotted names."""
    if isinstance(value, (Module, Parameter)):
        yield name, value
    elif isinstance(value, (list, tuple, dict)):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _found(f"{name}.{key}", part)


def _once(named: Iterable[tuple[str, Named]]) -> Iterator[tuple[str, Named]]:
    """Each tensor under its first name."""
    seen: set[int] = set()
    for name, tensor in named:
        if id(tensor) not in seen:
            seen.add(id(tensor))
            yield name, tensor


def _check_buffer(name: str, value: Any) -> None:
    """Raise ArgumentError for what cannot be a buffer."""
    if value is not None and (not isinstance(value, Tensor) or isinstance(value, Parameter)):
        raise ArgumentError(
            f"the buffer {name!r} holds a Tensor or None, not a {type(value).__name__}: "
            "write Tensor(values); what learns is a plain attribute, nn.Parameter(values)"
        )


class Module(ModuleNames):
    """Base of layers and models. Parameters and modules set as attributes are found, also in lists,
    tuples and dicts to any depth, and are not registered. Buffers are: see `register_buffer`.
    """

    training = True
    flats: tuple[Flat, ...] = ()  # filled by pack()
    _buffers: tuple[str, ...] = ()  # the attributes that state_dict() has beside the parameters

    def __setattr__(self, name: str, value: Any) -> None:
        """Raises TypeError where a plain tensor would take the place of a parameter, and so would
        not learn, and where something else would take the place of a buffer.
        """
        if name in self._buffers:
            _check_buffer(name, value)
        lost = not isinstance(value, Parameter) and value is not None
        if lost and isinstance(vars(self).get(name), Parameter):
            raise TypeError(
                f"`{name}` of this {type(self).__name__} is a Parameter, and a "
                f"{type(value).__name__} in its place would not learn: write the values with "
                f"`with no_grad(): module.{name}[...] = values`, or set nn.Parameter(values)"
            )
        super().__setattr__(name, value)

    @brief
    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Set a tensor that does not learn as an attribute, such as a running mean. `state_dict`
        has it, and so has a file of `save`. `self.name = tensor` sets another tensor later.

        persistent=False, like a tensor set as a plain attribute: `state_dict` does not have it.
        `to` moves buffers of both kinds. Raises ArgumentError for anything but a tensor or None,
        and for a name that is taken.
        """
        _check_buffer(name, tensor)
        taken = hasattr(self, name) and name not in self._buffers
        if taken or not name.isidentifier():
            problem = "is an attribute already" if taken else "cannot be the name of an attribute"
            raise ArgumentError(f"register_buffer: {name!r} {problem}")
        setattr(self, name, tensor)
        if persistent:
            self._buffers = (*self._buffers, name)

    def _children(self) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            yield from _found(name, value)

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        """What `forward` returns. A class defines `forward`, or `__call__` itself."""
        forward = getattr(self, "forward", None)
        if forward is None:
            raise TypeError(f"{type(self).__name__} defines neither forward(self, x) nor __call__")
        return forward(*inputs, **options)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below, with dotted names, in the order of definition."""
        yield prefix, self
        for name, child in self._children():
            if isinstance(child, Module):
                yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        """This module and all below, each once."""
        return iter(dict.fromkeys(module for _, module in self.named_modules()))

    def children(self) -> Iterator[Module]:
        """The modules that are attributes of this one, also in containers, each once."""
        found = (child for _, child in self._children())
        return iter(dict.fromkeys(child for child in found if isinstance(child, Module)))

    def apply(self: M, function: Callable[[Module], Any]) -> M:
        """Call `function(module)` for this module and all below, the innermost first."""
        for child in self.children():
            child.apply(function)
        function(self)
        return self

    def named_parameters(self, prefix: str = "") -> Iterator[tuple[str, Parameter]]:
        """Each parameter once, in the order of definition, under its first name: a tied one has
        several.
        """
        return _once(self._named(f"{prefix}." if prefix else ""))

    def named_buffers(self, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """Each buffer of `state_dict` once, under its first name."""
        return _once(
            (f"{path}.{name}" if path else name, getattr(module, name))
            for path, module in self.named_modules(prefix)
            for name in module._buffers
            if getattr(module, name, None) is not None
        )

    def buffers(self) -> Iterator[Tensor]:
        """The buffers of `state_dict` without their names."""
        return (buffer for _, buffer in self.named_buffers())

    def _named(self, prefix: str) -> Iterator[tuple[str, Parameter]]:
        for name, child in self._children():
            if isinstance(child, Module):
                yield from child._named(f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", child

    @brief
    def parameters(self) -> Iterator[Parameter]:
        """The parameters without their names."""
        return (parameter for _, parameter in self.named_parameters())

    @brief
    def zero_grad(self) -> None:
        """Forget all gradients: `.grad` is None again."""
        for parameter in self.parameters():
            parameter.grad = None

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Let all parameters learn, or freeze them."""
        for parameter in self.parameters():
            parameter.requires_grad = requires_grad
        return self

    def train(self: M, mode: bool = True) -> M:
        """Training behaviour (dropout on) for this module and all below."""
        for _, module in self.named_modules():
            module.training = mode
        return self

    def eval(self: M) -> M:
        """Evaluation behaviour (dropout off) for this module and all below."""
        return self.train(False)

    @property
    def learning(self) -> bool:
        """Whether to behave as in training: `training` is set, and no `evaluating()` is around."""
        return self.training and not MODE.get().evaluating

    @brief
    def state_dict(self) -> dict[str, Tensor]:
        """name -> parameter or buffer, detached: the model's own memory, not a copy."""
        own = (*self.named_parameters(), *self.named_buffers())
        return {name: value.detach() for name, value in own}

    @brief
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Write the tensors or arrays of `state` into the parameters and buffers, cast to their
        dtypes. Raises StateError for names and shapes that differ, before anything is written.
        """
        own = self.state_dict()
        check(type(self).__name__, own, state)
        arrays = {name: getattr(value, "array", value) for name, value in state.items()}
        moved = {name: move(arrays[name], value.device) for name, value in own.items()}
        for name, value in own.items():
            value[...] = moved[name]

    @brief
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the `state_dict` to a safetensors file, which is whole or absent."""
        files.save(path, self.state_dict())

    @brief
    def load(self, path: str | os.PathLike[str]) -> None:
        """Take parameters and buffers from a file of `save`: all of them, or none. Raises FileError
        and StateError.
        """
        self.load_state_dict(files.load(path))

    def __repr__(self) -> str:
        return tree(self)

    @brief
    def __getstate__(self) -> Any:
        """For `copy` and `pickle`. Raises GraphError for an attribute that is a result, by name."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor) and not value.is_leaf:
                raise GraphError(
                    f"copy of a {type(self).__name__}: its attribute `{name}` is a result in a "
                    f"graph (of `{graph.op_of(value.node).op}`). Keep {name}.detach(), or set "
                    "the attribute to None before"
                )
        return super().__getstate__()

    @brief
    def to(self: M, *targets: Any, dtype: DTypeLike | None = None, device: str | None = None) -> M:
        """model.to("float64"), model.to("cuda"), model.to(dtype=..., device=...)

        Every parameter in another dtype or on another device, the same Parameter objects with
        the same hooks; gradients are dropped, packing is redone. A parameter that is already so
        stays as it is.

        Buffers (tensors that are no parameters) come along; integers and bools among them keep
        their dtype. Raises DTypeError unless dtype is a float.
        """
        dtype, device = targets_of(targets, dtype, device)
        if dtype is not None and as_dtype(dtype) not in FLOATS:
            raise DTypeError(f"parameters learn, so they are floats, not {as_dtype(dtype)}")
        stays = True
        for parameter in self.parameters():
            moved = Tensor(parameter, dtype=dtype, device=device)
            if (moved.dtype, moved.device) == (parameter.dtype, parameter.device):
                continue
            stays = False
            parameter.relocate(moved.storage, moved.layout)
            if parameter.leaf is not None:
                parameter.leaf.become(moved.dtype)
        for _, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Tensor) and not isinstance(value, Parameter):  # a buffer
                    kept = dtype if value.dtype in FLOATS else None
                    setattr(module, name, value.to(dtype=kept, device=device))
        if self.flats and not stays:
            self.pack()
        return self

    @property
    def packed(self) -> bool:
        """Whether `flats` hold this module's parameters as they are now: all of them, and none that
        is gone.
        """
        here = {id(slot.parameter) for flat in self.flats for slot in flat.slots}
        current = bool(here) and all(flat.current for flat in self.flats)
        return current and here == set(map(id, self.parameters()))

    def pack(self, group: Callable[[Tensor], str] = group_of) -> tuple[Flat, ...]:
        """Lay the parameters and their gradients out flat, one storage for each dtype and group;
        see packing.py.
        """
        self.flats = pack(self.named_parameters(), group)
        return self.flats


@switch
def evaluating() -> Switch[None]:
    """`with evaluating():` all modules behave as in evaluation (no dropout), whatever they are set
    to.
    """
    return Switch(evaluating=True)
