"""How time and peak memory of a training step grow with the sizes of the model, and how the memory
of attention grows with T.

    python benchmarks/scaling.py                                     # everything: some minutes
    python benchmarks/scaling.py --only attention
    python benchmarks/scaling.py --only step --axes T batch --rounds 1
    python benchmarks/scaling.py --out results                       # writes JSON and pictures too

*Step.* The model is the shakespeare model (4 layers, width 128, 4 heads, T 64, B 12, V 65), and one
size at a time is changed: context T, width, batch or layers. The step is that of tinygpt's trainer.
Each measurement is a new process: so its peak memory is its own. Rounds go over all sizes in turn,
so that a change in the speed of the machine affects all sizes. Time and memory are medians over the
rounds, and the time of a round is the median of its steps. "Idle" is the memory of Python, NumPy
and the engine without a model.

*Attention.* This measures forward and backward of attention with 4 heads of 32 float32. It runs the
op `tensor.attention` on (1, 4, T, 32), with the strides that heads have in a model: causal, of all
keys, of half as many keys as queries, with a mask (1, 1, 1, T) for padding, and with dropout. Then
it runs the model's layer, causal, on (1, T, 128), with its two projections. The memory is the peak
above the inputs, the weights and the upstream gradient. "Resident" is the operating system's count.
"Arrays" is the exact count of what NumPy allocates (tracemalloc). The exponent e of memory ~ T^e
comes from least squares on logarithms: 1 is linear, 2 is a matrix (T, T).

MB are 2^20 bytes, as in train_step.py.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from train_step import SIZES, our_step, peak_memory

BASE = dict(
    zip(
        ("layers", "width", "heads", "T", "batch", "vocabulary"),
        SIZES["shakespeare"][:6],
        strict=True,
    )
)
AXES: dict[str, tuple[int, ...]] = {
    "T": (16, 32, 64, 128, 256, 512),
    "width": (32, 64, 128, 256, 512),
    "batch": (3, 6, 12, 24, 48, 96),
    "layers": (1, 2, 4, 8, 16),
}
NAMES = {"T": "context T", "width": "width", "batch": "batch B", "layers": "layers"}
TOKENS = (1024, 2048, 4096, 8192)
PATHS = {
    "causal": "tensor.attention, causal",
    "all": "all keys",
    "cross": "half as many keys as queries",
    "padding": "a mask for padding",
    "dropout": "dropout of 0.1",
    "layer": "the model's layer, causal",
}
MEASURES = [f"{path} {counted} MB" for path in PATHS for counted in ("resident", "arrays")]


# -- what a fresh process measures


def measure_step(size: dict[str, int], steps: int) -> dict[str, float]:
    """Median seconds of that many steps, after two to warm up, and the process's peak in MB,
    without a model if it has no layers.
    """
    from tensor import manual_seed
    from tinygpt import GPT, GPTConfig

    if not size["layers"]:
        return {"seconds": 0.0, "MB": peak_memory()}
    manual_seed(0)
    step = our_step(
        GPT(GPTConfig(size["vocabulary"], size["T"], size["width"], size["heads"], size["layers"]))
    )
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(2 + steps):
        ids, targets = rng.integers(0, size["vocabulary"], (2, size["batch"], size["T"]))
        start = time.perf_counter()
        step(ids, targets)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds[2:]), "MB": peak_memory()}


def measure_attention(path: str, T: int) -> dict[str, float]:
    """MB above the inputs at the peak of forward and backward of one of PATHS: resident in one run,
    of arrays in another.
    """
    import tensor
    from tensor.random import Key
    from tinygpt import GPTConfig
    from tinygpt.model.attention import Attention

    rng = np.random.default_rng(0)
    layer = Attention(GPTConfig(1, T, width=128, heads=4, layers=1))

    def inputs(length: int) -> list[tensor.Tensor]:
        """What run takes, drawn in float32: no wider array leaves free memory behind."""
        keys = length // 2 if path == "cross" else length
        shapes: list[tuple[int, ...]] = [(1, n, 4, 32) for n in (length, keys, keys)]
        shapes.append((1, 4, length, 32))
        if path == "layer":
            shapes = [(1, length, 128)] * 2
        return [
            tensor.Tensor.from_array(
                rng.standard_normal(shape, dtype=np.float32), requires_grad=True
            )
            for shape in shapes
        ]

    def attention(q: tensor.Tensor, k: tensor.Tensor, v: tensor.Tensor) -> tensor.Tensor:
        options: dict[str, Any] = {"causal": path == "causal"}
        if path == "padding":
            options["mask"] = np.arange(k.shape[1])[None, None, None] < 3 * k.shape[1] // 4
        if path == "dropout":
            options |= {"dropout": 0.1, "key": Key(1)}
        # (1, T, 4, 32) -> (1, 4, T, 32)
        return tensor.attention(*(x.transpose(1, 2) for x in (q, k, v)), **options)

    def run(*leaves: tensor.Tensor) -> None:
        *given, dy = leaves
        y = layer(*given) if path == "layer" else attention(*given)
        y.backward(dy)
        for leaf in (*given, *layer.parameters()):
            leaf.grad = None

    run(*inputs(128))  # threads started, buffers of BLAS taken
    leaves = inputs(T)
    forget_peak()
    before = peak_memory()
    run(*leaves)
    resident = peak_memory() - before
    tracemalloc.start()
    run(*leaves)
    return {"resident MB": resident, "arrays MB": tracemalloc.get_traced_memory()[1] / 2**20}


def forget_peak() -> None:
    """Linux: give free memory back, then make what is resident now the peak; elsewhere small extras
    hide behind what importing took.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    # no such file, library or function, or not allowed
    except (OSError, TypeError, AttributeError):
        return


