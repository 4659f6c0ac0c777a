"""The configurations that the flags of `train` and `plan` choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tinygpt.commands.cli import read_config
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.data.tasks import DEFAULTS
from tinygpt.errors import InputError
from tinygpt.model.kinds import KINDS


def read_choices(
    options: argparse.Namespace,
) -> tuple[TrainConfig, Callable[[int], ModelConfig]]:
    """The training, and the model for a vocabulary of so many tokens. A task has defaults of its
    own.
    """
    chosen = DEFAULTS.get(getattr(options, "task", ""), {}) | vars(options)
    filled = argparse.Namespace(**chosen)
    training = read_config(TrainConfig, filled)
    if training.tf32 and (training.device == "cpu" or training.dtype != "float32"):
        raise InputError(
            f"--tf32 is for float32 on a GPU, not for {training.dtype} on {training.device}\n"
            "leave it out, or add: --device cuda --dtype float32"
        )
    shape = KINDS[training.kind].config

    def model(vocabulary: int) -> ModelConfig:
        config: ModelConfig = read_config(shape, filled, vocabulary=vocabulary)
        return config

    return training, model
