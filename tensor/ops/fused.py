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
from tensor.errors import ShapeError
from tensor.ops.activations import gelu
from tensor.ops.attention import attention
from tensor.ops.elementwise import add, multiply
from tensor.ops.indexing import embedding, getitem
from tensor.ops.matmul import linear
from tensor.ops.normalization import layer_norm
from tensor.ops.op import Ids, fused_op
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
def causal_self_attention(
    qkv: TensorBase, heads: int, *, dropout: float = 0.0, key: Key | None = None
) -> Any:
    """y = softmax(q k^T / sqrt(D), no key after its query) v for each head, the heads side by side.
    Vaswani et al. 2017, section 3.2.2

    qkv: (B, T, 3C), the rows of q, k and v after each other, each H heads of D = C / H numbers   y:
    (B, T, C)
    """
    if qkv.ndim != 3 or qkv.shape[-1] % (3 * heads):
        raise ShapeError(
            f"causal_self_attention of {qkv.shape} with {heads} heads: "
            "(B, T, 3C) is needed, C a multiple of the heads"
        )
    B, T, C = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    # (B, T, 3C) -> 3 x (B, H, T, D)
    q, k, v = (
        part.view(B, T, heads, C // heads).transpose(1, 2) for part in split(qkv, C, axis=-1)
    )
    y = attention(q, k, v, causal=True, dropout=dropout, key=key)  # (B, H, T, D)
    # The GPT's one copy: a token's heads lie T x D apart in y, and no strides can join axes that
    # are not neighbours in memory.
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
