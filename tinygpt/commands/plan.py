"""What a training will take, before it starts: `tinygpt plan` with the flags you would give to
`tinygpt train`.

Prints the parameters, the memory by kind, the work of a step, and the speed, by timing a step on
this machine. Where the free memory does not hold a step, the program says so and times nothing.
Nothing is trained or written.
"""

from __future__ import annotations

import argparse

from tinygpt.commands.choices import read_choices
from tinygpt.commands.cli import Parser, add_flags, reader
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.data import grammar, token_files
from tinygpt.data import prepare as data
from tinygpt.ids import MASK_TOKENS
from tinygpt.terminal import say
from tinygpt.training.jobs import check_device
from tinygpt.training.planning import counted, predict, shortage, table


def arguments(parser: Parser) -> None:
    """The fields of the two dataclasses, and the vocabulary, which else follows from the text."""
    parser.add_argument(
        "--vocabulary",
        metavar="N",
        type=reader(int),
        help="number of different tokens, so that no text need be read (default: as of the text)",
    )
    add_flags(parser, TrainConfig)
    add_flags(parser, ModelConfig)


def run(options: argparse.Namespace) -> int:
    """Count, measure, print."""
    config, shape = read_choices(options)
    check_device(config.device)
    # what is wrong with a flag is said before a text is read
    context = shape(1).context
    vocabulary = options.vocabulary
    model = shape(vocabulary_of(config, context) if vocabulary is None else vocabulary)
    plan = counted(model, config)
    why = shortage(plan)
    for line in table(plan if why else predict(model, config)):
        say(line)
    if why:
        say(f"\ntoo little memory: {why}; the speed was not measured")
    return 0


def vocabulary_of(config: TrainConfig, context: int) -> int:
    """How many different tokens a training has; of byte pairs, the most that it may have."""
    if config.kind == "encoder-decoder":
        return data.prepare(config, context).tokenizer.size
    return _tokens_of_text(config) + len(MASK_TOKENS) * (config.kind == "bert")


def _tokens_of_text(config: TrainConfig) -> int:
    if config.text == "grammar":
        return grammar.grammar_tokenizer().size
    if token_files.is_token_folder(config.text):
        return token_files.read(str(config.text)).tokenizer.size
    if config.tokenizer == "bpe":
        return config.tokens
    return data.make_tokenizer(config, data.read(config.text)).size
