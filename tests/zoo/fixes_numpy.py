"""Bugs where NumPy's functions, losses and reductions meet tensors."""

from __future__ import annotations

from tests.zoo.bug import Bug

INTEROP = "tests/tensor/test_interop.py::"
BEHIND = INTEROP + "test_what_numpy_would_do_behind_the_graph_raises"

ZOO = [
    Bug(  # np.put writes values of a graph into an array
        row=97,
        file="tensor/interop.py",
        old="kwargs, name, name in _WRITERS)",
        new="kwargs, name)",
        test=BEHIND,
    ),
    Bug(  # np.full_like(x, y) drops the gradient of y
        row=97,
        file="tensor/interop.py",
        old='(args[1:], kwargs.get("fill_value"))',
        new="()",
        test=BEHIND,
    ),
]
