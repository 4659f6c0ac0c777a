"""Train a GPT on the story that comes with it, on stories from a grammar, or on your own text: `tinygpt train --text FILE`.

Leaves a run folder (runs/story-1, ...) with the weights, the losses and their curve. Ctrl-C saves what has been learned so far, and
`tinygpt train --resume RUN` goes on, as if it had never stopped. `--init RUN` starts from the weights and tokenizer of another run.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from tensor.devices import array_module
from tensor.errors import DeviceError
from tensor.kernels.cpu import compiled
from tensor.optim import Optimizer
from tensor.random import Generator
from tinygpt import checkpoint, runs, training
from tinygpt.cli import Parser, add_flags, read_config
from tinygpt.commands import sample
from tinygpt.config import GPTConfig, SampleConfig, TrainConfig
from tinygpt.console import Interrupt, LiveLine, duration, say, short, shown
from tinygpt.corpus import opening
from tinygpt.data import Data, prepare
from tinygpt.errors import InputError
from tinygpt.model import GPT
from tinygpt.planning import Plan, predict
from tinygpt.runs import Progress, Run

SAVE_SECONDS = 60.0  # between checkpoints: what a power cut may cost
PLANNED = 100  # steps from which the speed is predicted beforehand, which takes a second, and scored afterwards
HOPELESS = 20  # skipped steps in a row after which training has diverged for good


class Job(NamedTuple):
    """All that is made before the first step, so that whatever is wrong with the input is found before a folder is."""

    run: Run
    data: Data
    model: GPT
    optimizer: Optimizer
    progress: Progress
    until: int  # the step to stop after


def arguments(parser: Parser) -> None:
    """--layers, --steps and so on: the fields of the two dataclasses; and which run to start from."""
    start = parser.add_argument_group("where to start", "by default with fresh weights")
    start.add_argument("--resume", metavar="RUN", help="go on with a run where its last checkpoint stands, with its own choices")
    start.add_argument("--init", metavar="RUN", help="start with the weights and the tokenizer of another run")
    start.add_argument("--until", metavar="N", type=int, help="stop after step N of --steps, to go on later with --resume")
    add_flags(parser, TrainConfig)
    add_flags(parser, GPTConfig)


def run(options: argparse.Namespace) -> int:
    """Prepare, train, measure, sample."""
    if options.resume is not None:
        job = _resumed(options)
    else:
        job = _prepare(options)
        job = job._replace(run=runs.create(job.run, job.data.tokenizer))
    try:
        return _train(job, options)
    except MemoryError:
        runs.discard_unsaved(job.run)
        raise


def _train(job: Job, options: argparse.Namespace) -> int:
    for line in _choices(job, options):
        say(line)
    with threadpool_limits(training.threads(job.run.model, job.run.training), user_api="blas"), np.errstate(all="ignore"):  # a skipped step says so
        plan = predict(job.run.model, job.run.training) if job.until - job.progress.step >= PLANNED else None
        code, progress = _steps(job, plan)
        if code == 0 and progress.step >= job.run.training.steps:
            _measure(job, progress)
        _draw(job)
        if code == 0:
            say()
            sample.write(job.model, job.data.tokenizer, SampleConfig(), job.run.opening)
            say(f"\nmore of it: tinygpt sample {job.run.name} --length 200 --temperature 0.8")
    return code


# -- before the first step ----------------------------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> Job:
    config = read_config(TrainConfig, options)
    _check_device(config)
    if options.init is not None:
        return _initialised(options, config)
    context = read_config(GPTConfig, options, vocabulary=1).context
    data = prepare(config, context)
    model_config = read_config(GPTConfig, options, vocabulary=data.tokenizer.size)
    model = GPT(model_config, generator=Generator(config.seed), dtype=config.dtype, device=config.device)
    return _job(Run(_folder(config), model_config, config, opening(data.text), data.hash), data, model, options)


def _initialised(options: argparse.Namespace, config: TrainConfig) -> Job:
    """Another run's model and tokenizer, another text: fine-tuning."""
    chosen = [name for name in GPTConfig.__dataclass_fields__ if hasattr(options, name) and name != "dropout"]
    if chosen:
        raise InputError(f"--{chosen[0].replace('_', '-')} cannot be chosen with --init: the model is that run's\nleave it out, or train from the start")
    before, model, tokenizer = runs.load(runs.find(options.init), best=True)
    model_config = replace(before.model, dropout=getattr(options, "dropout", before.model.dropout))
    data = prepare(config, model_config.context, tokenizer)
    fresh = GPT(model_config, dtype=config.dtype, device=config.device, draw=False)
    fresh.load_state({name: weights.to(dtype=config.dtype) for name, weights in model.state().items()})
    return _job(Run(_folder(config), model_config, config, opening(data.text), data.hash), data, fresh, options)


