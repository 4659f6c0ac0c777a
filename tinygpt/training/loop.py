"""The steps of `tinygpt train`, around the loop of training.py: shown, noted, measured, saved and
drawn, until the end or a signal.
"""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, replace

from tinygpt.errors import InputError
from tinygpt.files import reason
from tinygpt.runs import curves, snapshots
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Progress
from tinygpt.runs.metrics import Metrics, finite
from tinygpt.terminal import Bar, duration, say, short
from tinygpt.training.jobs import Job
from tinygpt.training.measure import batch_of, mean_loss, measured_rows
from tinygpt.training.profile import Profile
from tinygpt.training.progress import Interrupt, LiveLine
from tinygpt.training.step import StepRecord, train

SAVE_SECONDS = 60.0  # between checkpoints: what a power cut may cost
PICTURE_SECONDS = 30.0  # between two drawings of the curve, at least
PICTURE_SHARE = 50  # and so many times as long as a drawing took, which grows with the steps
HOPELESS = 20  # skipped steps in a row after which training has diverged for good


@dataclass
class Tally:
    """What was done since the program started."""

    tokens: int = 0
    seconds: float = 0.0  # of steps alone
    skipped: int = 0
    in_a_row: int = 0  # skipped, up to now

    def count(self, record: StepRecord) -> None:
        self.tokens += record.tokens
        self.seconds += record.seconds
        self.skipped += record.skipped
        self.in_a_row = self.in_a_row + 1 if record.skipped else 0


def take_steps(job: Job, metrics: Metrics, profile: Profile | None = None) -> tuple[int, Job]:
    """Train to the end, or to a signal (128 + its number), or until nothing can be learned any more
    (1).

    The checkpoint is saved in each case.

    Returns the exit code, and the job where it now stands.
    """
    config, tally, picture, first = job.run.training, Tally(), Picture(), job.progress.step
    kept = snapshots.chosen(job.model, config)
    start = saved = time.monotonic()
    with Interrupt() as stop, LiveLine(config.steps) as live:
        if first == 0:
            job = _keep(job, 0, kept, metrics, live)
        records = train(job.model, job.data.windows, config, job.optimizer, first)
        for record in records if profile is None else profile.watch(records):
            job = job._replace(progress=replace(job.progress, step=record.step))
            tally.count(record)
            live.show(record)
            metrics.note(record._asdict())
            job = _keep(job, record.step, kept, metrics, live)
            if record.skipped and tally.skipped == 1:
                live.note(_skipped(record))
            measured = job.data.validation is not None and (
                record.step % config.evaluate_steps == 0 or record.step == config.steps
            )
            if measured:
                job = _evaluate(job, metrics, live)
            if (
                stop.asked
                or tally.in_a_row == HOPELESS
                or record.step == job.until
                or (measured and _no_better(job))
            ):
                break
            if measured or time.monotonic() - saved > SAVE_SECONDS:
                job = _save(job, metrics, live)
                picture.refresh(job)
                saved = time.monotonic()
        job = _save(job, metrics, live)  # with the signals still held back
    return _ended(job, job.progress.step - first, time.monotonic() - start, tally, stop.asked), job


def _save(job: Job, metrics: Metrics, live: Bar) -> Job:
    """Write the checkpoint where the folder is now; the job with that folder."""
    while True:
        job = _followed(job, metrics, live)
        try:
            runs.save(job.run, job.model, job.optimizer, job.progress)
            return job
        except InputError:
            # else the folder was moved while it was written to
            if job.owner is None or job.owner.stays():
                raise


def _followed(job: Job, metrics: Metrics, live: Bar) -> Job:
    """The job with the folder where it is now: one that was renamed is followed, one that was
    removed is made anew.
    """
    if job.owner is None:
        return job
    run = runs.follow(job.run, job.owner, job.data.tokenizer)
    removed = metrics.follow(run.folder / runs.METRICS)
    if removed or run.folder != job.run.folder:
        live.note(f"{job.run.name} was renamed or removed meanwhile: the run goes on in {run.name}")
    return job._replace(run=run)


def _keep(job: Job, step: int, steps: tuple[int, ...], metrics: Metrics, live: Bar) -> Job:
    """A snapshot, if this step is to have one, before any checkpoint of the step.

    One that cannot be written ends no training.
    """
    if step in steps:
        job = _followed(job, metrics, live)
        try:
            snapshots.save(job.run, job.model, step)
        except (OSError, OverflowError) as error:
            live.note(f"no snapshot of step {step:,}: {reason(error)}")
    return job


def _skipped(record: StepRecord) -> str:
    text = (
        f"step {record.step} skipped: its gradient norm is {record.gradient_norm}; "
        "the weights stay as they were"
    )
    if record.loss_scale is None:
        return text
    power = math.log2(record.loss_scale)
    return f"{text}; the loss is scaled by 2^{power - 1:g} from here on, not 2^{power:g}"


