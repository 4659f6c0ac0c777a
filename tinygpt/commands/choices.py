"""The configurations that the flags of `train` and `plan` choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tinygpt.commands.cli import read_config
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.config.presets import PRESETS, preset
from tinygpt.data.tasks import DEFAULTS
from tinygpt.errors import InputError
from tinygpt.model.kinds import KINDS


def add_preset(parser: argparse._ActionsContainer) -> None:
    """The flag --preset, of `train` and `plan`."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        default=argparse.SUPPRESS,
        help="settings for a known size, such as GPT-2's; other flags change single ones",
    )


def read_choices(
    options: argparse.Namespace,
) -> tuple[TrainConfig, Callable[[int], ModelConfig]]:
    """The training, and the model for a vocabulary of so many tokens. A task and a preset have
    defaults of their own.
    """
    given = vars(options)
    defaults = DEFAULTS.get(getattr(options, "task", ""), {})
    if "preset" in given:
        defaults = preset(options.preset, given)
    filled = argparse.Namespace(**defaults | given)
    training = read_config(TrainConfig, filled)
    if "preset" in given and training.kind != "gpt":
        raise InputError(
            f"--preset {options.preset} is for a GPT, which learns from a text\n"
            "leave it out, or leave out --task and --pairs"
        )
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
