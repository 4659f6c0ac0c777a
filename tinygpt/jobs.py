"""What a training starts from: a fresh model, the weights of another run, or the checkpoint of its own that it goes on from.

All that can be wrong with the input is found here, before a folder is made.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tensor.devices import array_module
from tensor.errors import DeviceError
from tensor.optim import Optimizer
from tensor.random import Generator
from tinygpt import runs, training
from tinygpt.checkpoint import Progress
from tinygpt.cli import read_config
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.console import shown
from tinygpt.data import Data, prepare
from tinygpt.errors import InputError
from tinygpt.metrics import check_tensorboard
from tinygpt.model import GPT
from tinygpt.ownership import Owner
from tinygpt.planning import check_memory
from tinygpt.runs import Run
from tinygpt.token_files import is_token_folder


class Job(NamedTuple):
    """All that is made before the first step."""

    run: Run
    data: Data
    model: GPT
    optimizer: Optimizer
    progress: Progress
    until: int  # the step to stop after
    owner: Owner | None = None  # of the run's folder; None where nothing is written


def fresh(options: argparse.Namespace) -> Job:
    """A model with fresh weights, or those of `--init`, and the data that was chosen. No folder is made yet."""
    config = read_config(TrainConfig, options)
    _check(config)
    if is_token_folder(config.text) and (made := [name for name in ("tokenizer", "tokens", "validation") if hasattr(options, name)]):
        text = shown(config.text)
        raise InputError(f"--{made[0]} cannot be chosen with --text {text}: its tokens are made\nleave it out, or choose it with tinygpt tokenize")
    if options.init is not None:
        return _initialised(options, config)
    context = read_config(GPTConfig, options, vocabulary=1).context
    data = prepare(config, context)
    model_config = read_config(GPTConfig, options, vocabulary=data.tokenizer.size)
    _check_memory(model_config, config, options)
    model = GPT(model_config, generator=Generator(config.seed), dtype=config.dtype, device=config.device)
    return _job(Run(_folder(config), model_config, config, data.opening, data.hash), data, model, options)


def _initialised(options: argparse.Namespace, config: TrainConfig) -> Job:
    """Another run's model and tokenizer, another text: fine-tuning."""
    chosen = [name for name in (*GPTConfig.__dataclass_fields__, "tokenizer", "tokens") if hasattr(options, name) and name != "dropout"]
    if chosen:
        whose = "tokenizer" if chosen[0] in ("tokenizer", "tokens") else "model"
        raise InputError(f"--{chosen[0].replace('_', '-')} cannot be chosen with --init: the {whose} is that run's\nleave it out, or train from the start")
    before, model, tokenizer = runs.load(runs.find(options.init), best=True)
    model_config = replace(before.model, dropout=getattr(options, "dropout", before.model.dropout))
    _check_memory(model_config, config, options, "weights")
    data = prepare(config, model_config.context, tokenizer)
    own = GPT(model_config, dtype=config.dtype, device=config.device, draw=False)
    own.load_state({name: weights.to(dtype=config.dtype) for name, weights in model.state().items()})
    return _job(Run(_folder(config), model_config, config, data.opening, data.hash), data, own, options)


def resumed(options: argparse.Namespace) -> Job:
    """The run, its model and optimiser as its last checkpoint left them. Raises InputError when its text is another one now."""
    names = (*TrainConfig.__dataclass_fields__, *GPTConfig.__dataclass_fields__)
    chosen = [name for name in names if hasattr(options, name)]
    if chosen or options.init is not None:
        flag = f"--{chosen[0].replace('_', '-')}" if chosen else "--init"
        raise InputError(f"{flag} cannot be chosen with --resume: a run goes on with its own choices\nleave it out, or start a new run from it: --init")
    job = reopened(options.resume)
    run, step = job.run, job.progress.step
    _check_memory(run.model, run.training, options, "weights", "moments")
    if step >= run.training.steps:
        raise InputError(f"{run.name} has taken all its {run.training.steps:,} steps\nstart a new run from it: --init {run.name}")
    job = job._replace(until=_until(run, options))
    if job.until <= step:
        raise InputError(f"--until {job.until}: {run.name} has taken {step:,} steps already\nname a later one, up to {run.training.steps:,}")
    return job


def reopened(name: str | None) -> Job:
    """A run as its last checkpoint left it, also where that was its last step. Raises InputError when its text is another one now."""
    run, model, tokenizer = runs.load(runs.find(name))
    if not run.text:
        raise InputError(f"{run.name} was not trained here: there is no training to go on with\nstart one from its weights: tinygpt train --init {run.name}")
    config = run.training
    _check(config)
    data = prepare(config, run.model.context, tokenizer)
    if data.hash != run.text:
        raise InputError(f"the text of {run.name} has changed since it began, so it cannot go on as it would have\nrestore {shown(data.name)}, or use --init")
    model.to(device=config.device)
    optimizer = training.optimizer_of(model.train(), config)
    return Job(run, data, model, optimizer, runs.resume(run, model, optimizer), config.steps)


def _job(run: Run, data: Data, model: GPT, options: argparse.Namespace) -> Job:
    until = _until(run, options)
    return Job(run, data, model, training.optimizer_of(model, run.training), Progress(), until)


def _until(run: Run, options: argparse.Namespace) -> int:
    until = run.training.steps if options.until is None else int(options.until)
    if not 1 <= until <= run.training.steps:
        raise InputError(f"--until {until}: a step from 1 to {run.training.steps}, the number of --steps")
    return until


def _folder(config: TrainConfig) -> Path:
    return Path(config.out) if config.out else runs.RUNS


def _check_memory(model: GPTConfig, config: TrainConfig, options: argparse.Namespace, *loaded: str) -> None:
    if not options.ignore_memory:
        check_memory(model, config, *loaded)


def _check(config: TrainConfig) -> None:
    """Raise InputError where the device, or a package that was asked for, is missing."""
    if config.tensorboard:
        check_tensorboard()
    try:
        array_module(config.device)
    except DeviceError as error:
        raise InputError(str(error)) from None
