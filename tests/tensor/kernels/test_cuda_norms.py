"""LayerNorm, GELU, column sums and dropout on a GPU: each kernel beside its reference in float64 on
the CPU, in all float dtypes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tensor.dtypes import FLOATS, as_dtype, float32, float64
from tensor.kernels import KERNELS
from tensor.kernels.cuda.gelu import gelu_backward_sums
from tensor.kernels.cuda.launch import wide
from tensor.kernels.cuda.sums import column_sums
from tensor.memory.devices import Array, cupy, move, to_host
from tensor.ops.op import OPS
from tensor.random import Key, random_bits

# the largest error, in shares of the largest number
UNITS = {"float64": 1e-13, "float32": 1e-6, "float16": 2e-3, "bfloat16": 1.2e-2}
NAN, INF = float("nan"), float("inf")


pytestmark = pytest.mark.usefixtures("gpu")


def kernel(name: str) -> Any:
    """The op's kernel for a GPU."""
    (found,) = [one.function for one in KERNELS[name] if one.device == "cuda"]
    return found


def draw(
    shape: Sequence[int], dtype: str, seed: int, scale: float = 1.0, shift: float = 0.0
) -> Array:
    """Normal numbers on the GPU, rounded to the dtype."""
    values = np.random.default_rng(seed).standard_normal(shape) * scale + shift
    return move(values.astype(as_dtype(dtype)), "cuda")


def poison(*like: Array) -> None:
    """The memory that the next arrays of these sizes get is full of NaN."""
    held = [cupy().full(x.nbytes, 255, np.uint8) for x in like for _ in range(3)]
    del held


def exact(array: Array) -> Array:
    """The same numbers in NumPy, in float64."""
    return to_host(array).astype(float64)


def close(found: Array, right: Array, unit: float, what: Any = "") -> None:
    found = exact(found)
    assert found.shape == right.shape, what
    finite = np.isfinite(right)
    assert np.array_equal(found[~finite], right[~finite], equal_nan=True), what
    off = np.abs(found[finite] - right[finite]).max(initial=0)
    assert off <= unit * max(np.abs(right[finite]).max(initial=0), 1e-30), what


# a row in one warp, in several, with empty lanes; packs of 16 bytes and single elements
SHAPES = [
    (5,),
    (3, 1),
    (2, 3, 5),
    (300, 96),
    (4, 768),
    (1700, 768),
    (9, 1600),
    (7, 1025),
    (3, 2304),
]


@pytest.mark.parametrize("dtype", UNITS)
def test_layer_norm_of_all_shapes(dtype: str) -> None:
    unit = UNITS[dtype]
    for shape in SHAPES:
        x = draw(shape, dtype, 0, shift=3)
        dy, plus = (draw(shape, dtype, seed) for seed in (1, 2))
        gain, bias = (draw(shape[-1:], dtype, seed) for seed in (3, 4))
        y, backward = OPS["layer_norm"].reference(*map(exact, (x, gain, bias)))
        dx, dgain, dbias = backward(exact(dy))
        poison(x, gain)
        found, of_kernel = kernel("layer_norm")(x, gain, bias)
        close(found, y, unit, shape)
        poison(x, gain)
        for got, right in zip(of_kernel(dy), (dx, dgain, dbias), strict=True):
            close(got, right, unit, shape)
        given = [None, gain.copy(), draw(shape[-1:], dtype, 5)]
        old = exact(given[1])
        results = of_kernel(dy, out=tuple(given), add=(False, True, False), plus=plus)
        assert results[1] is given[1]
        assert results[2] is given[2]
        right = dx + exact(plus), dgain + old, dbias
        for got, expected in zip(results, right, strict=True):
            close(got, expected, unit, shape)
        again = of_kernel(dy, plus=plus)
        assert again[0].tobytes() == results[0].tobytes()


@pytest.mark.parametrize("dtype", UNITS)
def test_residual_layer_norm_through_the_engine(dtype: str, device: str) -> None:
    shape, gradients = (40, 768), []
    arrays = [to_host(draw(s, dtype, i)) for i, s in enumerate([shape, shape, (768,), (768,)])]
    for place, of in ((device, dtype), ("cpu", "float64")):
        xs = [Tensor(a, dtype=of, device=place, requires_grad=True) for a in arrays]
        s, n = tensor.residual_layer_norm(*xs)
        if place == device:
            assert kernels.latest("residual_layer_norm")[1] == "cuda kernel"
        (n * n + s * 2.0).sum().backward()
        gradients.append([s, n, *(x.grad for x in xs)])
    for found, right in zip(*gradients, strict=True):
        close(found.detach().array, right.detach().numpy(), 4 * UNITS[dtype])


def test_rows_whose_squares_overflow_or_vanish() -> None:
    """As NumPy's, which computes such rows in float64."""
    rng = np.random.default_rng(0)
    row = rng.standard_normal(96).astype(float32)
    large = np.where(np.arange(96) % 2, 3e38, -3e38).astype(float32)
    rows = [row, row * np.float32(1e20), row * np.float32(1e37), large, row * np.float32(1e-24)]
    odd = [np.where(np.arange(96) == 3, bad, row) for bad in (NAN, INF)]
    gain, bias, dy = (rng.standard_normal(96).astype(float32) for _ in range(3))
    for eps in (1e-5, 0.0):
        for x in [*rows, *odd]:
            y, backward = OPS["layer_norm"].reference(*map(exact, (x, gain, bias)), eps=eps)
            given = [move(a, "cuda") for a in (x, gain, bias)]
            found, of_kernel = kernel("layer_norm")(*given, eps=eps)
            close(found, y, 2e-6)
            for got, right in zip(of_kernel(move(dy, "cuda")), backward(exact(dy)), strict=True):
                close(got, right, 4e-6)


