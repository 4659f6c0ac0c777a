"""Parameter groups: which parameters an optimiser moves, and with which numbers.

SGD(model, lr=0.1)                                        one group
SGD([w, b], lr=0.1)                                       one group
SGD([{"params": [w], "lr": 0.01}, {"params": [b]}], lr=0.1)   two; lr=0.1 is that of the second
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from tensor.errors import ArgumentError, OptionError
from tensor.nn.module import Module
from tensor.tensor import Tensor

Rate: TypeAlias = "float | Callable[[int], float]"  # or a function of the step, from 0
Named: TypeAlias = "list[tuple[str, Tensor]]"
# what an optimiser takes
Parameters: TypeAlias = "Module | Iterable[Tensor] | Iterable[dict[str, Any]]"

_NOT_NEGATIVE = (lambda x: 0 <= x < math.inf), "a number from 0 on is needed"
# option -> whether a value can be, and which can
BOUNDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lr": _NOT_NEGATIVE,
    "adamw_lr": _NOT_NEGATIVE,
    "weight_decay": _NOT_NEGATIVE,
    "momentum": _NOT_NEGATIVE,
    "betas": (
        lambda betas: len(betas) == 2 and all(0 <= b < 1 for b in betas),
        "two numbers are needed, from 0 on and below 1",
    ),
    "eps": (
        lambda eps: 0 < eps < math.inf,
        "above 0, or an element whose gradient was always 0 would become 0 / 0",
    ),
}


def check_options(kind: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for the first option that has no possible value, with the value."""
    for name, (possible, words) in BOUNDS.items():
        if name in options:
            try:
                fits = possible(options[name])
            except TypeError:  # no number
                fits = False
            if not fits:
                raise OptionError(f"{kind} {name}={options[name]!r}: {words}")


def numbers_of(kind: str, group: Mapping[str, Any], step: int) -> dict[str, Any]:
    """The options of a group at a step: functions of the step become numbers. Raises ValueError."""
    options = {
        name: value(step) if callable(value) else value
        for name, value in group.items()
        if name != "params"
    }
    check_options(kind, options)
    return options


def check_unchanged(kind: str, group: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Raise TypeError unless a group has the options and the parameters that it was made with."""
    added = [name for name in group if name not in made]
    absent = [name for name in made if name not in group]
    known = ", ".join(name for name in made if name != "params")
    if added:
        raise ArgumentError(f"{kind}: a group has {added[0]!r}, and the options are {known}")
    if absent:
        raise ArgumentError(
            f"{kind}: a group has no {absent[0]!r} any more; the options are {known}"
        )
    if group["params"] is not made["params"]:
        raise ArgumentError(
            f'{kind}: the "params" of a group are those that the optimiser was made with: '
            "make a new optimiser of all groups"
        )


def groups_of(
    kind: str, parameters: Parameters, options: dict[str, Any]
) -> list[tuple[dict[str, Any], Named, bool]]:
    """(the options of a group and its "params", the parameters by name, whether the group itself
    sets weight_decay), for each group. `options` are those of a group that names none.

    Raises TypeError and ValueError, with the place in the list.
    """
    if isinstance(parameters, Module) and not any(True for _ in parameters.parameters()):
        raise OptionError(
            f"{kind}: this {type(parameters).__name__} has no nn.Parameter, so nothing would "
            "learn: set layers or nn.Parameter(values) as its attributes"
        )
    given: list[Any] = (
        [{"params": parameters}]
        if isinstance(parameters, Module)
        else elements(kind, parameters, dict)
    )
    if not any(isinstance(part, dict) for part in given):
        given = [{"params": given}]
    several = len(given) > 1
    groups: list[tuple[dict[str, Any], Named, bool]] = []
    for i, group in enumerate(given):
        if not isinstance(group, dict) or "params" not in group:
            raise ArgumentError(f'{kind}: group {i} is no dict with "params", as another group is')
        unknown = [name for name in group if name not in ("params", *options)]
        if unknown:
            known = ", ".join(options)
            raise ArgumentError(
                f"{kind}: group {i} has {unknown[0]!r}, and the options are {known}"
            )
        named = named_in(kind, group["params"])
        full = {**options, **group, "params": tuple(p for _, p in named)}
        numbers_of(f"{kind} group {i}" if several else kind, full, 0)
        prefix = f"{i}." if several else ""
        placed = [(prefix + name, parameter) for name, parameter in named]
        groups.append((full, placed, "weight_decay" in group))
    _once_each(kind, [placed for _, placed, _ in groups])
    return groups


def _once_each(kind: str, groups: list[Named]) -> None:
    """Raise ValueError where two groups share a parameter, or none learns."""
    first: dict[int, str] = {}
    for named in groups:
        for name, parameter in named:
            if id(parameter) in first:
                places = [
                    "{2} of group {0}".format(*full.partition("."))
                    for full in (first[id(parameter)], name)
                ]
                raise OptionError(
                    f"{kind}: parameter {places[0]} and parameter {places[1]} are one and the "
                    "same: leave the parameter out of one of the groups"
                )
            first[id(parameter)] = name
    learning = [p.requires_grad for named in groups for _, p in named]
    if not any(learning):
        had = f"{len(learning)} that are all frozen" if learning else "an empty list"
        raise OptionError(f"{kind} needs a parameter with requires_grad=True, and got {had}")


def named_in(kind: str, parameters: Any) -> Named:
    """The parameters of a module or of a list by name, each once. Those of a list are numbered."""
    if isinstance(parameters, Module):
        return list(parameters.named_parameters())
    return [(str(i), p) for i, p in enumerate(dict.fromkeys(elements(kind, parameters)))]


def elements(kind: str, parameters: Any, *others: type) -> list[Any]:
    """The elements of a list, leaves or of the other types. Raises TypeError for anything else, and
    ValueError for the result of an op.
    """
    if isinstance(parameters, (Tensor, dict, str)) or not isinstance(parameters, Iterable):
        word = type(parameters).__name__
        raise ArgumentError(f"{kind} got a {word}: give it a module, or a list of parameters")
    found = list(parameters)
    for i, part in enumerate(found):
        if not isinstance(part, (Tensor, *others)):
            word = type(part).__name__
            raise ArgumentError(
                f"{kind}: element {i} is a {word}, and parameters are needed: a module, or "
                "model.parameters()"
            )
        if isinstance(part, Tensor) and not part.is_leaf:
            raise OptionError(
                f"{kind}: element {i} is the result of `{part.node.op}`, and only leaves learn"
            )
    return found
