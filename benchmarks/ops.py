"""Times of each op, forward and backward, beside NumPy and PyTorch; and the engine's own cost.

    python benchmarks/ops.py                                # both: some minutes
    python benchmarks/ops.py --only engine                  # the engine's cost alone: seconds
    python benchmarks/ops.py --only ops --ops gelu linear --sizes middle
    python benchmarks/ops.py --out results                  # writes JSON and pictures there too

*Ops.* The NumPy side is what one would write by hand, without a graph and without reused buffers
(`NUMPY` below). PyTorch runs with one thread and with two, and the faster one counts, by its
median. Each side has a process of its own. The sides take turns, after a pause in which threads of
BLAS or OpenMP stop spinning. A turn is one call to warm up, then several timed calls, and the
median of these. Forward records the graph. Backward starts from a random gradient and makes new
`.grad`. First all sides must agree on values and gradients. A ratio is the other side's time over
ours, turn by turn, and then the median: above 1 we are faster.

*Engine.* An expression on tensors and the same expression on arrays take turns in one thread, in
blocks of a few hundred, by the clock of this thread. The difference is the engine's cost: recording
the graph, keeping the line and the versions, and freeing the node.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from train_step import PAUSE, interval

Array: TypeAlias = np.ndarray[Any, Any]

# rows, columns, attention's (B, H, T, D), rows of embedding's table, calls in a turn, turns
SIZES = {
    "small": (8, 8, (1, 1, 8, 8), 8, 300, 15),
    "middle": (256, 64, (1, 4, 64, 64), 65, 60, 15),
    "large": (2048, 1536, (8, 24, 256, 64), 8192, 2, 9),
}
ADAMW: dict[str, Any] = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.1}


def inputs_of(op: str, size: str) -> tuple[list[Array], Array]:
    """The op's inputs and a gradient dy, the same on every side. Floats want gradients, integers do
    not.
    """
    rng = np.random.default_rng(0)
    N, C, heads, vocabulary, _, _ = SIZES[size]
    shapes: dict[str, list[tuple[int, ...]]] = {
        "add": [(N, C), (C,)], "multiply": [(N, C)] * 2, "layer_norm": [(N, C), (C,), (C,)],
        "matmul": [(N, C), (C, C)],
        "linear": [(N, C), (C, C), (C,)], "attention": [heads] * 3, "embedding": [(vocabulary, C)],
    }  # fmt: skip
    arrays: list[Array] = [
        rng.standard_normal(shape, dtype=np.float32) for shape in shapes.get(op, [(N, C)])
    ]
    dy = (
        np.array(1, np.float32)
        if op in ("sum", "cross_entropy")
        else rng.standard_normal(heads if op == "attention" else (N, C), dtype=np.float32)
    )
    if op == "embedding":
        arrays.insert(0, rng.integers(0, vocabulary, N))
    if op == "cross_entropy":
        arrays.append(rng.integers(0, C, N))
    return arrays, dy


# -- bare NumPy: y, and the function from dy to the gradients


def gelu(x: Array) -> Any:
    k = math.sqrt(2 / math.pi)
    t = np.tanh(k * (x + 0.044715 * x * x * x))
    return 0.5 * x * (1 + t), lambda dy: (
        dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * k * (1 + 3 * 0.044715 * x * x)),
    )


def softmax(x: Array) -> Any:
    e = np.exp(x - x.max(-1, keepdims=True))
    y = e / e.sum(-1, keepdims=True)
    return y, lambda dy: (y * (dy - (dy * y).sum(-1, keepdims=True)),)


def layer_norm(x: Array, gain: Array, bias: Array) -> Any:
    inverse_std = 1 / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    normed = (x - x.mean(-1, keepdims=True)) * inverse_std

    def backward(dy: Array) -> Any:
        dnormed = dy * gain
        dx = inverse_std * (
            dnormed
            - dnormed.mean(-1, keepdims=True)
            - normed * (dnormed * normed).mean(-1, keepdims=True)
        )
        return dx, (dy * normed).sum(0), dy.sum(0)

    return normed * gain + bias, backward


def attention(q: Array, k: Array, v: Array) -> Any:
    scale, T = 1 / math.sqrt(q.shape[-1]), q.shape[-2]
    scores = np.where(np.tri(T, dtype=bool), scale * (q @ k.swapaxes(-1, -2)), np.float32(-np.inf))
    weights, dsoftmax = softmax(scores)

    def backward(dy: Array) -> Any:
        (dscores,) = dsoftmax(dy @ v.swapaxes(-1, -2))
        return (
            scale * (dscores @ k),
            scale * (dscores.swapaxes(-1, -2) @ q),
            weights.swapaxes(-1, -2) @ dy,
        )

    return weights @ v, backward


def embedding(ids: Array, weight: Array) -> Any:
    def backward(dy: Array) -> Any:
        dweight = np.zeros_like(weight)
        np.add.at(dweight, ids, dy)
        return (dweight,)

    return weight[ids], backward


def cross_entropy(logits: Array, targets: Array) -> Any:
    rows = np.arange(len(targets))
    shifted = logits - logits.max(-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))

    def backward(dy: Array) -> Any:
        dlogits = np.exp(log_p)
        dlogits[rows, targets] -= 1
        return (dlogits * (dy / len(targets)),)

    return -log_p[rows, targets].mean(), backward


def adamw(w: Array, g: Array, m: Array, v: Array, t: int) -> None:
    (b1, b2), lr, eps, decay = ADAMW["betas"], ADAMW["lr"], ADAMW["eps"], ADAMW["weight_decay"]
    m[...] = b1 * m + (1 - b1) * g
    v[...] = b2 * v + (1 - b2) * g * g
    w -= lr * (decay * w + m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps))


NUMPY: dict[str, Callable[..., Any]] = {
    "add": lambda x, bias: (x + bias, lambda dy: (dy.copy(), dy.sum(0))),
    "multiply": lambda a, b: (a * b, lambda dy: (dy * b, dy * a)),
    "exp": lambda x: (y := np.exp(x), lambda dy: (dy * y,)),
    "matmul": lambda a, b: (a @ b, lambda dy: (dy @ b.T, a.T @ dy)),
    "linear": lambda x, weight, bias: (
        x @ weight + bias,
        lambda dy: (dy @ weight.T, x.T @ dy, dy.sum(0)),
    ),
    "sum": lambda x: (x.sum(), lambda dy: (np.full_like(x, dy),)),
    **{
        rule.__name__: rule
        for rule in (gelu, softmax, layer_norm, attention, embedding, cross_entropy, adamw)
    },
}


# -- a side: its process answers with values to compare, and with times


class Case(NamedTuple):
    """One op at one size on one side; an optimiser's step is a forward."""

    forward: Callable[[], Any]  # what backward wants: y, or of bare NumPy (y, rule)
    results: Callable[[Any], list[Any]]  # y and the gradients, after backward
    backward: Callable[[Any], object] = lambda made: None
    forget: Callable[[], object] = lambda: None  # the gradients of the call before


