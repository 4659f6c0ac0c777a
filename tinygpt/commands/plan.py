"""What a training will take, before it starts: `tinygpt plan` with the flags you would give to
`tinygpt train`.

Prints the parameters, the memory by kind, the work of a step, and the speed, by timing a step on
this machine. Where the free memory does not hold a step, the program says so and times nothing.
With `--gpu-name H200` nothing is timed, and no GPU is needed. Nothing is trained or written.
"""

from __future__ import annotations

import argparse

from tinygpt.commands.choices import add_preset, read_choices
from tinygpt.commands.cli import Parser, add_flags, reader
from tinygpt.config import ModelConfig, TrainConfig
from tinygpt.config.presets import VOCABULARY
from tinygpt.data import grammar, token_files
from tinygpt.data import prepare as data
from tinygpt.errors import InputError
from tinygpt.ids import MASK_TOKENS
from tinygpt.terminal import say
from tinygpt.training import gpu
from tinygpt.training.jobs import check_device
from tinygpt.training.planning import at_mfu, counted, predict, shortage, table

MFU = 0.4


def arguments(parser: Parser) -> None:
    """The fields of the two dataclasses, and the vocabulary, which else follows from the text."""
    parser.add_argument(
        "--vocabulary",
        metavar="N",
        type=reader(int),
        help="number of different tokens, so that no text need be read (default: as of the text)",
    )
    parser.add_argument(
        "--gpu-name",
        metavar="NAME",
        choices=gpu.PEAKS,
        help=f"plan for a GPU that need not be here: {', '.join(gpu.PEAKS)}",
    )
    parser.add_argument(
        "--mfu",
        metavar="X",
        type=reader(float),
        help="share of the GPU's peak that a step is taken to reach, in place of timing one "
        f"(default with --gpu-name: {MFU})",
    )
    add_preset(parser)
    add_flags(parser, TrainConfig)
    add_flags(parser, ModelConfig)


def run(options: argparse.Namespace) -> int:
    """Count, measure, print."""
    if options.gpu_name is not None:
        options.device = getattr(options, "device", "cuda")
    config, shape = read_choices(options)
    _check(options, config, shape(1))
    # what is wrong with a flag is said before a text is read
    context = shape(1).context
    vocabulary = options.vocabulary
    if vocabulary is None and "preset" in options and config.text is None:
        vocabulary = VOCABULARY
    model = shape(vocabulary_of(config, context) if vocabulary is None else vocabulary)
    plan = counted(model, config, elsewhere=options.gpu_name is not None)
    why = "" if options.gpu_name else shortage(plan)
    if options.gpu_name or options.mfu:
        name = options.gpu_name or gpu.name(config.device)
        peak = gpu.peak_of(name)
        if peak is None:
            raise InputError(f"--mfu: the peak of {name} is not known here\nleave it out")
        plan = at_mfu(plan, name, peak, options.mfu or MFU)
    elif not why:
        plan = predict(model, config)
    for line in table(plan):
        say(line)
    if why:
        say(f"\ntoo little memory: {why}; the speed was not measured")
    return 0


def _check(options: argparse.Namespace, config: TrainConfig, model: ModelConfig) -> None:
    """Raise InputError for a GPU that is not there, or cannot be planned for."""
    if config.device == "cpu" and (options.gpu_name or options.mfu is not None):
        flag = "--gpu-name" if options.gpu_name else "--mfu"
        raise InputError(f"{flag} is for a GPU, and --device is cpu\nadd: --device cuda")
    if options.mfu is not None and not 0 < options.mfu <= 1:
        raise InputError(f"--mfu {options.mfu}: above 0 and at most 1, such as --mfu 0.4")
    if options.gpu_name:
        gpu.check_formulas(model, config)
    else:
        check_device(config.device)


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
