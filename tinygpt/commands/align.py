"""Let a fine-tuned GPT learn to write better replies: `tinygpt align RUN --reward REWARD_RUN`, from
the scores that a reward model gives its own replies (PPO); or `--method dpo`, from pairs of replies
of which one is better, without a reward model.

The prompts, or the pairs, are those of `--data FILE`, in the form of `tinygpt reward`; without a
file they are questions about stories. The run that is aligned stays as it is, and so does the
reward run. The new folder holds all that `--resume` needs.
"""

from __future__ import annotations

import argparse

from tinygpt.commands import finetune
from tinygpt.commands.cli import Parser
from tinygpt.config import AlignConfig
from tinygpt.config.aligning import FIXED


def arguments(parser: Parser) -> None:
    """The run to start from, and the fields of AlignConfig."""
    finetune.add_start(parser)
    finetune.add_choices(parser, AlignConfig, FIXED)


def run(options: argparse.Namespace) -> int:
    """Prepare, train, compare with the reference."""
    return finetune.start(options, AlignConfig)
