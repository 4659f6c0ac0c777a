"""Scaled dot-product attention.      Vaswani et al. 2017, eq. 1"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tensor.autograd.broadcast import sum_to
from tensor.errors import DTypeError, ShapeError
from tensor.memory.devices import Array
from tensor.ops.dropout import scaled_mask
from tensor.ops.inputs import LOOK_FIRST
from tensor.ops.op import compute_op, reference_of
from tensor.ops.softmax import softmax_array
from tensor.ops.wider import in_float64, overflowed
from tensor.random import Key


@compute_op
def attention(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None = None,
    *,
    mask: Array | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """y = softmax(scale q k^T + bias) v, over the keys that may be seen.

    q: (..., T, D)   k: (..., S, D)   v: (..., S, E)   y: (..., T, E)
    bias: broadcasts to (..., T, S), added to the scores
    mask: broadcasts to (..., T, S), True where looking is allowed
    causal: query t sees keys up to t + S - T, so the last query sees all
    scale: 1 / sqrt(D) by default   dropout: leaves out that share of the weights, by `key`

    What may not be seen has weight and gradient exactly 0, whatever it holds; a query that may see
    nothing gives 0 and gradient 0.
    """
    _check_shapes(q, k, v, scale)
    scale = 1 / math.sqrt(q.shape[-1]) if scale is None else scale
    allowed = _allowed(q, k, mask, causal)
    scores = scale * (q @ k.swapaxes(-1, -2))  # (..., T, S)
    if _scores_lost(scores, q, k, allowed):
        options = {"causal": causal, "scale": scale, "dropout": dropout, "key": key}
        return in_float64(reference_of("attention"), q, k, v, bias, mask=mask, **options)
    # there is more to hide than weights
    strange = allowed is not None and not (np.isfinite(scores).all() & np.isfinite(v).all())
    if bias is not None:
        scores = scores + bias
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    weights = softmax_array(scores, -1)  # (..., T, S)
    if allowed is not None and strange:
        weights = np.where(allowed, weights, 0)  # a query that is NaN makes all its weights NaN
    keep = scaled_mask(weights, dropout, key) if dropout else None
    dropped = weights if keep is None else weights * keep
    y = _seen_product(dropped, v) if strange else dropped @ v
    kept = weights, dropped, keep
    return y, _backward_of(q, k, v, bias, *kept, scale, allowed is not None, strange)


def _check_shapes(q: Array, k: Array, v: Array, scale: float | None) -> None:
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ShapeError(
            f"attention of q {q.shape}, k {k.shape}, v {v.shape}: "
            "q and k share their last axis, k and v their second last"
        )
    if scale is None and q.shape[-1] == 0:
        raise ShapeError(
            f"attention of q {q.shape}: queries of no elements have no scale 1 / sqrt(D); give one"
        )


def _scores_lost(scores: Array, q: Array, k: Array, allowed: Array | None) -> bool:
    """Whether a score that may be seen overflowed, although q and k are finite."""
    if not overflowed(scores) or not (np.isfinite(q).all() and np.isfinite(k).all()):
        return False
    strange = ~np.isfinite(scores)
    return bool((strange if allowed is None else strange & allowed).any())


def _backward_of(
    q: Array,
    k: Array,
    v: Array,
    bias: Array | None,
    weights: Array,
    dropped: Array,
    keep: Array | None,
    scale: float,
    masked: bool,
    strange: bool,
) -> Any:
    """The function from dy to (dq, dk, dv, dbias)."""
    shapes = [None if x is None else x.shape for x in (q, k, v, bias)]

    def kept(x: Array) -> Array:
        return x if keep is None else x * keep

    def backward(dy: Array) -> tuple[Array | None, ...]:
        dweights = kept(dy @ v.swapaxes(-1, -2))
        careful = masked and (strange or not np.isfinite(dweights).all())
        product: Any = _seen_product if careful else np.matmul
        if careful:
            dweights = np.where(weights == 0, 0, kept(product(dy, v.swapaxes(-1, -2))))
        # the softmax, backwards
        dscores = weights * (dweights - (weights * dweights).sum(-1, keepdims=True))
        if careful:
            dscores = np.where(weights == 0, 0, dscores)
        dv = product(dropped.swapaxes(-1, -2), dy)
        dq = scale * product(dscores, k)
        dk = scale * product(dscores.swapaxes(-1, -2), q)
        return tuple(
            None if shape is None else sum_to(shape)(gradient.astype(dy.dtype, copy=False))
            for gradient, shape in zip((dq, dk, dv, dscores), shapes, strict=True)
        )

    return backward


def _allowed(q: Array, k: Array, mask: Array | None, causal: bool) -> Array | None:
    """The given mask and the causal one together; None when all may be seen.

    The causal one is True where key s <= t + S - T: aligned to the end, so that a cache of older
    keys is all visible.
    """
    if mask is not None:
        mask = np.asarray(mask, like=q)
        if mask.dtype != bool:
            raise DTypeError(
                f"attention mask must hold bools (True: look), not {mask.dtype}; "
                "numbers to add are `bias`"
            )
    if not causal:
        return mask
    queries, keys = q.shape[-2], k.shape[-2]
    seen = np.arange(keys, like=q) <= np.arange(queries, like=q)[:, None] + (keys - queries)
    return seen if mask is None else mask & seen


def _look_at_bias(device: str, q: Any, k: Any, v: Any, bias: Any = None, **options: Any) -> None:
    """A mask in the place of the bias would add 1 to the scores that may be seen."""
    dtype = getattr(bias, "dtype", None) or np.asarray(bias).dtype
    if str(dtype).endswith("bool"):  # NumPy's too, and PyTorch's
        raise DTypeError(
            "attention bias must hold numbers, which are added to the scores, not bools; "
            "what may be seen (True: look) is `mask=`"
        )


LOOK_FIRST["attention"] = _look_at_bias


def _seen_product(a: Array, b: Array) -> Array:
    """a b, where 0 times anything is 0: what has no weight may hold infinity and NaN, and what has
    one passes them on.
    """
    finite = np.isfinite(b)
    if finite.all():
        return a @ b
    y = a @ np.where(finite, b, 0)
    above, below = b == np.inf, b == -np.inf
    y[((a > 0) @ above) | ((a < 0) @ below)] += np.inf
    y[((a > 0) @ below) | ((a < 0) @ above)] -= np.inf  # where both are, NaN
    y[(a != 0) @ np.isnan(b)] = np.nan
    return y
