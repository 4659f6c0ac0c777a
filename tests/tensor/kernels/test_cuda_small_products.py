"""Products of small matrices, in every layout, with what comes before and after them: on a GPU; and
without one, compiled for the CPU.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor.kernels.cuda import small_products
from tensor.kernels.cuda.small_products import MOST, Operand, Product, fits, multiply
from tensor.memory.devices import array_module, to_host
from tensor.ops.op import reference_of
from tests.helpers.cuda_on_cpu import run_kernels_on_cpu
from tests.helpers.without_cudnn import on_gpu

Array = Any
# rows, inner, columns: parts of a tile, whole tiles, more than is brought at once
SIZES = [(1, 1, 1), (16, 256, 16), (17, 5, 33), (40, 300, 22), (7, 513, 64), (64, 20, 1)]


@pytest.fixture
def moved(device: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What brings an array to where the kernel runs."""
    if device != "cpu":
        return array_module(device).asarray
    run_kernels_on_cpu(monkeypatch)
    # modules of a GPU that this process does not have
    monkeypatch.setattr(small_products.PRODUCTS, "_modules", {})
    monkeypatch.setattr(small_products.PRODUCTS, "_ready", {})
    return on_gpu


def drawn(rng: Any, moved: Any, rows: int, columns: int, transposed: bool = False) -> Array:
    shape = (columns, rows) if transposed else (rows, columns)
    x = moved(rng.standard_normal(shape).astype(np.float32))
    return x.T if transposed else x


def exact(x: Array) -> Array:
    return to_host(x).astype(np.float64)


def assert_close(y: Array, right: Array) -> None:
    np.testing.assert_allclose(to_host(y), right, rtol=2e-6, atol=2e-5)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_products_of_every_layout(sizes: tuple[int, int, int], moved: Any) -> None:
    I, K, J = sizes  # noqa: E741 (as in small_products.cu)
    rng = np.random.default_rng(K)
    for left, right in ((False, False), (False, True), (True, False), (True, True)):
        a, b = drawn(rng, moved, I, K, left), drawn(rng, moved, K, J, right)
        bias = drawn(rng, moved, 1, J)[0]
        out, activated = (drawn(rng, moved, I, J) for _ in range(2))
        sums = drawn(rng, moved, 1, J)[0]
        assert fits(a, b)
        before, before_sums = exact(out), exact(sums)
        multiply(Product(Operand(a), Operand(b), out, bias, activated))
        y = exact(a) @ exact(b) + exact(bias)
        assert_close(out, y)
        assert_close(activated, reference_of("gelu")(y)[0])
        out, added = moved(before.astype(np.float32)), drawn(rng, moved, I, J)
        multiply(
            Product(Operand(a), Operand(b), out, sums=sums, add=True, add_sums=True),
            Product(Operand(a), Operand(b), added),
        )
        assert_close(out, before + exact(a) @ exact(b))
        assert_close(added, exact(a) @ exact(b))
        assert_close(sums, before_sums + exact(b).sum(0))


def test_the_gradient_of_gelu_is_made_while_dy_is_read(moved: Any) -> None:
    rng = np.random.default_rng(3)
    dy, h, w, x = (drawn(rng, moved, *shape) for shape in ((30, 24), (30, 24), (20, 24), (30, 20)))
    dh = reference_of("gelu")(exact(h))[1][0](exact(dy))
    dx, dw, db = drawn(rng, moved, 30, 20), drawn(rng, moved, 20, 24), drawn(rng, moved, 1, 24)[0]
    upstream = Operand(dy, h)
    multiply(Product(upstream, Operand(w.T), dx), Product(Operand(x.T), upstream, dw, sums=db))
    assert_close(dx, dh @ exact(w).T)
    assert_close(dw, exact(x).T @ dh)
    assert_close(db, dh.sum(0))


def test_rows_apart_and_equal_bits(moved: Any) -> None:
    """Rows of a wider array are read by their stride, and the order of the sums is fixed."""
    rng = np.random.default_rng(4)
    wide, b = drawn(rng, moved, 21, 90), drawn(rng, moved, 64, 12)
    results = []
    for part in (wide[:, 3:67], wide[::2, 8:72], wide[:, 8:72]):
        out = drawn(rng, moved, len(part), 12)
        multiply(Product(Operand(part), Operand(b), out))
        assert_close(out, exact(part) @ exact(b))
        results.append(to_host(out).copy())
    np.testing.assert_array_equal(results[1], results[2][::2])


def test_what_is_taken(moved: Any) -> None:
    rng = np.random.default_rng(5)
    a, b = drawn(rng, moved, 4, 6), drawn(rng, moved, 6, 8)
    assert fits(a, b)
    assert not fits(a[:, ::2], b[::2])  # no axis lies in one piece
    assert not fits(a.astype(np.float64), b)
    assert not fits(a[:0], b)
    side = int(MOST ** (1 / 3)) + 1
    large = drawn(rng, moved, side, side)
    assert not fits(large, large)