def _no_better(job: Job) -> bool:
    return bool(job.run.training.patience) and job.progress.worse >= (
        job.run.training.patience or 0
    )


def _ended(job: Job, taken: int, seconds: float, tally: Tally, asked: int) -> int:
    """Say how it went; the exit code. asked: the number of the signal that ended it, if one did."""
    step, config, skipped = job.progress.step, job.run.training, tally.skipped
    say(
        f"{taken:,} step{'s' * (taken != 1)} in {duration(seconds)}, "
        f"{short(tally.tokens / max(tally.seconds, 1e-9))} tokens/s"
        + f"; {skipped:,} of them skipped"
        * (skipped > 0)
    )
    if tally.in_a_row == HOPELESS:
        say(
            f"{HOPELESS} steps in a row had no finite gradient: training has diverged; try a lower "
            "--lr, or --dtype float32"
        )
        return 1
    if step == config.steps:
        return 0
    if asked or step == job.until:
        say(
            f"stopped after step {step:,} of {config.steps:,}; go on: tinygpt train --resume "
            f"{job.run.name}"
        )
        return 128 + asked if asked else 0
    say(
        f"stopped after step {step:,}: {job.progress.worse} measurings in a row were no better "
        f"than {_shown(job.progress.best)}"
    )
    return 0


# -- measuring


def _evaluate(job: Job, metrics: Metrics, live: LiveLine) -> Job:
    """The validation loss now, noted and shown; the random state of the training is not touched."""
    assert job.data.validation is not None
    start, progress = time.monotonic(), job.progress
    loss = mean_loss(job.model, job.data.validation, batch_of(job.run.model, job.run.model.context))
    metrics.note(
        {"step": progress.step, "validation_loss": loss, "seconds": time.monotonic() - start}
    )
    better = math.isfinite(loss) and (progress.best is None or loss < progress.best)
    above = f", {loss - job.data.floor:.4f} above the floor" if job.data.floor is not None else ""
    live.note(
        f"step {progress.step:,}: validation loss {loss:.4f}{above}"
        + ("" if better or progress.best is None else f", not below {progress.best:.4f}")
    )
    if better:
        return job._replace(
            progress=Progress(progress.step, loss, best=loss, best_step=progress.step)
        )
    return job._replace(progress=replace(progress, loss=finite(loss), worse=progress.worse + 1))


def measure(job: Job, metrics: Metrics) -> Job:
    """The mean loss over the windows, where they are all there is: printed, saved, and the last
    line of the metrics.
    """
    if job.data.validation is not None:
        losses = f"validation loss {_shown(job.progress.loss)}, at best {_shown(job.progress.best)}"
        say(
            f"{losses}: the mean over {len(job.data.validation):,} windows that were not learned "
            "from"
        )
        return job
    config, rows = job.run.training, measured_rows(job.data.windows)
    whole = len(rows) == len(job.data.windows)
    if not whole:
        say(
            f"measuring the loss on {len(rows):,} of the {len(job.data.windows):,} windows, evenly "
            "spread ..."
        )
    loss = mean_loss(
        job.model, job.data.windows, batch_of(job.run.model, job.run.model.context), rows
    )
    metrics.note({"step": config.steps, "loss": loss, "windows": len(rows)})
    job = _save(job._replace(progress=replace(job.progress, loss=finite(loss))), metrics, Bar())
    above = f"; {loss - job.data.floor:.4f} above the floor" if job.data.floor is not None else ""
    say(f"loss {loss:.4f}: the mean over {'all ' * whole}{len(rows):,} windows, dropout off{above}")
    return job


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"


# -- drawing


class Picture:
    """loss.png, kept up to date while the steps go on; seldom, since a drawing takes as long as
    many steps.
    """

    def __init__(self) -> None:
        self._next = time.monotonic() + PICTURE_SECONDS

    def refresh(self, job: Job) -> None:
        """Draw it anew, if that is due.

        A picture that cannot be written ends no training: the checkpoint could be.
        """
        start = time.monotonic()
        if start >= self._next:
            with contextlib.suppress(OSError, InputError):
                draw(job)
            now = time.monotonic()
            self._next = now + max(PICTURE_SECONDS, PICTURE_SHARE * (now - start))


def draw(job: Job) -> None:
    """The curve of the metrics so far, with the floor where there is one."""
    unknowing = math.log(job.run.model.vocabulary)
    curves.draw(
        job.run.folder / runs.METRICS,
        job.run.folder / runs.PICTURE,
        unknowing=unknowing,
        floor=job.data.floor,
        unit=job.data.unit,
    )