def _resumed(options: argparse.Namespace) -> Job:
    """The run, its model and optimiser as its last checkpoint left them. Raises InputError when its text is another one now."""
    names = (*TrainConfig.__dataclass_fields__, *GPTConfig.__dataclass_fields__)
    chosen = [name for name in names if hasattr(options, name)]
    if chosen or options.init is not None:
        flag = f"--{chosen[0].replace('_', '-')}" if chosen else "--init"
        raise InputError(f"{flag} cannot be chosen with --resume: a run goes on with its own choices\nleave it out, or start a new run from it: --init")
    run, model, tokenizer = runs.load(runs.find(options.resume))
    config = run.training
    _check_device(config)
    data = prepare(config, run.model.context, tokenizer)
    if data.hash != run.text:
        raise InputError(f"the text of {run.name} has changed since it began, so it cannot go on as it would have\nrestore {shown(data.name)}, or use --init")
    model.to(device=config.device)
    job = _job(run, data, model.train(), options)
    progress = runs.resume(run, model, job.optimizer)
    if progress.step >= config.steps:
        raise InputError(f"{run.name} has taken all its {config.steps:,} steps\nstart a new run from it: --init {run.name}")
    _cut_metrics(run.folder / runs.METRICS, progress.step)
    return job._replace(progress=progress)


def _job(run: Run, data: Data, model: GPT, options: argparse.Namespace) -> Job:
    until = run.training.steps if options.until is None else options.until
    if not 1 <= until <= run.training.steps:
        raise InputError(f"--until {until}: a step from 1 to {run.training.steps}, the number of --steps")
    return Job(run, data, model, training.optimizer_of(model, run.training), Progress(), until)


def _folder(config: TrainConfig) -> Path:
    return Path(config.out) if config.out else runs.RUNS


def _check_device(config: TrainConfig) -> None:
    try:
        array_module(config.device)
    except DeviceError as error:
        raise InputError(str(error)) from None


