"""Times of each kind of attention beside PyTorch's, forward and backward.

    python benchmarks/attention.py                               # everything: some minutes
    python benchmarks/attention.py --kinds causal dropout --sizes 256x64
    python benchmarks/attention.py --one-thread                  # by the clock of this thread
    python benchmarks/attention.py --out results                 # writes JSON too

The op is `tensor.attention`, and PyTorch's is `scaled_dot_product_attention`, both on q, k and v of
(B, H, T, D) that are contiguous. B is 8, and H is 6. The kinds:

    causal    a query sees no key after its own position
    all       a query sees all keys
    cross     a query sees all keys, and there are 3/4 as many keys as queries
    padding   a query sees the keys that a mask (B, 1, 1, S) of bools allows: half of them to all
    dropout   a query sees all keys, and a tenth of the weights is left out

PyTorch runs eager with one thread and with two, and compiled with two. The fastest of the three
counts, by its median. The sides take turns as in ops.py, and first all sides must agree on values
and gradients (with dropout, each side draws its own numbers, so only their norms are compared). A
ratio is PyTorch's time over ours, turn by turn, and then the median: above 1 we are faster. With
--one-thread each side has one thread, and PyTorch is eager. The clock of a thread stands
still while other programs have its core, so this is the figure to take on a busy machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ops import Case, Side, graph_case, times, values
from train_step import PAUSE, interval

B, H = 8, 6
RATE = 0.1  # of dropout
KINDS = ("causal", "all", "cross", "padding", "dropout")
SIZES = {"256x64": (256, 64), "256x32": (256, 32), "1024x64": (1024, 64), "1024x32": (1024, 32)}
CALLS = {256: 8, 1024: 2}  # in a turn, at each T
SIDES = ("ours", "eager-1", "eager-2", "compiled-2")
ONE = "ATTENTION_ONE_THREAD"  # tells the processes of the sides


def inputs_of(kind: str, size: str) -> tuple[list[Any], Any, Any]:
    """q, k and v; the gradient dy of the result; and the mask, or None."""
    T, D = SIZES[size]
    S = 3 * T // 4 if kind == "cross" else T
    rng = np.random.default_rng(0)
    q, k, v, dy = (rng.standard_normal((B, H, n, D), dtype=np.float32) for n in (T, S, S, T))
    lengths = np.linspace(S // 2, S, B).astype(int)
    seen = np.arange(S) < lengths[:, None, None, None]
    return [q, k, v], dy, seen if kind == "padding" else None


def our_case(kind: str, size: str) -> Case:
    import tensor
    from tensor.random import Key

    arrays, dy, mask = inputs_of(kind, size)
    options: dict[str, Any] = {"causal": kind == "causal", "mask": mask}
    if kind == "dropout":
        options |= {"dropout": RATE, "key": Key(1)}
    leaves = [tensor.Tensor(array, requires_grad=True) for array in arrays]
    return graph_case(partial(tensor.attention, **options), leaves, tensor.Tensor(dy))


def torch_case(kind: str, size: str, compiled: bool, threads: int) -> Case:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    torch.set_num_threads(threads)
    torch.compiler.reset()  # what was compiled for the kind before
    arrays, dy, mask = inputs_of(kind, size)
    call: Callable[..., Any] = partial(
        scaled_dot_product_attention,
        attn_mask=None if mask is None else torch.from_numpy(mask),
        is_causal=kind == "causal",
        dropout_p=RATE if kind == "dropout" else 0.0,
    )
    leaves = [torch.tensor(array, requires_grad=True) for array in arrays]
    return graph_case(torch.compile(call) if compiled else call, leaves, torch.from_numpy(dy))


def serve(side: str) -> None:
    """What a side's process does: a line [request, kind, size] is answered with values or times, in
    JSON.
    """
    current, case = None, None
    for line in sys.stdin:
        request, kind, size = json.loads(line)
        if case is None or current != (kind, size):
            current, case = (kind, size), None  # the one before is freed first
            way, _, threads = side.partition("-")
            case = (
                our_case(kind, size)
                if side == "ours"
                else torch_case(kind, size, way == "compiled", int(threads))
            )
        calls = CALLS[SIZES[size][0]]
        clock = time.thread_time if ONE in os.environ else time.perf_counter
        answer = values(case) if request == "values" else times(case, calls, clock)
        print(json.dumps(answer), flush=True)


def check(answers: dict[str, Any], kind: str) -> None:
    """Stop where a side computes something else than ours."""
    for name, answer in answers.items():
        for (a, norm), (b, wanted) in zip(answer, answers["ours"], strict=True):
            alike = (
                abs(norm - wanted) < 0.02 * wanted
                if kind == "dropout"
                else abs(a - b) < 1e-3 * wanted
            )
            if not alike:
                raise SystemExit(f"{kind}: {name} computes something else: {answers}")


def compare(sides: list[Side], kind: str, size: str, turns: int) -> list[dict[str, Any]]:
    """A row for forward and one for backward."""
    check({side.name: side.ask("values", kind, size) for side in sides}, kind)
    taken: dict[str, list[tuple[float, float]]] = {side.name: [] for side in sides}
    for _ in range(turns):
        for side in sides:
            time.sleep(PAUSE)
            taken[side.name].append(side.ask("times", kind, size))
    return [
        {
            "kind": kind,
            "size": size,
            "phase": phase,
            **figures({name: [turn[i] for turn in each] for name, each in taken.items()}),
        }
        for i, phase in enumerate(("forward", "backward"))
    ]


def figures(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Medians and minima in ms of ours and of PyTorch's best mode, and the ratio with its 90 %
    interval.
    """
    ours = seconds.pop("ours")
    best = min(seconds, key=lambda name: statistics.median(seconds[name]))
    ratios = [theirs / mine for theirs, mine in zip(seconds[best], ours, strict=True)]
    return {
        "ours": statistics.median(ours) * 1e3,
        "ours min": min(ours) * 1e3,
        "torch": statistics.median(seconds[best]) * 1e3,
        "torch min": min(seconds[best]) * 1e3,
        "mode": best,
        "ratio": statistics.median(ratios),
        "interval": interval(ratios),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Times each kind of attention beside PyTorch.")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument(
        "--sizes", nargs="+", choices=list(SIZES), default=list(SIZES), help="T x D"
    )
    parser.add_argument("--turns", type=int, default=9, metavar="N", help="of each side")
    parser.add_argument("--one-thread", action="store_true", help="one thread, and its clock")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="write attention.json there")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    if options.one_thread:
        os.environ |= {ONE: "1", "TENSOR_THREADS": "1"}
    sides = [Side(name, __file__) for name in SIDES[: 2 if options.one_thread else None]]
    names = "size T x D, kind, phase, ours ms (min), PyTorch ms (min), its best mode, ratio, 90 %"
    print(f"| {names.replace(', ', ' | ')} |\n|{'---|' * 8}")
    rows = []
    for size, kind in itertools.product(options.sizes, options.kinds):
        for row in compare(sides, kind, size, options.turns):
            rows.append(row)
            low, high = row["interval"]
            print(
                f"| {size} | {kind} | {row['phase']} | {row['ours']:.1f} ({row['ours min']:.1f}) "
                f"| {row['torch']:.1f} ({row['torch min']:.1f}) | {row['mode']} "
                f"| {row['ratio']:.2f} | {low:.2f} - {high:.2f} |",
                flush=True,
            )
    for side in sides:
        side.process.communicate("")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "attention.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
