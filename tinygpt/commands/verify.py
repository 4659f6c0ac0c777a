"""Prove on a run of your own that ways of computing the same thing agree: `tinygpt verify` all,
`tinygpt verify cache story-1` one.

CACHE: with the cache of keys and values the logits are those without the cache.
RESUME: a training that was broken off goes on bit for bit.
CAUSAL: no token sees a later one. Of an encoder-decoder: no token of the target sees a later one,
and all tokens of the source are seen.

Prints PASS with a number, or FAIL with the first place that differs; exits 1 when one fails.
"""

from __future__ import annotations

import argparse
import shutil
import textwrap
from pathlib import Path

import numpy as np

from tensor import no_grad
from tensor.errors import DeviceError
from tinygpt.commands.cli import Parser
from tinygpt.errors import InputError
from tinygpt.inside.look.gather import check_finite
from tinygpt.inside.verification import CHECKS, DifferenceError, drawn, host, ways
from tinygpt.runs import run as runs
from tinygpt.terminal import nearest, say


def arguments(parser: Parser) -> None:
    """The checks, the run, the device."""
    parser.add_argument(
        "words",
        nargs="*",
        metavar="CHECK|RUN",
        help=f"any of {', '.join(CHECKS)} (default: all); and a run (default: the one saved last)",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        metavar="NAME",
        help="cpu, cuda or cuda:N, for all but resume (default: cpu)",
    )


def run(options: argparse.Namespace) -> int:
    """Check by check, each with its line."""
    named = [word for word in options.words if word in CHECKS]
    others = [word for word in options.words if word not in CHECKS]
    if len(others) > 1:
        raise InputError(
            f"{others[1]!r} is one word too many: {others[0]!r} is the run\n"
            "see: tinygpt verify --help"
        )
    run, model, _ = runs.load(_find(others[0]) if others else runs.find(None))
    runs.check_kind(run, "verify", "gpt", "encoder-decoder")
    try:
        model.to(device=options.device)
    except DeviceError as error:
        raise InputError(str(error)) from None
    with no_grad(), np.errstate(all="ignore"):
        check_finite(run, host(ways(model).whole(drawn(model))), last=True)
    width = max(40, min(80, shutil.get_terminal_size().columns))
    results: dict[str, list[str]] = {"PASS": [], "FAIL": [], "SKIP": []}
    for name in dict.fromkeys(named or CHECKS):
        try:
            with np.errstate(all="ignore"):
                how, text = "PASS", CHECKS[name](run, model)
        except DifferenceError as difference:
            how, text = "FAIL", str(difference)
        except InputError as error:
            if named:
                raise
            how, text = "SKIP", str(error).partition("\n")[0]
        results[how].append(name)
        start = f"{how}  {name:<14}"
        say(textwrap.fill(text, width, initial_indent=start, subsequent_indent=" " * 20))
    passed, failed, skipped = map(", ".join, results.values())
    say(
        f"{run.name}: {passed or 'nothing'} verified"
        + (f"; not {failed}" if failed else "")
        + (f"; left out: {skipped}" if skipped else "")
    )
    return 1 if failed else 0


def _find(word: str) -> Path:
    """The run of that name. Raises InputError, with the nearest check where the word was meant for
    one.
    """
    try:
        return runs.find(word)
    except InputError:
        if close := nearest(word, CHECKS):
            raise InputError(
                f"{word!r} is neither a check nor a run{close}\nsee: tinygpt verify --help"
            ) from None
        raise
