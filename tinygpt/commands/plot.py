"""The losses of several trainings in one picture: `tinygpt plot story-1 story-2`.

For each run a line, the training loss smoothed, and dots, the validation loss where one was
measured; also of a run that still goes on. Of a run of PPO, whose loss says little, the numbers of
its replies are drawn, and it is drawn alone.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import msgspec

from tinygpt.commands.cli import Parser, output_path
from tinygpt.errors import InputError
from tinygpt.files import VOCABULARY, drawing, read_bytes, read_json, write_picture
from tinygpt.runs import metrics, panels
from tinygpt.runs import run as runs
from tinygpt.runs.curves import axes_of, logarithmic, plot_losses, smooth
from tinygpt.terminal import command, say, shown

PICTURE = "losses.png"
FORMATS = ("png", "svg", "pdf")
PAIRS = {"reward", "align"}  # stages that learn from pairs
TRAINED = "restore it from a copy, or name another run that `tinygpt train` made"


class Method(msgspec.Struct):
    """How a policy learned; "" of another training."""

    method: str = ""


class Learned(runs.Named):
    """What of config.json says which losses compare."""

    training: Method = msgspec.field(default_factory=Method)


class Curve(NamedTuple):
    """A run's losses, nats a token, or a pair of replies."""

    name: str
    tokenizer: bytes  # its content: losses a token compare only where tokens are the same
    stage: str  # "train": the losses of all tokens; "finetune": of answers; else of pairs
    found: metrics.Losses
    by_ppo: bool = False  # whether they are none of these


def arguments(parser: Parser) -> None:
    """The runs, the picture."""
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="names in runs/ or paths of run folders (default: the run saved last)",
    )
    parser.add_argument(
        "--out",
        metavar="FILE",
        help=f"the picture, of type {', '.join(FORMATS)} (default: {PICTURE} in the folder of the "
        "first run)",
    )


def run(options: argparse.Namespace) -> int:
    """Read the metrics, draw, say where."""
    named = None if options.out is None else output_path("plot", "out", options.out, FORMATS)
    folders = [runs.find(name) for name in dict.fromkeys(options.runs or [None])]
    curves, picture = [read(folder) for folder in folders], named or folders[0] / PICTURE
    if alone := next((curve for curve in curves if curve.by_ppo), None):
        if len(curves) > 1:
            raise InputError(
                f"{alone.name} learned by PPO, whose loss does not compare with other losses\n"
                f"draw it alone: {command('plot', alone.name)}"
            )
        panels.draw(folders[0] / runs.METRICS, picture)
        say(f"{alone.name}  step {alone.found.steps[-1]:,}\nsaved as {shown(picture)}")
        return 0
    draw(curves, picture)
    width = max(len(curve.name) for curve in curves)
    for curve in curves:
        steps, _, validation, _ = curve.found
        said = f"{curve.name:<{width}}  step {steps[-1]:,}  training {_last(curve):.4f}"
        if validation:
            best = min(loss for _, loss in validation)
            said += f"  validation {validation[-1][1]:.4f}, at best {best:.4f}"
        say(said)
    stages = {curve.stage for curve in curves}
    if stages & PAIRS and stages - PAIRS:
        say(
            "the loss of a reward model, and of DPO, is that of pairs of replies: it does not "
            "compare with the loss of a text"
        )
    elif len(stages - PAIRS) > 1:
        say(
            "the loss of a fine-tuned run is that of its answers alone: it does not compare with "
            "the loss of a text"
        )
    elif len({curve.tokenizer for curve in curves}) > 1:
        say(
            "these runs have different tokens: a loss a token of one is not that of another; "
            "`tinygpt eval` prints bits a byte"
        )
    say(f"saved as {shown(picture)}")
    return 0


def read(folder: Path) -> Curve:
    """The losses in a run's metrics. Raises InputError where there are none."""
    name = shown(folder)
    if not (folder / runs.CONFIG).exists():
        raise InputError(runs.no_run(folder))
    found = metrics.read(folder / runs.METRICS, TRAINED)
    tokenizer = read_bytes(folder / runs.TOKENIZER, VOCABULARY, TRAINED)
    if not found.steps:
        raise InputError(f"{name} has taken no step yet, or none with a finite loss\ndraw it later")
    learned = read_json(folder / runs.CONFIG, Learned)
    return Curve(name, tokenizer, learned.stage, found, learned.training.method == "ppo")


@drawing()
def draw(curves: list[Curve], picture: Path) -> None:
    """One colour a run, in the order they were named."""
    from matplotlib import colormaps  # here: matplotlib takes longer to import than all the rest

    colours = colormaps["tab10" if len(curves) <= 10 else "tab20"]
    measured = any(curve.found.validation for curve in curves)
    dots = "; dots: validation, not learned from" * measured
    pairs = all(curve.stage in PAIRS for curve in curves)
    unit = "pair" if pairs else "token"
    figure, axes = axes_of(f"Lines: training loss, smoothed{dots}", unit)
    for number, curve in enumerate(curves):
        last = f"{_last(curve):.3f} in training"
        if curve.found.validation:
            last = f"{curve.found.validation[-1][1]:.3f}"
        label = f"{_label(curve.name)}: {last}"
        plot_losses(axes, curve.found, colours(number % colours.N), label)
    losses = [loss for curve in curves for loss in curve.found.losses]
    # a logarithmic axis has no 0, and few numbers to read where all is within a factor of a few
    if 0 < min(losses) < max(losses) / 8:
        logarithmic(axes)
    axes.grid(alpha=0.3)
    axes.legend()
    write_picture(figure, picture, "name another file: --out FILE")


def _last(curve: Curve) -> float:
    """Its smoothed training loss at the end."""
    return smooth(curve.found.losses, [len(curve.found.losses) - 1])[0]


def _label(name: str) -> str:
    """A run's name as matplotlib takes it: `$` would begin a formula, and a leading `_` hide it."""
    return " " * name.startswith("_") + name.replace("$", r"\$")