@pytest.mark.parametrize("dtype", UNITS)
def test_gelu(dtype: str) -> None:
    """Also far from 0, where the share of the error counts; and the sums for a bias gradient."""
    unit = UNITS[dtype]
    line = np.array([0, -0.0, 1e-3, 5, 40, 1e30, INF, NAN, -1e-3, -1, -3, -5, -9, -1e30, -INF])
    if dtype == "float16":
        line = line.clip(-6e4, 6e4)
    edge = move(line.astype(as_dtype(dtype)), "cuda")
    y, (dx,) = OPS["gelu"].reference(exact(edge))
    found, (of_kernel,) = kernel("gelu")(edge)
    one = move(np.ones(15, edge.dtype), "cuda")
    with np.errstate(invalid="ignore"):
        for got, right in ((found, y), (of_kernel(one), dx(np.ones(15)))):
            small = np.finfo("float16" if dtype == "float16" else "float32").tiny
            off, right = np.abs(exact(got) - right), np.abs(right)
            assert np.nanmax(off[np.isfinite(right)] / (right[np.isfinite(right)] + small)) < unit
            assert np.array_equal(np.isnan(exact(got)), np.isnan(right))
    assert to_host(of_kernel(cupy().zeros_like(edge))).astype(float64).tolist() == [0] * 15
    for shape in [(7,), (3, 5), (2, 50, 96), (5000, 64), (257, 3072)]:
        x, dy = draw(shape, dtype, 0, scale=3), draw(shape, dtype, 1)
        y, (dx,) = OPS["gelu"].reference(exact(x))
        poison(x)
        found, (of_kernel,) = kernel("gelu")(x)
        close(found, y, unit)
        right = dx(exact(dy))
        close(of_kernel(dy), right, unit)
        poison(x, x[0])
        both, sums = gelu_backward_sums(dy, x)
        close(both, right, unit)
        columns = right.reshape(-1, shape[-1]).sum(0)
        close(sums, columns, unit)
        out = draw(shape[-1:], dtype, 2)
        before = exact(out)
        assert gelu_backward_sums(dy, x, out, True)[1] is out
        close(out, before + columns, unit)


@pytest.mark.parametrize("dtype", UNITS)
def test_column_sums(dtype: str) -> None:
    for shape in [(1, 1), (5, 3), (3, 768), (1000, 96), (4097, 257), (100, 50304)]:
        rows = draw(shape, dtype, 0)
        right = exact(rows).sum(0)
        poison(rows[0])
        sums = column_sums(rows)
        assert sums.dtype == (float64 if dtype == "float64" else float32)
        close(sums, right, max(UNITS["float32"], UNITS[dtype]) if dtype != "float64" else 1e-13)
        assert column_sums(rows).tobytes() == sums.tobytes()
        close(column_sums(rows.T.copy().T), right, UNITS[dtype])
        for of in FLOATS:
            if wide(of) != sums.dtype:
                continue
            out = draw(shape[1:], of.name, 1)
            before = exact(out)
            assert column_sums(rows, out, True) is out
            close(out, before + right, max(UNITS[of.name], UNITS["float32"]))
            close(column_sums(rows, out), right, max(UNITS[of.name], UNITS["float32"]))


@pytest.mark.parametrize("dtype", UNITS)
def test_dropout(dtype: str) -> None:
    for shape in [(4,), (1, 1), (3, 5), (7, 64), (2, 3, 40), (300, 1028), (2, 2, 2, 6)]:
        x, dy = draw(shape, dtype, 0), draw(shape, dtype, 1)
        for p in (0.0, 0.1, 0.999, 1.0):
            key = Key(2**40 + 5, 2**33 + 7, 3, 2**32 - 2)
            wide = as_dtype("float64" if dtype == "float64" else "float32")
            y, (dx,) = OPS["dropout"].reference(to_host(x).astype(wide), p, key=key)
            poison(x)
            found, (of_kernel,) = kernel("dropout")(x, p, key=key)
            assert np.array_equal(to_host(found), y.astype(x.dtype)), (shape, p)
            right = dx(to_host(dy).astype(wide)).astype(x.dtype)
            assert np.array_equal(to_host(of_kernel(dy)), right), (shape, p)


def test_random_bits_are_those_of_the_cpu() -> None:
    for rows, columns in [(0, 3), (3, 0), (1, 1), (3, 5), (2, 63), (1, 4096), (700, 4099)]:
        for key in (Key(0), Key(2**40 + 5, 7, 3, 11), Key(-1, 2**32 - 1, 2**32 - 1, 2**32 - 2)):
            bits = random_bits(rows, columns, key, cupy())
            assert kernels.latest("random_bits")[1] == "cuda kernel"
            with kernels.off():
                assert np.array_equal(to_host(bits), random_bits(rows, columns, key))
