"""What a training will take, before it starts: `tinygpt plan` with the flags you would give to
`tinygpt train`.

Prints the parameters, the memory by kind, the work of a step, and the speed, by timing a step on
this machine. Where the free memory does not hold a step, the program says so and times nothing.
With `--gpu-name H200` nothing is timed, and no GPU is needed. Nothing is trained or written.

What starts from a run has a flag for this: `tinygpt finetune RUN --plan`, `tinygpt reward RUN
--plan`, `tinygpt align RUN --reward REWARD_RUN --plan`.
"""

from __future__ import annotations

import argparse

from tinygpt.commands.choices import add_preset, read_choices
from tinygpt.commands.cli import Parser, add_flags, reader
from tinygpt.config import GPTClassifierConfig, ModelConfig, TrainConfig, presets
from tinygpt.data import documents, grammar, token_files
from tinygpt.data import prepare as data
from tinygpt.data.in_context import task_tokenizer
from tinygpt.devices import check_device
from tinygpt.errors import InputError
from tinygpt.ids import MASK_TOKENS
from tinygpt.terminal import nearest, say
from tinygpt.training import gpu
from tinygpt.training.planning import Plan, at_mfu, counted, predict, shortage
from tinygpt.training.table import table

MFU, LEAST = 0.4, 0.001
ELSEWHERE = "to plan for a GPU that is not here, add: --gpu-name H200"


def arguments(parser: Parser) -> None:
    """The fields of the two dataclasses, and the vocabulary, which else follows from the text."""
    parser.add_argument(
        "--vocabulary",
        metavar="N",
        type=reader(int),
        help="number of different tokens, so that no text need be read (default: that of the text; "
        f"with --preset and no text {presets.VOCABULARY:,}, of shakespeare {presets.CHARACTERS})",
    )
    parser.add_argument(
        "--gpu-name",
        metavar="NAME",
        type=_gpu,
        help="plan for a GPU that need not be here: "
        f"{', '.join(name for name in gpu.GPUS if name not in gpu.OLDER)}",
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
        vocabulary = presets.vocabulary(options.preset)
    model = shape(vocabulary_of(config, context) if vocabulary is None else vocabulary)
    return say_plan(model, config, there=options.gpu_name, mfu=options.mfu)


def say_plan(
    model: ModelConfig,
    config: TrainConfig,
    reward: GPTClassifierConfig | None = None,
    there: gpu.GPU | None = None,
    mfu: float | None = None,
) -> int:
    """Print the plan of a training; the exit code. reward: of PPO, the reward model.   there: a GPU
    that is not here.   mfu: the share of a GPU's peak, in the place of a step that is timed
    """
    plan = counted(model, config, elsewhere=there is not None, reward=reward)
    why = shortage(plan, there=there)
    if not why:
        known = there or mfu
        plan = _at_mfu(plan, there, mfu or MFU) if known else predict(model, config, reward)
    for line in table(plan):
        say(line)
    if why:
        say(f"\ntoo little memory: {why}; so no speed is given")
    return 0


def _gpu(text: str) -> gpu.GPU:
    """The GPU of a name."""
    found = gpu.known(text)
    if found is None:
        near = nearest(text.upper(), gpu.GPUS)
        raise argparse.ArgumentTypeError(f"no GPU is known by the name {text!r}{near}")
    return found


def _at_mfu(plan: Plan, there: gpu.GPU | None, mfu: float) -> Plan:
    """The plan at a share of the peak of a GPU that is not here, or of the one that is."""
    if there:
        return at_mfu(plan, there.name, there.peak, mfu)
    name = gpu.name(plan.training.device)
    peak = gpu.peak_of(name)
    if peak is None:
        raise InputError(f"--mfu: the peak of {name} is not known here\nleave it out")
    return at_mfu(plan, name, peak, mfu)


def _check(options: argparse.Namespace, config: TrainConfig, model: ModelConfig) -> None:
    """Raise InputError for a GPU that is not there, or cannot be planned for."""
    if options.gpu_name and config.device != "cuda":
        raise InputError(
            f"--gpu-name plans for one GPU that is not here, and --device is {config.device}\n"
            "leave out --device"
        )
    if options.mfu is not None and config.device == "cpu":
        raise InputError(
            "--mfu is for a GPU, and --device is cpu\n"
            "add --gpu-name H200, or --device cuda on a machine with a GPU"
        )
    if options.mfu is not None and not LEAST <= options.mfu <= 1:
        raise InputError(f"--mfu {options.mfu:g}: from {LEAST} to 1, such as --mfu {MFU}")
    if options.gpu_name:
        gpu.check_formulas(options.gpu_name, model, config)
        return
    try:
        check_device(config.device)
    except InputError as error:
        raise InputError(f"{error}\n{ELSEWHERE}") from None


def vocabulary_of(config: TrainConfig, context: int) -> int:
    """How many different tokens a training has; of byte pairs, the most that it may have."""
    if config.kind == "encoder-decoder":
        return data.prepare(config, context).tokenizer.size
    if config.in_context:
        return task_tokenizer(str(config.task)).size
    return _tokens_of_text(config) + len(MASK_TOKENS) * (config.kind == "bert")


def _tokens_of_text(config: TrainConfig) -> int:
    if config.text == "grammar" and config.tokenizer == "character":
        return grammar.grammar_tokenizer().size
    if token_files.is_token_folder(config.text):
        return token_files.read(str(config.text)).tokenizer.size
    if config.tokenizer == "bpe":
        return config.tokens
    between = documents.between_files(config.documents, None)
    return data.make_tokenizer(config, data.read(config.text, between)).size