def numpy_case(op: str, arrays: list[Array], dy: Array) -> Case:
    if op == "adamw":
        w, m, v, steps = (
            arrays[0].copy(),
            np.zeros_like(arrays[0]),
            np.zeros_like(arrays[0]),
            itertools.count(1),
        )
        return Case(lambda: adamw(w, arrays[0], m, v, next(steps)), lambda _: [w])
    call, upstream, found = NUMPY[op], dy[()], list[Array]()
    return Case(
        lambda: call(*arrays),
        lambda made: [made[0], *found],
        lambda made: found.extend(made[1](upstream)),
        found.clear,
    )


def graph_case(call: Callable[..., Any], leaves: list[Any], upstream: Any) -> Case:
    """An op of a library that records: ours and PyTorch are called alike."""
    learning = [leaf for leaf in leaves if leaf.requires_grad]

    def forget() -> None:
        for leaf in learning:
            leaf.grad = None

    return Case(
        lambda: call(*leaves),
        lambda y: [y.detach().numpy(), *(leaf.grad.numpy() for leaf in learning)],
        lambda y: y.backward(upstream),
        forget,
    )


def our_case(op: str, arrays: list[Array], dy: Array) -> Case:
    import tensor
    from tensor.optim import AdamW

    leaves = [tensor.Tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    if op == "adamw":
        leaves[0].grad = tensor.Tensor(arrays[0])
        return Case(AdamW(leaves, **ADAMW).step, lambda _: [leaves[0].detach().numpy()])
    return graph_case(
        partial(tensor.attention, causal=True) if op == "attention" else getattr(tensor, op),
        leaves,
        tensor.Tensor(dy),
    )


def torch_case(op: str, arrays: list[Array], dy: Array, threads: int) -> Case:
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    leaves = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    if op == "adamw":
        leaves[0].grad = torch.tensor(arrays[0])
        return Case(
            torch.optim.AdamW(leaves, fused=True, **ADAMW).step,
            lambda _: [leaves[0].detach().numpy()],
        )
    special: dict[str, Callable[..., Any]] = {
        "gelu": partial(functional.gelu, approximate="tanh"),
        "softmax": partial(torch.softmax, dim=-1),
        "layer_norm": lambda x, gain, bias: functional.layer_norm(x, gain.shape, gain, bias),
        # what functional.linear calls, whose weight is (outputs, inputs)
        "linear": lambda x, weight, bias: torch.addmm(bias, x, weight),
        "attention": partial(functional.scaled_dot_product_attention, is_causal=True),
    }
    return graph_case(
        special.get(op) or getattr(functional, op, None) or getattr(torch, op),
        leaves,
        torch.from_numpy(dy),
    )


def serve(side: str) -> None:
    """What a side's process does: a line [request, op, size] is answered with values or times, in
    JSON.
    """
    make = {"ours": our_case, "numpy": numpy_case}.get(side) or partial(
        torch_case, threads=int(side[-1])
    )
    current, case = None, None
    for line in sys.stdin:
        request, op, size = json.loads(line)
        if case is None or current != (op, size):
            current, case = (op, size), None  # the one before is freed first
            case = make(op, *inputs_of(op, size))
        print(
            json.dumps(values(case) if request == "values" else times(case, SIZES[size][4])),
            flush=True,
        )


def values(case: Case) -> list[tuple[float, float]]:
    """Of y and each gradient, its product with fixed random numbers, and its norm: arrays that
    differ also differ in the first.
    """
    case.forget()
    made = case.forward()
    case.backward(made)
    flats = [np.asarray(array, dtype=np.float64).ravel() for array in case.results(made)]
    return [
        (
            float(flat @ np.random.default_rng(2).standard_normal(flat.size)),
            float(np.linalg.norm(flat)),
        )
        for flat in flats
    ]


def times(
    case: Case, calls: int, clock: Callable[[], float] = time.perf_counter
) -> tuple[float, float]:
    """Seconds forward and backward, each the median of the calls after the first. Reading the
    clock, some 50 ns, is in them.
    """
    seconds = []
    for _ in range(1 + calls):
        case.forget()
        start = clock()
        made = case.forward()
        middle = clock()
        case.backward(made)
        seconds.append((middle - start, clock() - middle))
        del made
    forward, backward = np.median(seconds[1:], axis=0)
    return float(forward), float(backward)


# -- the comparison


class Side:
    """A side's process, seen from outside."""

    def __init__(self, name: str, script: str = __file__):
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, script, "--serve", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, *request: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} ended early; its error is above")
        return json.loads(answer)


