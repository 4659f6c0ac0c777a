"""The same text seen by earlier weights of the run, its snapshots; and the losses of the run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygpt.errors import InputError
from tinygpt.model.kinds import KINDS
from tinygpt.model.transformer import Transformer
from tinygpt.runs import checkpoint, metrics, snapshots
from tinygpt.runs import run as runs
from tinygpt.runs.curves import smooth
from tinygpt.runs.metrics import Losses
from tinygpt.runs.run import Run

# that are shown, at most: each is a pass through the model, and makes the page longer
SNAPSHOTS = 24
POINTS = 600  # of the curve: more than a screen has


def learned(
    run: Run, model: Transformer, step: int | None
) -> Iterator[tuple[int | None, Transformer]]:
    """The model itself, as it was after that step; then its snapshots, SNAPSHOTS at most, in the
    order of their steps.
    """
    yield step, model
    for at, state in snapshots.load(run, SNAPSHOTS):
        if at != step:
            earlier = KINDS[run.kind].model(run.model, dtype=run.training.dtype, draw=False)
            earlier.load_state_dict(state)
            yield at, earlier.eval()


def left_out(run: Run) -> int:
    """The number of a run's snapshots that are too many to show."""
    return max(0, len(snapshots.found(run)) - SNAPSHOTS)


def step_of(run: Run, best: bool) -> int | None:
    """The step after which the weights of `runs.load` were saved. None for a run that counted no
    steps, such as an imported one.
    """
    try:
        state = checkpoint.state_of(run.folder)
    except InputError:
        return None
    if state is None:
        return None
    return (state.best_step if best and run.has_best else state.step) or None


def losses(run: Run) -> Losses:
    """The means of neighbouring batches, at most POINTS; empty where the run kept no losses.
    Raises InputError for a file that cannot be read.
    """
    path = run.folder / runs.METRICS
    if not path.exists():
        return Losses([], [], [], None)
    found = metrics.read(path, "restore it from a copy, or delete it: only the curve needs it")
    count = len(found.steps)
    chosen = np.unique(np.linspace(0, count - 1, min(count, POINTS)).astype(int)).tolist()
    steps, means = [found.steps[i] for i in chosen], smooth(found.losses, chosen)
    return Losses(steps, means, found.validation[-POINTS:], found.final)


def plane(table: Any) -> tuple[Any, Any, float]:
    """(centre (C,), axes (C, 2), share of the variance) of the plane in which the rows of a table
    (V, C) differ most.

    The axes are the first two principal components. The largest number of each is positive: so an
    axis has the same sign each time.
    """
    rows = np.asarray(table, dtype=np.float64)
    centre = rows.mean(0)
    _, sizes, components = np.linalg.svd(rows - centre, full_matrices=False)
    axes = np.zeros((2, rows.shape[1]))
    axes[: len(components)] = components[:2]
    signs = np.where(axes[np.arange(2), np.abs(axes).argmax(1)] < 0, -1, 1)
    variances = sizes**2
    share = float(variances[:2].sum() / (variances.sum() or 1))
    return centre, (axes * signs[:, None]).T, share
