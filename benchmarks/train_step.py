"""A training step in tinygpt and in PyTorch: the same model, the same weights, the same batches.

    python benchmarks/train_step.py                  # all four sizes
    python benchmarks/train_step.py story baby       # some
    python benchmarks/train_step.py --out results    # writes JSON and a picture there too

A step is forward, backward, clipping to norm 1, and AdamW. First both sides must have the same
losses in 20 steps. Then they take turns, so that a change in the speed of the machine affects both.
A ratio is PyTorch's time over ours for a pair of turns. Printed are the median and its 90 %
bootstrap interval. PyTorch runs eager and compiled, with one thread and with all, and its fastest
mode counts.

Each side has a process of its own, and a pause comes before each turn: threads of OpenMP and
OpenBLAS spin for a while after work, and would use the cores of the other side. A turn is some
steps to warm up, then enough steps to measure their median.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SIZES = {  # layers, width, heads, T, B, V, pairs
    "story": (2, 64, 4, 32, 8, 22, 60),
    "shakespeare": (4, 128, 4, 64, 12, 65, 40),
    "baby": (6, 384, 6, 256, 8, 65, 12),
    "gpt2": (12, 768, 12, 256, 1, 50304, 12),
}
STEPS = {"story": 20, "shakespeare": 5, "baby": 1, "gpt2": 1}  # in a turn
PAUSE = 0.1  # seconds before a turn
RECIPE: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.99), "weight_decay": 0.1, "clip": 1.0}
# for gpt2: ten times that, without warm-up, grows rounding differences of 1e-7 to 1e-2 in 20 steps
GENTLE = {**RECIPE, "lr": 1e-4}


def batches(name: str, count: int) -> list[tuple[Any, Any]]:
    """Random ids and targets: the same for both sides."""
    _, _, _, T, B, V, _ = SIZES[name]
    rng = np.random.default_rng(0)
    return [(rng.integers(0, V, (B, T)), rng.integers(0, V, (B, T))) for _ in range(count)]


def new_model(name: str) -> Any:
    from tensor import manual_seed
    from tinygpt import GPT, GPTConfig

    layers, width, heads, context, _, vocabulary, _ = SIZES[name]
    manual_seed(0)
    return GPT(GPTConfig(vocabulary, context, width, heads, layers))


def recipe_of(name: str) -> dict[str, Any]:
    return GENTLE if name == "gpt2" else RECIPE


def our_step(model: Any, recipe: dict[str, Any] = RECIPE) -> Callable[[Any, Any], float]:
    """The step of tinygpt's own trainer."""
    from tensor.optim import AdamW
    from tinygpt.training.step import update

    optimizer = AdamW(
        model, lr=recipe["lr"], betas=recipe["betas"], weight_decay=recipe["weight_decay"]
    )

    def step(ids: Any, targets: Any) -> float:
        return update(model, optimizer, ids, targets, recipe["clip"])[0]

    return step


def torch_step(
    model: Any, mode: str, recipe: dict[str, Any] = RECIPE
) -> Callable[[Any, Any], float]:
    """PyTorch's step; mode is "eager" or "compile", then "-" and the number of threads."""
    import torch
    from peer import peer_step

    kind, threads = mode.split("-")
    step = peer_step(model, mode=kind, **recipe)

    def with_threads(ids: Any, targets: Any) -> float:
        torch.set_num_threads(int(threads))
        return step(ids, targets)

    return with_threads


class Side:
    """A process that takes steps on request: "ours", or a mode of PyTorch's."""

    def __init__(self, name: str, side: str):
        self.steps = STEPS[name]
        command = [sys.executable, __file__, "--serve", side, name]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, request: str) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(request + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("a side of the benchmark ended early; its error is above")
        return float(answer)

    def turn(self) -> float:
        """The time of a step: the median of a few, after one or more to warm up."""
        time.sleep(PAUSE)
        times = [self.ask("step") for _ in range(2 * self.steps)]
        return statistics.median(times[self.steps :])

    def close(self) -> None:
        self.process.communicate("")


def serve(name: str, side: str) -> None:
    """What a side's process does: "step" answers with its seconds, "loss" with the loss of the next
    batch, "memory" with its peak in MB.
    """
    recipe = recipe_of(name)
    step = (
        our_step(new_model(name), recipe)
        if side == "ours"
        else torch_step(new_model(name), side, recipe)
    )
    data = itertools.cycle(batches(name, 20))
    for line in sys.stdin:
        start = time.perf_counter()
        if line.strip() == "memory":
            answer = peak_memory()
        else:
            loss = step(*next(data))
            answer = loss if line.strip() == "loss" else time.perf_counter() - start
        print(answer, flush=True)


def peak_memory() -> float:
    """Peak resident memory of this process alone, in MB. (getrusage's figure may be inherited from
    the parent.)
    """
    status = Path("/proc/self/status")
    if status.exists():
        return (
            float(
                next(
                    line for line in status.read_text().splitlines() if line.startswith("VmHWM")
                ).split()[1]
            )
            / 1024
        )
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 * (1024 if sys.platform == "darwin" else 1)
    )


