"""What training makes small. Each loss is one op, so that its gradient is the simple difference it
is on paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.errors import DTypeError, IndexingError, ShapeError
from tensor.memory.devices import Array, is_cuda
from tensor.ops.op import Ids, check_float, compute_op


def _reduced(losses: Array, count: Any, reduction: str) -> Array:
    """The losses themselves ("none"), their sum, or their sum over `count` ("mean")."""
    if reduction == "none":
        return losses
    if reduction not in ("sum", "mean"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    total = losses.sum()
    return total / count if reduction == "mean" else total


@compute_op
def cross_entropy(
    logits: Array,
    targets: Ids,
    *,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """loss = -ln softmax(logits)[target],   dlogits = (softmax(logits) - onehot(target)) dloss,
    averaged over the targets.

    logits: (..., V)   targets: (...) integers.   Targets equal to ignore_index count for nothing,
    also in the mean: a loss of 0 and a
    gradient of 0 when none is left. label_smoothing s: the target distribution is (1 - s) onehot +
    s / V (Szegedy et al. 2016, section 7).
    Raises ShapeError, DTypeError, and IndexError for a target outside [0, V).
    """
    check_float("cross_entropy", logits)
    if targets.dtype.kind not in "iu":
        raise DTypeError(f"cross_entropy targets must be integers, not {targets.dtype}")
    if logits.ndim == 0 or targets.shape != logits.shape[:-1]:
        raise ShapeError(
            f"cross_entropy of logits {logits.shape} needs targets {logits.shape[:-1]}, "
            f"not {targets.shape}"
        )
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing}: a share between 0 and 1")
    classes = logits.shape[-1]
    used = np.ones_like(targets, dtype=bool) if ignore_index is None else targets != ignore_index
    ids = np.where(used, targets, 0)[..., None]  # (..., 1)
    if not is_cuda(ids) and ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < classes:
        raise IndexingError(
            f"cross_entropy got target {int(ids.max() if ids.max() >= classes else ids.min())}, "
            f"outside 0 to {classes - 1}"
        )
    x = np.where(used[..., None], logits, 0)  # what is ignored may hold anything, also -inf
    x = x - x.max(-1, keepdims=True)
    log_total = np.log(np.exp(x).sum(-1, keepdims=True))  # (..., 1)
    losses = (log_total - np.take_along_axis(x, ids, -1))[..., 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses + label_smoothing * (log_total[..., 0] - x.mean(-1))
    losses = np.where(used, losses, 0)
    count = np.maximum(used.sum(), 1).astype(losses.dtype)

    def dlogits(dloss: Array) -> Array:
        probabilities = np.exp(x - log_total)
        wanted = (ids == np.arange(classes, like=ids)).astype(x.dtype) * (
            1 - label_smoothing
        ) + label_smoothing / classes
        share = dloss / count if reduction == "mean" else dloss
        return (probabilities - wanted) * np.where(used, share, 0)[..., None]

    return _reduced(losses, count, reduction), (dlogits, None)


@compute_op
def mean_squared_error(prediction: Array, target: Array, *, reduction: str = "mean") -> Any:
    """loss = mean (prediction - target)^2,   dprediction = 2 (prediction - target) dloss / n,
    dtarget = its negative
    """
    check_float("mean_squared_error", prediction)
    if prediction.shape != target.shape:
        raise ShapeError(
            f"mean_squared_error of {prediction.shape} and {target.shape}: "
            "the shapes must be equal, nothing is broadcast here"
        )
    difference = prediction - target
    count = max(difference.size, 1)

    def dprediction(dloss: Array) -> Array:
        return 2 * difference * (dloss / count if reduction == "mean" else dloss)

    return _reduced(difference * difference, count, reduction), (
        dprediction,
        lambda dloss: -dprediction(dloss),
    )


@compute_op
def binary_cross_entropy(logits: Array, targets: Array, *, reduction: str = "mean") -> Any:
    """loss = mean of -t ln s(x) - (1 - t) ln(1 - s(x)), s the sigmoid,  = max(x, 0) - x t + ln(1 +
    e^-|x|)

    dlogits = (s(x) - t) dloss / n,   dtargets = -x dloss / n.   x are logits, not probabilities; t
    any numbers in [0, 1].
    """
    check_float("binary_cross_entropy", logits)
    if logits.shape != targets.shape:
        raise ShapeError(
            f"binary_cross_entropy of {logits.shape} and {targets.shape}: the shapes must be equal"
        )
    small = np.exp(-np.abs(logits))
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(small)
    count = max(logits.size, 1)

    def share(dloss: Array) -> Array:
        return dloss / count if reduction == "mean" else dloss

    def dlogits(dloss: Array) -> Array:
        return (np.where(logits >= 0, 1, small) / (1 + small) - targets) * share(dloss)

    return _reduced(losses, count, reduction), (dlogits, lambda dloss: -logits * share(dloss))
