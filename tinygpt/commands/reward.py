"""Teach a fine-tuned GPT which of two replies is better: `tinygpt reward RUN --data FILE`, or
without a file replies to questions about stories, judged by rule.

A line of the file is {"prompt": ..., "better": ..., "worse": ...}, with "input" where the prompt is
about a text. The reward model gives each reply a score. A reply whose score is higher by d is
preferred e^d times as often as the other. `tinygpt align` learns from the scores of such a run.
"""

from __future__ import annotations

import argparse

from tinygpt.commands import finetune
from tinygpt.commands.cli import Parser
from tinygpt.config import RewardConfig
from tinygpt.config.aligning import FIXED


def arguments(parser: Parser) -> None:
    """The run to start from, and the fields of RewardConfig."""
    finetune.add_start(parser)
    finetune.add_choices(parser, RewardConfig, FIXED)


def run(options: argparse.Namespace) -> int:
    """Prepare, train, measure."""
    return finetune.start(options, RewardConfig)
