"""The configurations that the flags of `train` and `plan` choose."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from tinygpt.commands.cli import read_config
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.config.presets import COMMON, PLANNED, PRESETS, preset
from tinygpt.data.tasks import DEFAULTS
from tinygpt.errors import InputError
from tinygpt.model.kinds import KINDS


def add_preset(parser: argparse._ActionsContainer) -> None:
    """The flag --preset, of `train` and `plan`."""
    parser.add_argument(
        "--preset",
        choices=PRESETS,
        metavar="NAME",
        default=argparse.SUPPRESS,
        help="gpt2, gpt2-medium, gpt2-large, gpt2-xl: a size of GPT-2, with its learning rate, "
        f"524,288 tokens a step, {COMMON['steps']:,} steps, {COMMON['warmup']} of warm-up, beta2 "
        f"{COMMON['beta2']}, no snapshots, and bfloat16 on a GPU; {PLANNED}: for tinygpt plan "
        "alone; shakespeare: nanoGPT's training on characters, for a GPU; other flags change "
        "single ones",
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
    # a run that is resumed refuses the flag, and names itself
    fresh = given.get("resume") is None
    if fresh and training.tf32 and (training.device == "cpu" or training.dtype != "float32"):
        raise InputError(
            f"--tf32 is for float32 on a GPU, not for {training.dtype} on {training.device}\n"
            "leave it out, or add: --device cuda --dtype float32"
        )
    shape = KINDS[training.kind].config

    def model(vocabulary: int) -> ModelConfig:
        config: ModelConfig = read_config(shape, filled, vocabulary=vocabulary)
        return config

    return training, model
