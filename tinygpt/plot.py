"""loss.png: how the loss came down, between what knows nothing and what nothing can beat."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure  # without pyplot: a file, never a window, also on a machine without a screen

from tinygpt.checkpoint import replace


def draw(metrics: Path, picture: Path, *, unknowing: float, floor: float) -> None:
    """Draw metrics.jsonl: the loss of each step, its running mean, the last (over the windows), and two lines to read them against.

    unknowing: ln V, nats a character of a model that knows nothing.   floor: nats that no model can go below on these windows.
    """
    steps, losses, final = _read(metrics.read_text(encoding="utf-8").splitlines())
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(steps, losses, color="tab:blue", alpha=0.3, linewidth=1, label="each batch")
    axes.plot(steps, running_mean(losses), color="tab:blue", linewidth=2, label="running mean")
    if final is not None:
        axes.plot(*final, "o", color="tab:red", zorder=5, clip_on=False, label=f"at the end, over all windows: {final[1]:.3f}")
    axes.axhline(unknowing, color="tab:gray", linestyle="--", label=f"a model that knows nothing, ln V: {unknowing:.3f}")
    axes.axhline(floor, color="tab:green", linestyle="--", label=f"floor, no model can be better: {floor:.3f}")
    axes.set(xlabel="step", ylabel="loss (nats a character)", title="Training loss", yscale="log")
    axes.legend()
    temporary = picture.with_name(picture.name + ".tmp")
    figure.savefig(temporary, format="png")
    replace(temporary, picture)


def _read(lines: Iterable[str]) -> tuple[list[int], list[float], tuple[int, float] | None]:
    """(steps, losses, (step, loss) of the final measurement if it is there); steps whose loss was not finite are left out."""
    records: list[dict[str, Any]] = [json.loads(line) for line in lines]
    batches = [r for r in records if "windows" not in r and r["loss"] is not None]
    final = next(((r["step"], r["loss"]) for r in records if "windows" in r and r["loss"] is not None), None)
    return [r["step"] for r in batches], [r["loss"] for r in batches], final


def running_mean(values: list[float], memory: float = 0.95) -> list[float]:
    """m <- memory * m + (1 - memory) * value, divided by what the weights sum to so far: the start is not pulled to zero."""
    means, mean, weight = [], 0.0, 0.0
    for value in values:
        mean, weight = memory * mean + (1 - memory) * value, memory * weight + (1 - memory)
        means.append(mean / weight)
    return means
