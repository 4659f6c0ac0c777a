"""New tensors from nothing but a shape. All take dtype= (float32 unless it is given), device=,
requires_grad=; random ones also generator=.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from tensor import ops, random
from tensor.dtypes import DTypeLike, as_dtype, float32, int64
from tensor.errors import ArgumentError, ShapeError, brief
from tensor.memory.devices import array_module, cupy, exactly, move
from tensor.memory.layout import Shape, Sizes
from tensor.tensor import Tensor

__all__ = [
    "arange",
    "empty",
    "empty_like",
    "eye",
    "from_dlpack",
    "full",
    "full_like",
    "ones",
    "ones_like",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "tril",
    "triu",
    "zeros",
    "zeros_like",
]


def _shape(sizes: tuple[Any, ...]) -> Shape:
    """zeros(2, 3) and zeros((2, 3)) alike."""
    if len(sizes) == 1 and isinstance(sizes[0], (tuple, list)):
        sizes = tuple(sizes[0])
    shape = tuple(operator.index(n) for n in sizes)
    if min(shape, default=0) < 0:
        raise ShapeError(f"shape {shape}: sizes are at least 0")
    return shape


@brief
def full(
    shape: Sizes,
    value: Any,
    *,
    dtype: DTypeLike | None = None,
    device: str = "cpu",
    requires_grad: bool = False,
) -> Tensor:
    """Every element `value`; the dtype is the value's (float32, int64 or bool) unless given."""
    filled = Tensor(value, dtype=dtype, device=device).array
    return Tensor.from_array(
        array_module(device).full(_shape((shape,)), filled, filled.dtype), requires_grad
    )


