"""Train a GPT on the story that comes with it, or on your own text: `tinygpt train --text FILE`.

Leaves a run folder (runs/story-1, ...) with the weights, the losses and their curve. Ctrl-C saves what has been learned so far.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from tensor.devices import array_module
from tensor.errors import DeviceError
from tensor.kernels.cpu import compiled
from tensor.optim import AdamW
from tensor.random import Generator
from tinygpt import runs, training
from tinygpt.cli import Parser, add_flags, read_config
from tinygpt.commands import sample
from tinygpt.config import GPTConfig, SampleConfig, TrainConfig
from tinygpt.console import Interrupt, LiveLine, duration, say, short, shown
from tinygpt.corpus import Windows, floor, opening, read_text, story
from tinygpt.errors import InputError
from tinygpt.model import GPT
from tinygpt.runs import Run
from tinygpt.tokenizers import CharacterTokenizer

SAVE_SECONDS = 60.0  # between checkpoints: what a power cut may cost
HOPELESS = 20  # skipped steps in a row after which training has diverged for good


class Job(NamedTuple):
    """All that is made before the first step, so that whatever is wrong with the input is found before a folder is."""

    run: Run
    text: str
    tokenizer: CharacterTokenizer
    windows: Windows
    floor: float
    model: GPT
    optimizer: AdamW


def arguments(parser: Parser) -> None:
    """--layers, --steps and so on: the fields of the two dataclasses."""
    add_flags(parser, TrainConfig)
    add_flags(parser, GPTConfig)


def run(options: argparse.Namespace) -> int:
    """Prepare, train, measure, sample."""
    job = _prepare(options)
    job = job._replace(run=runs.create(job.run, job.tokenizer))
    try:
        return _train(job, options)
    except MemoryError:
        runs.discard_unsaved(job.run)
        raise


def _train(job: Job, options: argparse.Namespace) -> int:
    for line in _choices(job, options):
        say(line)
    with threadpool_limits(training.threads(job.run.model, job.run.training), user_api="blas"), np.errstate(all="ignore"):  # a skipped step says so
        code = _steps(job)
        if code == 0:
            _measure(job)
        _draw(job)
        if code == 0:
            say()
            sample.write(job.model, job.tokenizer, SampleConfig(), job.run.opening)
            say(f"\nmore of it: tinygpt sample {job.run.name} --length 200 --temperature 0.8")
    return code


# -- before the first step ----------------------------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> Job:
    config = read_config(TrainConfig, options)
    text = story() if config.text is None else read_text(config.text)
    tokenizer = CharacterTokenizer(text)
    model_config = read_config(GPTConfig, options, vocabulary=tokenizer.size)
    try:
        array_module(config.device)
    except DeviceError as error:
        raise InputError(str(error)) from None
    ids = tokenizer.encode(text)
    windows = Windows(ids, model_config.context, config.stride)
    model = GPT(model_config, generator=Generator(config.seed), dtype=config.dtype, device=config.device)
    run = Run(Path(config.out) if config.out else runs.RUNS, model_config, config, opening(text))
    return Job(run, text, tokenizer, windows, floor(ids, model_config.context), model, training.optimizer_of(model, config))


def _kernels(config: TrainConfig) -> str:
    """What does the arithmetic on the CPU, and why."""
    reason = compiled.refusal() if config.dtype == "float32" else f"compiled kernels are for float32, not {config.dtype}"
    if reason is None:
        count = compiled.thread_count()
        return f"compiled C, {count} thread{'s' if count > 1 else ''}: TENSOR_THREADS sets how many"
    return f"NumPy alone, slower: {reason}"


def _choices(job: Job, options: argparse.Namespace) -> list[str]:
    """What was chosen and why, and the two numbers to read the loss against."""
    model, config = job.run.model, job.run.training

    def why(name: str, reason: str) -> str:
        return "as asked" if hasattr(options, name) else reason

    source = "the story that comes with tinygpt" if config.text is None else shown(config.text)
    parameters = sum(parameter.size for parameter in job.model.parameters())
    drawn = config.steps * config.batch
    often = f"each window about {drawn / len(job.windows):,.0f} times" if drawn > len(job.windows) else f"{drawn:,} of the windows, once each"
    return [
        f"text      {source}: {len(job.text):,} characters, {model.vocabulary} different",
        f"windows   {len(job.windows):,} of {model.context} characters, {'all there are' if config.stride == 1 else f'one every {config.stride}'}",
        f"model     {parameters:,} parameters: {model.layers} layers of width {model.width}, {model.heads} heads",
        f"training  {config.steps:,} steps of {config.batch} windows: {often}",
        f"device    {config.device}: {why('device', 'the default; --device cuda trains on a GPU')}",
        f"dtype     {config.dtype}: {why('dtype', 'the default; 7 digits are enough to learn')}",
        *([f"kernels   {_kernels(config)}"] if config.device == "cpu" else []),
        f"run       {job.run.name}: {why('out', 'the first free name; --out FOLDER for another')}",
        "",
        f"loss      {math.log(model.vocabulary):.3f} nats a character is ln({model.vocabulary}): a model that knows nothing",
        f"          {job.floor:.3f} is the floor: no model can be better on these windows",
        "",
    ]


# -- the steps ----------------------------------------------------------------------------------------------------------


def _steps(job: Job) -> int:
    """Train to the end, or to Ctrl-C (130), or until nothing can be learned any more (1); the checkpoint is saved in each case."""
    config, start, saved = job.run.training, time.monotonic(), time.monotonic()
    step = skipped = in_a_row = 0
    with ExitStack() as stack:
        metrics = stack.enter_context((job.run.folder / runs.METRICS).open("w", encoding="utf-8", buffering=1))
        stop, live = stack.enter_context(Interrupt()), stack.enter_context(LiveLine(config.steps))
        for record in training.train(job.model, job.windows, config, job.optimizer):
            step = record.step
            live.show(record)
            metrics.write(json.dumps({name: _number(value) for name, value in record._asdict().items()}) + "\n")
            in_a_row = in_a_row + 1 if record.skipped else 0
            skipped += record.skipped
            if record.skipped and skipped == 1:
                live.note(f"step {step} skipped: its gradient norm is {record.gradient_norm}; the weights stay as they were")
            if stop.asked or in_a_row == HOPELESS:
                break
            if time.monotonic() - saved > SAVE_SECONDS:
                runs.save(job.run, job.model, job.optimizer, step)
                saved = time.monotonic()
        runs.save(job.run, job.model, job.optimizer, step)  # with Ctrl-C still held back
    seconds = time.monotonic() - start
    speed = step * config.batch * job.run.model.context / seconds
    say(f"{step:,} step{'s' * (step != 1)} in {duration(seconds)}, {short(speed)} tokens/s" + f"; {skipped:,} of them skipped" * (skipped > 0))
    if in_a_row == HOPELESS:
        say(f"{HOPELESS} steps in a row had no finite gradient: training has diverged; try a lower --lr, or --dtype float32")
        return 1
    if stop.asked and step < config.steps:
        say(f"stopped after step {step:,} of {config.steps:,}; try it: tinygpt sample {job.run.name}")
        return 130
    return 0


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else None


# -- after the last step ------------------------------------------------------------------------------------------------


def _measure(job: Job) -> None:
    """The mean loss over the windows: printed, and the last line of the metrics."""
    config, rows = job.run.training, training.measured_rows(job.windows)
    whole = len(rows) == len(job.windows)
    if not whole:
        say(f"measuring the loss on {len(rows):,} of the {len(job.windows):,} windows, evenly spread ...")
    loss = training.mean_loss(job.model, job.windows, config.batch, rows)
    with (job.run.folder / runs.METRICS).open("a", encoding="utf-8") as metrics:
        metrics.write(json.dumps({"step": config.steps, "loss": _number(loss), "windows": len(rows)}) + "\n")
    runs.save(job.run, job.model, job.optimizer, config.steps, loss=_number(loss))
    say(f"loss {loss:.4f}: the mean over {'all ' * whole}{len(rows):,} windows, dropout off; {loss - job.floor:.4f} above the floor")


def _draw(job: Job) -> None:
    from tinygpt.plot import draw  # here: matplotlib takes longer to import than all the rest

    draw(job.run.folder / runs.METRICS, job.run.folder / runs.PICTURE, unknowing=math.log(job.run.model.vocabulary), floor=job.floor)
    say(f"saved in {job.run.name}; {runs.PICTURE} there shows the curve")
