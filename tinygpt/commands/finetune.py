"""Teach a trained GPT to answer: `tinygpt finetune RUN --data FILE`, or without a file questions
about stories of the grammar. Teach a trained GPT or BERT to name the label of a text: `--task
classify`.

A line of the file is {"instruction": ..., "answer": ...}, with "input" where the instruction is
about a text. Only the answers are learned. To classify, a line is {"text": ..., "label": ...}, or
the file is CSV with the columns text and label. Leaves a run folder of its own, as `tinygpt train`
does; the run that it starts from stays as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection

from tinygpt.commands import train
from tinygpt.commands.cli import Parser, add_flags, read_config
from tinygpt.config import FinetuneConfig, GPTConfig, ModelConfig, TrainConfig
from tinygpt.config.finetuning import FIXED
from tinygpt.errors import InputError
from tinygpt.runs import run as runs


def arguments(parser: Parser) -> None:
    """The run to start from, and the fields of FinetuneConfig."""
    add_start(parser)
    add_choices(parser, FinetuneConfig, FIXED)
    add_flags(parser, GPTConfig, only=["dropout"])


def add_start(parser: Parser) -> None:
    """The run to start from."""
    parser.add_argument(
        "init",
        metavar="RUN",
        nargs="?",
        help="the run whose weights and tokenizer to start with (default: the run saved last)",
    )


def add_choices(parser: Parser, config: type[TrainConfig], fixed: Collection[str]) -> None:
    """The course of the training, and the fields of its configuration but the fixed ones."""
    train.add_course(parser)
    add_flags(parser, config, without=fixed)


def run(options: argparse.Namespace) -> int:
    """Prepare, train, measure, answer."""
    return start(options, FinetuneConfig)


def start(options: argparse.Namespace, config: type[TrainConfig]) -> int:
    """A training from a run, or one that goes on."""
    training = read_config(config, options)
    if options.resume is None:
        options.init = str(runs.find(options.init))
    elif options.init is not None:
        raise InputError(
            f"{options.init} and --resume {options.resume}: a run goes on with its own weights\n"
            "leave one of the two out"
        )

    def model(vocabulary: int) -> ModelConfig:
        return read_config(GPTConfig, options, vocabulary=vocabulary)

    return train.start(training, model, options)
