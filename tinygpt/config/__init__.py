"""Every choice that shapes a run, as frozen dataclasses. Uses the ground alone: errors, and dtypes
of `tensor`.
"""

from __future__ import annotations

from tinygpt.config.model import BERTConfig, EncoderDecoderConfig, GPTConfig, ModelConfig
from tinygpt.config.options import ConfigError
from tinygpt.config.sampling import LookConfig, SampleConfig
from tinygpt.config.training import TrainConfig

__all__ = [
    "BERTConfig",
    "ConfigError",
    "EncoderDecoderConfig",
    "GPTConfig",
    "LookConfig",
    "ModelConfig",
    "SampleConfig",
    "TrainConfig",
]
