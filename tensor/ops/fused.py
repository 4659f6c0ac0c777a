"""Hot chains as one op each: what a transformer does most, in as few passes over memory as a kernel
can manage.

Each function is the composition it stands for, written on tensors. That is what runs where no
kernel can (float64, no compiler, kernels switched off), what a kernel is tested against, and what
to read.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tensor.base import TensorBase
from tensor.dtypes import NARROW
from tensor.errors import ShapeError
from tensor.ops.activations import gelu
from tensor.ops.attention import attention
from tensor.ops.elementwise import add, multiply
from tensor.ops.indexing import embedding, getitem
from tensor.ops.losses import cross_entropy
from tensor.ops.matmul import linear
from tensor.ops.normalization import layer_norm
from tensor.ops.op import Ids, Mask, fused_op
from tensor.ops.views import split
from tensor.random import Key


@fused_op
def linear_gelu(x: TensorBase, weight: TensorBase, bias: TensorBase | None = None) -> Any:
    """y = gelu(x weight + bias), GELU in its tanh form.   x: (..., I)   weight: (I, O)   bias: (O,)
    or None   y: (..., O)
    """
    return gelu(linear(x, weight, bias))


@fused_op
def residual_layer_norm(
    x: TensorBase, y: TensorBase, gain: TensorBase, bias: TensorBase, *, eps: float = 1e-5
) -> Any:
    """(s, n):   s = x + y,   n = layer_norm(s, gain, bias).   x, y, s, n: (..., C)   gain, bias:
    (C,)

    The residual stream s goes on to the next sum, n into the next layer.
    """
    s = add(x, y)
    return s, layer_norm(s, gain, bias, eps=eps)


@fused_op
def multi_head_attention(
    q: TensorBase,
    kv: TensorBase | None = None,
    mask: Mask | None = None,
    *,
    heads: int,
    causal: bool = False,
    dropout: float = 0.0,
    key: Key | None = None,
) -> Any:
    """y = softmax(q k^T / sqrt(D)) v for each of the heads, H, which lie side by side in a row.
    Vaswani et al. 2017, section 3.2.2

    Cross-attention: q (B, T, C) of one sequence, and kv (B, S, 2C), the keys and values of another.
    Self-attention: q, k and v of one sequence in one array, q (B, T, 3C), without kv. A head has
    D = C / H numbers.   y: (B, T, C)
    causal, mask (broadcasts to (B, H, T, S)), dropout: as in `attention`
    """
    count, wanted = (3, "(B, T, 3C)") if kv is None else (1, "(B, T, C)")
    if heads < 1 or q.ndim != 3 or q.shape[-1] % (count * heads):
        raise ShapeError(
            f"multi_head_attention of {q.shape} with {heads} heads: {wanted} is needed, C a "
            "multiple of the heads, at least one"
        )
    B, T, C = q.shape[0], q.shape[1], q.shape[2] // count
    if kv is not None and (kv.ndim != 3 or (kv.shape[0], kv.shape[2]) != (B, 2 * C)):
        raise ShapeError(
            f"multi_head_attention of q {q.shape} and kv {kv.shape}: kv of shape ({B}, S, {2 * C}) "
            "is needed, keys and values side by side"
        )
    rows = split(q, C, axis=-1)
    if kv is not None:
        rows += split(kv, C, axis=-1)
    # (B, T or S, C) -> (B, H, T or S, D)
    q, k, v = (x.view(B, x.shape[1], heads, C // heads).transpose(1, 2) for x in rows)
    y = attention(q, k, v, causal=causal, mask=mask, dropout=dropout, key=key)  # (B, H, T, D)
    # The one copy: a token's heads lie T x D apart in y, and no strides can join axes that are not
    # neighbours in memory.
    return y.transpose(1, 2).contiguous().view(B, T, C)


@fused_op
def positional_embedding(
    ids: Ids, tokens: TensorBase, positions: TensorBase, *, scale: float = 1.0
) -> Any:
    """y[b, t] = scale * tokens[ids[b, t]] + positions[t].   ids: (B, T) integers
    tokens: (V, C)   positions: (at least T, C)   y: (B, T, C)
    """
    rows = embedding(ids, tokens)  # (B, T, C)
    if scale != 1:
        rows = multiply(rows, scale)
    return add(rows, getitem(positions, slice(np.shape(ids)[-1])))


@fused_op
def linear_cross_entropy(
    x: TensorBase,
    weight: TensorBase,
    targets: Ids,
    *,
    transposed: bool = False,
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> Any:
    """loss = cross_entropy(x weight, targets): the head of a language model and its loss.
    x: (..., C)   weight: (C, V), or (V, C) when `transposed`   targets: (...) integers

    Logits of 16 bits are widened: the loss is float32.   ignore_index, label_smoothing, reduction:
    as in `cross_entropy`
    """
    logits = linear(x, weight, transposed=transposed)  # (..., V)
    if logits.dtype in NARROW:
        # three digits of a loss are too few, and a float16 sum of many ends at 65504
        logits = logits.to("float32")
    return cross_entropy(
        logits,
        targets,
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction=reduction,
    )