def check_agreement(name: str, mode: str) -> float:
    """The largest relative difference of the losses over 20 steps; ends the program past 1e-3."""
    ours, theirs = Side(name, "ours"), Side(name, mode)
    worst = 0.0
    for _ in range(20):
        a, b = ours.ask("loss"), theirs.ask("loss")
        worst = max(worst, abs(a - b) / abs(b))
    ours.close()
    theirs.close()
    if worst > 1e-3:
        raise SystemExit(
            f"{name}: the losses differ by {worst:.1e}, so the two are not the same model"
        )
    return worst


def best_mode(name: str, modes: list[str]) -> tuple[str, Side]:
    """The fastest of PyTorch's modes on this machine at this size, by the median of a few turns."""
    results = []
    for mode in modes:
        side = Side(name, mode)
        median = statistics.median(side.turn() for _ in range(max(3, SIZES[name][6] // 6)))
        results.append((median, mode, side))
        print(f"  {name}: PyTorch {mode}: {median * 1e3:.2f} ms", file=sys.stderr, flush=True)
    results.sort(key=lambda result: result[0])
    for _, _, side in results[1:]:
        side.close()
    return results[0][1], results[0][2]


def interval(ratios: list[float]) -> tuple[float, float]:
    """5 % and 95 % of the medians of 2,000 resamples."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.percentile(medians, [5, 95])
    return float(low), float(high)


def measure(name: str, modes: list[str]) -> dict[str, Any]:
    """Pairs of turns at one size."""
    difference = check_agreement(name, modes[0])
    mode, theirs = best_mode(name, modes)
    ours = Side(name, "ours")
    pairs = [(ours.turn(), theirs.turn()) for _ in range(SIZES[name][6])]
    our_times, their_times = zip(*pairs, strict=True)
    ratios = [b / a for a, b in pairs]
    low, high = interval(ratios)
    _, _, _, T, B, _, _ = SIZES[name]
    row = {
        "size": name, "mode": mode, "loss difference": difference,
        "ratio": statistics.median(ratios), "low": low, "high": high,
        "ours ms": statistics.median(our_times) * 1e3, "ours min": min(our_times) * 1e3,
        "torch ms": statistics.median(their_times) * 1e3, "torch min": min(their_times) * 1e3,
        "tokens/s": B * T / statistics.median(our_times), "ours MB": ours.ask("memory"),
        "torch MB": theirs.ask("memory"),
    }  # fmt: skip
    ours.close()
    theirs.close()
    return row


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Ratios as bars, 1 as a line: above it we are faster."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5), layout="constrained")
    heights = [row["ratio"] for row in rows]
    errors = [
        [row["ratio"] - row["low"] for row in rows],
        [row["high"] - row["ratio"] for row in rows],
    ]
    bars = axes.bar(
        [f"{row['size']}\n{row['ours ms']:,.1f} / {row['torch ms']:,.1f} ms" for row in rows],
        heights,
        yerr=errors,
        capsize=4,
        color="#4477aa",
    )
    axes.bar_label(bars, [f"{h:.2f}" for h in heights], label_type="center", color="white")
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("PyTorch's time / ours")
    axes.set_title(
        "One training step on the CPU: PyTorch's time / ours (90 % interval of the median)",
        fontsize=10,
    )
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description="One training step, ours against PyTorch's.")
    parser.add_argument("sizes", nargs="*", choices=[*SIZES, []], help="default: all")
    parser.add_argument(
        "--modes",
        nargs="+",
        default=["eager-1", "eager-2", "compile-1", "compile-2"],
        help="PyTorch's kind-threads",
    )
    parser.add_argument("--out", type=Path, help="folder for train_step.json and train_step.png")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.sizes[0], options.serve)
        return
    rows = []
    print(
        "size         PyTorch mode  ours ms   (min)  torch ms   (min)  tokens/s  ratio  "
        "90 %              MB torch MB"
    )
    for name in options.sizes or list(SIZES):
        row = measure(name, options.modes)
        rows.append(row)
        print(
            f"{name:12}{row['mode']:>13}{row['ours ms']:9.2f}{row['ours min']:8.2f}"
            f"{row['torch ms']:10.2f}{row['torch min']:8.2f}{row['tokens/s']:10.0f}"
            f"{row['ratio']:7.2f}  {row['low']:.2f} - {row['high']:.2f}   "
            f"{row['ours MB']:6.0f}{row['torch MB']:9.0f}",
            flush=True,
        )
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "train_step.json").write_text(json.dumps(rows, indent=1) + "\n")
        draw(rows, options.out / "train_step.png")


if __name__ == "__main__":
    main()
