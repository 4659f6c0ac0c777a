"""What a training starts from: a fresh model, the weights of another run, or the checkpoint of its
own that it goes on from.

All that can be wrong with the input is found here, before a folder is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from tensor.errors import DeviceError
from tensor.memory.devices import array_module
from tensor.optim import Optimizer
from tensor.random import Generator
from tinygpt.config import GPTConfig, TrainConfig
from tinygpt.data.prepare import BUILT_IN, Data, prepare
from tinygpt.data.reading import STANDARD_INPUT, name_of
from tinygpt.data.token_files import is_token_folder
from tinygpt.data.windows import CorpusError
from tinygpt.errors import InputError
from tinygpt.model.gpt import GPT
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Progress
from tinygpt.runs.metrics import check_tensorboard
from tinygpt.runs.run import Run
from tinygpt.terminal import command, shown
from tinygpt.tokenizers import Tokenizer, TokenizerError
from tinygpt.training.planning import check_memory
from tinygpt.training.step import optimizer_of

SMALLER = "take a smaller --batch, --context, --width or --layers"
MODEL_FIELDS, TRAIN_FIELDS = GPTConfig.__dataclass_fields__, TrainConfig.__dataclass_fields__


class Job(NamedTuple):
    """All that is made before the first step."""

    run: Run
    data: Data
    model: GPT
    optimizer: Optimizer
    progress: Progress
    until: int  # the step to stop after


@dataclass(frozen=True)
class Request:
    """What a training is asked to do.

    chosen: the names of the configuration's fields that were given; the others have their defaults.
    model: the model's configuration for a vocabulary of so many tokens, which follows from the
    text.
    """

    training: TrainConfig
    model: Callable[[int], GPTConfig]
    chosen: Collection[str] = ()
    init: str | None = None  # the run whose weights and tokenizer to start with
    resume: str | None = None  # the run to go on with
    until: int | None = None  # the step to stop after
    ignore_memory: bool = False  # train also where a step seems to need more memory than is free


def fresh(request: Request) -> Job:
    """A model with fresh weights, or those of `init`, and the data that was chosen. No folder is
    made yet.
    """
    config = request.training
    _check(config)
    if config.text in BUILT_IN:
        _refuse(
            request,
            ["validation"],
            f"--text {config.text or 'story'}: no part of it is kept back to measure on\n"
            "leave it out, or train on a text of your own: --text FILE",
        )
    if is_token_folder(config.text):
        text = shown(config.text)
        _refuse(
            request,
            ("tokenizer", "tokens", "validation"),
            f"--text {text}: its tokens are made\nleave it out, or choose it with tinygpt tokenize",
        )
    if request.init is not None:
        return _initialised(request, request.init)
    data = prepare(config, request.model(1).context)
    return _job(request, data, request.model(data.tokenizer.size))


def _initialised(request: Request, init: str) -> Job:
    """Another run's model and tokenizer, another text: fine-tuning."""
    _refuse(
        request,
        [*(name for name in MODEL_FIELDS if name != "dropout"), "tokenizer", "tokens"],
        "--init: the model and the tokenizer are that run's\nleave it out, or train from the start",
    )
    before, model, tokenizer = runs.load(runs.find(init), best=True)
    dropout = request.model(1).dropout if "dropout" in request.chosen else before.model.dropout
    try:
        data = prepare(request.training, before.model.context, tokenizer)
    except (CorpusError, TokenizerError) as error:
        # the usual advice names flags that --init refuses
        problem = str(error).partition("\n")[0]
        raise InputError(f"{problem}\nuse another text, or train without --init") from None
    return _job(request, data, replace(before.model, dropout=dropout), model)


def resumed(request: Request) -> Job:
    """The run, its model and optimiser as its last checkpoint left them. Raises InputError when its
    text is another one now.
    """
    fixed = [name for name in [*TRAIN_FIELDS, *MODEL_FIELDS] if name not in ("steps", "text")]
    _refuse(
        request,
        [*fixed, *["init"] * (request.init is not None)],
        "--resume: a run goes on with its own choices\n"
        "leave it out, or start a new run from it: --init",
    )
    text = request.training.text if "text" in request.chosen else None
    again = command("train", "--resume", request.resume, "--text", "PATH")
    job = reopened(
        request.resume,
        text,
        missing=f"say where it is now: {again}",
        changed="start a new run from its weights: --init",
    )
    if "steps" in request.chosen:
        job = job._replace(run=_lengthened(job, request.training.steps))
    run, step = job.run, job.progress.step
    if not request.ignore_memory:
        fix = "end other programs"  # the sizes of the run are fixed
        check_memory(run.model, run.training, "weights", "moments", fix=fix)
    job = job._replace(until=_until(run, request))
    if step == run.training.steps:
        if runs.drawn(run):
            more = command("train", "--resume", run.folder, "--steps", 2 * step)
            raise InputError(f"{run.name} has taken all its {step:,} steps\ntrain on: {more}")
    elif job.until <= step:
        raise InputError(
            f"--until {job.until}: {run.name} has taken {step:,} steps already\n"
            f"name a later one, up to {run.training.steps:,}"
        )
    return job


