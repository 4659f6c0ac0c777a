"""loss.png: how the loss came down, between what knows nothing and what nothing can beat."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure  # without pyplot: a file, never a window, also on a machine without a screen
from matplotlib.ticker import LogLocator

from tinygpt.files import replace


def draw(metrics: Path, picture: Path, *, unknowing: float, floor: float | None = None, unit: str = "character") -> None:
    """Draw metrics.jsonl: the loss of each step, smoothed too, the validation losses, the last (over the windows), and lines to read them against.

    unknowing: ln V, nats a token of a model that knows nothing.   floor: nats that no model can go below, where that is known.
    """
    steps, losses, measured, final = _read(metrics.read_text(encoding="utf-8").splitlines())
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=1, label="each batch")
    axes.plot(steps, smooth(losses), color="tab:blue", linewidth=2, label="mean of neighbouring batches")
    if measured:
        axes.plot(*zip(*measured, strict=True), "o-", color="tab:red", markersize=4, label=f"validation, not learned from: {measured[-1][1]:.3f}")
    if final is not None:
        axes.plot(*final, "o", color="tab:red", zorder=5, clip_on=False, label=f"at the end, over the windows, no dropout: {final[1]:.3f}")
    axes.axhline(unknowing, color="tab:gray", linestyle="--", label=f"a model that knows nothing, ln V: {unknowing:.3f}")
    if floor is not None:
        axes.axhline(floor, color="tab:green", linestyle="--", label=f"floor, no model can be better: {floor:.3f}")
    axes.set(xlabel="step (updates of the weights)", ylabel=f"loss (nats a {unit})", title="Training loss")
    if min(unknowing, 1.0 if floor is None else floor) > 0:  # of a text without any doubt the floor is 0, which a logarithmic axis has not
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    axes.legend()
    temporary = picture.with_name(picture.name + ".tmp")
    figure.savefig(temporary, format="png")
    replace(temporary, picture)


def _read(lines: Iterable[str]) -> tuple[list[int], list[float], list[tuple[int, float]], tuple[int, float] | None]:
    """(steps, losses, validation losses, the final measurement if it is there); what was not finite is left out."""
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    batches = [r for r in records if "lr" in r and r["loss"] is not None]
    measured = [(r["step"], r["validation_loss"]) for r in records if r.get("validation_loss") is not None]
    final = next(((r["step"], r["loss"]) for r in records if "windows" in r and r["loss"] is not None), None)
    return [r["step"] for r in batches], [r["loss"] for r in batches], measured, final


def smooth(values: list[float]) -> list[float]:
    """The mean of each value and its neighbours, a fiftieth of all values on either side together; at the ends, of those there are."""
    window = np.ones(2 * (len(values) // 100) + 1)
    sums, counts = (np.convolve(series, window)[len(window) // 2 :][: len(values)] for series in (values, np.ones(len(values))))
    means: list[float] = (sums / counts).tolist()
    return means
