"""loss.png: how the loss came down, between what knows nothing and what nothing can beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.files import drawing, write_picture
from tinygpt.runs import metrics

POINTS = 2000  # of a curve that are drawn: the picture is half as many dots wide


@drawing()
def draw(
    source: Path,
    picture: Path,
    *,
    unknowing: float,
    floor: float | None = None,
    unit: str = "character",
) -> None:
    """Draw a metrics.jsonl: the loss of each step, smoothed too, the validation losses, the last
    (over the windows), and lines to read them against.

    unknowing: ln V, nats a token of a model that knows nothing.   floor: nats that no model can go
    below, where that is known.
    """
    found = metrics.read(source)
    figure, axes = axes_of("Training loss", unit)
    validation = ""
    if found.validation:
        validation = f"validation, not learned from: {found.validation[-1][1]:.3f}"
    plot_losses(axes, found, "tab:blue", "mean of neighbouring batches", "each batch", validation)
    if found.final is not None:
        label = f"at the end, over the windows, no dropout: {found.final[1]:.3f}"
        axes.plot(*found.final, "o", color="tab:red", zorder=5, clip_on=False, label=label)
    label = f"a model that knows nothing, ln V: {unknowing:.3f}"
    axes.axhline(unknowing, color="tab:gray", linestyle="--", label=label)
    if floor is not None:
        label = f"floor, no model can be better: {floor:.3f}"
        axes.axhline(floor, color="tab:green", linestyle="--", label=label)
    # of a text without any doubt the floor is 0, which a logarithmic axis has not
    if min(unknowing, 1.0 if floor is None else floor) > 0:
        logarithmic(axes)
    axes.legend()
    write_picture(figure, picture, "free some space there; the run itself is saved")


# -- parts of a picture of losses


def axes_of(title: str, unit: str = "token") -> tuple[Any, Any]:
    """A figure of matplotlib, and its axes: the loss over the steps."""
    from matplotlib.figure import Figure  # here: it takes longer to import than all the rest

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="step (updates of the weights)", ylabel=f"loss (nats a {unit})", title=title)
    return figure, axes


def plot_losses(
    axes: Any, found: metrics.Losses, colour: Any, label: str, each: str = "", validation: str = ""
) -> None:
    """The losses of a run: of each step, pale; smoothed; and a dot for each validation loss. A line
    with the label "" is not in the legend.
    """
    positions = thin(found.losses)
    steps, losses = [found.steps[i] for i in positions], [found.losses[i] for i in positions]
    axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=1, label=each)
    axes.plot(steps, smooth(found.losses, positions), color=colour, linewidth=2, label=label)
    if found.validation:
        at, measured = zip(*found.validation, strict=True)
        kept = thin(measured)
        style = {"color": colour, "markeredgecolor": "white", "zorder": 5, "label": validation}
        axes.plot([at[i] for i in kept], [measured[i] for i in kept], "o", **style)


def logarithmic(axes: Any) -> None:
    """A logarithmic axis of losses, with numbers that can be read."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def thin(values: Sequence[float]) -> list[int]:
    """Positions of at most POINTS values that make the same picture: the lowest and the highest of
    each of many stretches, the first, the last.
    """
    if len(values) <= POINTS:
        return list(range(len(values)))
    positions, start = {0, len(values) - 1}, 0
    for stretch in np.array_split(np.asarray(values, dtype=np.float64), POINTS // 2 - 1):
        positions |= {start + int(stretch.argmin()), start + int(stretch.argmax())}
        start += len(stretch)
    return sorted(positions)


def smooth(values: Sequence[float], positions: Iterable[int]) -> list[float]:
    """The mean of the value at each position and its neighbours; at the ends, of those there are.

    A fiftieth of all values are neighbours, on either side together.
    """
    numbers, reach = np.asarray(values, dtype=np.float64), len(values) // 100
    return [float(numbers[max(0, i - reach) : i + reach + 1].mean()) for i in positions]
