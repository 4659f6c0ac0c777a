"""What training makes small. Each loss is one op, so that its gradient is the simple difference it
is on paper.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.errors import DTypeError, ShapeError
from tensor.memory.devices import Array
from tensor.ops.activations import logistic
from tensor.ops.indexing import check_range
from tensor.ops.op import Ids, check_float, compute_op


def _reduced(losses: Array, count: Any, reduction: str) -> Any:
    """(the losses themselves ("none"), their sum, or their sum over `count` ("mean"); the function
    from its gradient to that of each loss).
    """
    if reduction == "mean":
        return losses.sum() / count, lambda dloss: dloss / count
    if reduction not in ("sum", "none"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    return losses.sum() if reduction == "sum" else losses, lambda dloss: dloss


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
    also in the mean: a loss of 0 and a gradient of 0 when none is left.   label_smoothing s: the
    target distribution is (1 - s) onehot + s / V (Szegedy et al. 2016, section 7).
    Raises ShapeError, DTypeError, and IndexError for a target outside [0, V).
    """
    _check_targets(logits, targets, label_smoothing)
    classes = logits.shape[-1]
    used = np.ones_like(targets, dtype=bool) if ignore_index is None else targets != ignore_index
    ids = np.where(used, targets, 0)[..., None]  # (..., 1)
    check_range("cross_entropy got target", ids, classes)
    x = np.where(used[..., None], logits, 0)  # what is ignored may hold anything, also -inf
    x = x - x.max(-1, keepdims=True)
    log_total = np.log(np.exp(x).sum(-1, keepdims=True))  # (..., 1)
    losses = (log_total - np.take_along_axis(x, ids, -1))[..., 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses + label_smoothing * (log_total[..., 0] - x.mean(-1))
    losses = np.where(used, losses, 0)
    count = np.maximum(used.sum(), 1).astype(losses.dtype)
    loss, share = _reduced(losses, count, reduction)

    def dlogits(dloss: Array) -> Array:
        probabilities = np.exp(x - log_total)
        onehot = (ids == np.arange(classes, like=ids)).astype(x.dtype)
        wanted = onehot * (1 - label_smoothing) + label_smoothing / classes
        return (probabilities - wanted) * np.where(used, share(dloss), 0)[..., None]

    return loss, (dlogits, None)


def _check_targets(logits: Array, targets: Array, label_smoothing: float) -> None:
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


def _check_same(name: str, prediction: Array, target: Array) -> None:
    if prediction.shape != target.shape:
        raise ShapeError(
            f"{name} of {prediction.shape} and {target.shape}: "
            "the shapes must be equal, nothing is broadcast here"
        )


@compute_op
def mean_squared_error(prediction: Array, target: Array, *, reduction: str = "mean") -> Any:
    """loss = mean (prediction - target)^2,   dprediction = 2 (prediction - target) dloss / n,
    dtarget = its negative
    """
    check_float("mean_squared_error", prediction)
    _check_same("mean_squared_error", prediction, target)
    difference = prediction - target
    loss, share = _reduced(difference * difference, max(difference.size, 1), reduction)

    def dprediction(dloss: Array) -> Array:
        return 2 * difference * share(dloss)

    return loss, (dprediction, lambda dloss: -dprediction(dloss))


@compute_op
def binary_cross_entropy(p: Array, targets: Array, *, reduction: str = "mean") -> Any:
    """loss = mean of -t ln p - (1 - t) ln(1 - p),   dp = (p - t) / (p (1 - p)) dloss / n,
    dtargets = (ln(1 - p) - ln p) dloss / n

    p: probabilities, in [0, 1].   t: any numbers in [0, 1].   Logarithms are at least -100 and
    p (1 - p) is at least 1e-12, so a p of 0 or 1 gives a finite loss and gradient, as in PyTorch.
    Raises ValueError for a p outside [0, 1]: logits go to `binary_cross_entropy_with_logits`, which
    is exact for large ones too.
    """
    check_float("binary_cross_entropy", p)
    _check_same("binary_cross_entropy", p, targets)
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # NaN too
        raise ValueError(
            f"binary_cross_entropy got {p.min()} to {p.max()}, and probabilities lie in [0, 1]: "
            "logits go to binary_cross_entropy_with_logits"
        )
    with np.errstate(divide="ignore"):
        log_p, log_q = np.maximum(np.log(p), -100), np.maximum(np.log1p(-p), -100)
    losses = -targets * log_p - (1 - targets) * log_q
    loss, share = _reduced(losses, max(losses.size, 1), reduction)

    def dp(dloss: Array) -> Array:
        return (p - targets) / np.maximum(p * (1 - p), 1e-12) * share(dloss)

    return loss, (dp, lambda dloss: (log_q - log_p) * share(dloss))


@compute_op
def binary_cross_entropy_with_logits(
    logits: Array, targets: Array, *, reduction: str = "mean"
) -> Any:
    """loss = mean of -t ln s(x) - (1 - t) ln(1 - s(x)), s the sigmoid,  = max(x, 0) - x t + ln(1 +
    e^-|x|)

    dlogits = (s(x) - t) dloss / n,   dtargets = -x dloss / n.   x are logits, not probabilities; t
    any numbers in [0, 1].
    """
    check_float("binary_cross_entropy_with_logits", logits)
    _check_same("binary_cross_entropy_with_logits", logits, targets)
    losses = np.maximum(logits, 0) - logits * targets + np.log1p(np.exp(-np.abs(logits)))
    loss, share = _reduced(losses, max(losses.size, 1), reduction)
    return loss, (
        lambda dloss: (logistic(logits) - targets) * share(dloss),
        lambda dloss: -logits * share(dloss),
    )