def compare(sides: list[Side], op: str, size: str, turns: int | None) -> list[dict[str, Any]]:
    """Turns of all sides in alternation, once they agree: a row for forward and one for backward,
    of an optimiser one for its step.
    """
    answers = {side.name: side.ask("values", op, size) for side in sides}
    for name, answer in answers.items():
        if len(answer) != len(answers["ours"]) or any(
            abs(a - b) > 1e-3 * norm
            for (a, _), (b, norm) in zip(answer, answers["ours"], strict=True)
        ):
            raise SystemExit(
                f"{op}, {size}: {name} computes something else; "
                f"(product, norm) of y and each gradient: {answers}"
            )
    taken: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
    for _ in range(turns or SIZES[size][5]):
        for side in sides:
            time.sleep(0 if size == "small" else PAUSE)
            taken[side.name].append(side.ask("times", op, size))
    phases = ("step",) if op == "adamw" else ("forward", "backward")
    return [
        {
            "op": op,
            "size": size,
            "phase": phase,
            **figures({n: [turn[i] for turn in t] for n, t in taken.items()}),
        }
        for i, phase in enumerate(phases)
    ]


def figures(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Median and minimum of ours, of NumPy's and of the better PyTorch's, and the ratios with their
    90 % intervals.
    """
    best = min(
        (name for name in seconds if name.startswith("torch")),
        key=lambda name: statistics.median(seconds[name]),
    )
    found: dict[str, Any] = {"torch threads": int(best[-1])}
    for label, name in (("ours", "ours"), ("numpy", "numpy"), ("torch", best)):
        found |= {
            f"{label} us": statistics.median(seconds[name]) * 1e6,
            f"{label} min": min(seconds[name]) * 1e6,
        }
        if label != "ours":
            ratios = [
                theirs / ours for theirs, ours in zip(seconds[name], seconds["ours"], strict=True)
            ]
            found[f"{label} ratio"] = statistics.median(ratios)
            found[f"{label} low"], found[f"{label} high"] = interval(ratios)
    return found


def compare_all(ops: list[str], sizes: list[str], turns: int | None) -> list[dict[str, Any]]:
    rows = []
    sides = [Side(name) for name in ("ours", "numpy", "torch-1", "torch-2")]
    print(
        "op             size    phase         ours us     numpy us     torch us (threads)   "
        "numpy/ours  torch/ours"
    )
    for op, size in itertools.product(ops, sizes):
        for row in compare(sides, op, size, turns):
            rows.append(row)
            print(
                f"{op:15}{size:8}{row['phase']:9}{row['ours us']:12,.1f}{row['numpy us']:13,.1f}"
                f"{row['torch us']:13,.1f} ({row['torch threads']})"
                f"{row['numpy ratio']:19.2f}{row['torch ratio']:12.2f}",
                flush=True,
            )
    for side in sides:
        side.process.communicate("")
    return rows


# -- the engine's own cost

# (8, 8), bias (8,), so an `expand` node; float32, and gradients wanted
EXPRESSIONS = ("a * b", "x * 2.0", "x + bias")


def engine_cost(repeats: int, number: int = 500) -> list[dict[str, Any]]:
    """Each expression ours, bare, and ours under no_grad(), in turn. The cost is the difference of
    the minima; also the median of differences.
    """
    from tensor import Tensor, no_grad

    rng = np.random.default_rng(0)
    bare = {
        name: rng.standard_normal((8,) if name == "bias" else (8, 8), dtype=np.float32)
        for name in ("a", "b", "x", "bias")
    }
    ours = {name: Tensor(array, requires_grad=True) for name, array in bare.items()}
    taken: dict[tuple[str, str], list[float]] = {}
    timers = {
        e: [timeit.Timer(e, globals=names, timer=time.thread_time) for names in (ours, bare)]
        for e in EXPRESSIONS
    }
    for _ in range(repeats):
        for expression, (our_timer, bare_timer) in timers.items():
            recorded, alone = our_timer.timeit(number), bare_timer.timeit(number)
            with no_grad():
                unrecorded = our_timer.timeit(number)
            for mode, seconds in (
                ("recorded", recorded),
                ("numpy", alone),
                ("no_grad", unrecorded),
            ):
                taken.setdefault((expression, mode), []).append(seconds / number * 1e6)
    print("8 x 8 float32, us (median)   beyond bare NumPy: recorded   under no_grad()   bare NumPy")
    rows = []
    for expression in EXPRESSIONS:
        row: dict[str, Any] = {"expression": expression}
        for mode in ("recorded", "no_grad", "numpy"):
            own, beside = (
                np.array(taken[expression, mode]),
                np.array(taken[expression, "numpy"] if mode != "numpy" else [0.0]),
            )
            row |= {
                f"{mode} us": float(own.min() - beside.min()),
                f"{mode} median": float(np.median(own - beside)),
            }
        rows.append(row)
        cells = [
            f"{row[f'{mode} us']:.2f} ({row[f'{mode} median']:.2f})"
            for mode in ("recorded", "no_grad", "numpy")
        ]
        print(f"{expression:26}{cells[0]:>30}{cells[1]:>18}{cells[2]:>13}")
    return rows


def draw_ops(figure: Any, rows: list[dict[str, Any]]) -> None:
    """A dot for each size: how many times our time the others take."""
    names = list(dict.fromkeys(row["op"] for row in rows))
    figure.set_size_inches(9, 1.8 + 0.5 * len(names))
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    panels = itertools.product(
        ("forward or step", "backward"), (("numpy", "bare NumPy"), ("torch", "PyTorch"))
    )
    for panel, (phase, (key, other)) in zip(axes.flat, panels, strict=True):
        for size, shift, colour in zip(
            SIZES, (-0.22, 0, 0.22), ("#ccbb44", "#4477aa", "#aa3377"), strict=True
        ):
            chosen = [row for row in rows if row["size"] == size and row["phase"] in phase]
            panel.scatter(
                [row[f"{key} ratio"] for row in chosen],
                [names.index(row["op"]) + shift for row in chosen],
                s=18,
                zorder=3,
                color=colour,
                label=size,
            )
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set(
            xscale="log", yticks=range(len(names)), yticklabels=names, ylim=(len(names) - 0.5, -0.5)
        )
        panel.grid(axis="x", which="both", color="#dddddd", linewidth=0.5)
        panel.set_title(f"{phase}: {other}'s time / ours", fontsize=10)
        panel.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    figure.supxlabel("right of 1 ours is faster", fontsize=9)
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=3, fontsize=8
    )


def draw_engine(figure: Any, rows: list[dict[str, Any]]) -> None:
    """Bars: what the engine adds to NumPy's time."""
    figure.set_size_inches(6, 3.2)
    panel = figure.subplots()
    for shift, mode, colour in ((-0.2, "recorded", "#4477aa"), (0.2, "no_grad", "#88ccee")):
        bars = panel.bar(
            np.arange(len(rows)) + shift,
            [row[f"{mode} us"] for row in rows],
            0.38,
            color=colour,
            label=mode,
        )
        panel.bar_label(bars, fmt="%.1f", padding=2)
    panel.set_xticks(
        range(len(rows)),
        [f"{row['expression']}\nNumPy alone {row['numpy us']:.1f}" for row in rows],
    )
    panel.margins(y=0.25)
    panel.set(ylabel="us an op, beyond NumPy's time", title="The engine's cost, 8 x 8 float32")
    panel.legend(fontsize=8, ncols=2)


def save(
    folder: Path | None,
    name: str,
    rows: list[dict[str, Any]],
    draw: Callable[[Any, list[dict[str, Any]]], None],
) -> None:
    if folder:
        from matplotlib.figure import Figure

        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n")
        figure = Figure(layout="constrained")
        draw(figure, rows)
        figure.savefig(folder / f"{name}.png", dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Times each op beside bare NumPy and PyTorch, and a small op's own cost."
    )
    parser.add_argument(
        "--only", choices=["ops", "engine"], help="one of the two sections (default: both)"
    )
    parser.add_argument(
        "--ops",
        nargs="+",
        choices=list(NUMPY),
        default=list(NUMPY),
        metavar="OP",
        help=f"of {', '.join(NUMPY)} (default: all)",
    )
    parser.add_argument(
        "--sizes",
        nargs="+",
        choices=list(SIZES),
        default=list(SIZES),
        help="8 x 8, 256 x 64, 2048 x 1536 (default: all)",
    )
    parser.add_argument(
        "--turns",
        type=int,
        metavar="N",
        help="turns of each side (default: 15, at the large size 9)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=300,
        metavar="N",
        help="engine: blocks of 500 of each expression (default: %(default)s)",
    )
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write JSON and pictures there")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.only != "ops":
        save(options.out, "engine", engine_cost(options.repeats), draw_engine)
    if options.only != "engine":
        save(options.out, "ops", compare_all(options.ops, options.sizes, options.turns), draw_ops)


if __name__ == "__main__":
    main()
