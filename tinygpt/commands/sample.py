"""Let a trained GPT continue a text: `tinygpt sample` takes the run saved last, `tinygpt sample
story-1` takes story-1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator

import numpy as np

from tensor import Tensor
from tinygpt.commands.cli import Parser, add_described, add_flags, add_run, read_config, reader
from tinygpt.config import SampleConfig
from tinygpt.data.reading import name_of, read_text
from tinygpt.errors import InputError
from tinygpt.generation.generate import Step, steps
from tinygpt.generation.sampling import draws
from tinygpt.generation.text import Continuation
from tinygpt.model.gpt import GPT
from tinygpt.runs import run as runs
from tinygpt.runs.run import Run
from tinygpt.terminal import say, shown, visible
from tinygpt.tokenizers import Tokenizer, TokenizerError, word_of

MOST = 1_000  # samples of a prompt
TOGETHER = 16  # prompts that are continued side by side
BETWEEN = "---"  # the line between two samples of a prompt
PROMPTS = "prompt", "prompts", "prompt_file"
FLAGS = {
    "--prompts FILE": "a file with a prompt in each line, continued side by side; "
    "- is standard input",
    "--prompt-file FILE": "a file that is the prompt, without the line end at its end; "
    "- is standard input",
    "--raw": "control characters as they are, for a pipe or a file: a terminal gets them escaped",
}


def arguments(parser: Parser) -> None:
    """The run, and the fields of SampleConfig."""
    add_run(parser)
    add_described(parser, FLAGS)
    parser.add_argument(
        "--samples",
        metavar="N",
        type=reader(int),
        default=1,
        help="samples of each prompt, each with draws of its own, with a line of --- between two "
        "(default: 1)",
    )
    add_flags(parser, SampleConfig)


def run(options: argparse.Namespace) -> int:
    """Load the run, write the samples."""
    config = read_config(SampleConfig, options)
    _check(options, config)
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    given = _prompts(options, config, run, tokenizer)
    prompts = [prompt for prompt in given for _ in range(options.samples)]
    together = 1 if config.explain else TOGETHER
    show: Callable[[str], str] = str if options.raw else visible
    between = BETWEEN if options.samples > 1 else None
    for start in range(0, len(prompts), together):
        part = prompts[start : start + together]
        write(run, model, tokenizer, config, *part, number=start, show=show, between=between)
    return 0


def _check(options: argparse.Namespace, config: SampleConfig) -> None:
    """Raise InputError for flags that do not go together."""
    given = [f"--{flag.replace('_', '-')}" for flag in PROMPTS if getattr(options, flag, None)]
    if len(given) > 1:
        raise InputError(
            f"{given[0]} and {given[1]} are two ways to say it\nleave one of the two out"
        )
    if not 1 <= options.samples <= MOST:
        raise InputError(f"--samples {options.samples}: from 1 to {MOST:,}, such as --samples 3")
    if options.raw and (config.explain or sys.stdout.isatty()):
        why = "--explain shows" if config.explain else "a terminal gets"
        raise InputError(
            f"--raw is for a pipe or a file: {why} control characters escaped\n"
            "leave it out, or send the output on: tinygpt sample --raw > sample.txt"
        )


def _prompts(
    options: argparse.Namespace, config: SampleConfig, run: Run, tokenizer: Tokenizer
) -> list[str]:
    """The texts to continue. Raises InputError with the number of a line that the tokenizer does
    not know.
    """
    if options.prompt_file is not None:
        return [read_text(options.prompt_file).removesuffix("\n")]
    if options.prompts is None:
        return [run.opening if config.prompt is None else config.prompt]
    lines = read_text(options.prompts).split("\n")
    for number, line in enumerate(lines, 1):
        try:
            tokenizer.encode(line)
        except TokenizerError as error:
            where = f"line {number:,} of {name_of(options.prompts)}"
            raise InputError(f"{where}: {error}") from None
    prompts = [line for line in lines if line]
    if not prompts:
        raise InputError(
            f"{shown(options.prompts)} holds no prompt\n"
            "give a file with a prompt in each line, or --prompt TEXT"
        )
    return prompts


def write(
    run: Run,
    model: GPT,
    tokenizer: Tokenizer,
    config: SampleConfig,
    *prompts: str,
    number: int = 0,
    show: Callable[[str], str] = visible,
    between: str | None = None,
) -> None:
    """Print a prompt and its continuation, each token as soon as it is drawn; or with `explain` a
    line for each token. Several prompts are continued together, and printed when all are done.

    `number` is that of the first prompt, `show` makes the text that is printed, and `between` is a
    line between two texts. A run whose training texts began and ended with a separator puts the
    separator before a prompt, and stops at the next one, unless another stop was chosen.
    """
    ended: set[int] = set()
    texts = [Continuation(tokenizer, config.stop or run.separator) for _ in prompts]
    ids = [tokenizer.encode(run.separator + prompt) for prompt in prompts]
    generators = [draws(config.seed, number + i) for i in range(len(prompts))]

    def follow() -> Iterator[tuple[int, Step, str]]:
        """Number of the prompt, step, and the text that is certain after it."""
        for i, step in steps(model, ids, config, generators, ended):
            new = texts[i].add(step.token)
            if texts[i].ended:
                ended.add(i)
            yield i, step, new

    followed = follow()
    if between and number:
        say(between)
    if config.explain:
        _explain(tokenizer, followed, config.explain, prompts[0])
    elif len(prompts) == 1:
        say(show(prompts[0]), end="")
        try:
            for _, _, new in followed:
                say(show(new), end="")
            say(show(texts[0].rest()), end="")
        finally:
            say()  # an error is printed on a line of its own
    else:
        written = list(prompts)
        for i, _, new in followed:
            written[i] += new
        for i, line in enumerate(written):
            if between and i:
                say(between)
            say(show(line + texts[i].rest()))


def _explain(
    tokenizer: Tokenizer, followed: Iterator[tuple[int, Step, str]], count: int, prompt: str
) -> None:
    """A line a token: the drawn one, its probability, and the likeliest candidates with theirs,
    without the temperature and top-k of the draw.
    """
    say(f"prompt '{shown(prompt)}'\n")
    say("drawn          p   likeliest")
    for _, step, _ in followed:
        p = Tensor(step.logits, dtype="float64").softmax().numpy()
        likeliest = np.argsort(-p, kind="stable")[:count].tolist()
        candidates = [f"'{word_of(tokenizer, i)}' {_share(p[i])}" for i in likeliest]
        word = f"'{word_of(tokenizer, step.token)}'"
        say(f"{word:9} {_share(p[step.token]):>6}   {'  '.join(candidates)}")


def _share(p: float) -> str:
    """0.023, and 2e-05 where three digits would be 0.000"""
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"
