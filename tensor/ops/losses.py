"""What training makes small. Each loss is one op, so that its gradient is the simple difference it
is on paper.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

from tensor.dtypes import FLOATS
from tensor.errors import DTypeError, OptionError, ShapeError
from tensor.memory.devices import Array
from tensor.memory.layout import broadcast_shape
from tensor.ops.activations import logistic
from tensor.ops.indexing import check_range
from tensor.ops.op import Ids, check_float, compute_op, reference_of
from tensor.ops.reductions import total
from tensor.ops.wider import in_float64, overflowed


def _reduced(losses: Array, count: Any, reduction: str) -> Any:
    """(the losses themselves ("none"), their sum, or their sum over `count` ("mean"); the function
    from its gradient to that of each loss).
    """
    if reduction == "mean":
        return total(losses, count=count), lambda dloss: dloss / count
    if reduction not in ("sum", "none"):
        raise OptionError(f"reduction is 'mean', 'sum' or 'none', not {reduction!r}")
    return total(losses) if reduction == "sum" else losses, lambda dloss: dloss


def untreated(ignore_index: int | None, label_smoothing: float, reduction: str) -> str | None:
    """Why a kernel of cross-entropy leaves these options to the reference; None if it need not."""
    if not 0 <= label_smoothing <= 1 or reduction not in ("mean", "sum", "none"):
        return f"label_smoothing {label_smoothing}, reduction {reduction!r}"
    if not -(2**63) <= (ignore_index or 0) < 2**63:
        return f"ignore_index {ignore_index}"
    return None


@compute_op
def cross_entropy(
    logits: Array,
    targets: Ids,
    *,
    weight: Any = None,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """loss = -ln softmax(logits)[target],   dlogits = (softmax(logits) - onehot(target)) dloss,
    averaged over the targets.

    logits: (..., V)   targets: (...) integers.   Targets equal to ignore_index count for nothing,
    also in the mean: a loss of 0 and a gradient of 0 when none is left.   label_smoothing s: the
    target distribution is (1 - s) onehot + s / V (Szegedy et al. 2016, section 7).
    weight: (V,), a factor for each class; the mean divides by the sum of the targets' factors.
    targets may also be probabilities q: (..., V) floats:   loss = -sum q ln softmax(logits), in the
    dtype of the logits.
    Raises ShapeError, DTypeError, and IndexError for a target outside [0, V).
    """
    _check_targets(logits, targets, label_smoothing)
    if weight is not None or targets.dtype in FLOATS:
        return _of_distributions(logits, targets, weight, ignore_index, label_smoothing, reduction)
    classes = logits.shape[-1]
    used, ids = _used(targets, ignore_index, classes)
    x, log_total = _shifted(logits, used)
    losses = (log_total - np.take_along_axis(x, ids, -1))[..., 0]
    if label_smoothing:
        losses = (1 - label_smoothing) * losses + label_smoothing * (log_total[..., 0] - x.mean(-1))
    losses = np.where(used, losses, 0)
    count = np.maximum(used.sum(), 1).astype(losses.dtype)
    loss, share = _reduced(losses, count, reduction)
    if overflowed(loss):
        options: Any = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
        function = reference_of("cross_entropy")
        return in_float64(function, logits, targets, reduction=reduction, **options)

    def dlogits(dloss: Array) -> Array:
        probabilities = np.exp(x - log_total)
        onehot = (ids == np.arange(classes, like=ids)).astype(x.dtype)
        wanted = onehot * (1 - label_smoothing) + label_smoothing / classes
        return (probabilities - wanted) * np.where(used, share(dloss), 0)[..., None]

    return loss, (dlogits, None)


def _used(targets: Array, ignore_index: int | None, classes: int) -> tuple[Array, Array]:
    """(which targets count, the targets with 0 for the others, an axis longer)."""
    if ignore_index is None:
        used = np.ones_like(targets, dtype=bool)
    else:
        used = targets != operator.index(ignore_index)
    ids = np.where(used, targets, 0)[..., None]  # (..., 1)
    check_range("cross_entropy got target", ids, classes)
    return used, ids


def _shifted(logits: Array, used: Array) -> tuple[Array, Array]:
    """(logits whose largest in a row is 0, the logarithm of the sum of their exponentials)."""
    x = np.where(used[..., None], logits, 0)  # what is ignored may hold anything, also -inf
    x = x - x.max(-1, keepdims=True)
    return x, np.log(np.exp(x).sum(-1, keepdims=True))  # (..., 1)


def _of_distributions(
    logits: Array,
    targets: Array,
    weight: Any,
    ignore_index: int | None,
    label_smoothing: float,
    reduction: str,
) -> Any:
    """loss = -sum t ln softmax(logits),   t = weight ((1 - s) q + s / V),   q: targets that are
    probabilities, or onehot(target)

    dlogits = (softmax(logits) sum t - t) dloss,   dq = -weight (1 - s) ln softmax(logits) dloss
    """
    classes, certain = logits.shape[-1], 1 - label_smoothing
    w = np.ones_like(logits, shape=classes)
    if weight is not None:
        w = np.asarray(weight, dtype=logits.dtype, like=logits)
    if w.shape != (classes,):
        raise ShapeError(f"cross_entropy weight {w.shape}: one for each class, ({classes},)")
    dtype, soft = targets.dtype, targets.dtype in FLOATS
    if soft:
        if ignore_index is not None:
            raise OptionError("cross_entropy: ignore_index is for integers, not for probabilities")
        used = np.ones_like(targets, dtype=bool, shape=targets.shape[:-1])
        q = targets.astype(logits.dtype, copy=False)
        count: Any = max(used.size, 1)
    else:
        used, ids = _used(targets, ignore_index, classes)
        q = (ids == np.arange(classes, like=ids)).astype(logits.dtype)
        count = np.where(used, w[ids[..., 0]], 0).sum()
        count = np.where(count == 0, 1, count).astype(logits.dtype)  # nothing is left
    t = w * (certain * q + label_smoothing / classes)
    x, log_total = _shifted(logits, used)
    log_p = x - log_total
    with np.errstate(invalid="ignore"):  # 0 times the infinite logarithm of a probability of 0
        losses = -np.where(t == 0, 0, t * log_p).sum(-1)
    loss, share = _reduced(np.where(used, losses, 0), count, reduction)

    def dlogits(dloss: Array) -> Array:
        dx = np.exp(log_p) * t.sum(-1, keepdims=True) - t
        return dx * np.where(used, share(dloss), 0)[..., None]

    def dtargets(dloss: Array) -> Array:
        dq: Array = -w * certain * log_p * np.where(used, share(dloss), 0)[..., None]
        return dq.astype(dtype)

    return loss, (dlogits, dtargets if soft else None)


def _check_targets(logits: Array, targets: Array, label_smoothing: float) -> None:
    check_float("cross_entropy", logits)
    soft = targets.dtype in FLOATS and targets.shape == logits.shape and logits.ndim
    if targets.dtype.kind not in "iu" and not soft:
        raise DTypeError(
            f"cross_entropy targets must be integers, not {targets.dtype} {targets.shape}; or "
            f"probabilities {logits.shape}, as the logits"
        )
    if not soft and (logits.ndim == 0 or targets.shape != logits.shape[:-1]):
        raise ShapeError(
            f"cross_entropy of logits {logits.shape} needs targets {logits.shape[:-1]}, "
            f"not {targets.shape}"
        )
    if logits.shape[-1] == 0:
        raise ShapeError(f"cross_entropy of logits {logits.shape}: at least one class is needed")
    if not 0 <= label_smoothing <= 1:
        raise OptionError(f"label_smoothing={label_smoothing}: a share between 0 and 1")


def _check_pair(name: str, prediction: Array, target: Array) -> None:
    """Raise DTypeError where they are no floats, and ShapeError where their shapes differ."""
    check_float(name, prediction)
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
    _check_pair("mean_squared_error", prediction, target)
    difference = prediction - target
    loss, share = _reduced(difference * difference, max(difference.size, 1), reduction)
    if overflowed(loss):
        both = prediction, target
        return in_float64(reference_of("mean_squared_error"), *both, reduction=reduction)

    def dprediction(dloss: Array) -> Array:
        return 2 * difference * share(dloss)

    return loss, (dprediction, lambda dloss: -dprediction(dloss))


@compute_op
def l1_loss(prediction: Array, target: Array, *, reduction: str = "mean") -> Any:
    """loss = mean |prediction - target|,   dprediction = sign(prediction - target) dloss / n,
    dtarget = its negative.   The sign of 0 is 0.
    """
    _check_pair("l1_loss", prediction, target)
    difference = prediction - target
    loss, share = _reduced(np.abs(difference), max(difference.size, 1), reduction)

    def dprediction(dloss: Array) -> Array:
        return np.sign(difference) * share(dloss)

    return loss, (dprediction, lambda dloss: -dprediction(dloss))


@compute_op
def huber_loss(
    prediction: Array, target: Array, *, delta: float = 1.0, reduction: str = "mean"
) -> Any:
    """loss = mean of d^2 / 2 where |d| <= delta, else of delta (|d| - delta / 2).      Huber 1964

    d = prediction - target,   dprediction = clip(d, -delta, delta) dloss / n,   dtarget = its
    negative
    """
    _check_pair("huber_loss", prediction, target)
    if not delta > 0:
        raise OptionError(f"huber_loss delta={delta}: above 0 is needed")
    difference = prediction - target
    near = np.clip(difference, -delta, delta)
    losses = near * (difference - near / 2)  # delta (|d| - delta / 2) beyond delta
    loss, share = _reduced(losses, max(losses.size, 1), reduction)

    def dprediction(dloss: Array) -> Array:
        return near * share(dloss)

    return loss, (dprediction, lambda dloss: -dprediction(dloss))


@compute_op
def kl_divergence(log_q: Array, p: Array, *, reduction: str = "mean") -> Any:
    """loss = sum p (ln p - log_q) over the last axis, D(p || q), averaged over the rows.   Kullback
    and Leibler 1951

    dlog_q = -p dloss / n,   dp = (ln p + 1 - log_q) dloss / n.   log_q: (..., V), logarithms of the
    model's probabilities, as of log_softmax   p: (..., V), the target's probabilities.
    Where p is 0, the term and dp are 0. The order is that of PyTorch's kl_div, the mean its
    "batchmean".
    """
    _check_pair("kl_divergence", log_q, p)
    possible = p != 0  # also NaN
    with np.errstate(divide="ignore", invalid="ignore"):  # ln 0, and 0 times infinity
        log_ratio = np.log(p) - log_q
        losses = np.where(possible, p * log_ratio, 0).sum(-1)
    loss, share = _reduced(losses, max(losses.size, 1), reduction)
    return loss, (
        lambda dloss: -p * share(dloss)[..., None],
        lambda dloss: np.where(possible, log_ratio + 1, 0) * share(dloss)[..., None],
    )


@compute_op
def binary_cross_entropy(p: Array, targets: Array, *, reduction: str = "mean") -> Any:
    """loss = mean of -t ln p - (1 - t) ln(1 - p),   dp = (p - t) / (p (1 - p)) dloss / n,
    dtargets = (ln(1 - p) - ln p) dloss / n

    p: probabilities, in [0, 1].   t: any numbers in [0, 1].   Logarithms are at least -100 and
    p (1 - p) is at least 1e-12, so a p of 0 or 1 gives a finite loss and gradient, as in PyTorch.
    Raises ValueError for a p outside [0, 1]: logits go to `binary_cross_entropy_with_logits`, which
    is exact for large ones too.
    """
    _check_pair("binary_cross_entropy", p, targets)
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # NaN too
        raise OptionError(
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
    logits: Array, targets: Array, *, pos_weight: Any = None, reduction: str = "mean"
) -> Any:
    """loss = mean of -w t ln s(x) - (1 - t) ln(1 - s(x)), s the sigmoid,  = max(x, 0) - x t +
    ln(1 + e^-|x|) + (w - 1) t ln(1 + e^-x)

    dlogits = (s(x) - t - (w - 1) t s(-x)) dloss / n,   dtargets = ((w - 1) ln(1 + e^-x) - x) dloss
    / n.   x are logits, not probabilities; t any numbers in [0, 1].   w = pos_weight: what a target
    of 1 counts more than one of 0, where ones are rare; a number, or an array that broadcasts to x.
    """
    _check_pair("binary_cross_entropy_with_logits", logits, targets)
    rest = np.log1p(np.exp(-np.abs(logits)))
    losses = np.maximum(logits, 0) - logits * targets + rest
    more = surprise = None
    if pos_weight is not None:
        more = _more(pos_weight, logits)
        surprise = np.maximum(-logits, 0) + rest  # -ln s(x)
        losses += more * targets * surprise
    loss, share = _reduced(losses, max(losses.size, 1), reduction)

    def dlogits(dloss: Array) -> Array:
        dx = logistic(logits) - targets
        if more is not None:
            dx -= more * targets * logistic(-logits)
        return dx * share(dloss)

    def dtargets(dloss: Array) -> Array:
        dt = -logits if more is None else more * surprise - logits
        return dt * share(dloss)

    return loss, (dlogits, dtargets)


def _more(pos_weight: Any, logits: Array) -> Array:
    """pos_weight - 1, in the dtype of the logits. Raises ShapeError."""
    w = np.asarray(pos_weight, dtype=logits.dtype, like=logits)
    if broadcast_shape(w.shape, logits.shape) != logits.shape:
        raise ShapeError(f"pos_weight {w.shape} is larger than the logits {logits.shape}")
    return w - 1
