"""Cross-entropy: what calls cross_entropy.c."""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.devices import Array
from tensor.dtypes import int64
from tensor.kernels import kernel_for
from tensor.kernels.cpu.compiled import library, refusal


def _supports(logits: Array, targets: Array, *, ignore_index: int | None = None, label_smoothing: float = 0.0, reduction: str = "mean") -> str | None:
    if ignore_index is not None or label_smoothing or reduction not in ("mean", "sum", "none"):
        return "ignore_index, label_smoothing"
    if logits.size == 0 or logits.ndim == 0 or targets.shape != logits.shape[:-1] or targets.dtype != int64 or not targets.flags.c_contiguous:
        return f"targets {targets.shape} {targets.dtype} of logits {logits.shape}"
    return refusal(logits)


@kernel_for("cross_entropy", device="cpu", supports=_supports)
def cross_entropy_by_rows(logits: Array, targets: Array, *, ignore_index: int | None = None, label_smoothing: float = 0.0, reduction: str = "mean") -> Any:
    """Two passes over the logits forward, one backward; the log-sum-exp of each row is kept beside them."""
    width, shape = logits.shape[-1], targets.shape
    rows = logits.size // width
    losses, lse = np.empty(shape, logits.dtype), np.empty(rows, logits.dtype)
    if library.cross_entropy_forward(logits, targets, losses, lse, rows, width):
        return NotImplemented  # a target out of range: the reference says which

    def dlogits(dloss: Array) -> Array:
        shares = np.empty(shape, logits.dtype)
        shares[...] = dloss / rows if reduction == "mean" else dloss
        dx = np.empty(logits.shape, logits.dtype)
        library.cross_entropy_backward(logits, targets, lse, shares, dx, rows, width)
        return dx

    if reduction == "none":
        return losses, (dlogits, None)
    total = losses.sum()
    return total / losses.dtype.type(rows) if reduction == "mean" else total, (dlogits, None)
