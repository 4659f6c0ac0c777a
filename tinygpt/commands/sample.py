"""Let a trained GPT continue a text: `tinygpt sample` takes the run saved last, `tinygpt sample
story-1` takes story-1.

A text ends where the model writes the special token <|endoftext|>, if its training text had several
documents. An encoder-decoder answers the prompt. A line of the output is the prompt, a tab and the
answer: of likeliest tokens, unless a flag for draws is given. A fine-tuned run answers the prompt
as an instruction, on the line after it. A BERT fills in the tokens that `--fill` hides. Of a
classifier, a line of the output is the prompt, a tab, its label and the label's probability; with
`--explain N` the N likeliest labels.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from tensor import Tensor
from tinygpt.commands import classes, int8
from tinygpt.commands.cli import (
    Parser,
    add_described,
    add_device,
    add_flags,
    add_run,
    read_config,
    reader,
)
from tinygpt.config import SampleConfig
from tinygpt.config.options import DTYPES, one_of
from tinygpt.data.reading import name_of, read_text
from tinygpt.devices import check_device
from tinygpt.errors import InputError
from tinygpt.files import brief
from tinygpt.generation.beam import beam_search
from tinygpt.generation.fill import SIGN, fill, masked_ids
from tinygpt.generation.generate import Decoder, steps
from tinygpt.generation.sampling import Step, draws
from tinygpt.generation.text import Continuation
from tinygpt.ids import EOS, MASK, SOS
from tinygpt.runs import run as runs
from tinygpt.runs.prompts import prompt_ids
from tinygpt.runs.run import Run
from tinygpt.terminal import command, number_of, say, shown, visible
from tinygpt.tokenizers import Tokenizer, end_tokens, word_of

MOST = 1_000  # samples of a prompt
TOGETHER = 16  # texts that are continued side by side
TOGETHER_ON_GPU = 64
BETWEEN = "---"  # the line between two samples of a prompt
PROMPTS = "prompt", "prompts", "prompt_file", "fill"
DRAWS = "temperature", "top_k", "top_p", "seed"
FLAGS = {
    "--prompts FILE": "a file with a prompt in each line, continued side by side; "
    "- is standard input",
    "--prompt-file FILE": "a file that is the prompt, without the line end at its end; "
    "- is standard input",
    "--fill TEXT": "for a BERT: a text with [MASK] in the place of some tokens; each is filled in "
    "with the likeliest token",
    "--raw": "control characters as they are, for a pipe or a file: a terminal gets them escaped",
}


def arguments(parser: Parser) -> None:
    """The run, and the fields of SampleConfig."""
    add_run(parser)
    add_described(parser, FLAGS)
    int8.add_flag(parser)
    parser.add_argument(
        "--samples",
        metavar="N",
        type=reader(int),
        default=1,
        help="samples of each prompt, each with draws of its own, with a line of --- between two; "
        "with --beam, the N best texts (default: 1)",
    )
    add_device(parser)
    parser.add_argument(
        "--dtype",
        metavar="NAME",
        help=f"what the model computes in: {one_of(DTYPES)} (default: as the run)",
    )
    add_flags(parser, SampleConfig)


def run(options: argparse.Namespace) -> int:
    """Load the run, write the samples."""
    config = read_config(SampleConfig, options)
    _check(options, config)
    run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    model.to(device=options.device, dtype=options.dtype or run.training.dtype)
    show: Callable[[str], str] = str if options.raw else visible
    if options.int8:
        int8.round_weights(run, model)
    if run.kind == "bert" or options.fill is not None:
        fill_in(run, model, tokenizer, options.fill, config.explain, show)
        return 0
    if run.stage == "reward":
        words = "--prompt", "Say hello.", "--target", "Hello.", "--plain"
        raise InputError(
            f"{run.name} gives scores to replies, and writes none\n"
            f"score one: {command('step', run.folder, *words)}"
        )
    given = _prompts(options, config, run, tokenizer)
    if run.model.labels:
        _check_useless(options, f"{run.name} names the label of a text")
        classes.say_classes(run, model, tokenizer, given, config.explain, show)
        return 0
    drawn = options.samples > 1 or any(hasattr(options, name) for name in DRAWS)
    if (run.kind == "encoder-decoder" or run.answers) and not drawn:
        config = replace(config, temperature=0)
    most = TOGETHER if options.device == "cpu" else TOGETHER_ON_GPU
    together = 1 if config.explain else max(1, most // (config.beam or 1))
    between = BETWEEN if options.samples > 1 else None
    copies = options.samples if config.beam is None else 1
    prompts = [prompt for prompt in given for _ in range(copies)]
    for start in range(0, len(prompts), together):
        part = prompts[start : start + together]
        if between and start:
            say(between)
        if config.beam is None:
            write(run, model, tokenizer, config, *part, number=start, show=show, between=between)
        else:
            begun = _begin(run, model, tokenizer, config, part)
            _say_all(_searched(begun, tokenizer, config, options.samples), show, between)
    return 0


def _check(options: argparse.Namespace, config: SampleConfig) -> None:
    """Raise InputError for flags that do not go together."""
    check_device(options.device)
    if options.dtype not in (None, *DTYPES):
        raise InputError(f"--dtype {shown(options.dtype)!r}: choose {one_of(DTYPES)}")
    given = [f"--{flag.replace('_', '-')}" for flag in PROMPTS if getattr(options, flag, None)]
    if len(given) > 1:
        raise InputError(
            f"{given[0]} and {given[1]} are two ways to say it\nleave one of the two out"
        )
    if not 1 <= options.samples <= MOST:
        raise InputError(f"--samples {options.samples}: from 1 to {MOST:,}, such as --samples 3")
    chosen = [name for name in (*DRAWS, "explain") if hasattr(options, name)]
    if config.beam is not None and chosen:
        raise InputError(
            f"--beam searches for the likeliest text and draws nothing, so --{chosen[0]} has no "
            "meaning\nleave one of the two out".replace("_", "-")
        )
    if options.fill is not None:
        _check_useless(options, f"--fill takes the likeliest token for each {SIGN}")
    if config.beam is not None and options.samples > config.beam:
        raise InputError(
            f"--samples {options.samples} of --beam {config.beam}: a search finds at most as many "
            f"texts as it follows\ntake --beam {options.samples}"
        )
    if options.raw and (config.explain or sys.stdout.isatty()):
        why = "--explain shows" if config.explain else "a terminal gets"
        raise InputError(
            f"--raw is for a pipe or a file: {why} control characters escaped\n"
            "leave it out, or send the output on: tinygpt sample --raw > sample.txt"
        )


def _check_useless(options: argparse.Namespace, why: str) -> None:
    """Raise InputError for a flag that is for writing on, where nothing is written on."""
    useless = [name for name in (*DRAWS, "beam", "length", "stop") if hasattr(options, name)]
    useless += ["samples"] * (options.samples > 1)
    if useless:
        flag = useless[0].replace("_", "-")
        raise InputError(f"{why}, so --{flag} has no meaning\nleave it out")


def _prompts(
    options: argparse.Namespace, config: SampleConfig, run: Run, tokenizer: Tokenizer
) -> list[str]:
    """The texts to continue. Raises InputError with the number of a line that the model cannot
    read.
    """
    if options.prompts is None:
        prompt = run.opening if config.prompt is None else config.prompt
        if options.prompt_file is not None:
            prompt = read_text(options.prompt_file).removesuffix("\n")
        prompt_ids(run, tokenizer, prompt)
        return [prompt]
    lines = read_text(options.prompts).split("\n")
    prompts = [line for line in lines if line]
    for number, line in enumerate(lines, 1):
        try:
            if line:
                prompt_ids(run, tokenizer, line)
        except InputError as error:
            where = f"line {number:,} of {name_of(options.prompts)}"
            raise InputError(f"{where}: {error}") from None
    if not prompts:
        raise InputError(
            f"{shown(options.prompts)} holds no prompt\n"
            "give a file with a prompt in each line, or --prompt TEXT"
        )
    return prompts


class Begun(NamedTuple):
    """What is gone on with."""

    model: Decoder
    ids: list[list[int]]  # the tokens before those that are written
    texts: list[str]  # what is printed before the text that is written
    ends: list[int]  # the tokens that end a text


def _begin(
    run: Run, model: Any, tokenizer: Tokenizer, config: SampleConfig, prompts: Sequence[str]
) -> Begun:
    """A GPT goes on with the prompts. A run whose training texts began and ended with a separator
    puts the separator before a prompt. An encoder-decoder reads the prompts, and begins with <sos>.
    """
    ids = [prompt_ids(run, tokenizer, prompt) for prompt in prompts]
    if run.kind == "encoder-decoder":
        given = model.given(ids)
        return Begun(given, [[SOS] for _ in prompts], [f"{prompt}\t" for prompt in prompts], [EOS])
    stop, ends = config.stop or run.separator, end_tokens(tokenizer)
    if run.answers:
        return Begun(model, ids, [f"{prompt}\n" for prompt in prompts], ends)
    if config.beam is None or not stop:
        return Begun(model, ids, list(prompts), ends)
    end = tokenizer.encode(stop)
    if len(end) != 1:
        raise InputError(
            f"--stop {shown(stop)!r} is {len(end)} tokens of this run, and with --beam one token "
            "ends a text\ngive a shorter text, or leave --beam out"
        )
    return Begun(model, ids, list(prompts), [*ends, *end])


def _searched(begun: Begun, tokenizer: Tokenizer, config: SampleConfig, best: int) -> list[str]:
    """The best texts of each prompt, with the prompt."""
    assert config.beam is not None
    model, ids, texts, ends = begun
    found = beam_search(model, ids, config.beam, config.length, ends, best=best)
    written = []
    for text, hypotheses in zip(texts, found, strict=True):
        for hypothesis in hypotheses:
            new = tokenizer.decode([token for token in hypothesis.tokens if token not in ends])
            written.append(text + (new.partition(config.stop)[0] if config.stop else new))
    return written


def write(
    run: Run,
    model: Any,
    tokenizer: Tokenizer,
    config: SampleConfig,
    *prompts: str,
    number: int = 0,
    show: Callable[[str], str] = visible,
    between: str | None = None,
) -> None:
    """Print a prompt and what is written after it, each token as soon as it is drawn; or with
    `explain` a line for each token. Several prompts are continued together, and printed when all
    are done.

    `number` is that of the first prompt, `show` makes the text that is printed, and `between` is a
    line between two texts. A text ends at the run's separator, unless another stop was chosen, and
    at a special token that ends texts.
    """
    ended: set[int] = set()
    begun = _begin(run, model, tokenizer, config, prompts)
    texts = [Continuation(tokenizer, config.stop or run.separator) for _ in prompts]
    generators = [draws(config.seed, number + i) for i in range(len(prompts))]

    def follow() -> Iterator[tuple[int, Step, str]]:
        """Number of the prompt, step, and the text that is certain after it."""
        for i, step in steps(
            begun.model, begun.ids, config, generators, ended, with_logits=config.explain > 0
        ):
            new = "" if step.token in begun.ends else texts[i].add(step.token)
            if step.token in begun.ends or texts[i].ended:
                ended.add(i)
            yield i, step, new

    followed = follow()
    if config.explain:
        _explain(tokenizer, followed, config.explain, prompts[0])
    elif len(prompts) == 1:
        say(show(begun.texts[0]), end="")
        try:
            for _, _, new in followed:
                say(show(new), end="")
            say(show(texts[0].rest()), end="")
        finally:
            say()  # an error is printed on a line of its own
    else:
        written = list(begun.texts)
        for i, _, new in followed:
            written[i] += new
        lines = [line + text.rest() for line, text in zip(written, texts, strict=True)]
        _say_all(lines, show, between)


def _say_all(lines: Sequence[str], show: Callable[[str], str], between: str | None) -> None:
    for i, line in enumerate(lines):
        if between and i:
            say(between)
        say(show(line))


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
        say(_line(tokenizer, step.token, p, count))


def _line(tokenizer: Tokenizer, token: int, p: Any, count: int) -> str:
    """A token, its probability, and the likeliest candidates with theirs."""
    likeliest = np.argsort(-p, kind="stable")[:count].tolist()
    candidates = [f"'{word_of(tokenizer, i)}' {_share(p[i])}" for i in likeliest]
    word = f"'{word_of(tokenizer, token)}'"
    return f"{word:9} {_share(p[token]):>6}   {'  '.join(candidates)}"


def _share(p: float) -> str:
    """0.023, and 2e-05 where three digits would be 0.000"""
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"


# -- filling in


def fill_in(
    run: Run,
    model: Any,
    tokenizer: Tokenizer,
    text: str | None,
    count: int = 0,
    show: Callable[[str], str] = visible,
) -> None:
    """Print the text, each [MASK] filled in; with a count of candidates, first a line for each
    [MASK], in the order in which they are filled in: the surest first.
    """
    ids = _checked_ids(run, tokenizer, text)
    if count:
        say("filled in      p   likeliest")
    for position, token, p in fill(model, ids):
        ids[position] = token
        if count:
            say(_line(tokenizer, token, p, count))
    say(show(tokenizer.decode(ids)))


def _checked_ids(run: Run, tokenizer: Tokenizer, text: str | None) -> list[int]:
    """The ids of a text with [MASK]s. Raises InputError where there is nothing to fill in, or where
    the run cannot do so.
    """
    if run.kind != "bert":
        raise InputError(
            f"--fill: {run.name} is a run of {run.kind}, which writes what comes next\n"
            "leave --fill out, or train a model that fills in: tinygpt train --task masked"
        )
    if text is None:
        raise InputError(
            f"{run.name} fills in hidden tokens, and writes nothing else\n"
            f"hide some: {command('sample', run.folder, '--fill', f'The {SIGN}at')}"
        )
    ids = masked_ids(tokenizer, text)
    if MASK not in ids:
        raise InputError(f"--fill {brief(text)!r}: it holds no {SIGN} to fill in")
    if len(ids) >= run.model.context:
        raise InputError(
            f"--fill: {number_of(len(ids), tokenizer.unit)}, and {run.name} reads at most "
            f"{run.model.context - 1} at once\ngive a shorter text"
        )
    return ids
