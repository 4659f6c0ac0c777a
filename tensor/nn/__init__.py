"""Layers: classes whose `__init__` builds parameters and whose `__call__` computes. The arithmetic
is in tensor/ops.
"""

from tensor.nn.layers import Dropout, Embedding, LayerNorm, Linear, undrawn
from tensor.nn.module import Module, Parameter, evaluating
from tensor.nn.packing import Flat, pack

__all__ = [
    "Dropout",
    "Embedding",
    "Flat",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "evaluating",
    "pack",
    "undrawn",
]