def _cut_metrics(path: Path, step: int) -> None:
    """Forget what was noted after the checkpoint: it will be again."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if _step_of(line) <= step]
        checkpoint.write_atomically(path, "".join(line + "\n" for line in lines))


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # half a line, where a run was killed
        return math.inf


def _kernels(config: TrainConfig) -> str:
    """What does the arithmetic on the CPU, and why."""
    reason = compiled.refusal() if config.dtype == "float32" else f"compiled kernels are for float32, not {config.dtype}"
    if reason is None:
        count = compiled.thread_count()
        return f"compiled C, {count} thread{'s' if count > 1 else ''}: TENSOR_THREADS sets how many"
    return f"NumPy alone, slower: {reason}"


def _choices(job: Job, options: argparse.Namespace) -> list[str]:
    """What was chosen and why, and the numbers to read the loss against."""
    model, config, data = job.run.model, job.run.training, job.data

    def why(name: str, reason: str) -> str:
        return "as asked" if hasattr(options, name) else reason

    parameters = sum(parameter.size for parameter in job.model.parameters())
    drawn = config.steps * config.batch * config.accumulation
    often = f"each window about {drawn / len(data.windows):,.0f} times" if drawn > len(data.windows) else f"{drawn:,} of the windows, once each"
    kept = f", and {len(data.validation):,} others to measure on" if data.validation is not None else ""
    place = f"goes on after step {job.progress.step:,}" if job.progress.step else why("out", "the first free name; --out FOLDER for another")
    size = f"{config.batch} x {config.accumulation}" if config.accumulation > 1 else f"{config.batch}"
    return [
        f"text      {shown(data.name)}: {len(data.text):,} characters, {model.vocabulary} different{'' if data.unit == 'character' else f' {data.unit}s'}",
        f"windows   {len(data.windows):,} of {model.context} {data.unit}s{', all there are' if config.stride == 1 and not kept else ''}{kept}",
        f"model     {parameters:,} parameters: {model.layers} layers of width {model.width}, {model.heads} heads",
        f"training  {config.steps:,} steps of {size} windows: {often}",
        f"device    {config.device}: {why('device', 'the default; --device cuda trains on a GPU')}",
        f"dtype     {config.dtype}: {why('dtype', 'the default; 7 digits are enough to learn')}",
        *([f"kernels   {_kernels(config)}"] if config.device == "cpu" else []),
        f"run       {job.run.name}: {place}",
        "",
        f"loss      {math.log(model.vocabulary):.3f} nats a {data.unit} is ln({model.vocabulary}): a model that knows nothing",
        *_floor_line(data),
        "",
    ]


def _floor_line(data: Data) -> list[str]:
    if data.floor is None:
        return []
    return [f"          {data.floor:.3f} is the floor: no model can be better on {'these windows' if data.validation is None else 'such stories'}"]


# -- the steps ----------------------------------------------------------------------------------------------------------


def _steps(job: Job, plan: Plan | None) -> tuple[int, Progress]:
    """Train to the end, or to Ctrl-C (130), or until nothing can be learned any more (1); the checkpoint is saved in each case."""
    config, start, saved, progress = job.run.training, time.monotonic(), time.monotonic(), job.progress
    skipped = in_a_row = tokens = 0
    seconds = 0.0  # of steps alone
    with ExitStack() as stack:
        mode = "a" if progress.step else "w"
        metrics: IO[Any] = stack.enter_context((job.run.folder / runs.METRICS).open(mode, encoding="utf-8", buffering=1))
        stop, live = stack.enter_context(Interrupt()), stack.enter_context(LiveLine(config.steps))
        for record in training.train(job.model, job.data.windows, config, job.optimizer, progress.step):
            progress = progress._replace(step=record.step)
            live.show(record)
            _note(metrics, record._asdict())
            in_a_row, skipped, tokens = in_a_row + 1 if record.skipped else 0, skipped + record.skipped, tokens + record.tokens
            seconds += record.seconds
            if record.skipped and skipped == 1:
                live.note(f"step {record.step} skipped: its gradient norm is {record.gradient_norm}; the weights stay as they were")
            if job.data.validation is not None and (record.step % config.evaluate_steps == 0 or record.step == config.steps):
                progress = _evaluate(job, progress, metrics, live)
                runs.save(job.run, job.model, job.optimizer, progress)
                saved = time.monotonic()
                if config.patience and progress.worse >= config.patience:
                    break
            if stop.asked or in_a_row == HOPELESS or record.step == job.until:
                break
            if time.monotonic() - saved > SAVE_SECONDS:
                runs.save(job.run, job.model, job.optimizer, progress)
                saved = time.monotonic()
        runs.save(job.run, job.model, job.optimizer, progress)  # with Ctrl-C still held back
    if plan is not None and tokens:
        say(plan.score(tokens, seconds))
    return _ended(job, progress, time.monotonic() - start, tokens, skipped, in_a_row, stop.asked), progress


def _ended(job: Job, progress: Progress, seconds: float, tokens: int, skipped: int, in_a_row: int, asked: bool) -> int:
    """Say how it went; the exit code."""
    step, config, taken = progress.step, job.run.training, progress.step - job.progress.step
    say(f"{taken:,} step{'s' * (taken != 1)} in {duration(seconds)}, {short(tokens / seconds)} tokens/s" + f"; {skipped:,} of them skipped" * (skipped > 0))
    if in_a_row == HOPELESS:
        say(f"{HOPELESS} steps in a row had no finite gradient: training has diverged; try a lower --lr, or --dtype float32")
        return 1
    if step == config.steps:
        return 0
    if asked or step == job.until:
        say(f"stopped after step {step:,} of {config.steps:,}; go on: tinygpt train --resume {job.run.name}")
        return 130 if asked else 0
    say(f"stopped after step {step:,}: {progress.worse} measurings in a row were no better than {progress.best:.4f}")
    return 0


def _evaluate(job: Job, progress: Progress, metrics: IO[Any], live: LiveLine) -> Progress:
    """The validation loss now, noted and shown; the random state of the training is not touched."""
    assert job.data.validation is not None
    start = time.monotonic()
    loss = training.mean_loss(job.model, job.data.validation, training.batch_of(job.run.model, job.run.model.context))
    _note(metrics, {"step": progress.step, "validation_loss": loss, "seconds": time.monotonic() - start})
    better = math.isfinite(loss) and (progress.best is None or loss < progress.best)
    above = f", {loss - job.data.floor:.4f} above the floor" if job.data.floor is not None else ""
    live.note(f"step {progress.step:,}: validation loss {loss:.4f}{above}" + ("" if better or progress.best is None else f", not below {progress.best:.4f}"))
    return progress._replace(loss=_number(loss), best=loss if better else progress.best, worse=0 if better else progress.worse + 1)


def _note(metrics: IO[Any], record: dict[str, Any]) -> None:
    """A line of JSON, which has no NaN and no infinity."""
    metrics.write(json.dumps({name: _number(value) for name, value in record.items()}) + "\n")


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


# -- after the last step ------------------------------------------------------------------------------------------------


def _measure(job: Job, progress: Progress) -> None:
    """The mean loss over the windows, where they are all there is: printed, and the last line of the metrics."""
    if job.data.validation is not None:
        assert progress.loss is not None
        assert progress.best is not None
        say(f"validation loss {progress.loss:.4f}, at best {progress.best:.4f}: the mean over {len(job.data.validation):,} windows that were not learned from")
        return
    config, rows = job.run.training, training.measured_rows(job.data.windows)
    whole = len(rows) == len(job.data.windows)
    if not whole:
        say(f"measuring the loss on {len(rows):,} of the {len(job.data.windows):,} windows, evenly spread ...")
    loss = training.mean_loss(job.model, job.data.windows, training.batch_of(job.run.model, job.run.model.context), rows)
    with (job.run.folder / runs.METRICS).open("a", encoding="utf-8") as metrics:
        _note(metrics, {"step": config.steps, "loss": loss, "windows": len(rows)})
    runs.save(job.run, job.model, job.optimizer, progress._replace(loss=_number(loss)))
    above = f"; {loss - job.data.floor:.4f} above the floor" if job.data.floor is not None else ""
    say(f"loss {loss:.4f}: the mean over {'all ' * whole}{len(rows):,} windows, dropout off{above}")


def _draw(job: Job) -> None:
    from tinygpt.plot import draw  # here: matplotlib takes longer to import than all the rest

    unknowing = math.log(job.run.model.vocabulary)
    draw(job.run.folder / runs.METRICS, job.run.folder / runs.PICTURE, unknowing=unknowing, floor=job.data.floor, unit=job.data.unit)
    say(f"saved in {job.run.name}; {runs.PICTURE} there shows the curve")