def _lengthened(job: Job, steps: int) -> Run:
    """The run with another number of steps. Its warm-up is over or goes on as it began, and the
    measurings stay the same ones, so that their losses compare.
    """
    config, step = job.run.training, job.progress.step
    if steps <= step:
        raise InputError(
            f"--steps {steps}: {job.run.name} has taken {step:,} steps already\n"
            "name a larger number: it counts from the first step of the run"
        )
    warmup, evaluate = config.warmup_steps, config.evaluate_steps
    return replace(job.run, training=replace(config, steps=steps, warmup=warmup, evaluate=evaluate))


def reopened(
    name: str | None, text: str | None = None, missing: str = "", changed: str = ""
) -> Job:
    """A run as its last checkpoint left it, also where that was its last step. text: where its text
    is now, by default where it was. Raises InputError, as `own_text` does, when its text is another
    one now.
    """
    run, model, tokenizer = runs.load(runs.find(name))
    if not run.text:
        raise InputError(
            f"{run.name} was not trained here: there is no training to go on with\n"
            f"start one from its weights: {command('train', '--init', run.folder)}"
        )
    if text is not None:
        run = _moved(run, text)
    config = run.training
    _check(config)
    data = _unchanged(run, tokenizer) if text else own_text(run, tokenizer, missing, changed)
    if data is None:
        raise InputError(
            f"{name_of(str(text))} is not the text that {run.name} was trained on: its hash is "
            "another\n"
            f"name the same text, or start a new run with this one: --init {run.name}"
        )
    model.to(device=config.device)
    optimizer = optimizer_of(model.train(), config)
    return Job(run, data, model, optimizer, runs.resume(run, model, optimizer), config.steps)


def own_text(run: Run, tokenizer: Tokenizer, missing: str = "", changed: str = "") -> Data:
    """The data of the run, from where its text was. Raises InputError where no text is there, or
    another one. missing, changed: what can be done then, beside bringing the text back.
    """
    where = name_of(run.training.text or "story")
    back, other = f"restore {where}", changed
    try:
        data = _unchanged(run, tokenizer)
        if data is not None:
            return data
        problem = f"{where} is not the text that {run.name} was trained on: its hash is another"
    except InputError as error:
        problem, other = f"{str(error).splitlines()[0]}: {run.name} was trained on it", missing
        if run.training.text == STANDARD_INPUT:
            problem = f"{run.name} was trained on {where}, and no text comes from there now"
            back = "pipe the same text in again"
    raise InputError(f"{problem}\n{back}{f', or {other}' if other else ''}")


def _unchanged(run: Run, tokenizer: Tokenizer) -> Data | None:
    """The data of the run; None where its text is another one now."""
    # another text may be one that the run's tokenizer cannot read
    with contextlib.suppress(CorpusError, TokenizerError):
        data = prepare(run.training, run.model.context, tokenizer)
        return data if data.hash == run.text else None
    return None


def _moved(run: Run, text: str) -> Run:
    """The run, with its text where it is now."""
    before = run.training.text
    if before in BUILT_IN or text in BUILT_IN:
        raise InputError(
            f"--text {shown(text)}: {run.name} learns from {shown(before or 'story')}, and only a "
            "file or a folder can have moved\nleave it out, or start a new run: --init"
        )
    return replace(run, training=replace(run.training, text=text))


def _refuse(request: Request, names: Iterable[str], why: str) -> None:
    """Raise InputError for the first of these fields that was chosen."""
    for name in names:
        if name in request.chosen:
            raise InputError(f"--{name.replace('_', '-')} cannot be chosen with {why}")


def _job(request: Request, data: Data, shape: GPTConfig, start: GPT | None = None) -> Job:
    """The job of a new run. start: a model whose weights the new model gets."""
    config = request.training
    if not request.ignore_memory:
        loaded, fix = ([], SMALLER) if start is None else (["weights"], "take a smaller --batch")
        check_memory(shape, config, *loaded, fix=fix)
    model = GPT(
        shape,
        generator=Generator(config.seed),
        dtype=config.dtype,
        device=config.device,
        draw=start is None,
    )
    if start is not None:
        weights = start.state_dict().items()
        model.load_state_dict({name: array.to(dtype=config.dtype) for name, array in weights})
    folder = Path(config.out or runs.RUNS)
    run = Run(model.config, config, data.opening, data.hash, folder=folder)
    until = _until(run, request)
    return Job(run, data, model, optimizer_of(model, config), Progress(), until)


def _until(run: Run, request: Request) -> int:
    until = run.training.steps if request.until is None else request.until
    if not 1 <= until <= run.training.steps:
        raise InputError(
            f"--until {until}: a step from 1 to {run.training.steps}, the number of --steps"
        )
    return until


def _check(config: TrainConfig) -> None:
    """Raise InputError where the device, or a package that was asked for, is missing."""
    if config.tensorboard:
        check_tensorboard()
    check_device(config.device)


def check_device(name: str) -> None:
    """Raise InputError where there is no such device."""
    try:
        array_module(name)
    except DeviceError as error:
        raise InputError(str(error)) from None
