"""The time of `tensor.draw` for the loss of a GPT, written as SVG.

    python benchmarks/draw.py

The models have 12 layers, or the two layers of the story, with fused ops or with references. The
first drawing also imports what it needs. Then comes the median of ten more.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np

import tensor
from tinygpt import GPT, GPTConfig

MODELS = {
    "12 layers": GPTConfig(vocabulary=65, context=64, width=128, heads=4, layers=12),
    "the story's": GPTConfig(vocabulary=22, context=32, width=64, heads=4, layers=2),
}
AGAIN = 10


def main() -> None:
    """Draw, and print."""
    with tempfile.TemporaryDirectory() as folder:
        for name, config in MODELS.items():
            model = GPT(config, generator=tensor.Generator(0))
            ids = np.random.default_rng(0).integers(0, config.vocabulary, (4, config.context))
            for how in ("fused", "references"):
                with nullcontext() if how == "fused" else tensor.kernels.off():
                    loss = model.loss(ids, ids)
                times = []
                for _ in range(1 + AGAIN):
                    start = time.perf_counter()
                    picture = tensor.draw(loss, Path(folder) / "graph.svg", model=model)
                    times.append(1e3 * (time.perf_counter() - start))
                print(
                    f"{name:12} {how:11} {picture.boxes:3} boxes  first {times[0]:4.0f} ms, "
                    f"then {statistics.median(times[1:]):4.0f} ms"
                )


if __name__ == "__main__":
    main()
