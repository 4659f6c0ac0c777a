"""Errors that answer the names of other libraries (answers.py, later.py)."""

from __future__ import annotations

import inspect
import sys
from opcode import opmap
from types import FrameType
from typing import Any

from tensor.answers import HERE, MODULES
from tensor.errors import ArgumentError, brief
from tensor.later import LATER

IMPORT_FROM = opmap["IMPORT_FROM"]


def unknown(owner: str, name: str, code: str | None = None) -> AttributeError | ImportError:
    """The error of a name that `owner` does not have, with the code to write in its place."""
    code = code or MODULES.get(f"{owner}.{name}") or HERE.get(name) or MODULES.get(name)
    kind = ImportError if _is_import(sys._getframe(2)) else AttributeError
    if code:
        return kind(f"{owner} has no {name!r}. Write this: {code}")
    if name in LATER:
        return kind(f"{owner} has no {name!r} yet: {LATER[name]} may come later")
    return AttributeError(f"module {owner!r} has no attribute {name!r}")


def _is_import(frame: FrameType) -> bool:
    """Whether the frame runs `from module import name`. Python replaces the message of an
    AttributeError there.
    """
    return frame.f_code.co_code[frame.f_lasti] == IMPORT_FROM


class Count(int):
    """A number of elements. Called as a method, it says that it is none."""

    @brief
    def __call__(self, *axes: Any) -> Any:
        axis = str(*axes) and f"[{axes[0]}]"
        raise ArgumentError(f"size is the number of elements, {self}. Write x.shape{axis}")


def absent(sign: str, code: str) -> Any:
    """The method of an operator that is not here: an error says what to write."""

    @brief
    def operator(self: Any, *others: Any) -> Any:
        raise ArgumentError(f"Tensor has no {sign} yet. Of values without a gradient: {code}")

    return operator


class Answer:
    """An attribute that is not there, and says so."""

    def __init__(self, name: str, code: str | None = None):
        self.name, self.code = name, code

    def __get__(self, instance: Any, owner: type) -> Any:
        raise unknown(owner.__name__, self.name, self.code)


class OtherNames:
    """Base of a class whose attributes answer the names of other libraries by AttributeError:
    `__getattr__` would slow down every look-up of an attribute.
    """

    __slots__ = ()

    def __dir__(self) -> list[str]:
        """For completion: the names that are here."""
        known = object.__dir__(self)
        return [x for x in known if not isinstance(inspect.getattr_static(self, x), Answer)]


class TensorNames(OtherNames):
    """The names that Tensor answers."""

    __slots__ = ()


for _name in (*HERE, *LATER):
    setattr(TensorNames, _name, Answer(_name))
