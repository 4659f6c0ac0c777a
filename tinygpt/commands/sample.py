"""Let a trained GPT continue a text: `tinygpt sample` takes the run saved last, `tinygpt sample story-1` that one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace

from tensor.random import Generator
from tinygpt import runs
from tinygpt.cli import Parser, add_flags, read_config
from tinygpt.config import SampleConfig
from tinygpt.console import say, shown, visible
from tinygpt.corpus import read_text
from tinygpt.generation import Step, steps
from tinygpt.model import GPT
from tinygpt.tokenizers import Tokenizer


def arguments(parser: Parser) -> None:
    """The run, and the fields of SampleConfig."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="a name in runs/ or the path of a run folder (default: the run saved last)")
    parser.add_argument("--prompts", metavar="FILE", help="a file with a prompt in each line, each continued in turn")
    parser.add_argument("--last", action="store_true", help="the last weights, not those with the lowest validation loss")
    add_flags(parser, SampleConfig)


def run(options: argparse.Namespace) -> int:
    """Load the run, write the samples."""
    config = read_config(SampleConfig, options)
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    if options.prompts is None:
        write(model, tokenizer, config, run.opening)
        return 0
    for line in read_text(options.prompts).splitlines():
        if line:
            write(model, tokenizer, replace(config, prompt=line), run.opening)
    return 0


def write(model: GPT, tokenizer: Tokenizer, config: SampleConfig, opening: str) -> None:
    """Print the prompt and what the model makes of it, each token as soon as it is drawn; or a line for each token, with others it thought of."""
    prompt = opening if config.prompt is None else config.prompt
    generator = Generator(config.seed)
    drawn = steps(model, tokenizer.encode(prompt), config.length, config.temperature, config.top_k, config.top_p, generator)
    if config.explain:
        _explain(tokenizer, drawn, config, prompt)
        return
    say(visible(prompt), end="")
    for piece in until_stop(pieces(tokenizer, (step.token for step in drawn)), config.stop):
        say(visible(piece), end="")
    say()


def pieces(tokenizer: Tokenizer, tokens: Iterator[int]) -> Iterator[str]:
    """The text of the tokens, as soon as it is whole: a character of several bytes may lie in several tokens."""
    pending: list[int] = []
    for token in tokens:
        pending.append(token)
        text = tokenizer.decode(pending)
        if not text.endswith("\ufffd") or len(pending) > 4:  # no character has more than four bytes: what is broken stays broken
            yield text
            pending = []
    if pending:
        yield tokenizer.decode(pending)


def until_stop(texts: Iterator[str], stop: str | None) -> Iterator[str]:
    """The texts up to where `stop` begins; what may be its beginning is held back until that is known."""
    held = ""
    for text in texts:
        held += text
        if stop and stop in held:
            yield held[: held.index(stop)]
            return
        keep = max((n for n in range(min(len(stop or "") - 1, len(held)), 0, -1) if held.endswith((stop or "")[:n])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held


def _explain(tokenizer: Tokenizer, drawn: Iterator[Step], config: SampleConfig, prompt: str) -> None:
    """A line a token: what was drawn, its log-probability, and the likeliest candidates."""
    say(f"prompt {prompt!a}\n")
    say("drawn       ln p   likeliest")
    text = ""
    for step in drawn:
        text += tokenizer.decode([step.token])
        candidates = "  ".join(f"{shown(ascii(tokenizer.decode([token])))} {p:.3f}" for token, p in step.likeliest(config.explain))
        say(f"{shown(ascii(tokenizer.decode([step.token]))):9} {step.log_probabilities()[step.token]:7.3f}   {candidates}")
        if config.stop and config.stop in text:
            return
