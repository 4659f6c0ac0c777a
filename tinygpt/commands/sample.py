"""Let a trained GPT continue a text: `tinygpt sample` takes the run saved last, `tinygpt sample story-1` that one."""

from __future__ import annotations

import argparse

from tensor.random import Generator
from tinygpt import runs
from tinygpt.cli import Parser, add_flags, read_config
from tinygpt.config import SampleConfig
from tinygpt.console import say, visible
from tinygpt.model import GPT
from tinygpt.tokenizers import CharacterTokenizer


def arguments(parser: Parser) -> None:
    """The run, and the fields of SampleConfig."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="a name in runs/ or the path of a run folder (default: the run saved last)")
    add_flags(parser, SampleConfig)


def run(options: argparse.Namespace) -> int:
    """Load the run, write the sample."""
    config = read_config(SampleConfig, options)
    run, model, tokenizer = runs.load(runs.find(options.run))
    write(model, tokenizer, config, run.opening)
    return 0


def write(model: GPT, tokenizer: CharacterTokenizer, config: SampleConfig, opening: str) -> None:
    """Print the prompt and what the model makes of it, each token as soon as it is drawn."""
    prompt = opening if config.prompt is None else config.prompt
    tokens = model.stream(
        tokenizer.encode(prompt), config.length, temperature=config.temperature, top_k=config.top_k, top_p=config.top_p, generator=Generator(config.seed)
    )
    say(visible(prompt), end="")
    for token in tokens:
        say(visible(tokenizer.decode([token])), end="")
    say()
