"""Every operation, one file a family; the registry `OPS` is filled by their decorators."""

from tensor.op import OPS
from tensor.ops.activations import gelu, relu, sigmoid, silu, step
from tensor.ops.attention import attention
from tensor.ops.dropout import dropout
from tensor.ops.elementwise import (
    abs,
    add,
    bitwise_and,
    bitwise_or,
    bitwise_xor,
    clip,
    cos,
    divide,
    equal,
    erf,
    exp,
    greater,
    greater_equal,
    invert,
    less,
    less_equal,
    log,
    masked_fill,
    maximum,
    minimum,
    multiply,
    negative,
    not_equal,
    power,
    sin,
    sqrt,
    subtract,
    tanh,
    where,
)
from tensor.ops.indexing import concatenate, embedding, gather, getitem, one_hot, pad, split_key, stack
from tensor.ops.losses import binary_cross_entropy, cross_entropy, mean_squared_error
from tensor.ops.matmul import linear, matmul
from tensor.ops.normalization import layer_norm
from tensor.ops.reductions import argmax, argmin, cumsum, logsumexp, max, mean, min, std, sum, var
from tensor.ops.softmax import log_softmax, softmax
from tensor.ops.views import chunk, clone, contiguous, expand, flatten, permute, reshape, split, squeeze, to, transpose, unsqueeze, view

__all__ = [name for name in dir() if not name.startswith("_")]
