"""Train a GPT on the story that comes with it, on stories from a grammar, or on your own text:
`tinygpt train --text FILE`.

Leaves a run folder (runs/story-1, ...) with the weights, the losses and their curve. Ctrl-C saves
what has been learned so far, and
`tinygpt train --resume RUN` goes on, as if it had never stopped. A second Ctrl-C does not wait for
the end of the step, and does not save. A terminal that is closed is as good as one Ctrl-C; a pipe
that nobody reads any more stops nothing. `--init RUN` starts from the weights and tokenizer of
another run.
"""

from __future__ import annotations

import argparse
import math
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from tensor import kernels
from tensor.dtypes import as_dtype
from tensor.kernels.cpu import compiled
from tensor.memory.devices import array_module
from tensor.random import Key
from tinygpt.commands import classes, plan, sample
from tinygpt.commands.choices import add_preset, read_choices
from tinygpt.commands.cli import Parser, add_flags, flag, reader
from tinygpt.config import AlignConfig, ModelConfig, RewardConfig, SampleConfig, TrainConfig
from tinygpt.config.aligning import PREFERENCES
from tinygpt.config.presets import PLANNED
from tinygpt.data.data import Data
from tinygpt.data.masked import TARGETS
from tinygpt.errors import InputError
from tinygpt.ids import MASK
from tinygpt.model.freezing import learning
from tinygpt.model.prepared import plain_model
from tinygpt.runs import run as runs
from tinygpt.runs import snapshots
from tinygpt.runs.metrics import Metrics
from tinygpt.runs.ownership import Owner
from tinygpt.terminal import command, number_of, outliving, say, shown, visible
from tinygpt.tokenizers import Tokenizer
from tinygpt.training import jobs, starting
from tinygpt.training.aligning import Aligning, Preferring
from tinygpt.training.jobs import Job
from tinygpt.training.loop import Training
from tinygpt.training.measure import rows_between
from tinygpt.training.profile import MOST, TRACE, Profile
from tinygpt.training.step import arithmetic, learning_rate
from tinygpt.training.table import windows_of

# the loop of a training of this configuration, where it is not that of any other
LOOPS = {RewardConfig: Preferring, AlignConfig: Aligning}


def arguments(parser: Parser) -> None:
    """Where to start; then the fields of the two dataclasses: --layers, --steps and so on."""
    start = parser.add_argument_group("where to start", "by default with fresh weights")
    start.add_argument(
        "--init", metavar="RUN", help="start with the weights and the tokenizer of another run"
    )
    add_course(parser)
    add_preset(parser)
    add_flags(parser, TrainConfig)
    add_flags(parser, ModelConfig)


def add_course(parser: Parser) -> None:
    """The flags that belong to no run: where to go on and to stop, what to note."""
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run where its last checkpoint stands, with its own choices",
    )
    parser.add_argument(
        "--until",
        metavar="N",
        type=reader(int),
        help="stop after step N of --steps, to go on later with --resume",
    )
    parser.add_argument(
        "--profile",
        metavar="N",
        type=reader(int),
        help=f"record N steps: time and memory by module and by op, and {TRACE} for Chrome",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="say what the training will take, as tinygpt plan does, and train nothing",
    )
    parser.add_argument(
        "--ignore-memory",
        action="store_true",
        help="train also where a step seems to need more memory than is free",
    )


def run(options: argparse.Namespace) -> int:
    """Prepare, train, measure, sample."""
    if getattr(options, "preset", None) == PLANNED:
        raise InputError(
            f"--preset {PLANNED} is for tinygpt plan alone: the weights, gradients and moments of "
            "its 175 billion parameters take 2.5 TiB\n"
            f"plan for it: {command('plan', '--preset', PLANNED)}; or train --preset gpt2"
        )
    return start(*read_choices(options), options)


def start(
    training: TrainConfig, model: Callable[[int], ModelConfig], options: argparse.Namespace
) -> int:
    """A training of these choices, from its first step or from where it stands."""
    if options.profile is not None and not 1 <= options.profile <= MOST:
        raise InputError(
            f"--profile {options.profile}: from 1 to {MOST:,} steps, such as --profile 20"
        )
    request = jobs.Request(
        training=training,
        model=model,
        chosen=vars(options),
        init=options.init,
        resume=options.resume,
        until=options.until,
        ignore_memory=options.ignore_memory,
    )
    with outliving():
        if options.resume is not None:
            with Owner(runs.find(options.resume)) as owner:
                job = jobs.resumed(request)
                if options.plan:
                    return plan.say_plan(job.run.model, job.run.training, job.run.reward)
                runs.change(job.run)
                return _train(job, owner, options)
        start = starting.started(request)
        if options.plan:
            return plan.say_plan(start.shape, start.request.training, start.reward)
        job = starting.job_of(start)
        with runs.create(job.run, job.data.tokenizer) as (run, owner):
            return _train(job._replace(run=run), owner, options)


