"""Layers: classes whose `__init__` builds parameters and whose `__call__` computes. The arithmetic
is in tensor/ops.
"""

from typing import TYPE_CHECKING, Any

from tensor.answers import HERE
from tensor.names import unknown
from tensor.nn.answers import CLASSES
from tensor.nn.layers import (
    GELU,
    Dropout,
    Embedding,
    Flatten,
    LayerNorm,
    LeakyReLU,
    Linear,
    ReLU,
    RMSNorm,
    Sequential,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
    undrawn,
)
from tensor.nn.module import Module, Parameter, evaluating
from tensor.nn.packing import Flat, pack

__all__ = [
    "GELU",
    "Dropout",
    "Embedding",
    "Flat",
    "Flatten",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "Module",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "evaluating",
    "pack",
    "undrawn",
]


if not TYPE_CHECKING:  # a type checker would take any name for one of this module

    def __getattr__(name: str) -> Any:
        # the class of a function: nn.ELU, elu
        raise unknown(__name__, name, CLASSES.get(name) or HERE.get(name.lower()))