@brief
def zeros(
    *shape: Sizes, dtype: DTypeLike | None = None, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """Every element 0."""
    return Tensor.from_array(
        array_module(device).zeros(_shape(shape), as_dtype(dtype)), requires_grad
    )


@brief
def ones(
    *shape: Sizes, dtype: DTypeLike | None = None, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """Every element 1."""
    dtype = as_dtype(dtype)
    return full(_shape(shape), 1, dtype=dtype, device=device, requires_grad=requires_grad)


@brief
def empty(
    *shape: Sizes, dtype: DTypeLike | None = None, device: str = "cpu", requires_grad: bool = False
) -> Tensor:
    """Uninitialised: whatever the memory held. Write before you read."""
    return Tensor.from_array(
        array_module(device).empty(_shape(shape), as_dtype(dtype)), requires_grad
    )


@brief
def arange(
    start: float,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: DTypeLike | None = None,
    device: str = "cpu",
    requires_grad: bool = False,
) -> Tensor:
    """start, start + step, ... before stop; arange(n) counts from 0. int64 for integers, float32
    for floats unless a dtype is given.
    """
    if stop is None:
        start, stop = 0, start
    # made on the host: the same bits on every device
    counted = np.arange(start, stop, step)
    default = float32 if counted.dtype.kind == "f" else int64
    counted = exactly(counted, as_dtype(dtype, default))
    return Tensor.from_array(move(counted, device), requires_grad)


@brief
def eye(
    rows: int,
    columns: int | None = None,
    *,
    dtype: DTypeLike | None = None,
    device: str = "cpu",
    requires_grad: bool = False,
) -> Tensor:
    """1 on the diagonal, 0 elsewhere."""
    return Tensor.from_array(
        array_module(device).eye(rows, columns, dtype=as_dtype(dtype)), requires_grad
    )


@brief
def tril(x: Any, diagonal: int = 0) -> Tensor:
    """x with 0 above its diagonal (the `diagonal`-th above the main one), in the last two axes."""
    return _triangle(Tensor.wrap(x), diagonal, lower=True)


@brief
def triu(x: Any, diagonal: int = 0) -> Tensor:
    """x with 0 below its diagonal, in the last two axes."""
    return _triangle(Tensor.wrap(x), diagonal, lower=False)


def _triangle(x: Tensor, diagonal: int, lower: bool) -> Tensor:
    if x.ndim < 2:
        raise ShapeError(f"tril and triu of shape {x.shape}: two axes are needed")
    # True up to a diagonal: of what stays, or of what does not
    mask = array_module(x.device).tri(*x.shape[-2:], diagonal if lower else diagonal - 1, bool)
    # the zero of every dtype, bool too
    filled: Tensor = ops.masked_fill(x, Tensor.from_array(~mask if lower else mask), False)
    return filled


@brief
def rand(
    *shape: Sizes,
    dtype: DTypeLike | None = None,
    device: str = "cpu",
    requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:
    """Uniform in [0, 1)."""
    dtype = as_dtype(dtype)
    drawn = (generator or random.default).uniform(_shape(shape), device)
    if dtype != np.float64:  # rounding to fewer bits must not give 1
        steps = 2.0**8 if dtype.itemsize == 2 else 2.0**24
        drawn = np.floor(drawn * steps) / steps
    return Tensor.from_array(drawn.astype(dtype), requires_grad)


@brief
def randn(
    *shape: Sizes,
    dtype: DTypeLike | None = None,
    device: str = "cpu",
    requires_grad: bool = False,
    generator: random.Generator | None = None,
) -> Tensor:
    """Normal, mean 0 and variance 1."""
    drawn = (generator or random.default).normal(_shape(shape), device)
    return Tensor.from_array(drawn.astype(as_dtype(dtype)), requires_grad)


@brief
def randint(
    low: int,
    high: Sizes,
    shape: Sizes | None = None,
    *,
    dtype: DTypeLike | None = None,
    device: str = "cpu",
    generator: random.Generator | None = None,
) -> Tensor:
    """Integers in [low, high), each equally likely; randint(high, shape) starts at 0."""
    if shape is None:
        low, high, shape = 0, low, high
    drawn = (generator or random.default).integers(low, high, _shape((shape,)), device)
    return Tensor.from_array(exactly(drawn, as_dtype(dtype, int64)))


def _like(make: Callable[..., Tensor], x: Tensor, *values: Any, **options: Any) -> Tensor:
    """make(shape, *values) in the shape, dtype and on the device of x, or what options name."""
    named = {name: value for name, value in options.items() if value is not None}
    return make(x.shape, *values, **{"dtype": x.dtype, "device": x.device, **named})


@brief
def zeros_like(x: Tensor, **options: Any) -> Tensor:
    """0 in the shape, dtype and on the device of x."""
    return _like(zeros, x, **options)


@brief
def ones_like(x: Tensor, **options: Any) -> Tensor:
    """1 in the shape, dtype and on the device of x."""
    return _like(ones, x, **options)


@brief
def empty_like(x: Tensor, **options: Any) -> Tensor:
    """Uninitialised, in the shape, dtype and on the device of x."""
    return _like(empty, x, **options)


@brief
def full_like(x: Tensor, value: Any, **options: Any) -> Tensor:
    """`value` in the shape, dtype and on the device of x."""
    return _like(full, x, value, **options)


@brief
def rand_like(x: Tensor, **options: Any) -> Tensor:
    """Uniform in [0, 1), in the shape, dtype and on the device of x."""
    return _like(rand, x, **options)


@brief
def randn_like(x: Tensor, **options: Any) -> Tensor:
    """Normal, in the shape, dtype and on the device of x."""
    return _like(randn, x, **options)


@brief
def randint_like(x: Tensor, low: int, high: int, **options: Any) -> Tensor:
    """Integers in [low, high), in the shape, dtype and on the device of x."""
    return _like(partial(randint, low, high), x, **options)


@brief
def from_dlpack(source: Any) -> Tensor:
    """A tensor on the memory of another library's array: anything with __dlpack__."""
    if not hasattr(source, "__dlpack_device__"):
        raise ArgumentError(f"from_dlpack takes an array of another library, not {source!r}")
    on_gpu = source.__dlpack_device__()[0] == 2  # kDLCUDA
    return Tensor.from_array((cupy() if on_gpu else np).from_dlpack(source))