def _train(job: Job, owner: Owner, options: argparse.Namespace) -> int:
    """Say what was chosen, take the steps, measure, sample."""
    config, noted = job.run.training, job.run.folder / runs.METRICS
    profile = None if options.profile is None else Profile(options.profile)
    with arithmetic(job.run.model, config):
        for line in _choices(job, options):
            say(line)
        with Metrics(noted, job.progress.step, config.tensorboard) as metrics:
            training = LOOPS.get(type(config), Training)(job, owner, metrics)
            code = 0 if training.over else training.take_steps(profile)
            if code == 0 and training.over:
                training.measure()
        run = training.run
        if profile is not None:
            for line in ["", *profile.lines()]:
                say(line)
            trace = shown(profile.save(run.folder))
            say(f"each op of these steps, as a trace that Chrome opens: {trace}\n")
        shows = f"; {runs.PICTURE} there shows the curve" if training.draw() else ""
        say(f"saved in {run.name}{shows}")
        if code == 0:
            say()
            _say_sample(run, plain_model(job.model), job.data.tokenizer, options.init)
    return code


def _say_sample(run: runs.Run, model: Any, tokenizer: Tokenizer, init: str | None) -> None:
    """What the model makes of the opening of what it learned, and the next command. init: the run
    that it started from, if that is known.
    """
    if run.stage == "reward":
        data = run.training.learned_from
        own = [] if data == PREFERENCES else ["--data", data]
        learn = command("align", init or "RUN", "--reward", run.folder, *own)
        say(f"let a model learn from its scores: {learn}")
        say(f"which of two replies it prefers, and how surely: {command('eval', run.folder)}")
    elif run.model.labels:
        classes.say_classes(run, model, tokenizer, [run.opening], show=visible)
        say(f"\nhow many labels are right, beside the most frequent: {command('eval', run.folder)}")
    elif run.answers:
        sample.write(run, model, tokenizer, SampleConfig(temperature=0), run.opening)
        say(f"\ntalk with it: {command('chat', run.folder)}")
    elif run.training.in_context:
        sample.write(run, model, tokenizer, SampleConfig(temperature=0, length=1), run.opening)
        say(f"\nright answers by the number of examples: {command('eval', run.folder)}")
    elif run.kind == "gpt":
        sample.write(run, model, tokenizer, SampleConfig(), run.opening)
        more = command("sample", run.folder, "--length", 200, "--temperature", 0.8)
        say(f"\nmore of it: {more}")
    elif run.kind == "encoder-decoder":
        sample.write(run, model, tokenizer, SampleConfig(temperature=0), run.opening)
        say(f"\nhow many of its answers are right: {command('eval', run.folder)}")
    else:
        text = hidden(run, tokenizer)
        say(visible(text))
        sample.fill_in(run, model, tokenizer, text)
        say(f"\nhow many tokens it fills in wrong: {command('eval', run.folder)}")


def hidden(run: runs.Run, tokenizer: Tokenizer) -> str:
    """As much of the opening as fits the context, with the middle one of its tokens hidden."""
    ids = tokenizer.encode(run.opening)[: run.model.context - 1]
    middle = len(ids) // 2
    return tokenizer.decode([*ids[:middle], MASK, *ids[middle + 1 :]])


# -- what is said beforehand


def _kernels(model: ModelConfig, config: TrainConfig) -> str:
    """What does the arithmetic, and why."""
    if kernels.disabled():
        return "the readable references alone, slower: TENSOR_KERNELS is off"
    if config.device != "cpu":
        return _cuda_kernels(model, config)
    reason = compiled.refusal()
    if config.dtype != "float32":
        reason = f"compiled kernels are for float32, not {config.dtype}"
    if reason is not None:
        return f"NumPy alone, slower: {reason}"
    count = compiled.thread_count()
    threads = f"compiled C, {number_of(count, 'thread')}: TENSOR_THREADS sets how many"
    return "; ".join([threads, *kernels.NOTES])


def _cuda_kernels(model: ModelConfig, config: TrainConfig) -> str:
    """Whether a GPT's attention has a kernel, the part that is slowest without one; and what is
    not as usual.
    """
    if config.kind == "gpt":
        shape = config.batch, model.context, 3 * model.width
        qkv = array_module(config.device).empty(shape, as_dtype(config.dtype))
        options: Any = {
            "heads": model.heads,
            "causal": True,
            "dropout": model.dropout,
            "key": Key(),
        }
        if kernels.pick("multi_head_attention", qkv, **options) is None:
            reason = kernels.latest("multi_head_attention")[1]
            return f"CUDA, but none for attention, slower: {reason}"
    if config.deterministic:
        return "CUDA; --deterministic: attention by hand, so equal runs have equal bits"
    return "; ".join(["CUDA", *kernels.NOTES])


