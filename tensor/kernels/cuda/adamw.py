"""The end of a training step on the GPU, without a wait for the host: what calls adamw.cu."""

from __future__ import annotations

from typing import Any, NamedTuple

from tensor.dtypes import float64
from tensor.kernels import kernel_for
from tensor.kernels.cuda.launch import C_TYPES, Source, contiguous, empty, width_of
from tensor.memory.devices import Array

UPDATES = Source("adamw.cu")
THREADS = 256
# Blocks at most. More blocks than a GPU runs at once: each takes its share of the packs.
PARTS, BLOCKS = 1024, 2112
DECISION = 4  # numbers of `decision` in adamw.cu; the first is the norm


class Run(NamedTuple):
    """A stretch of flat storage, and its update."""

    g: Array
    narrow: Array | None  # the weights, where w are their masters in float32
    w: Array
    m: Array
    v: Array
    rate: float
    b1: float
    b2: float
    eps: float
    decay: float
    t: int  # its steps, with this one and with those that were skipped
    later: Array | None = None  # where rate, decay and t lie instead: (3,) float64


def _supports(*gradients: Array, **_: Any) -> str | None:
    wrong = [g.dtype for g in gradients if g.dtype not in C_TYPES]
    return f"dtype {wrong[0]}" if wrong else None


def _updatable(w: Array, g: Array, *_: Array, **__: Any) -> str | None:
    if w.dtype not in C_TYPES or g.dtype not in C_TYPES:
        return f"dtypes {w.dtype}, {g.dtype}"
    flat = w.ndim == g.ndim == 1 and w._c_contiguous and g._c_contiguous
    return None if flat else "no flat storage"


@kernel_for("squared_norm", device="cuda", supports=_supports)
def squared_norm_of_blocks(g: Array) -> Array:
    """Summed in float64, in a fixed order.   () float64"""
    return _sums([contiguous(g).reshape(-1)]).sum()


def _sums(arrays: list[Array]) -> Array:
    """Sums of the squares of parts of the arrays."""
    widths = [width_of(g.size, g) for g in arrays]
    pairs = list(zip(arrays, widths, strict=True))
    counts = [min(PARTS, -(-g.size // (THREADS * width))) for g, width in pairs]
    partial, start = empty((sum(counts),), float64), 0
    for (g, width), count in zip(pairs, counts, strict=True):
        part = partial[start : start + count]
        UPDATES.launch("squared_norm", (count,), (THREADS,), g, part, g.size, width=width)
        start += count
    return partial


@kernel_for("adamw", device="cuda", supports=_updatable)
def adamw_by_packs(
    w: Array,
    g: Array,
    m: Array,
    v: Array,
    *,
    b1: float,
    b2: float,
    step_size: float,
    bias_correction: float,
    eps: float,
    decay: float,
    narrow: Array | None = None,
) -> None:
    """The update `adamw` in one pass.   narrow: the weights in 16 bits whose masters w are"""
    run = Run(g, narrow, w, m, v, step_size, b1, b2, eps, decay, 0)
    _update(run, None, bias_correction)


@kernel_for("clipped_adamw", device="cuda", supports=_supports)
def clipped_adamw(
    *gradients: Array,
    updates: list[dict[str, Any]],
    limit: float,
    skipped: Array,
    scale: Array | None,
    patience: int,
) -> Array:
    """Clip by the norm of all gradients, and update, unless the norm is not finite. Returns the
    norm before: () float64, on the GPU.

    updates: the fields of a Run, for each.
    skipped: (1,) float64, the steps skipped so far.   scale: (2,) float64, the loss scale and its
    good steps: the gradients are that many times too large. Both arrays are brought up to date.
    """
    partial, decision = _sums(list(gradients)), empty((DECISION,), float64)
    first = gradients[0]
    numbers = limit, partial.size, patience
    options: Any = {"dtype": first.dtype, "width": width_of(first.size, first)}
    arrays = partial, decision, skipped, scale
    UPDATES.launch("control", (1,), (THREADS,), *arrays, *numbers, **options)
    for update in updates:
        _update(Run(**update), decision, 0.0)
    return decision[0]


def _update(run: Run, decision: Array | None, correction: float) -> None:
    arrays = run.g, run.narrow, run.w, run.m, run.v, decision, run.later
    width = width_of(run.g.size, *(array for array in arrays[:5] if array is not None))
    blocks = min(BLOCKS, -(-run.g.size // (THREADS * width)))
    numbers = run.rate, correction, run.b1, run.b2, run.eps, run.decay, run.t, run.g.size
    UPDATES.launch("adamw", (blocks,), (THREADS,), *arrays, *numbers, width=width)
