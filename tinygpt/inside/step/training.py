"""One step of a run's training, as `tinygpt train` would take it next. The step is taken on a copy
in memory, and every array that it reads and writes is kept.

The walk to its gradients is recorded in a second pass over the same batch, op by op if not asked
otherwise. Of PPO the walk begins with a rollout, and goes through the first update of the step.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tensor.optim import clip_gradients
from tensor.random import Key
from tinygpt.data.preferences import Compared
from tinygpt.ids import IGNORED, Ids, SourceTarget
from tinygpt.inside.arrays import norm, number, value_of
from tinygpt.inside.step import preferred
from tinygpt.inside.step.names import Names
from tinygpt.inside.step.recorded import How, Session, facts, record
from tinygpt.inside.step.rollout import rollout_of
from tinygpt.inside.step.stops import Seen, Stop, stops_of
from tinygpt.inside.step.updates import LABELS, Step, Update, take
from tinygpt.inside.step.walk import Walk
from tinygpt.model.aligned import Aligned
from tinygpt.terminal import number_of
from tinygpt.training.jobs import Job
from tinygpt.training.objectives.ppo import Replies
from tinygpt.training.order import rows_of
from tinygpt.training.step import Objective, arithmetic, gradients, objective_of


class Batch(NamedTuple):
    """What the gradients of an update follow from."""

    x: Any
    y: Ids
    key: Key
    objective: Objective
    accumulation: int = 1


def trained(job: Job, how: How, only: str | None = None) -> tuple[Session, Step]:
    """The walk of a step: forward, backward, clipping, the update of each parameter. The run's
    folder stays as it is.
    """
    config = job.run.training

    def learn(how: How = "as run") -> float:
        return _gradients(job, learned, config.recompute and how == "as run")

    with arithmetic(job.run.model, config):
        rollout = rollout_of(job) if getattr(config, "method", None) == "ppo" else None
        learned = _batch(job) if rollout is None else Batch(*rollout.first)
        recording, other = record(how, learn)
        stops = stops_of(recording)
        if rollout is not None:
            stops = [*rollout.stops(), *rollout.explained(stops)]
        elif isinstance(learned.x, Compared):
            stops = preferred.explained(job, _rows(job), stops)
        step = take(job, learn, only)
        stops = [*stops, _clip(step), *(_update(step, update) for update in step.updates)]
        later = [] if rollout is None else list(rollout.later())
    lr = f"learning rate {step.lr:.4g}"
    clipping = f"gradient norm {step.norm:.4g}, limit {step.limit:g}"
    target = "nats a " + getattr(job.data.windows, "target", "token")
    if rollout is not None:
        target = "the mean over the tokens of these replies"
    said = [
        f"run      {job.run.name}: step {step.number:,}, {_which(job)}; nothing is saved",
        f"batch    {_said(job, learned)}, by the step's number and the seed",
        f"loss     {step.loss:.4f} {target}",
        f"rule     {config.optimizer}, {lr}; {clipping}, so gradients times {step.factor:.4g}",
        *later,
        *facts(stops, recording, other),
    ]
    if step.skipped:
        said.append("skipped  the norm is not finite: no weight changes, as in training")
    title = f"{job.run.name} · training step {step.number:,} · loss {step.loss:.4f}"
    return Session(Walk(stops, recording), title, said, Names(), job.run.folder), step


def _gradients(job: Job, batch: Batch, recompute: bool) -> float:
    """Compute the gradients of the update, and return its loss."""
    model = job.model.train()
    model.recompute = recompute
    x, y, key, objective, accumulation = batch
    if isinstance(model, Aligned):
        objective = _within(objective)
    return float(gradients(model, job.optimizer, x, y, accumulation, key, objective))


def _within(objective: Objective) -> Objective:
    """The objective as a call of the whole model, so that names begin with the part of it."""
    return lambda model, x, y, reduction: model(objective, x, y, reduction)


def batch(job: Job) -> tuple[Any, Ids]:
    """x and y of the next step: a function of its number and the seed."""
    x, y = job.data.windows[_rows(job)]
    return x, y


def _rows(job: Job) -> Ids:
    """The numbers of the windows of the next step."""
    return rows_of(job.progress.step, job.run.training, len(job.data.windows))


def _batch(job: Job) -> Batch:
    """Of all trainings but PPO."""
    config = job.run.training
    objective = objective_of(config)
    key = Key(config.seed, job.progress.step)
    return Batch(*batch(job), key, objective, config.accumulation)


def _which(job: Job) -> str:
    steps = job.run.training.steps
    if job.progress.step >= steps:
        return f"one more than its {steps:,}"
    return f"the next of its {steps:,}, as `tinygpt train --resume` takes it"


def _said(job: Job, batch: Batch) -> str:
    """What the batch holds."""
    x, y = batch.x, batch.y
    if isinstance(x, Replies):
        updates = number_of(job.run.training.updates, "update")
        return f"{len(x):,} of {job.run.training.batch:,} replies, the first of {updates}"
    if isinstance(x, Compared):
        longest = number_of(x.ids.shape[-1], "token")
        return f"{number_of(len(x), 'pair')} of replies, with the prompt up to {longest}"
    tokens = number_of(y.shape[1], "token")
    if isinstance(x, SourceTarget):
        sizes = f"up to {number_of(x.source.shape[1], 'token')} and {y.shape[1]} to predict"
        return f"{number_of(len(y), 'pair')} of {sizes}"
    if job.run.model.labels:
        return f"{number_of(len(y), 'row')} of up to {tokens}, a label each"
    if job.run.answers:
        learned = number_of(int((y != IGNORED).sum()), "token")
        return f"{number_of(len(y), 'row')} of up to {tokens}, {learned} of answers to predict"
    return f"{number_of(len(y), 'window')} of {tokens}"


# -- what comes after backward


def _clip(step: Step) -> Stop:
    formula = (
        "all gradients times min(1, limit / norm), norm = sqrt of the sum of squares "
        "of all of them together   Pascanu et al. 2013"
    )
    by = f"norm {step.norm:.6g}, limit {step.limit:g}: gradients times {step.factor:.6g}"
    seen = []
    if len(step.updates) == 1:
        seen = _clipped(step, step.updates[0], "out", f"of {step.updates[0].name}, ")
    name = clip_gradients.__name__
    return Stop("clip", "", name, name, formula, seen, by=by, function=clip_gradients)


def _clipped(step: Step, update: Update, role: str, of: str = "") -> list[Seen]:
    """The gradient before and after clipping, which has that role."""
    raw, g = update.gradient, update.before["g"]
    before = f"{of}as backward left it, norm {norm(raw):.4g}"
    after = f"after clipping, times {number(step.factor)}, norm {norm(g):.4g}"
    return [Seen("in", value_of("gradient", raw), before), Seen(role, value_of("g", g), after)]


def _update(step: Step, update: Update) -> Stop:
    """The gradient, the parameter and the optimiser's state, before and after."""
    seen = _clipped(step, update, "in")
    for role, arrays in (("before", update.before), ("after", update.after)):
        for name in update.after:
            moved = f", moved by {update.moved:.4g}" if (role, name) == ("after", "w") else ""
            seen.append(Seen(role, value_of(name, arrays[name]), LABELS[name] + moved))
    rule = update.rule.func
    numbers = ", ".join(f"{name}={value:.6g}" for name, value in update.rule.keywords.items())
    summary = " ".join((rule.__doc__ or "").split("\n\n")[0].split())
    formula, module = f"{summary}   with {numbers}", update.name.rpartition(".")[0]
    by, lines = f"step {update.count:,} of this parameter", lambda: update.lines()[1]
    if step.skipped:
        by, lines = "skipped: the gradient norm is not finite", list
    names = module, rule.__name__, f"{update.name}.update"
    return Stop("update", *names, formula, seen, lines, by, function=rule)