def _windows(data: Data, config: TrainConfig, options: argparse.Namespace) -> Iterator[str]:
    """What is learned from and measured on, and how often."""
    kept, context, unit = data.validation, data.windows.context, data.unit
    whole, count = data.example in ("pair", "example"), _different(data)
    others = "" if whole else ", all there are" * (config.stride == 1)
    if kept is not None:
        others = f", and {number_of(len(kept), 'other')} to measure on"
        if kept.context < context:
            others = f", and a shorter one of {kept.context} to measure on"
    of = "at most " if whole else ""
    number = "new ones each time," if config.in_context else f"{count:,}"
    yield f"{data.example + 's':9} {number} of {of}{context} {unit}s{others}"
    if config.kind == "bert":
        yield f"targets   {TARGETS:.0%} of the {unit}s, others each time that a window comes"
    chosen = [flag(name) for name in ("evaluate", "patience") if hasattr(options, name)]
    if not config.measures:
        yield f"measured  the replies at the end{' to the others' * (kept is not None)}"
    elif kept is not None:
        some = len(rows_between(data, config))
        on = "all" if some == len(kept) else f"{some:,}"
        steps = "step" if config.evaluate_steps == 1 else f"{config.evaluate_steps:,} steps"
        all_ = "" if some == len(kept) else ", at the end on all"
        yield f"measured  every {steps} on {on} of the others{all_}"
    elif chosen:
        yield f"measured  at the end alone, so {' and '.join(chosen)} will do nothing"


def _different(data: Data) -> int:
    """The number of different windows to learn from. In an epoch, a masked one comes often."""
    return len(getattr(data.windows, "windows", data.windows))


def _choices(job: Job, options: argparse.Namespace) -> Iterator[str]:
    """What was chosen and why, and the numbers to read the loss against."""
    model, config, data = job.run.model, job.run.training, job.data

    def why(name: str, reason: str) -> str:
        if hasattr(options, name):
            return "as asked"
        if getattr(config, name) == getattr(TrainConfig, name):
            return reason
        return f"of --preset {options.preset}" if "preset" in options else "as the run began"

    kinds = f" {data.unit}s" * (data.unit != "character")
    yield f"text      {shown(data.name)}: {data.size}, {model.vocabulary:,} different{kinds}"
    yield from _windows(data, config, options)
    if options.init is not None:
        yield f"start     the best weights of {shown(options.init)}, and its tokenizer"
    yield f"model     {runs.described(model)}"
    learn, whole = learning(job.model)
    if learn < whole:
        yield f"learning  {learn:,} of the {whole:,} parameters, {learn / whole:.2%}"
    drawn = config.steps * config.batch * config.accumulation
    unit = data.example
    often = f"{drawn:,} of the {unit}s, once each"
    if drawn > _different(data):
        times = round(drawn / _different(data))
        often = f"each {unit} about {f'{times:,} times' if times > 1 else 'once'}"
    yield f"training  {number_of(config.steps, 'step')} of {windows_of(config)}: {often}"
    if hasattr(options, "steps") and job.progress.step:
        now = learning_rate(job.progress.step, config)
        rates = f"learning rate {job.optimizer.lr:.1e} so far, now {now:.1e}, falling"
        yield f"schedule  until step {config.steps:,}; {rates}"
    device = why("device", "the default; --device cuda trains on a GPU")
    yield f"device    {config.device}: {device}"
    yield f"dtype     {config.dtype}: {why('dtype', 'the default; 7 digits are enough to learn')}"
    yield textwrap.fill(f"kernels   {_kernels(model, config)}", 80, subsequent_indent=" " * 10)
    yield f"snapshots {snapshots.described(job.model, config)}"
    where = f"goes on after step {job.progress.step:,}"
    if not job.progress.step:
        where = why("out", "the first free name; --out FOLDER for another")
    yield f"run       {job.run.name}: {where}\n"
    if config.measures:
        yield from _losses(data, config, model)
        yield ""


def _losses(data: Data, config: TrainConfig, model: ModelConfig) -> Iterator[str]:
    """The losses of models that know nothing, and all that can be known."""
    outcomes = data.outcomes(model)
    unknowing = f"{math.log(outcomes):.3f} nats a {data.target} is ln({outcomes:,})"
    yield f"loss      {unknowing}: a model that knows nothing"
    if data.floor is not None:
        kept = "such texts" if config.in_context else "such stories"
        which = "these windows" if data.validation is None else kept
        yield f"          {data.floor:.3f} is the floor: no model can be better on {which}"
