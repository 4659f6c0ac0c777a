"""Let a trained GPT continue a text: `tinygpt sample` takes the run saved last, `tinygpt sample
story-1` takes story-1.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator

import numpy as np

from tensor import Tensor
from tensor.random import Generator
from tinygpt.commands.cli import Parser, add_flags, add_run, read_config
from tinygpt.config import SampleConfig
from tinygpt.data.reading import read_text
from tinygpt.errors import InputError
from tinygpt.generation.generate import Step, steps
from tinygpt.generation.text import Continuation
from tinygpt.model.gpt import GPT
from tinygpt.runs import run as runs
from tinygpt.runs.run import Run
from tinygpt.terminal import say, shown, visible
from tinygpt.tokenizers import Tokenizer, word_of

TOGETHER = 16  # prompts of a file that are continued side by side


def arguments(parser: Parser) -> None:
    """The run, and the fields of SampleConfig."""
    add_run(parser)
    parser.add_argument(
        "--prompts",
        metavar="FILE",
        help="a file with a prompt in each line, continued side by side",
    )
    add_flags(parser, SampleConfig)


def run(options: argparse.Namespace) -> int:
    """Load the run, write the samples."""
    config = read_config(SampleConfig, options)
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    if options.prompts is None:
        prompt = run.opening if config.prompt is None else config.prompt
        write(run, model, tokenizer, config, prompt)
        return 0
    prompts = [line for line in read_text(options.prompts).split("\n") if line]
    if config.prompt is not None or not prompts:
        why = f"{shown(options.prompts)} holds no prompt"
        if config.prompt is not None:
            why = "--prompt and --prompts are two ways to say it"
        raise InputError(f"{why}\ngive a file with a prompt in each line, or --prompt TEXT")
    together = 1 if config.explain else TOGETHER
    for start in range(0, len(prompts), together):
        write(run, model, tokenizer, config, *prompts[start : start + together], number=start)
    return 0


def write(
    run: Run, model: GPT, tokenizer: Tokenizer, config: SampleConfig, *prompts: str, number: int = 0
) -> None:
    """Print a prompt and its continuation, each token as soon as it is drawn; or with `explain` a
    line for each token. Several prompts are continued together, and printed when all are done.

    `number` is that of the first prompt. A run whose training texts began and ended with a
    separator puts the separator before a prompt, and stops at the next one, unless another stop
    was chosen.
    """
    ended: set[int] = set()
    # a line end is hard to type in a shell
    stop = (config.stop or run.separator).replace("\\n", "\n")
    texts = [Continuation(tokenizer, stop) for _ in prompts]
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
    if config.explain:
        _explain(tokenizer, followed, config.explain, prompts[0])
    elif len(prompts) == 1:
        say(visible(prompts[0]), end="")
        try:
            for _, _, new in followed:
                say(visible(new), end="")
            say(visible(texts[0].rest()), end="")
        finally:
            say()  # an error is printed on a line of its own
    else:
        written = list(prompts)
        for i, _, new in followed:
            written[i] += new
        for text, line in zip(texts, written, strict=True):
            say(visible(line + text.rest()))


def draws(seed: int, number: int) -> Generator:
    """A generator for each prompt. The first has the seed's own draws, so a file with one prompt
    and --prompt give the same.
    """
    generator = Generator(seed)
    generator.draws = number << 32
    return generator


def _explain(
    tokenizer: Tokenizer, followed: Iterator[tuple[int, Step, str]], count: int, prompt: str
) -> None:
    """A line a token: the drawn one, its log-probability, and the likeliest candidates, without
    the temperature and top-k of the draw.
    """
    say(f"prompt '{shown(prompt)}'\n")
    say("drawn       ln p   likeliest")
    for _, step, _ in followed:
        log_p = Tensor(step.logits, dtype="float64").log_softmax().numpy()
        likeliest = np.argsort(-log_p, kind="stable")[:count].tolist()
        candidates = [f"'{word_of(tokenizer, i)}' {math.exp(log_p[i]):.3f}" for i in likeliest]
        word = f"'{word_of(tokenizer, step.token)}'"
        say(f"{word:9} {log_p[step.token]:7.3f}   {'  '.join(candidates)}")
