"""Kernels in CUDA: `.cu` files and what calls them. Importing this registers them; CuPy is imported
when one first runs.
"""

from tensor.kernels.cuda import (
    adamw,
    attention,
    cross_entropy,
    dropout,
    embedding,
    gelu,
    layer_norm,
    linear,
)

__all__ = [
    "adamw",
    "attention",
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
]
