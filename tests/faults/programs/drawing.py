"""What a step is drawn from: the values that the program has so far. Each function returns the
inputs of an op, as expressions, and its options; it raises UnfitError where no value suits.

One draw in thirty ignores what fits, so that errors are compared too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from tests.faults.programs.step import Op

Drawn = tuple[list[str], dict[str, Any]]  # inputs, as expressions, and options
SIZES = (1, 1, 2, 2, 3, 3, 4, 5, 8)
LARGEST = 300  # elements
FLOATS = ("float64", "float32", "bfloat16")


class UnfitError(Exception):
    """No value so far suits this op."""


class Drawer:
    """The values of a program, and chance."""

    def __init__(self, rng: np.random.Generator, dtype: str, live: dict[str, torch.Tensor]):
        self.rng, self.dtype, self.live = rng, dtype, live
        self.careless = False

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def number(self, low: int, high: int) -> int:
        """low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def one(self, values: Sequence[Any]) -> Any:
        if not len(values):
            raise UnfitError
        return values[self.rng.integers(len(values))]

    def tensor(self, fits: Callable[[torch.Tensor], bool] = lambda x: True) -> str:
        """A value that fits, rather in the graph than not, rather strided, rather late."""
        names = [
            name
            for name, x in self.live.items()
            if x.numel() <= LARGEST and (self.careless or fits(x))
        ]
        in_graph = [name for name in names if self.live[name].requires_grad]
        if in_graph and self.chance(0.5):
            names = in_graph
        strided = [name for name in names if not self.live[name].is_contiguous()]
        if strided and self.chance(0.3):
            names = strided
        return str(self.one(names[-4:] if self.chance(0.5) else names))

    def shape(self, most: int = 3) -> tuple[int, ...]:
        """That of another value, or a new one."""
        if self.live and self.chance(0.5):
            return tuple(self.one([x.shape for x in self.live.values()]))
        sizes = self.rng.choice(SIZES, self.number(0, most)).tolist()
        if sizes and self.chance(0.05):
            sizes[self.number(0, len(sizes) - 1)] = 0
        return tuple(sizes)

    def axis(self, x: torch.Tensor, more: int = 0) -> int:
        n = x.ndim + more
        if self.careless:
            return self.number(-n - 1, n)
        if n == 0:
            raise UnfitError
        return self.number(-n, n - 1)

    def seed(self) -> int:
        return self.number(0, 999)

    def ids(self, shape: Sequence[int], size: int) -> Any:
        """A nested list of integers in [0, size), now and then from the end."""
        if size == 0 or 0 in shape:
            raise UnfitError
        return self.rng.integers(0, size + int(self.careless), shape).tolist()


def is_float(x: torch.Tensor) -> bool:
    return x.dtype.is_floating_point


def moderate(x: torch.Tensor) -> bool:
    """Whether products and powers of it stay small."""
    return is_float(x) and bool((x.detach().abs() <= 16).all())


def in_a_graph(x: torch.Tensor) -> bool:
    return x.requires_grad


# -- what several ops draw


def any_tensor(d: Drawer) -> Drawn:
    return [d.tensor()], {}


def broadcasts(x: torch.Tensor, y: torch.Tensor) -> bool:
    pairs = zip(x.shape[::-1], y.shape[::-1], strict=False)
    return all(m == n or 1 in (m, n) for m, n in pairs)


def tensor_pair(d: Drawer, fits: Callable[[torch.Tensor], bool] = moderate) -> Drawn:
    a = d.tensor(fits)
    alike = d.chance(0.9)
    x = d.live[a]
    b = d.tensor(lambda y: fits(y) and broadcasts(x, y) and (y.dtype == x.dtype or not alike))
    return [a, b], {}


def _part(d: Drawer, n: int) -> str:
    """An integer or a slice of an axis of that length."""
    if n and d.chance(0.3):
        return str(d.number(-n - int(d.careless), n - 1 + int(d.careless)))
    start, stop = sorted((d.number(0, n), d.number(0, n)))
    return str(d.one((":", f"{start}:", f":{stop}", f"{start}:{stop}", "::2", "1::2", "-2:")))


def view_key(d: Drawer, shape: Sequence[int]) -> str:
    """A key that makes a view."""
    parts = [_part(d, n) for n in shape[: d.number(0, len(shape))]]
    if d.chance(0.15):
        parts.insert(d.number(0, len(parts)), "None")
    if d.chance(0.2) or not parts:
        parts.append("...")
        parts += [_part(d, n) for n in shape[len(shape) :]]
    elif d.chance(0.1) and len(parts) == len(shape):
        parts.insert(0, "...")
    return ", ".join(parts)


def basic(d: Drawer) -> Drawn:
    name = d.tensor(lambda x: x.ndim > 0 and is_float(x))
    return [name], {"key": view_key(d, d.live[name].shape)}


def array_key(d: Drawer, shape: Sequence[int]) -> tuple[str, str]:
    """A key with integer arrays, as it is written here and in PyTorch, where an integer beside an
    array is no array of its own.
    """
    if not shape or 0 in shape:
        raise UnfitError
    count = d.number(1, 3)
    here, there, met = [], [], False
    for n in shape[: d.number(1, len(shape))]:
        kind = d.number(0, 3)
        if kind <= 1 or not met:
            wide = (2, count) if d.chance(0.2) else (count,)
            ids = (d.rng.integers(0, n, wide) - n * d.chance(0.2)).tolist()
            here.append(str(ids))
            there.append(f"torch.tensor({ids})")
            met = True
        elif kind == 2:
            i = d.number(0, n - 1)
            here.append(str(i))
            there.append(f"torch.tensor([{i}])")
        else:
            here.append(":")
            there.append(":")
    return ", ".join(here), ", ".join(there)


def mask_of(d: Drawer) -> Drawn:
    name = d.tensor(is_float)
    shape = d.live[name].shape

    def fits(m: torch.Tensor) -> bool:
        return m.dtype == torch.bool and m.ndim > 0 and m.shape == shape[: m.ndim]

    return [name, d.tensor(fits)], {}


def like(d: Drawer, x: torch.Tensor, *shape: int) -> str:
    """A value of that shape and the dtype of x: one that is there, or a new leaf."""
    names = [n for n, y in d.live.items() if y.shape == shape and y.dtype == x.dtype]
    if names and d.chance(0.7):
        return str(d.one(names))
    return f"new({d.seed()}, {shape}, '{str(x.dtype)[6:]}')"


# -- the entry of an op


class Entry(NamedTuple):
    """An op, what draws its inputs and options, and its share of the steps."""

    op: Op
    draw: Callable[[Drawer], Drawn]
    share: float = 1.0


def same(text: str, kind: str = "value") -> Op:
    """An op that both libraries write alike."""
    return Op(text, text, kind)


def binary(sign: str, name: str) -> Op:
    return Op(f"{{0}} {sign} {{1}}", f"operator.{name}(*met({{0}}, {{1}}))")
