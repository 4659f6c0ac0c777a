"""The same text seen by earlier weights of the run: its snapshots, and the loss as it came down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygpt import checkpoint, metrics, runs, snapshots
from tinygpt.errors import InputError
from tinygpt.metrics import Losses
from tinygpt.model import GPT
from tinygpt.plot import smooth
from tinygpt.runs import Run

SNAPSHOTS = 24  # that are shown, at most: each is a pass through the model, and makes the page longer
POINTS = 600  # of the curve: more than a screen has


@dataclass(frozen=True)
class Weights:
    """A model of the run as it was after so many steps."""

    step: int | None  # None: of a run that counted none, an imported one
    model: GPT
    shown: bool = False  # the one that the page is about
    best: bool = False  # the one with the lowest validation loss, where the run went on after it


def learned(run: Run, model: GPT, best: bool) -> Iterator[Weights]:
    """Some snapshots in the order of their steps, SNAPSHOTS at most, the model itself, whose weights are whole, among them."""
    step, last = step_of(run, best), step_of(run, best=False)
    kept = [(at, state) for at, state in snapshots.load(run, SNAPSHOTS) if at != step]
    for at, state in kept:
        if step is not None and at < step:
            yield Weights(at, _filled(run, state))
    yield Weights(step, model, shown=True, best=step != last)
    for at, state in kept:
        if step is None or at > step:
            yield Weights(at, _filled(run, state))


def left_out(run: Run) -> int:
    """How many of a run's snapshots are too many to show."""
    return max(0, len(snapshots.found(run)) - SNAPSHOTS)


def _filled(run: Run, state: dict[str, Any]) -> GPT:
    model = GPT(run.model, dtype=run.training.dtype, draw=False)
    model.load_state(state)
    return model.eval()


def step_of(run: Run, best: bool) -> int | None:
    """After how many steps the weights of `runs.load` were saved."""
    try:
        state = checkpoint.read_json(checkpoint.current(run.folder, runs.STATE))
    except InputError:
        return None
    step = state.get("best_step" if best and (run.folder / runs.BEST).exists() else "step")
    return step if type(step) is int and step > 0 else None


def losses(run: Run) -> Losses:
    """The mean of neighbouring batches, thinned to what a screen shows; empty where nothing was noted.

    Raises InputError for a file that cannot be read.
    """
    path = run.folder / runs.METRICS
    if not path.exists():
        return Losses([], [], [], None)
    found = metrics.read(path, "restore it from a copy, or delete it: only the curve needs it")
    count = len(found.steps)
    places = sorted({*range(0, count, max(1, -(-count // POINTS))), *range(count)[-1:]})
    return Losses([found.steps[i] for i in places], smooth(found.losses, places), found.validation[-POINTS:], found.final)


def plane(table: Any) -> tuple[Any, Any, float]:
    """(centre (C,), axes (C, 2), share): the plane in which rows differ most, and the share of their variance that it holds.   table: (V, C)

    The first two principal components; each axis points to where its largest number is positive, so that it is the same each time.
    """
    rows = np.asarray(table, dtype=np.float64)
    centre = rows.mean(0)
    _, sizes, axes = np.linalg.svd(rows - centre, full_matrices=False)
    axes = np.vstack([axes[:2], np.zeros((2 - len(axes[:2]), rows.shape[1]))])
    signs = np.sign(axes[np.arange(2), np.abs(axes).argmax(1)])
    total = float((sizes**2).sum())
    return centre, (axes * np.where(signs == 0, 1, signs)[:, None]).T, float((sizes[:2] ** 2).sum()) / total if total else 0.0
