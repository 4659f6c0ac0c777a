"""The steps of `tinygpt train`: shown, noted, measured, saved and drawn, until the end or a signal.

One step is in step.py.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.data.windows import Examples
from tinygpt.errors import InputError
from tinygpt.files import reason
from tinygpt.ids import Ids
from tinygpt.model.prepared import plain_weights
from tinygpt.runs import checkpoint, curves, snapshots
from tinygpt.runs import run as runs
from tinygpt.runs.metrics import Metrics, finite
from tinygpt.runs.ownership import Owner
from tinygpt.runs.run import Content
from tinygpt.terminal import command, duration, number_of, say, short
from tinygpt.training.jobs import Job
from tinygpt.training.meanwhile import Copied, Meanwhile
from tinygpt.training.measure import mean_loss, measured_rows, rows_between
from tinygpt.training.profile import Profile
from tinygpt.training.progress import Interrupt, LiveLine
from tinygpt.training.step import StepRecord, objective_of, train

SAVE_SECONDS = 60.0  # between checkpoints: what a power cut may cost
PICTURE_SECONDS = 30.0  # between two drawings of the curve, at least
PICTURE_SHARE = 50  # and so many times as long as a drawing took, which grows with the steps
HOPELESS = 20  # skipped steps in a row after which training has diverged for good


class Training:
    """A job that runs. `run` and `progress` are where it stands now."""

    def __init__(self, job: Job, owner: Owner, metrics: Metrics):
        self.job, self.owner, self.metrics = job, owner, metrics
        self.run, self.progress = job.run, job.progress
        self.live = LiveLine(job.run.training.steps, job.run.model, job.run.training.device)
        self.kept = snapshots.chosen(job.model, job.run.training)
        self.next_picture = time.monotonic() + PICTURE_SECONDS
        self.drawn = True  # until a drawing fails
        self.over = job.progress.step == job.run.training.steps  # the last step was taken
        validation = job.data.validation
        # the windows of a measuring on the way
        measures = validation is not None and job.run.training.measures
        self.rows = rows_between(job.data, job.run.training) if measures else None
        self.tokens, self.seconds = 0, 0.0  # of the steps taken
        self.skipped = self.in_a_row = 0  # steps: all, and the last ones
        self.waiting: list[StepRecord] = []  # steps that are not noted yet
        self.meanwhile = Meanwhile(job.run.training.device)

    def take_steps(self, profile: Profile | None = None) -> int:
        """Train to the end, or to a signal, or until nothing can be learned any more. Save a
        checkpoint in each case. Returns the exit code: 0, 128 + the signal's number, or 1.
        """
        job, config, first = self.job, self.run.training, self.progress.step
        start = saved = time.monotonic()
        with Interrupt() as stop, self.live, self.telling(), self.meanwhile, self.noting():
            if first == 0:
                self.keep(0)
            records = self.records(first)
            for record in records if profile is None else profile.watch(records):
                self.progress = replace(self.progress, step=record.step, **record.carried)
                self.count(record)
                self.keep(record.step)
                measured = self.rows is not None and (
                    record.step % config.evaluate_steps == 0 or record.step == config.steps
                )
                if measured:
                    self.evaluate()
                no_better = measured and self.progress.worse >= (config.patience or math.inf)
                self.over = no_better or record.step == config.steps
                ended = record.step == job.until or self.in_a_row == HOPELESS
                if stop.asked or self.over or ended:
                    break
                if measured or time.monotonic() - saved > SAVE_SECONDS:
                    self.begin_save()
                    self.refresh()
                    saved = time.monotonic()
                self.meanwhile.look()
            self.save()  # while signals still wait
        return self.ended(self.progress.step - first, time.monotonic() - start, stop.asked)

    def records(self, first: int) -> Iterator[StepRecord]:
        """The steps from `first` on, each as it is taken."""
        job, config = self.job, self.run.training
        objective = objective_of(config)
        return train(job.model, job.data.windows, config, job.optimizer, first, objective)

    def count(self, record: StepRecord) -> None:
        """Note a step, and show it: at once if it was taken. On a GPU it may be under way, and is
        noted when the next one is queued, so that the GPU always has work.
        """
        self.waiting.append(record)
        hopeless = self.in_a_row + len(self.waiting) >= HOPELESS
        while self.waiting and (len(self.waiting) > 1 or self.waiting[0].ready or hopeless):
            self.note(self.waiting.pop(0))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Whatever ends the training, the steps that were taken are noted."""
        try:
            yield
        finally:
            self.catch_up()

    @contextmanager
    def telling(self) -> Iterator[None]:
        """A second Ctrl-C, which does not save: say what is saved."""
        try:
            yield
        except KeyboardInterrupt:
            kept, folder, state = "nothing is saved, for there was no checkpoint yet", None, None
            # what is there: it may have come in the middle of a save
            with suppress(InputError):
                folder = self.owner.follow()
                state = folder and checkpoint.state_of(folder)
            if state:
                more = command("train", "--resume", folder)
                kept = f"the run is saved up to step {state.step:,}; go on: {more}"
            self.live.note(f"stopped at once: {kept}")
            raise

    def catch_up(self) -> None:
        """Note all steps, and wait for the one that is under way."""
        while self.waiting:
            self.note(self.waiting.pop(0))

    def note(self, record: StepRecord) -> None:
        """Note a step that was taken, and show it."""
        self.live.show(record)
        self.metrics.note(record.as_dict())
        self.tokens += record.tokens
        self.seconds += record.seconds
        self.skipped += record.skipped
        self.in_a_row = self.in_a_row + 1 if record.skipped else 0
        if record.skipped and self.skipped == 1:
            self.live.note(_skipped(record))

    def ended(self, taken: int, seconds: float, asked: int) -> int:
        """Say how it went; the exit code. asked: the number of the signal that ended it, or 0."""
        step, steps = self.progress.step, self.run.training.steps
        skipped = f"; {self.skipped:,} of them skipped" if self.skipped else ""
        say(
            f"{number_of(taken, 'step')} in {duration(seconds)}, "
            f"{short(self.tokens / max(self.seconds, 1e-9))} tokens/s{skipped}"
        )
        if self.in_a_row == HOPELESS:
            say(
                f"{HOPELESS} steps in a row had no finite gradient: training has diverged; try a "
                "lower --lr, or --dtype float32"
            )
            return 1
        if step == steps:
            return 0
        if asked or step == self.job.until:
            more = command("train", "--resume", self.run.folder)
            say(f"stopped after step {step:,} of {steps:,}; go on: {more}")
            return 128 + asked if asked else 0
        say(
            f"stopped after step {step:,}: {number_of(self.progress.worse, 'measuring')} in a row "
            f"gave no loss below {_shown(self.progress.best)}"
        )
        return 0

    # -- saving

    def save(self) -> None:
        """Write the checkpoint."""
        self.begin_save()
        self.meanwhile.wait()

    def begin_save(self) -> None:
        """Write the checkpoint of this moment, on a GPU while it trains on."""
        self.meanwhile.wait()  # one copy of the weights and moments at a time
        content = runs.gathered(self.job.model, self.job.optimizer, self.progress)
        self.write(content, self.meanwhile.copied(content.learning, content.moments))

    def write(self, content: Content, copied: Copied) -> None:
        """Write a checkpoint where the folder is now."""
        self.follow()
        run = self.run

        def work() -> None:
            learning, moments = copied.ready()
            runs.save(run, content._replace(learning=learning, moments=moments))

        def then(written: Future[None]) -> None:
            try:
                written.result()
            except InputError:
                # else the folder was moved while it was written to
                if self.owner.stays():
                    raise
                self.write(content, copied)

        self.meanwhile.do(work, then)

    def follow(self) -> None:
        """Go on in the folder where it is now, with all steps noted. One that was removed is made
        anew.
        """
        self.catch_up()
        run = runs.follow(self.run, self.owner, self.job.data.tokenizer)
        removed = self.metrics.follow(run.folder / runs.METRICS)
        if removed or run.folder != self.run.folder:
            self.live.note(
                f"{self.run.name} was renamed or removed meanwhile: the run goes on in {run.name}"
            )
        self.run = run

    def keep(self, step: int) -> None:
        """A snapshot, if this step is to have one, before any checkpoint of the step.

        One that cannot be written ends no training.
        """
        if step not in self.kept:
            return
        self.follow()
        run = self.run
        weights = {name: x.array for name, x in plain_weights(self.job.model).items()}
        copied = self.meanwhile.copied(weights)

        def then(written: Future[None]) -> None:
            try:
                written.result()
            except (OSError, OverflowError) as error:
                self.live.note(f"no snapshot of step {step:,}: {reason(error)}")

        self.meanwhile.do(lambda: snapshots.save(run, step, *copied.ready()), then)

    # -- measuring

    def evaluate(self) -> None:
        """The validation loss now, noted and shown; the random state of the training is not
        touched.
        """
        assert self.rows is not None
        self.catch_up()
        progress, loss = self.progress, self.validation_loss(self.rows)
        assert self.job.data.validation is not None
        part = len(self.rows) < len(self.job.data.validation)
        on = f" on {number_of(len(self.rows), self.job.data.example)}" if part else ""
        said = f"step {progress.step:,}: validation loss {loss:.4f}{on}{self.above(loss, ', ')}"
        if math.isfinite(loss) and (progress.best is None or loss < progress.best):
            best: dict[str, Any] = {"best": loss, "best_step": progress.step, "worse": 0}
            self.progress = replace(progress, loss=loss, **best)
        else:
            self.progress = replace(progress, loss=finite(loss), worse=progress.worse + 1)
            if progress.best is not None:
                said += f", not below {progress.best:.4f}"
        self.live.note(said)

    def validation_loss(self, rows: Ids) -> float:
        """The mean loss over these of the windows kept back, noted."""
        assert self.job.data.validation is not None
        start = time.monotonic()
        loss = self.mean_loss(self.job.data.validation, rows)
        record = {"step": self.progress.step, "validation_loss": loss, "windows": len(rows)}
        self.metrics.note(record | {"seconds": time.monotonic() - start})
        return loss

    def mean_loss(self, windows: Examples, rows: Ids) -> float:
        """Of the model as it is now."""
        objective = objective_of(self.run.training, measuring=True)
        return mean_loss(self.job.model, windows, rows=rows, objective=objective)

    def measure(self) -> None:
        """The mean loss at the end: printed, saved, and the last line of the metrics."""
        if self.rows is None:
            self.measure_learned()
        else:
            self.measure_kept_back(self.rows)

    def measure_kept_back(self, rows: Ids) -> None:
        """Over all windows that were not learned from."""
        assert self.job.data.validation is not None
        count, best = len(self.job.data.validation), self.progress.best
        on = "" if len(rows) == count else f" on {len(rows):,} of them"
        if on:
            loss = self.validation_loss(np.arange(count))
            self.progress = replace(self.progress, loss=finite(loss))
            self.save()
        name = self.job.data.example
        examples = f"all {count:,} {name}s that were" if count > 1 else f"the one {name} that was"
        said = _shown(self.progress.loss)
        say(f"validation loss {said}: the mean over {examples} not learned from")
        if best is not None:
            say(f"at best {best:.4f}{on}, after step {self.progress.best_step:,}")

    def measure_learned(self) -> None:
        """Over the windows that were learned from, where they are all there is."""
        windows, name = self.job.data.windows, self.job.data.example
        rows = measured_rows(windows)
        whole = len(rows) == len(windows)
        if not whole:
            say(
                f"measuring the loss on {len(rows):,} of the {len(windows):,} {name}s, evenly "
                "spread ..."
            )
        loss = self.mean_loss(windows, rows)
        self.metrics.note({"step": self.progress.step, "loss": loss, "windows": len(rows)})
        self.progress = replace(self.progress, loss=finite(loss))
        self.save()
        all_ = "all " if whole and len(rows) > 1 else ""
        say(
            f"loss {loss:.4f}: the mean over {all_}{number_of(len(rows), name)}, dropout "
            f"off{self.above(loss, '; ')}"
        )

    def above(self, loss: float, before: str) -> str:
        """How far a loss is above the floor, where there is one."""
        floor = self.job.data.floor
        return "" if floor is None else f"{before}{loss - floor:.4f} above the floor"

    # -- drawing

    def refresh(self) -> None:
        """Draw the curve anew, if that is due: seldom, since this takes as long as many steps."""
        if time.monotonic() >= self.next_picture:
            self.begin_picture()

    def draw(self) -> bool:
        """The picture of the metrics so far: whether it was drawn."""
        self.begin_picture()
        self.meanwhile.wait()
        return self.drawn

    def begin_picture(self) -> None:
        """Draw it, on a GPU while it trains on.

        A picture that cannot be written ends no training: the checkpoint could be. This is said
        once.
        """
        start, folder = time.monotonic(), self.run.folder

        def then(drawn: Future[None]) -> None:
            now = time.monotonic()
            self.next_picture = now + max(PICTURE_SECONDS, PICTURE_SHARE * (now - start))
            try:
                drawn.result()
                self.drawn = True
            except InputError as error:
                if self.drawn:
                    self.live.note(str(error).splitlines()[0])
                self.drawn = False

        self.meanwhile.do(
            lambda: self.draw_picture(folder / runs.METRICS, folder / runs.PICTURE), then
        )

    def draw_picture(self, metrics: Path, picture: Path) -> None:
        """The losses as a curve."""
        unknowing = math.log(self.job.data.outcomes(self.run.model))
        floor, unit = self.job.data.floor, self.job.data.target
        curves.draw(metrics, picture, unknowing=unknowing, floor=floor, unit=unit)


def _skipped(record: StepRecord) -> str:
    text = (
        f"step {record.step:,} skipped: its gradient norm is {record.gradient_norm}; "
        "the weights stay as they were"
    )
    if record.loss_scale is None:
        return text
    power = math.log2(record.loss_scale)
    return f"{text}; the loss is scaled by 2^{power - 1:g} from here on, not 2^{power:g}"


def _shown(loss: float | None) -> str:
    return "not finite" if loss is None else f"{loss:.4f}"
