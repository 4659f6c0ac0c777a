"""What a training starts from: a fresh model, the weights of another run, or the checkpoint of its
own that it goes on from.

All that can be wrong with the input is found here, before a folder is made.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from tensor.optim import Optimizer
from tinygpt.config import FinetuneConfig, ModelConfig, TrainConfig
from tinygpt.config.aligning import PREFERENCES
from tinygpt.config.finetuning import MADE
from tinygpt.data.data import Data
from tinygpt.data.prepare import BUILT_IN, prepare
from tinygpt.data.reading import STANDARD_INPUT, name_of
from tinygpt.data.windows import CorpusError
from tinygpt.devices import check_device
from tinygpt.errors import InputError
from tinygpt.model.freezing import freeze
from tinygpt.model.transformer import Transformer
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Progress, state_of
from tinygpt.runs.metrics import check_tensorboard
from tinygpt.runs.run import Run
from tinygpt.terminal import command, shown
from tinygpt.tokenizers import Tokenizer, TokenizerError
from tinygpt.training.planning import check_memory
from tinygpt.training.step import optimizer_of

SMALLER = "take a smaller --batch, --context, --width or --layers"
MODEL_FIELDS = ModelConfig.__dataclass_fields__
BY_RULE = *MADE, PREFERENCES  # data that no file holds
MOVED = "text", "pairs", "data"  # what may lie elsewhere when a run goes on


class Job(NamedTuple):
    """All that is made before the first step."""

    run: Run
    data: Data
    model: Any  # a Transformer, or an Aligned
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
    model: Callable[[int], ModelConfig]
    chosen: Collection[str] = ()
    init: str | None = None  # the run whose weights and tokenizer to start with; of finetune, RUN
    resume: str | None = None  # the run to go on with
    until: int | None = None  # the step to stop after
    ignore_memory: bool = False  # train also where a step seems to need more memory than is free


def resumed(request: Request) -> Job:
    """The run, its model and optimiser as its last checkpoint left them. Raises InputError when its
    text is another one now.
    """
    fields = [*request.training.__dataclass_fields__, *MODEL_FIELDS]
    fixed = [name for name in fields if name not in ("steps", *MOVED)]
    refuse(
        request,
        ["preset", *fixed, *["init"] * (request.init is not None)],
        "--resume: a run goes on with its own choices\n"
        "leave it out, or start a new run from it: --init",
    )
    moved = {name: getattr(request.training, name) for name in MOVED if name in request.chosen}
    again = command("train", "--resume", request.resume)
    job = reopened(
        request.resume,
        moved,
        missing=f"say where it is now: {again}",
        changed="start a new run from its weights: --init",
    )
    if "steps" in request.chosen:
        job = job._replace(run=_lengthened(job, request.training.steps))
    run, step = job.run, job.progress.step
    if not request.ignore_memory:
        fix = "end other programs"  # the sizes of the run are fixed
        loaded = "weights", "moments", "reference", "reward"
        check_memory(run.model, run.training, *loaded, fix=fix, reward=run.reward)
    job = job._replace(until=until_of(run, request))
    if step == run.training.steps:
        if runs.drawn(run):
            more = command("train", "--resume", run.folder, "--steps", 2 * step)
            raise InputError(f"{run.name} has taken all its {step:,} steps\ntrain further: {more}")
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
    name: str | None,
    moved: Mapping[str, str] = MappingProxyType({}),
    missing: str = "",
    changed: str = "",
) -> Job:
    """A run as its last checkpoint left it, also where that was its last step. moved: where its
    `text` or `pairs` are now, by default where they were. Raises InputError, as `own_text` does,
    when its text is another one now. missing: what can be done then, up to the flag for the text.
    """
    run, model, tokenizer = runs.load(runs.find(name), plain=False)
    state = state_of(run.folder)
    sealed = None if state is None else state.files
    if not run.text or (sealed is not None and runs.OPTIMIZER not in sealed):
        raise InputError(
            f"{run.name} was not trained here: there is no training to go on with\n"
            f"start one from its weights: {command('train', '--init', run.folder)}"
        )
    for kind, path in moved.items():
        run = _moved(run, kind, path)
    config = run.training
    check(config)
    if moved:
        data = _unchanged(run, tokenizer)
    else:
        place = f"{missing} --{config.source} PATH" if missing else ""
        data = own_text(run, tokenizer, place, changed)
    if data is None:
        raise InputError(
            f"{name_of(config.learned_from)} is not the text that {run.name} was trained on: its "
            "hash is another\n"
            f"name the same text, or start a new run with this one: --init {run.name}"
        )
    model.to(device=config.device)
    frozen(model, config)
    optimizer = optimizer_of(model.train(), config)
    return Job(run, data, model, optimizer, runs.resume(run, model, optimizer), config.steps)


def own_text(run: Run, tokenizer: Tokenizer, missing: str = "", changed: str = "") -> Data:
    """The data of the run, from where its text was. Raises InputError where no text is there, or
    another one. missing, changed: what can be done then, beside bringing the text back.
    """
    where = name_of(run.training.learned_from)
    back, other = f"restore {where}", changed
    try:
        data = _unchanged(run, tokenizer)
        if data is not None:
            return data
        problem = f"{where} is not the text that {run.name} was trained on: its hash is another"
        if run.training.learned_from in BY_RULE:
            problem = f"this version of tinygpt makes other {where} than {run.name} learned from"
            back = "take the version that trained it"
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


def _moved(run: Run, kind: str, path: str) -> Run:
    """The run, with its text or its pairs where they are now."""
    before = run.training
    made = *BUILT_IN, *BY_RULE
    if getattr(before, kind, None) in made or path in made:
        why, fix = ", and only a file or a folder can have moved", "start a new run: --init"
        for other in MOVED:
            if other != kind and getattr(before, other, None) not in made:
                why, fix = "", f"say where that is now: --{other} PATH"
        raise InputError(
            f"--{kind} {shown(path)}: {run.name} learns from {shown(before.learned_from)}{why}\n"
            f"leave it out, or {fix}"
        )
    place: dict[str, Any] = {kind: path}
    return replace(run, training=replace(before, **place))


def refuse(request: Request, names: Iterable[str], why: str) -> None:
    """Raise InputError for the first of these fields that was chosen."""
    for name in names:
        if name in request.chosen:
            raise InputError(f"--{name.replace('_', '-')} cannot be chosen with {why}")


def frozen(model: Transformer, config: TrainConfig) -> None:
    """Freeze the parts of the model that were chosen, before an optimiser is made."""
    if isinstance(config, FinetuneConfig) and config.freeze is not None:
        freeze(model, config.freeze)


def until_of(run: Run, request: Request) -> int:
    """The step to stop after: as asked, else the last one. Raises InputError for one that the run
    does not have.
    """
    until = run.training.steps if request.until is None else request.until
    if not 1 <= until <= run.training.steps:
        raise InputError(
            f"--until {until}: a step from 1 to {run.training.steps:,}, the number of --steps"
        )
    return until


def check(config: TrainConfig) -> None:
    """Raise InputError where the device, or a package that was asked for, is missing."""
    if config.tensorboard:
        check_tensorboard()
    check_device(config.device)
