"""Cross-entropy: what calls cross_entropy.c."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensor.dtypes import int64
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal
from tensor.memory.devices import Array
from tensor.ops.losses import untreated
from tensor.ops.op import reference_of
from tensor.ops.reductions import total


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
    refused = untreated(ignore_index, label_smoothing, reduction)
    if refused:
        return refused
    fits = logits.size and logits.ndim and targets.shape == logits.shape[:-1]
    if not fits or targets.dtype != int64:
        return f"targets {targets.shape} {targets.dtype} of logits {logits.shape}"
    return refusal(targets, dtype=int64) or refusal(logits)


@kernel_for("cross_entropy", supports=_supports)
def cross_entropy_by_rows(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    **_: None,
) -> Any:
    """Two passes over the logits forward, one backward; the log-sum-exp of each row is kept beside
    them, in two parts.
    """
    width, shape = logits.shape[-1], targets.shape
    rows = targets.size
    losses, totals = np.empty(shape, logits.dtype), np.empty((2, rows), logits.dtype)
    ignored = ignore_index is not None, ignore_index or 0
    sizes = rows, width, *ignored, float(label_smoothing)
    if library.cross_entropy_forward(logits, targets, losses, totals, *sizes):
        return NotImplemented  # a target out of range: the reference says which
    count = rows if ignore_index is None else max(int(np.count_nonzero(targets != ignore_index)), 1)

    def dlogits(dloss: Array) -> Array:
        shares, dx = np.empty(shape, logits.dtype), np.empty(logits.shape, logits.dtype)
        shares[...] = dloss / count if reduction == "mean" else dloss
        if library.cross_entropy_backward(logits, targets, totals, shares, dx, *sizes):
            options: Any = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
            reference = reference_of("cross_entropy")
            return reference(logits, targets, reduction=reduction, **options)[1][0](dloss)
        return dx

    if reduction == "none":
        return losses, (dlogits, None)
    loss = total(losses, count=count if reduction == "mean" else None)
    return (loss, (dlogits, None)) if math.isfinite(loss) else NotImplemented
