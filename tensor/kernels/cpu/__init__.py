"""Kernels on the CPU: `.c` files and what calls them. Importing this registers them; they are
compiled when one is first wanted.
"""

from tensor.kernels.cpu import (  # noqa: F401 (registers its kernels)
    adamw,
    attention,
    cross_entropy,
    decoder,
    embedding,
    gelu,
    layer_norm,
    linear,
    muon,
    random,
)