# -- all of them


def fresh(*request: Any) -> dict[str, float]:
    """The answer of a fresh process to (function, its arguments)."""
    answer = subprocess.run(
        [sys.executable, __file__, "--measure", json.dumps(request)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if answer.returncode:
        raise SystemExit(f"the measurement {request} failed; its error is above")
    return json.loads(answer.stdout)  # type: ignore[no-any-return]


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """e of y ~ x^e, by least squares on logarithms."""
    return float(np.polyfit(np.log(xs), np.log(np.maximum(ys, 1e-9)), 1)[0])


def scale_steps(axes: list[str], rounds: int, steps: int) -> dict[str, Any]:
    """Rows along each axis, and the idle process."""
    sizes = [BASE | {axis: value} for axis in axes for value in AXES[axis]]
    # the base is on every axis
    sizes = [size for i, size in enumerate(sizes) if size not in sizes[:i]]
    taken: list[list[dict[str, float]]] = [[] for _ in sizes]
    for number in range(rounds):
        for size, column in zip(sizes, taken, strict=True):
            column.append(fresh("step", size, steps))
            print(
                f"  round {number + 1}: {size}: {column[-1]['seconds'] * 1e3:.1f} ms",
                file=sys.stderr,
                flush=True,
            )
    idle = fresh("step", BASE | {"layers": 0}, 0)["MB"]
    print(
        "axis      value   ms a step    peak MB     growth ~ value^e from the line before: time   "
        f"memory above idle ({idle:.0f} MB)"
    )
    rows: list[dict[str, Any]] = []
    for axis in axes:
        previous: dict[str, Any] = {}
        for value in AXES[axis]:
            column = taken[sizes.index(BASE | {axis: value})]
            row: dict[str, Any] = {
                "axis": axis,
                "value": value,
                **{
                    key: statistics.median(answer[key] for answer in column)
                    for key in ("seconds", "MB")
                },
            }
            growth = ""
            if previous:
                pair = (previous["value"], value)
                time_growth, memory_growth = (
                    exponent(pair, (previous["seconds"], row["seconds"])),
                    exponent(pair, (previous["MB"] - idle, row["MB"] - idle)),
                )
                growth = f"{time_growth:>47.2f}{memory_growth:>9.2f}"
            print(
                f"{axis:10}{value:5}{row['seconds'] * 1e3:12.2f}{row['MB']:11.1f}{growth}",
                flush=True,
            )
            rows.append(row)
            previous = row
    return {"base": BASE, "idle MB": idle, "rows": rows}


def scale_attention(tokens: list[int], rounds: int) -> dict[str, Any]:
    """Memory for each T on every path, the median of the rounds, and the fitted exponents."""
    print(
        "attention: MB above the inputs, resident / arrays\n     T"
        + "".join(f"{p:>16}" for p in PATHS)
    )
    rows: list[dict[str, Any]] = []
    for T in tokens:
        row: dict[str, Any] = {"T": T}
        for path in PATHS:
            answers = [fresh("attention", path, T) for _ in range(rounds)]
            for key in answers[0]:
                row[f"{path} {key}"] = statistics.median(answer[key] for answer in answers)
        rows.append(row)
        print(f"{T:6}" + in_pairs(row, ".1f"), flush=True)
    fits: dict[str, Any] = {}
    if len(rows) > 1:
        print("exponents of T, of all sizes and of the last two")
        fits = {
            name: {m: exponent(tokens[start:], [row[m] for row in rows[start:]]) for m in MEASURES}
            for name, start in (("all", 0), ("last", -2))
        }
        for name, fit in fits.items():
            print(f"{name:6}" + in_pairs(fit, ".2f"))
    return {"rows": rows, "exponents": fits}


def in_pairs(values: dict[str, float], form: str) -> str:
    """Of each path: resident / arrays."""
    pairs = [(values[f"{path} resident MB"], values[f"{path} arrays MB"]) for path in PATHS]
    return "".join(f"{resident:{form}} / {arrays:{form}}".rjust(16) for resident, arrays in pairs)


# -- pictures and command line


def plain(axis: Any, ticks: Sequence[int] | None = None) -> None:
    """A logarithmic axis with plain numbers; with ticks at these values alone, if given."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    if ticks is None:
        axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    else:
        axis.set_ticks(ticks)
        axis.set_minor_locator(NullLocator())


def draw_steps(result: dict[str, Any], path: Path) -> None:
    """A panel for each axis: time on the left, memory on the right; dashed, what grows in
    proportion from the base.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["axis"] for row in result["rows"]))
    rows_of_panels = -(-len(names) // 2)
    figure = Figure(figsize=(9.5, 0.5 + 3 * rows_of_panels), layout="constrained")
    panels = figure.subplots(rows_of_panels, 2, squeeze=False).flat
    for panel in panels[len(names) :]:
        panel.axis("off")
    for panel, name in zip(panels, names, strict=False):
        rows = [row for row in result["rows"] if row["axis"] == name]
        values = [row["value"] for row in rows]
        memory = panel.twinx()
        for axes, key, factor, label, colour, marker in (
            (panel, "seconds", 1e3, "ms a step", "#4477aa", "o"),
            (memory, "MB", 1, "peak memory, MB", "#ee6677", "s"),
        ):
            ys = [row[key] * factor for row in rows]
            axes.loglog(values, ys, color=colour, marker=marker, markersize=4)
            axes.set_ylabel(label, color=colour)
            axes.tick_params(axis="y", colors=colour)
            axes.set_ylim(min(ys) / 1.6, max(ys) * 1.6)
            plain(axes.yaxis)
        base = next(row["seconds"] for row in rows if row["value"] == BASE[name]) * 1e3
        panel.plot(
            values,
            [base * value / BASE[name] for value in values],
            color="#4477aa",
            linewidth=0.8,
            linestyle="--",
            label="time in proportion",
        )
        panel.axvline(BASE[name], color="#bbbbbb", linewidth=0.8)
        plain(panel.xaxis, values)
        panel.set_xlabel(NAMES[name])
        panel.legend(fontsize=8, loc="upper left")
    figure.suptitle(
        f"A training step around layers {BASE['layers']}, width {BASE['width']}, T {BASE['T']}, "
        f"batch {BASE['batch']} (grey lines)",
        fontsize=11,
    )
    figure.savefig(path, dpi=150)


def draw_attention(result: dict[str, Any], path: Path) -> None:
    """All paths against T, beside T and T^2 through the arrays of each path at the smallest T."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7), layout="constrained")
    tokens = [row["T"] for row in result["rows"]]
    panels = figure.subplots(2, 3, sharey=True).flat
    for panel, (key, name) in zip(panels, PATHS.items(), strict=True):
        for counted, colour, marker in (("resident", "#ee6677", "s"), ("arrays", "#4477aa", "o")):
            measure = f"{key} {counted} MB"
            fit = (
                f", ~ $T^{{{result['exponents']['all'][measure]:.2f}}}$"
                if result["exponents"]
                else ""
            )
            panel.loglog(
                tokens,
                [row[measure] for row in result["rows"]],
                color=colour,
                marker=marker,
                markersize=4,
                label=counted + fit,
            )
        first = result["rows"][0][f"{key} arrays MB"]
        for power, style, label in ((1, "--", "$T$"), (2, ":", "$T^2$")):
            panel.plot(
                tokens,
                [first * (T / tokens[0]) ** power for T in tokens],
                color="black",
                linewidth=0.8,
                linestyle=style,
                label=label,
            )
        plain(panel.xaxis, tokens)
        plain(panel.yaxis)
        panel.set_xlabel("tokens T")
        panel.set_title(name, fontsize=10)
        panel.legend(fontsize=8)
    figure.axes[0].set_ylabel("MB above the inputs, at the peak")
    figure.suptitle("Attention, 4 heads of 32: forward and backward", fontsize=11)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="How a step's time and memory, and attention's memory, grow with the sizes."
    )
    parser.add_argument(
        "--only", choices=["step", "attention"], help="one of the two sections (default: both)"
    )
    parser.add_argument(
        "--axes",
        nargs="+",
        choices=list(AXES),
        default=list(AXES),
        help="step: what is varied (default: all)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="processes for each size (default: %(default)s)",
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=7,
        metavar="N",
        help="step: steps timed in a process (default: %(default)s)",
    )
    parser.add_argument(
        "--tokens",
        type=int,
        nargs="+",
        default=list(TOKENS),
        metavar="T",
        help=f"attention: the T (default: {' '.join(map(str, TOKENS))})",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="write scaling.json and the pictures there"
    )
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, *arguments = json.loads(options.measure)
        print(
            json.dumps(
                measure_step(*arguments) if what == "step" else measure_attention(*arguments)
            )
        )
        return
    results = {}
    if options.only != "attention":
        results["step"] = scale_steps(options.axes, options.rounds, options.steps)
    if options.only != "step":
        results["attention"] = scale_attention(options.tokens, options.rounds)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "scaling.json").write_text(json.dumps(results, indent=1) + "\n")
        if "step" in results:
            draw_steps(results["step"], options.out / "scaling.png")
        if "attention" in results:
            draw_attention(results["attention"], options.out / "attention.png")


if __name__ == "__main__":
    main()
