"""Products of small float32 matrices: what calls small_products.cu.

A step of a small model is bound by the number of its launches, and a library takes up to three for
one product.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tensor.dtypes import float32
from tensor.kernels.cuda.launch import Source
from tensor.memory.devices import Array

SIDE, DEPTH, GROUPS = 16, 256, 16  # as in small_products.cu
SHARED = 2 * DEPTH * (SIDE + 4) * 4  # bytes
MOST = 2**23  # multiply-adds: for more, tiles of a library are faster
STRUCTS = {"Product": "2Q2i2Q2i4Q5i4x"}
PRODUCTS = Source("small_products.cu", "gelu.cuh", structs=STRUCTS)
WIDTH = 4  # numbers in 16 bytes


class Operand(NamedTuple):
    """A matrix.   at: with it, each element stands for element * gelu'(at)"""

    matrix: Array
    at: Array | None = None


class Product(NamedTuple):
    """out = a b + bias, or out += a b;   activated = gelu(out);   sums = the sums of b's columns"""

    a: Operand
    b: Operand
    out: Array
    bias: Array | None = None
    activated: Array | None = None
    sums: Array | None = None
    add: bool = False
    add_sums: bool = False

    @property
    def tiles(self) -> int:
        """How many blocks the product takes."""
        rows, columns = self.out.shape
        return -(-rows // SIDE) * -(-columns // SIDE)  # each rounded up

    @property
    def width(self) -> int:
        """The numbers that a thread can read at once."""
        (a, a_at), (b, b_at) = self.a, self.b
        together = 0
        for matrix in (a, b):
            down, across = matrix.strides
            lines, length = matrix.shape if across == 4 else matrix.shape[::-1]
            together |= length * 4 | (max(down, across) if lines > 1 else 0)
            together |= 4 if down == across else 0
        for array in (a, b, a_at, b_at):
            together |= 0 if array is None else array.data.ptr
        return 1 if together % (4 * WIDTH) else WIDTH

    @property
    def numbers(self) -> tuple[int, ...]:
        """The struct Product."""
        (a, a_at), (b, b_at) = self.a, self.b
        operands = []
        for matrix, at in ((a, a_at), (b, b_at)):
            steps = (step // 4 for step in matrix.strides)
            operands += [matrix.data.ptr, _place(at), *steps]
        arrays = self.out, self.activated, self.sums, self.bias
        sizes = *self.out.shape, len(b)
        return *operands, *map(_place, arrays), *sizes, self.add, self.add_sums


def fits(a: Array, b: Array, *others: Array | None) -> bool:
    """Whether the kernel takes a b.   a: (I, K)   b: (K, J), each row-major or transposed"""
    if a.dtype != float32 or b.dtype != float32 or not 0 < a.size * b.shape[1] <= MOST:
        return False
    if any(other is not None and other.dtype != float32 for other in others):
        return False
    return b.size > 0 and all(4 in matrix.strides for matrix in (a, b))


def multiply(*products: Product) -> None:
    """Queue one or two products, which run side by side."""
    first, second = products[0], products[-1]
    tiles = sum(product.tiles for product in products)
    numbers: Any = first.numbers, second.numbers, first.tiles
    width = min(product.width for product in products)
    options: Any = {"dtype": float32, "width": width, "shared": SHARED}
    PRODUCTS.launch("small_products", (tiles,), (SIDE * GROUPS,), *numbers, **options)


def _place(array: Array | None) -> int:
    return 0 if array is None else int(array.data.ptr)
