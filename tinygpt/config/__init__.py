"""Every choice that shapes a run, as frozen dataclasses. Uses the ground alone: errors, and dtypes
of `tensor`.
"""

from __future__ import annotations

from tinygpt.config.aligning import AlignConfig, PreferencesConfig, RewardConfig
from tinygpt.config.finetuning import FinetuneConfig
from tinygpt.config.model import (
    BERTClassifierConfig,
    BERTConfig,
    EncoderDecoderConfig,
    GPTClassifierConfig,
    GPTConfig,
    ModelConfig,
)
from tinygpt.config.options import ConfigError
from tinygpt.config.sampling import LookConfig, SampleConfig
from tinygpt.config.training import TrainConfig

# the stage of a run -> its choices
STAGES = {
    config.stage: config for config in (TrainConfig, FinetuneConfig, RewardConfig, AlignConfig)
}

__all__ = [
    "STAGES",
    "AlignConfig",
    "BERTClassifierConfig",
    "BERTConfig",
    "ConfigError",
    "EncoderDecoderConfig",
    "FinetuneConfig",
    "GPTClassifierConfig",
    "GPTConfig",
    "LookConfig",
    "ModelConfig",
    "PreferencesConfig",
    "RewardConfig",
    "SampleConfig",
    "TrainConfig",
]
