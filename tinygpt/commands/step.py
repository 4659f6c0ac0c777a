"""Walk through a trained model op by op: forward from the text to the loss, then backward from the
loss to every parameter. Of an encoder-decoder, a pair of a source and a target is walked; of a
fine-tuned run an instruction and its answer, which alone is predicted; of a classifier a text and
its label; of a reward model an instruction, a reply, and the score of the reply.

Without --plain this is a full-screen program (? lists its keys); with it, the same walk as text. At
each op it shows the inputs and outputs with shape, strides, bytes and values, the arrays that are
saved for backward, and in backward the contribution to each gradient.

tinygpt step --plain --only 'blocks.0.attention' --into shows one module line by line; tinygpt step
--plain --break nan says who made a NaN; tinygpt step --train --plain --weight NAME says what the
next step of training does to one parameter.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from tinygpt.commands.cli import Parser, add_described, add_run
from tinygpt.errors import InputError
from tinygpt.inside.arrays import written
from tinygpt.inside.step import plain
from tinygpt.inside.step.recorded import How, Session, recorded
from tinygpt.inside.step.training import trained
from tinygpt.inside.step.updates import Step, notes_of
from tinygpt.inside.step.walk import KINDS, Walk
from tinygpt.runs import run as runs
from tinygpt.terminal import say, shown
from tinygpt.training import jobs

WALKED = {
    "--prompt TEXT": "the text, each token predicted from those before; of an encoder-decoder the "
    "source (default: the first words of the run's text, or a source of its pairs)",
    "--target TEXT": "of an encoder-decoder or a fine-tuned run: what it is to write (default: "
    "what it writes); of a classifier: the label (default: the likeliest); of a reward model: the "
    "reply that gets a score",
    "--as-run": "the kernels and fused ops that really run, not the readable ops they stand for",
    "--train": "the next step of the run's training, to the optimiser's update; "
    "the run stays as it is",
    "--weight NAME": "with --train: what it does to this parameter, every number of it",
}
AS_TEXT = {
    "--plain": "print all stops; with --break the first one that it halts at, in full",
    "--only PATTERN": "print only the stops of an op or module (and those below it); "
    "* and ? stand for anything",
    "--show NAME": "print one array instead, such as blocks.0.attention.weights[0, 2] "
    "(text 0, head 2) or logits.grad",
    "--into": "print the source of each op line by line, with what each line made",
    "--values": "print what the arrays hold: statistics, and numbers or a small map",
}


def arguments(parser: Parser) -> None:
    """The run, what is walked, and how it is shown."""
    add_run(parser)
    add_described(parser.add_argument_group("what is walked"), WALKED)
    parser.add_argument_group("where it halts").add_argument(
        "--break",
        metavar="CONDITION",
        action="append",
        default=[],
        help=f"{KINDS}; may be given several times",
    )
    parser.add_argument_group("on the screen").add_argument(
        "--out",
        metavar="FOLDER",
        help="folder for the pictures that the key d draws (default: the folder of the run)",
    )
    add_described(parser.add_argument_group("as text"), AS_TEXT)


def run(options: argparse.Namespace) -> int:
    """Record, then show."""
    runs.find(options.run)
    _check(options)
    session, step = _session(options)
    walk = session.walk
    for text in vars(options)["break"]:
        walk.halt_at(text)
    if options.plain:
        _print(session, step, options)
        return 0
    screen = importlib.import_module("tinygpt.inside.step.screen")  # here: textual is an extra
    if walk.breaks:
        walk.resume()
    if options.out is not None:
        session = replace(session, folder=Path(options.out))
    app = screen.StepApp(session)
    app.run()
    return app.return_code or 0


def _session(options: argparse.Namespace) -> tuple[Session, Step | None]:
    how: How = "as run" if options.as_run else "reference"
    if not options.train:
        if options.weight is not None:
            raise InputError("--weight NAME belongs to a step of training: give --train too")
        run, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
        runs.check_kind(run, "step", "gpt", "encoder-decoder", "gpt-classifier", "bert-classifier")
        return recorded(run, model, tokenizer, options.prompt, how, options.target), None
    chosen = [name for name in ("prompt", "target") if getattr(options, name) is not None]
    if chosen or options.last:
        what = "--" + (chosen or ["last"])[0]
        raise InputError(
            f"{what} and --train do not go together: a step of training "
            "takes its batch from the run's text, and the last weights"
        )
    return trained(jobs.reopened(options.run), how, options.weight)


def _given(options: argparse.Namespace, *names: str) -> str:
    """The first of these flags that was given."""
    return next((f"--{name}" for name in names if getattr(options, name)), "")


def _check(options: argparse.Namespace) -> None:
    """Raise InputError where --show, which prints one array, was given with a flag for stops; where
    the full-screen program cannot run, or was given a flag of --plain.
    """
    flag = _given(options, "only", "into", "values", "break")
    if options.plain and options.show is not None and flag:
        raise InputError(
            f"--show prints one array, {flag} is for stops: leave one of the two out\n"
            "see: tinygpt step --help"
        )
    if options.plain and options.out is not None:
        raise InputError(
            "--out is for pictures of the full-screen program: leave it or --plain out\n"
            "keep the text: tinygpt step --plain > walk.txt"
        )
    if options.out is not None and not Path(options.out).is_dir():
        raise InputError(f"--out {shown(options.out)}: there is no such folder\nmake it first")
    if options.plain:
        return
    if flag := _given(options, "only", "show", "into", "values"):
        raise InputError(
            f"{flag} is for text: give --plain too\n"
            "in the full-screen program i steps into an op, / goes to a name"
        )
    needed, instead = "", "print the walk: tinygpt step --plain"
    if os.environ.get("TERM") == "dumb":
        needed = "a terminal that can place its text; this one is dumb"
    elif not sys.stdout.isatty() or not sys.stdin.isatty():
        needed, instead = "a terminal", f"for a pipe or a file {instead}"
    elif importlib.util.find_spec("textual") is None:
        needed = "the package textual: pip install 'tinygpt[step]'"
        instead = f"without it {instead}"
    if needed:
        raise InputError(f"the full-screen program needs {needed}\n{instead}")


def _print(session: Session, step: Step | None, options: argparse.Namespace) -> None:
    """Print the facts, then the array, the stops, or the one that a breakpoint halts at."""
    walk, width = session.walk, max(shutil.get_terminal_size().columns, 40)
    one = options.weight is not None
    numbers = plain.chosen(walk, options.only)
    if one and options.only is None:
        numbers = [i for i, _ in walk.called[f"{options.weight}.grad"]]
        phases = "clip", "update"  # an op has the name clip too
        numbers += [i for i, stop in enumerate(walk.stops) if stop.phase in phases]
    style = plain.Style(width, options.values or bool(walk.breaks), options.into)
    lines: Iterable[str]
    if options.show is not None:
        lines = list(plain.show(walk, options.show, session.names, width))
    elif walk.breaks:
        lines = _halted(walk, numbers, style)
    else:
        notes = notes_of(step, one, width) if step else {}
        lines = plain.text(walk, numbers, style, notes, instead=not one)
    for fact in session.facts:
        _say(plain.wrapped(fact, width))
    _say(lines)


def _halted(walk: Walk, numbers: list[int], style: plain.Style) -> Iterator[str]:
    """The first of these stops at which a breakpoint halts, in full."""
    yield ""
    found = next(filter(walk.halts, numbers), None)
    if found is None:
        names = ", ".join(map(shown, walk.breaks))
        finite = ": all that was made is finite" if names == "nan" else ""
        yield f"no stop of {len(numbers)} halts at {names}{finite}"
        return
    walk.go(found)
    yield f"halted at {walk.halts(found)}"
    yield from plain.text(walk, [found], style, {})


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        say(written(line))
