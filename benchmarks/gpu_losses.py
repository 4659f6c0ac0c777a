"""How far rounding leads the losses of a training away: the part --losses of benchmarks/gpu.py.

All sides start from the same weights, and see the same batches. A row's first figure is the root of
the mean square of the differences to the losses of the same library in float32, over the second
half of the steps and all seeds. For the second figure they are differences to PyTorch's float32.
Two float32 libraries differ too: their sums run in other orders. A smaller batch than in the race
lets float32 run in reasonable time.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from gpu_sides import SIZES, Side

Losses = np.ndarray[Any, Any]  # (seeds, steps)
LAST = 20  # steps that are the end
HEAD = """| side | RMS to its float32 | to PyTorch's float32 | each seed | mean loss at the end |
|---|---|---|---|---|
"""


def sides(attention: str) -> dict[str, str]:
    """Each side, and the side in float32 of the same library."""
    theirs = "eager float32 any"
    return {
        "ours float32": "ours float32",
        theirs: theirs,
        "ours bfloat16": "ours float32",
        f"eager autocast {attention}": theirs,
        f"eager bfloat16 {attention}": theirs,
    }


def measure(name: str, peers: bool, steps: int, seeds: int, device: str) -> dict[str, Any]:
    """The losses of each side, one list for each seed. The sides run at the same time: most of it
    is the draw of weights on the host.
    """
    known = sides("any" if device == "cpu" else "flash")
    chosen = [side for side in known if side.startswith("ours") or peers]
    with ThreadPoolExecutor(len(chosen)) as pool:
        losses = pool.map(lambda side: _losses(side, name, steps, seeds, device), chosen)
        found = dict(zip(chosen, losses, strict=True))
    size = SIZES[name]
    batch = f"{size.layers} x {size.width}, T {size.context}, B {size.batch}, V {size.vocabulary}"
    return {"size": batch, "steps": steps, "losses": found, "float32": known}


def _losses(side: str, name: str, steps: int, seeds: int, device: str) -> list[list[float]]:
    process = Side(side, name, device)
    found = [process.ask("losses", steps=steps, seed=seed) for seed in range(seeds)]
    process.close()
    return found


def table(measured: dict[str, Any]) -> str:
    """Markdown."""
    losses = {side: np.array(found) for side, found in measured["losses"].items()}
    theirs = losses.get("eager float32 any")
    lines = []
    for side, found in losses.items():
        own = losses[measured["float32"][side]]
        seeds = ", ".join(f"{rms(x, y):.1e}" for x, y in zip(found, own, strict=True))
        other = "-" if theirs is None else f"{rms(found, theirs):.2e}"
        end = f"{found[:, -LAST:].mean():.4f}"
        lines.append(f"| {side} | {rms(found, own):.2e} | {other} | {seeds} | {end} |\n")
    return HEAD + "".join(lines)


def rms(found: Losses, exact: Losses) -> float:
    """Root of the mean square of the differences over the second half of the steps."""
    half = found.shape[-1] // 2
    return float(np.sqrt(np.mean((found - exact)[..., half:] ** 2)))
