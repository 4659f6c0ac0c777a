"""Let a trained GPT continue a text: `tinygpt sample` takes the run saved last, `tinygpt sample
story-1` that one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from tensor.random import Generator
from tinygpt.commands.cli import Parser, add_flags, add_run, read_config
from tinygpt.config import SampleConfig
from tinygpt.data.reading import read_text
from tinygpt.errors import InputError
from tinygpt.generation.generate import Step, steps
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
    prompts = [line for line in read_text(options.prompts).splitlines() if line]
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
    line for each token.

    Several prompts are continued side by side, and printed when all are done. The draws of each
    follow from the seed and the prompt's number; `number` is that of the first. The texts that a
    run learned from began and ended with a separator: the separator goes before a prompt, and the
    text stops at the next one, unless another stop was chosen.
    """
    ended: set[int] = set()
    # a shell does not make one easily
    stop = (config.stop or run.separator or "").replace("\\n", "\n") or None
    ids = [tokenizer.encode(run.separator + prompt) for prompt in prompts]
    generators = [draws(config.seed, number + i) for i in range(len(prompts))]
    drawn = steps(model, ids, config, generators, ended)
    if len(prompts) > 1:
        tokens = _side_by_side(tokenizer, drawn, stop, ended, len(prompts))
        for prompt, new in zip(prompts, tokens, strict=True):
            say(visible(prompt + "".join(until_stop(pieces(tokenizer, iter(new)), stop))))
    elif config.explain:
        _explain(tokenizer, (step for _, step in drawn), config.explain, stop, prompts[0])
    else:
        say(visible(prompts[0]), end="")
        try:
            for piece in until_stop(pieces(tokenizer, (step.token for _, step in drawn)), stop):
                say(visible(piece), end="")
        finally:
            say()  # an error is printed on a line of its own


def draws(seed: int, number: int) -> Generator:
    """A generator for each prompt: the first has the seed's own draws, so that a file with one
    prompt, and --prompt, give the same.
    """
    generator = Generator()
    generator.load_state({"seed": seed, "draws": number << 32})
    return generator


def _side_by_side(
    tokenizer: Tokenizer,
    drawn: Iterator[tuple[int, Step]],
    stop: str | None,
    ended: set[int],
    count: int,
) -> list[list[int]]:
    """The tokens of each prompt; where `stop` shows up, that prompt goes no further."""
    tokens: list[list[int]] = [[] for _ in range(count)]
    # tokens that hold it surely, if it has just been completed: each has a byte at least
    recent = len(stop.encode()) + 4 if stop else 0
    for i, step in drawn:
        tokens[i].append(step.token)
        if stop and stop in tokenizer.decode(tokens[i][-recent:]):
            ended.add(i)
    return tokens


def pieces(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """The text of the tokens, as soon as it is whole: a character of several bytes may lie in
    several tokens.
    """
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = tokenizer.decode(pending)
        # no character has more than four bytes: what is broken stays broken
        if not text.endswith("\ufffd") or len(pending) > 4:
            yield text
            pending = []
    if pending:
        yield tokenizer.decode(pending)


def until_stop(texts: Iterator[str], stop: str | None) -> Iterator[str]:
    """The texts up to the beginning of `stop`. Characters that may begin `stop` wait until that is
    known.
    """
    pending = ""
    for text in texts:
        pending += text
        if stop and stop in pending:
            yield pending[: pending.index(stop)]
            return
        known = len(pending) - (_beginning(stop, pending) if stop else 0)
        if known:
            yield pending[:known]
            pending = pending[known:]
    if pending:
        yield pending


def _beginning(stop: str, text: str) -> int:
    """How many characters at the end of the text may be the beginning of `stop`."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _explain(
    tokenizer: Tokenizer, drawn: Iterator[Step], count: int, stop: str | None, prompt: str
) -> None:
    """A line a token: what was drawn, its log-probability, and the likeliest candidates."""
    say(f"prompt '{shown(prompt)}'\n")
    say("drawn       ln p   likeliest")
    text = ""
    for step in drawn:
        text += tokenizer.decode([step.token])
        candidates = "  ".join(
            f"'{word_of(tokenizer, token)}' {p:.3f}" for token, p in step.likeliest(count)
        )
        word = f"'{word_of(tokenizer, step.token)}'"
        say(f"{word:9} {step.log_probabilities()[step.token]:7.3f}   {candidates}")
        if stop and stop in text:
            return
