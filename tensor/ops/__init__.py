"""Every operation, one file a family; the registry `OPS` is filled by their decorators."""

# ruff: noqa: F403, F405 (the list below says which names are ops)
from tensor.ops.activations import *
from tensor.ops.attention import *
from tensor.ops.dropout import *
from tensor.ops.elementwise import *
from tensor.ops.fused import *
from tensor.ops.indexing import *
from tensor.ops.losses import *
from tensor.ops.matmul import *
from tensor.ops.normalization import *
from tensor.ops.op import OPS as OPS
from tensor.ops.reductions import *
from tensor.ops.softmax import *
from tensor.ops.views import *

__all__ = [
    "abs",
    "add",
    "all",
    "any",
    "argmax",
    "argmin",
    "attention",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "causal_self_attention",
    "chunk",
    "clip",
    "clone",
    "concatenate",
    "contiguous",
    "cos",
    "cross_entropy",
    "cumsum",
    "divide",
    "dropout",
    "embedding",
    "equal",
    "erf",
    "exp",
    "expand",
    "flatten",
    "gather",
    "gelu",
    "greater",
    "greater_equal",
    "invert",
    "layer_norm",
    "less",
    "less_equal",
    "linear",
    "linear_gelu",
    "log",
    "log_softmax",
    "logsumexp",
    "masked_fill",
    "matmul",
    "max",
    "maximum",
    "mean",
    "mean_squared_error",
    "min",
    "minimum",
    "multiply",
    "negative",
    "not_equal",
    "one_hot",
    "pad",
    "permute",
    "positional_embedding",
    "power",
    "relu",
    "reshape",
    "residual_layer_norm",
    "sigmoid",
    "silu",
    "sin",
    "softmax",
    "split",
    "sqrt",
    "squeeze",
    "stack",
    "std",
    "step",
    "subtract",
    "sum",
    "tanh",
    "to",
    "transpose",
    "unsqueeze",
    "var",
    "view",
    "where",
]
