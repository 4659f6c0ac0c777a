"""The roofline of the parts of a training step: how near each comes to what the GPU can do.

Williams, Waterman and Patterson 2009
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

BYTES, FLOPS = "#228833", "#4477aa"  # colours of parts under the slope, and under the flat roof
TERA = 1e12


def draw(measured: dict[str, Any], path: Path) -> None:
    """Write a PNG: left the parts that move bytes, right those that multiply; a circle a part."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    roof, slope = measured["rates"]["flops"], measured["rates"]["bytes"]
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 5.5), width_ratios=[3, 4, 4])
    moving, multiplying, listed = axes
    lines = []
    for number, part in enumerate(measured["parts"], 1):
        x, rate = part["flops"] / part["bytes"], 1e3 * part["flops"] / part["ms"]
        best = min(roof, slope * x)
        side, color = (moving, BYTES) if best < roof else (multiplying, FLOPS)
        side.plot(x, rate / TERA, "o", color=color, markersize=14, markeredgecolor="white")
        side.annotate(
            str(number), (x, rate / TERA), color="white", ha="center", va="center", fontsize=8
        )
        lines.append(
            f"{number:2}  {part['count']:2} x {part['ms']:7.3f} ms {rate / best:5.0%}  "
            f"{part['name']}"
        )
    for side in (moving, multiplying):
        places = [float(dot.get_xdata()[0]) for dot in side.lines] or [1.0]
        x = np.geomspace(min(places) / 2, 2 * max(places), 200)
        side.plot(x, np.minimum(roof, slope * x) / TERA, color="black", linewidth=1)
        side.set(xscale="log", xlabel="FLOPs for each byte moved")
        side.grid(color="#dddddd", linewidth=0.6)
        side.set_axisbelow(True)
    moving.set(ylabel="TFLOP/s", yscale="log", title=f"bound by memory: {slope / TERA:.2f} TB/s")
    multiplying.set(ylim=(0, None), title=f"bound by arithmetic: {roof / TERA:.0f} TFLOP/s")
    listed.axis("off")
    listed.set_title("times a step, ms each, share of the roof", loc="left")
    listed.text(0, 0.98, "\n".join(lines), va="top", family="monospace", fontsize=7.5)
    figure.suptitle(measured["title"])
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
