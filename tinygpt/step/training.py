"""One step of a run's training, as `tinygpt train` would take it next: taken on a copy in memory, and all that it reads and writes kept.

The numbers of the update are those of the real step, by the kernels that train. The walk to its gradients is recorded in a second pass over
the same batch, op by op if not asked otherwise; the update's rule is run again line by line on copies, by its reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

import tensor
from tensor.devices import to_host
from tensor.dtypes import NARROW
from tensor.nn.packing import Flat, Place
from tensor.optim import Optimizer, clip_gradients
from tensor.random import Key
from tensor.tape import Moment, Tape
from tensor.tape.replay import replay
from tinygpt import training
from tinygpt.cli import nearest
from tinygpt.console import shown
from tinygpt.corpus import Ids
from tinygpt.errors import InputError
from tinygpt.jobs import Job
from tinygpt.step.recorded import How, Session, said
from tinygpt.step.stops import Seen, Stop, stops_of, value_of
from tinygpt.step.values import norm, number
from tinygpt.step.walk import Walk

Arrays = dict[str, Any]  # w, g and the rule's state, by the names of its parameters; all of the parameter's shape


@dataclass(frozen=True)
class Update:
    """What the optimiser did with one parameter."""

    name: str
    rule: Any  # adamw or muon, with its numbers: a partial
    count: int  # the step of this parameter, from 1
    gradient: Any  # as backward left it, free of the loss scale
    before: Arrays  # what the rule was given: g after clipping
    after: Arrays  # what it left; without g

    def lines(self) -> tuple[Arrays, list[Moment]]:
        """The rule's source line by line on copies of what it was given; what is in them then."""
        names = list(self.before)
        copies = [self.before[name].copy() for name in names]
        _, moments = replay(self.rule.func, copies, self.rule.keywords)
        return dict(zip(names, copies, strict=True)), moments


@dataclass(frozen=True)
class Step:
    """One step, taken."""

    number: int  # from 1
    loss: float
    lr: float
    norm: float  # of all gradients together, before clipping
    limit: float
    updates: list[Update]

    @property
    def factor(self) -> float:
        """What clipping multiplied the gradients with."""
        return self.limit / self.norm if math.isfinite(self.norm) and self.norm > self.limit else 1.0

    @property
    def skipped(self) -> bool:
        """Whether the norm was not finite, so that nothing was updated."""
        return not math.isfinite(self.norm)


def take(job: Job, only: str | None = None) -> Step:
    """Take the job's next step, on the model in memory. only: the one parameter of which arrays are kept. InputError where it is no name."""
    model, optimizer, config, step = job.model, job.optimizer, job.run.training, job.progress.step
    places = [(flat, state, place) for flat, state in zip(optimizer.flats, optimizer.state, strict=True) for place in flat.places]
    names = [place.name for *_, place in places]
    if only is not None and only not in names:
        raise InputError(f"--weight {shown(only)}: no parameter has that name{nearest(only, names)}\nits parameters: tinygpt step --train --plain")
    kept = [found for found in places if only in (None, found[2].name)]
    x, y = batch(job)
    optimizer.lr = training.learning_rate(step, config)
    model.recompute = config.recompute
    model.train()
    scale = 1.0 if optimizer.loss_scale is None else optimizer.loss_scale.value
    limit = config.clip or math.inf

    loss = training.gradients(model, optimizer, x, y, config.accumulation, Key(config.seed, step))
    raw = [_exact(_stretch(flat.gradients.array, place), scale) for flat, _, place in kept]
    total = clip_gradients(optimizer, limit * scale) / scale
    before = [_arrays(optimizer, flat, state, place, scale) for flat, state, place in kept]
    counts = [optimizer.counts[place.name] + 1 for *_, place in kept]
    if math.isfinite(total):
        optimizer.step()
    after = [_arrays(optimizer, flat, state, place, scale) for flat, state, place in kept]
    updates = [
        Update(place.name, optimizer.rule(flat, count), count, g, b, {name: array for name, array in a.items() if name != "g"})
        for (flat, _, place), count, g, b, a in zip(kept, counts, raw, before, after, strict=True)
    ]
    return Step(step + 1, loss, optimizer.lr, total, limit, updates)


def batch(job: Job) -> tuple[Ids, Ids]:
    """x and y of the next step: a function of its number and the seed."""
    config, windows = job.run.training, job.data.windows
    rows = training.batch_rows if config.batches == "epochs" else training.random_rows
    x, y = windows[rows(job.progress.step, config.batch * config.accumulation, len(windows), config.seed)]
    return x, y


def _stretch(flat: Any, place: Place) -> Any:
    """A copy of one parameter's part of a flat array, on the host."""
    return to_host(flat)[place.start : place.stop].reshape(place.parameter.shape).copy()


