"""loss.png: how the loss came down, between what knows nothing and what nothing can beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygpt.files import write_picture
from tinygpt.runs import metrics

POINTS = 2000  # of a curve that are drawn: the picture is half as many dots wide


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
    raw, smoothed = plot_losses(axes, found.steps, found.losses, color="tab:blue")
    raw.set(alpha=0.35, label="each batch")
    smoothed.set(label="mean of neighbouring batches")
    if found.validation:
        last = found.validation[-1][1]
        label = f"validation, not learned from: {last:.3f}"
        plot_validation(axes, found.validation, linestyle="-", color="tab:red", label=label)
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
        logarithmic(axes, (1, 2, 5))
    axes.legend()
    write_picture(figure, picture, "make room there; the run itself is saved")


# -- parts of a picture of losses


def axes_of(title: str, unit: str = "token") -> tuple[Any, Any]:
    """A figure of matplotlib, and its axes: the loss over the steps."""
    from matplotlib.figure import Figure  # here: it takes longer to import than all the rest

    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel="step (updates of the weights)", ylabel=f"loss (nats a {unit})", title=title)
    return figure, axes


def plot_losses(axes: Any, steps: Sequence[int], losses: Sequence[float], **style: Any) -> Any:
    """The two lines of the losses of these steps: each of them, pale, and smoothed."""
    places = thin(losses)
    chosen = [steps[i] for i in places]
    raw = axes.plot(chosen, [losses[i] for i in places], alpha=0.15, linewidth=1, **style)
    return raw + axes.plot(chosen, smooth(losses, places), linewidth=2, **style)


def plot_validation(axes: Any, measured: Sequence[tuple[int, float]], **style: Any) -> None:
    """A dot for each (step, validation loss)."""
    dots = [measured[i] for i in thin([loss for _, loss in measured])]
    axes.plot(*zip(*dots, strict=True), marker="o", markersize=4, zorder=5, **style)


def logarithmic(axes: Any, numbers: Sequence[int]) -> None:
    """A logarithmic axis of losses, labelled at these numbers times the powers of ten."""
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=numbers))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")


def thin(values: Sequence[float]) -> list[int]:
    """The places of at most POINTS values that make the same picture: the lowest and the highest of
    each of many stretches, the first, the last.
    """
    if len(values) <= POINTS:
        return list(range(len(values)))
    places, start = {0, len(values) - 1}, 0
    for stretch in np.array_split(np.asarray(values, dtype=np.float64), POINTS // 2 - 1):
        places |= {start + int(stretch.argmin()), start + int(stretch.argmax())}
        start += len(stretch)
    return sorted(places)


def smooth(values: Sequence[float], places: Iterable[int] | None = None) -> list[float]:
    """The mean of the value at each place (all, if none are given) and its neighbours; at the ends,
    of those there are.

    A fiftieth of all values are neighbours, on either side together.
    """
    numbers, reach = np.asarray(values, dtype=np.float64), len(values) // 100
    chosen = range(len(values)) if places is None else places
    return [float(numbers[max(0, place - reach) : place + reach + 1].mean()) for place in chosen]
