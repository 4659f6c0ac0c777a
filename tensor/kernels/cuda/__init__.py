"""Kernels in CUDA: `.cu` files and what calls them. Importing this registers them; CuPy is imported
when one first runs. The packages `attention` and `generation` stand above this one, and
register their own.
"""

from tensor.kernels.cuda import (
    adamw,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    layer_norm,
    linear,
)

__all__ = [
    "adamw",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
]
