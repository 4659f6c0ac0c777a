"""Optimisers over flat storages, schedules and clipping."""

from typing import TYPE_CHECKING, Any

from tensor.names import unknown
from tensor.optim.adam import Adam
from tensor.optim.adamw import AdamW
from tensor.optim.captured import Captured
from tensor.optim.clipping import clip_gradients, clipped_step, gradient_norm
from tensor.optim.muon import Muon
from tensor.optim.optimizer import Optimizer
from tensor.optim.scaling import LossScale
from tensor.optim.schedules import (
    inverse_square_root,
    warmup_constant,
    warmup_cosine,
    warmup_linear,
)
from tensor.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Captured",
    "LossScale",
    "Muon",
    "Optimizer",
    "clip_gradients",
    "clipped_step",
    "gradient_norm",
    "inverse_square_root",
    "warmup_constant",
    "warmup_cosine",
    "warmup_linear",
]


if not TYPE_CHECKING:  # a type checker would take any name for one of this module

    def __getattr__(name: str) -> Any:
        raise unknown(__name__, name)
