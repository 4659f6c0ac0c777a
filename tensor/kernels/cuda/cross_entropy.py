"""Cross-entropy on the GPU, of logits and of the product that makes them: what calls
cross_entropy.cu.
"""

from __future__ import annotations

from typing import Any

from tensor.dtypes import DType
from tensor.kernels import kernel_for
from tensor.kernels.cuda.launch import C_TYPES, Source, contiguous, empty, integers, wide, width_of
from tensor.kernels.cuda.products import product
from tensor.memory.devices import Array
from tensor.ops.losses import untreated

LOSSES = Source("cross_entropy.cu")
THREADS = 1024  # a block, at most
SHARED = 112 * 1024  # bytes of a row in shared memory, so that two blocks fit a multiprocessor
# Bytes of logits that exist at once. Fewer would mean more passes over the sum of dweight, of
# 4 bytes an element for each chunk; more would be the peak of a step's memory.
CHUNK = 2**30
TILE = 128  # rows that a product computes together
PITCH = 8  # numbers of 16 bits in 16 bytes


def _supports(
    logits: Array,
    targets: Array,
    *,
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> str | None:
    if weight is not None:
        return "class weights"
    if logits.dtype not in C_TYPES or logits.size == 0 or targets.shape != logits.shape[:-1]:
        return f"targets {targets.shape} of logits {logits.shape} {logits.dtype}"
    if targets.dtype.kind not in "iu":
        return f"targets {targets.dtype}"
    return untreated(ignore_index, label_smoothing, reduction)


@kernel_for("cross_entropy", device="cuda", supports=_supports)
def cross_entropy_by_blocks(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    **_: None,
) -> Any:
    """One block a row; each row's largest logit and sum of exponentials are kept for backward."""
    classes, shape, dtype = logits.shape[-1], targets.shape, logits.dtype
    x, ids, rows = contiguous(logits), integers(targets), targets.size
    ignoring = ignore_index is not None, ignore_index or 0
    losses, peaks, sums = (empty(rows, wide(dtype)) for _ in range(3))
    sizes = classes, label_smoothing, *ignoring
    _by_rows("cross_entropy_forward", x, *ids, losses, peaks, sums, *sizes)
    loss, count = _total(losses, ids, ignoring, reduction, dtype)

    def dlogits(dloss: Array) -> Array:
        dx, dloss = empty(x.shape, dtype), contiguous(dloss)
        kept = peaks, sums, dloss, count, dx
        _by_rows("cross_entropy_backward", x, *ids, *kept, *sizes, reduction == "none")
        return dx

    loss = loss.reshape(shape if reduction == "none" else ())
    return loss.astype(dtype, copy=False), (dlogits, None)


def _by_rows(kernel: str, x: Array, *arguments: Any, shared: int = 0) -> None:
    """Launch a kernel with one block for each row of x."""
    columns = x.shape[-1]
    width = width_of(columns, x)
    threads = min(THREADS, -(-columns // (32 * width)) * 32)
    grid, block = (x.size // columns,), (threads,)
    LOSSES.launch(kernel, grid, block, x, *arguments, width=width, shared=shared)


def _total(
    losses: Array, ids: Any, ignoring: Any, reduction: str, dtype: DType
) -> tuple[Array, Array | None]:
    """(the reduced loss, by what backward divides)."""
    if reduction == "none":
        return losses, None
    loss, count = empty((), losses.dtype), empty((), losses.dtype)
    arguments = losses, *ids, loss, count, losses.size, *ignoring, reduction == "mean"
    LOSSES.launch("cross_entropy_total", (1,), (THREADS,), *arguments, dtype=dtype)
    return loss, count if reduction == "mean" else None


# -- with the product that makes the logits


def _supports_product(
    x: Array,
    weight: Array,
    targets: Array,
    *,
    transposed: bool = False,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> str | None:
    if reduction == "none":
        return "reduction 'none': each loss has a gradient of its own"
    inputs = weight.shape[1 if transposed else 0] if weight.ndim == 2 else 0
    if x.ndim == 0 or x.shape[-1] != inputs or targets.shape != x.shape[:-1]:
        return f"targets {targets.shape} of x {x.shape}, weight {weight.shape}"
    if x.dtype not in C_TYPES or 0 in (x.size, weight.size):
        return f"x {x.shape} {x.dtype}, weight {weight.shape}"
    if targets.dtype.kind not in "iu":
        return f"targets {targets.dtype}"
    return untreated(ignore_index, label_smoothing, reduction)


@kernel_for("linear_cross_entropy", device="cuda", supports=_supports_product)
def linear_cross_entropy_by_chunks(
    x: Array,
    weight: Array,
    targets: Array,
    *,
    transposed: bool = False,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    wanted: tuple[bool, ...] = (True, True, False),
) -> Any:
    """The losses and the gradients of some rows at a time, so that the logits of all rows never
    exist. Backward only scales: by dloss / count, which stays on the GPU.

    wanted: which inputs want a gradient.   dweight is summed in float32 where it has 16 bits.
    """
    shape, dtype, weight_shape = x.shape, x.dtype, weight.shape
    rows, ids = contiguous(x).reshape(-1, shape[-1]), integers(targets)
    ignoring = ignore_index is not None, ignore_index or 0
    losses = empty((len(rows),), wide(dtype))
    dx = empty(rows.shape, dtype) if wanted[0] else None
    dweight = empty(weight_shape, wide(dtype)) if wanted[1] else None
    sizes = weight_shape[0 if transposed else 1], label_smoothing, *ignoring
    _by_chunks(rows, weight, transposed, ids, losses, sizes, dx, dweight)
    loss, count = _total(losses, ids, ignoring, reduction, dtype)

    def scaled_dx(dloss: Array) -> Array:
        out = empty(shape, dtype)
        width = width_of(shape[-1], out, dx)
        sizes = out.size // shape[-1], shape[-1], *ignoring
        _each("scale_rows", width, out, dx, *ids, dloss, count, out, *sizes)
        return out

    def scaled_dweight(dloss: Array, *, out: Array | None = None, add: bool = False) -> Array:
        if out is None:
            out, add = empty(weight_shape, dtype), False
        width = width_of(out.size, out)
        _each("scale_into", width, out, dweight, dloss, count, out, out.size, add)
        return out

    return loss, (scaled_dx, scaled_dweight, None)


def _by_chunks(
    rows: Array,
    weight: Array,
    transposed: bool,
    ids: Any,
    losses: Array,
    sizes: tuple[Any, ...],
    dx: Array | None,
    dweight: Array | None,
) -> None:
    """Write the losses, and dx and dweight of a loss that is their sum, where they are wanted.

    dlogits = p - q is in [-1, 1]. Divided by the count, it could vanish in 16 bits.
    """
    count, classes = len(rows), sizes[0]
    # with 16 bits, each row of logits begins on 16 bytes: their product is then faster
    pitch = -(-classes // PITCH) * PITCH if rows.dtype.itemsize == 2 else classes
    row = pitch * rows.dtype.itemsize
    matrix, inverse = (weight.T, weight) if transposed else (weight, weight.T)
    learning = dx is not None or dweight is not None
    shared = row if learning and row <= SHARED else 0
    size = _rows_of_chunk(count, row)
    logits = empty((size, pitch), rows.dtype)
    ids = [i if i is None else i.ravel() for i in ids]
    for start in range(0, count, size):
        stop = min(start + size, count)
        x, *own = (_part(array, start, stop) for array in (rows, *ids, losses))
        whole = _part(logits, 0, stop - start)
        chunk = product(x, matrix, whole if pitch == classes else whole[:, :classes])
        arguments = *own, pitch, *sizes, learning, shared > 0
        _by_rows("cross_entropy_in_place", whole, *arguments, shared=shared)
        if dx is not None:
            product(chunk, inverse, _part(dx, start, stop))
        if dweight is not None:
            a, b = (chunk, x) if transposed else (x, chunk)
            product(a.T, b, dweight, add=start > 0)


def _part(array: Array | None, start: int, stop: int) -> Any:
    """The rows from start to stop: the array itself where these are all, which needs no view."""
    return array if array is None or stop - start == len(array) else array[start:stop]


def _rows_of_chunk(rows: int, row: int) -> int:
    """Rows of logits at a time, of so many bytes each: equal chunks, of whole tiles of products."""
    chunks = -(-rows * row // CHUNK)
    return min(rows, -(-rows // (chunks * TILE)) * TILE)


def _each(kernel: str, width: int, out: Array, *arguments: Any) -> None:
    """Launch a kernel with a thread for each `width` elements of out."""
    grid = (-(-out.size // (256 * width)),)
    LOSSES.launch(kernel, grid, (256,), *arguments, dtype=out.dtype, width=width)