def _arrays(optimizer: Optimizer, flat: Flat, state: Arrays, place: Place, scale: float) -> Arrays:
    """What the rule is given, under the names that its parameters have: w (of 16-bit weights the master), g, and its state."""
    wide = state.get("master", flat.weights.array)
    slots = {name: _stretch(state[name], place) for name in optimizer.slots_of(flat)}
    return {"w": _stretch(wide, place), "g": _exact(_stretch(flat.gradients.array, place), scale), **slots}


def _exact(gradient: Any, scale: float) -> Any:
    """As the rule is given it: 16-bit floats in float32, free of the loss scale, which is a power of two."""
    wide = gradient.astype(np.float32) if gradient.dtype in NARROW else gradient
    return wide if scale == 1 else wide * np.float32(1 / scale)


# -- as stops of a walk -------------------------------------------------------------------------------------------------


def trained(job: Job, how: How, only: str | None = None) -> tuple[Session, Step]:
    """The walk of a step: forward, backward, clipping, the update of each parameter. The run's folder is not touched."""
    config = job.run.training
    with np.errstate(all="ignore"), threadpool_limits(training.threads(job.run.model, config), user_api="blas"):
        tape, other = _record(job, how, values=True), _record(job, "as run" if how == "reference" else "reference", values=False)
        step = take(job, only)
        stops = [*stops_of(tape), _clip(step), *(_update(step, update) for update in step.updates)]
    x, _ = batch(job)
    last = job.progress.step >= config.steps
    which = f"one more than its {config.steps:,}" if last else f"the next of its {config.steps:,}, as `tinygpt train --resume` takes it"
    facts = [
        f"run      {job.run.name}: step {step.number:,}, {which}; nothing is saved",
        f"batch    {x.shape[0]} windows of {x.shape[1]} tokens, by the step's number and the seed",
        f"loss     {step.loss:.4f} nats a token",
        f"rule     {config.optimizer}, learning rate {step.lr:.4g}; gradient norm {step.norm:.4g}, limit {step.limit:g}, so gradients times {step.factor:.4g}",
        *said(stops, tape, other),
        *(["skipped  the norm is not finite: no weight changes, as in training"] if step.skipped else []),
    ]
    return Session(Walk(stops, tape), f"{job.run.name} · training step {step.number:,} · loss {step.loss:.4f}", facts), step


def _record(job: Job, how: How, values: bool) -> Tape:
    """The step's forward and backward once more."""
    config = job.run.training
    x, y = batch(job)
    job.model.train().recompute = config.recompute and how == "as run"
    with tensor.record(implementation=how, values=values) as tape:
        training.gradients(job.model, job.optimizer, x, y, config.accumulation, Key(config.seed, job.progress.step))
    return tape


def _clip(step: Step) -> Stop:
    formula = "all gradients times min(1, limit / norm), norm = sqrt of the sum of squares of all of them together   Pascanu et al. 2013"
    by = f"norm {step.norm:.6g}, limit {step.limit:g}: gradients times {step.factor:.6g}"
    seen: list[Seen] = []
    for update in step.updates if len(step.updates) == 1 else []:
        seen.append(Seen("in", value_of("gradient", update.gradient), f"of {update.name}, as backward left it, norm {norm(update.gradient):.4g}"))
        seen.append(Seen("out", value_of("g", update.before["g"]), f"of {update.name}, norm {norm(update.before['g']):.4g}"))
    return Stop("clip", "", "clip_gradients", "clip_gradients", formula, tuple(seen), by=by, function=clip_gradients)


def _update(step: Step, update: Update) -> Stop:
    """The parameter before and after, its gradient before and after clipping, the optimiser's state."""
    labels = {"w": "the weight", "m": "mean of gradients", "v": "mean of squared gradients", "u": "momentum: the sum of gradients"}
    seen = [Seen("in", value_of("gradient", update.gradient), f"as backward left it, norm {norm(update.gradient):.4g}")]
    g = update.before["g"]
    seen.append(Seen("in", value_of("g", g), f"after clipping, times {number(step.factor)}, norm {norm(g):.4g}"))
    seen += [Seen("before", value_of(name, array), labels[name]) for name, array in update.before.items() if name != "g"]
    moved = f", moved by {norm(update.after['w'].astype(np.float64) - update.before['w'].astype(np.float64)):.4g}"
    seen += [Seen("after", value_of(name, array), labels[name] + moved * (name == "w")) for name, array in update.after.items()]
    numbers = ", ".join(f"{name}={value:.6g}" for name, value in update.rule.keywords.items())
    rule = update.rule.func
    formula = " ".join((rule.__doc__ or "").split("\n\n")[0].split()) + f"   with {numbers}"
    module = update.name.rpartition(".")[0]
    by = "skipped: the gradient norm is not finite" if step.skipped else f"step {update.count:,} of this parameter"
    again = None if step.skipped else lambda: update.lines()[1]
    return Stop("update", module, rule.__name__, f"{update.name}.update", formula, tuple(seen), by=by, again=again, function=rule)
