"""A field of a configuration: its default, its help, its bounds."""

from __future__ import annotations

import operator
import typing
from collections.abc import Callable
from dataclasses import field, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple

from tinygpt.errors import InputError

VOCABULARY = 10_000_000  # tokens, forty times the most that is in use

STEPS = 1_000_000_000

# for numbers that no arithmetic bounds, such as learning rates: beyond, float32 only overflows
LARGE = 1_000_000

SEEDS = 2**64 - 1

DTYPES = "float32", "float64", "bfloat16", "float16"


class ConfigError(InputError):
    """A choice that cannot be, or two that do not go together; says which, and what would."""


def check(condition: bool, message: str) -> None:
    """Raise ConfigError with the message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


KINDS: dict[type, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "true or false"),
    str: (str, "text"),
    tuple: (tuple, "a list of texts"),
}

LIMITS: dict[str, tuple[str, Callable[[Any, Any], bool]]] = {  # in the order of messages
    "least": ("at least", operator.ge),
    "above": ("above", operator.gt),
    "most": ("at most", operator.le),
    "below": ("below", operator.lt),
}


def option(default: Any, text: str, metavar: str | None = None, **limits: float) -> Any:
    """A field: its default (MISSING for none), its line in `--help`, what that line calls the value
    (N for numbers, if not given), its LIMITS.
    """
    return field(default=default, metadata={"help": text, "metavar": metavar, **limits})


def changed(config: Any, name: str, default: Any) -> Any:
    """The field of another configuration, with another default."""
    return field(default=default, metadata=config.__dataclass_fields__[name].metadata)


class Kind(NamedTuple):
    """What a field's annotation says."""

    type: type
    choices: tuple[str, ...] = ()
    optional: bool = False  # it may be None


@cache
def kinds(config: Any) -> dict[str, Kind]:
    """Of each field its Kind.   int | None -> int, optional;   Literal["pre", "post"] -> str and
    its choices.
    """
    return {name: _kind(hint) for name, hint in typing.get_type_hints(config).items()}


def _kind(hint: Any) -> Kind:
    parts = [part for part in typing.get_args(hint) if part is not type(None)]
    if typing.get_origin(hint) is Literal:
        return Kind(str, tuple(parts))
    if typing.get_origin(hint) is tuple:
        return Kind(tuple)
    return _kind(parts[0])._replace(optional=True) if parts else Kind(hint)


def check_fields(config: Any) -> None:
    """Raise ConfigError unless each field holds what its annotation, its choices and its limits
    say: files may have been edited.
    """
    for f in fields(config):
        kind, value = kinds(config.__class__)[f.name], getattr(config, f.name)
        if value is None and kind.optional:
            continue
        if kind.choices:
            check(value in kind.choices, f"{f.name} {value!r}: choose {one_of(kind.choices)}")
            continue
        known, said = KINDS[kind.type]
        check(
            isinstance(value, known) and (kind.type is bool) == isinstance(value, bool),
            f"{f.name} {value!r}: {said} is needed",
        )
        limits = {name: limit for name, limit in f.metadata.items() if name in LIMITS}
        bounds = " and ".join(f"{LIMITS[name][0]} {limit:,}" for name, limit in limits.items())
        check(
            all(LIMITS[name][1](value, limit) for name, limit in limits.items()),
            f"{f.name} {value!r}: {said}, {bounds}, is needed",
        )


def one_of(choices: tuple[str, ...]) -> str:
    """pre or post;   character, byte, word or bpe"""
    return f"{', '.join(choices[:-1])} or {choices[-1]}"
