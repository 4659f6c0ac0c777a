"""Which inputs of an op its backward functions keep, found once an op or kernel.

A backward function is a closure. The cells of its closure hold what it mentions: inputs, which it
names as the op's reference, or a kernel, names its parameters; and what the op made itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from opcode import opmap
from types import CodeType
from typing import Any

# id of a backward function's code -> the positions of the inputs that the function keeps; the cells
# of its closure that hold something else; and the code itself: as long as it lives, no other code
# has its id
KEPT_INPUTS: dict[int, tuple[tuple[int, ...], tuple[int, ...], CodeType]] = {}
_ASSIGNS = {opmap["STORE_DEREF"], opmap["DELETE_DEREF"]}  # to a variable that a closure mentions


def note_kept_inputs(function: Callable[..., Any], count: int = sys.maxsize) -> None:
    """Fill the table for an op's reference or kernel, of whose positional parameters the
    first `count` are inputs.

    The others are options: constants or copies. A parameter that the function assigns anew may be
    another array than the input, so its cell is searched at each call.
    """
    code = function.__code__
    parameters = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    last = min(count, code.co_argcount)  # the count of `*tensors` has no end
    # an instruction is two bytes: which, and of which variable (the parameters come first)
    instructions = zip(code.co_code[::2], code.co_code[1::2], strict=True)
    assigned = {variable for which, variable in instructions if which in _ASSIGNS}
    known = {name: i for i, name in enumerate(parameters) if i not in assigned}
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            cells = [known.get(name) for name in inner.co_freevars]
            kept = tuple(i for i in cells if i is not None and i < last)
            others = tuple(at for at, i in enumerate(cells) if i is None)
            KEPT_INPUTS[id(inner)] = kept, others, inner
