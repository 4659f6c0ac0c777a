"""Make a plain run of a run with adapters (LoRA): `tinygpt merge RUN`.

Each pair of small matrices becomes a part of the matrix beside it, W + s A B. The new run answers
the same, needs no base.safetensors, and takes the time of a model without adapters. No optimiser
is kept for it: it cannot be resumed, and `tinygpt finetune` can start from it.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from tinygpt.commands.cli import Parser, add_run
from tinygpt.config import FinetuneConfig
from tinygpt.errors import InputError
from tinygpt.files import writing
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.terminal import command, say


def arguments(parser: Parser) -> None:
    """The run, which of its weights, and where the new one goes."""
    add_run(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", help="folder of the run (runs/ and a new name, if not given)"
    )


def run(options: argparse.Namespace) -> int:
    """Load the merged model, and save it as a run."""
    before, model, tokenizer = runs.load(runs.find(options.run), best=not options.last)
    config = before.training
    if not isinstance(config, FinetuneConfig) or config.lora is None:
        raise InputError(
            f"{before.name} has no adapters: it is a plain run already\n"
            "name a run of tinygpt finetune --lora: tinygpt merge RUN"
        )
    training = replace(config, lora=None, out=options.out)
    folder = Path(options.out or runs.RUNS)
    plain = replace(before, training=training, new_rows=(0, 0), folder=folder)
    name = f"{runs.name_of(before.folder.resolve().name, 'run')}-merged"
    with (
        runs.create(plain, tokenizer, name) as (made, _),
        writing(made.folder, "free some space there, or name another folder: --out FOLDER", "save"),
    ):
        weights = {name: x.array for name, x in model.state_dict().items()}
        checkpoint.save(made.folder, {runs.MODEL: weights}, checkpoint.State())
    which = "best" if not options.last and before.has_best else "last"
    say(f"model     {runs.described(made.model)}")
    say(f"weights   {before.name}, its {which} ones, with its adapters of rank {config.lora}")
    say(f"run       {made.name}: a plain one")
    say(f"\nask it: {command('sample', made.folder, '--prompt', 'TEXT')}")
    return 0
