"""loss.png: how the loss came down, between what knows nothing and what nothing can beat."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from tinygpt.files import replace
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
    # here: matplotlib takes longer to import than all the rest
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    steps, losses, measured, final = metrics.read(source)
    places = thin(losses)
    chosen, dots = (
        [steps[i] for i in places],
        [measured[i] for i in thin([loss for _, loss in measured])],
    )
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(
        chosen,
        [losses[i] for i in places],
        color="tab:blue",
        alpha=0.35,
        linewidth=1,
        label="each batch",
    )
    axes.plot(
        chosen,
        smooth(losses, places),
        color="tab:blue",
        linewidth=2,
        label="mean of neighbouring batches",
    )
    if dots:
        axes.plot(
            *zip(*dots, strict=True),
            "o-",
            color="tab:red",
            markersize=4,
            label=f"validation, not learned from: {measured[-1][1]:.3f}",
        )
    if final is not None:
        axes.plot(
            *final,
            "o",
            color="tab:red",
            zorder=5,
            clip_on=False,
            label=f"at the end, over the windows, no dropout: {final[1]:.3f}",
        )
    axes.axhline(
        unknowing,
        color="tab:gray",
        linestyle="--",
        label=f"a model that knows nothing, ln V: {unknowing:.3f}",
    )
    if floor is not None:
        axes.axhline(
            floor,
            color="tab:green",
            linestyle="--",
            label=f"floor, no model can be better: {floor:.3f}",
        )
    axes.set(
        xlabel="step (updates of the weights)",
        ylabel=f"loss (nats a {unit})",
        title="Training loss",
    )
    # of a text without any doubt the floor is 0, which a logarithmic axis has not
    if min(unknowing, 1.0 if floor is None else floor) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.legend()
    temporary = picture.with_name(picture.name + ".tmp")
    figure.savefig(temporary, format="png")
    replace(temporary, picture)


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
