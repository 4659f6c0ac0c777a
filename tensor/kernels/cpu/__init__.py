"""Kernels on the CPU: `.c` files and what calls them. Importing this registers them; they are
compiled when one is first wanted.
"""

from tensor.kernels.cpu import (  # noqa: F401 (registers its kernels)
    attention,
    cross_entropy,
    decoder,
    embedding,
    layer_norm,
    linear,
    random,
    updates,
)
