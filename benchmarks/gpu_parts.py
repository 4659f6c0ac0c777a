"""The parts of a training step of this project on a GPU: the part --parts of benchmarks/gpu.py.

Each op of the model runs alone, at the shapes of the step, forward and backward. A floor is the
larger of two times: its FLOPs at the rate of a product of two 8192 x 8192 matrices, and its bytes
(each input read once, each output written once) at the rate of a copy. Both rates are measured in
the same run. The FLOPs of norms, embeddings and AdamW are counted from the formulas, and only place
the part in the picture.

Each time is a median between CUDA events. Before the first event the GPU spins, until the host has
queued all the work, so that no time of the host is in it (but in that of the whole step). The
inputs of repetitions lie in different memory, together larger than the cache.

The profile of a whole step lists every kernel that ran, as PyTorch's profiler sees it: it sees all
kernels of a process.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from gpu_ours import Ours, milliseconds, stamp, versions, wait
from gpu_profile import kernels_of_step
from gpu_sides import RECIPE, Size, random_batches

from tensor import Tensor, ops
from tensor.autograd.backward import backward_pass
from tensor.dtypes import as_dtype
from tensor.memory.devices import array_module
from tensor.optim import clipped_step
from tinygpt.training.step import gradients

CACHE = 256e6  # bytes: several times the cache of a GPU
REPEATS, ROUNDS = 6, 5
SPIN = r"""
extern "C" __global__ void spin(long long nanoseconds) {
    long long start, now;
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    while (now - start < nanoseconds);
}
"""


class Part(NamedTuple):
    """An op in one direction: its work once, and how often it runs in a step."""

    name: str
    count: int
    flops: float
    bytes: float
    ms: float = 0.0

    def floor(self, rates: Rates) -> float:
        """Milliseconds."""
        return 1e3 * max(self.flops / rates.flops, self.bytes / rates.bytes)


class Rates(NamedTuple):
    """A second's FLOPs of a large product, and bytes of a large copy, read and written."""

    flops: float
    bytes: float


class Bench:
    """Times work on one device."""

    def __init__(self, size: Size, device: str):
        self.size, self.device, self.module = size, device, array_module(device)
        self.rng = self.module.random.default_rng(0)
        self.spin: Any = None
        if device != "cpu":
            self.spin = self.module.RawKernel(SPIN, "spin")

    def random(self, *shape: int) -> Tensor:
        """Normal numbers in the dtype of the size."""
        numbers = self.rng.standard_normal(shape, dtype=np.float32)
        return Tensor(numbers, device=self.device).to(self.size.dtype)

    def ms(self, works: Sequence[Callable[[], Any]]) -> float:
        """The median time of one of the works, over rounds in which all of them run."""
        seconds = self._host(works)
        together = lambda: [work() for work in works]
        times = [self.between(together, seconds) / len(works) for _ in range(ROUNDS)]
        return statistics.median(times)

    def _host(self, works: Sequence[Callable[[], Any]]) -> float:
        """Warm up; how long the host needs to queue all of the works."""
        works[0]()
        wait(self.device)
        start = time.perf_counter()
        for work in works:
            work()
        seconds = time.perf_counter() - start
        wait(self.device)
        return seconds

    def free(self) -> None:
        """Give the memory that is not in use back to the GPU."""
        if self.device != "cpu":
            self.module.get_default_memory_pool().free_all_blocks()

    def between(self, work: Callable[[], Any], host: float = 0.0) -> float:
        """The time on the GPU of work that the host queues in that many seconds."""
        if self.spin is not None:
            self.spin((1,), (1,), (np.int64(1.5e9 * host + 2e5),))
        start = stamp(self.device)
        work()
        end = stamp(self.device)
        wait(self.device)
        return milliseconds(start, end)


class Call(NamedTuple):
    """An op at the shapes of the step. (FLOPs, numbers moved) forward; and backward for groups of
    inputs, by their places.
    """

    name: str
    count: int
    op: Callable[..., Any]
    shapes: list[tuple[int, ...]]
    forward: tuple[float, float]
    backward: dict[str, tuple[list[int], float, float]]


def calls(size: Size, device: str) -> Iterator[Call]:
    """Every op of a step but the update."""
    L, C, H, T, B, V, _ = size
    N, NC, x = B * T, float(B * T * C), (B, T, C)
    drawn = np.random.default_rng(0).integers(0, V, (2, B, T))
    ids, targets = (Tensor(numbers, device=device) for numbers in drawn)
    embed = partial(ops.positional_embedding, ids)
    tables = {"backward": ([0, 1], NC, NC + 2.0 * V * C)}
    yield Call("embedding", 1, embed, [(V, C), (T, C)], (NC, 2 * NC), tables)
    norm = {"backward": ([0, 1, 2], 14 * NC, 3 * NC)}
    yield Call("layer norm", 1, ops.layer_norm, [x, (C,), (C,)], (8 * NC, 2 * NC), norm)
    # the sum goes on to the next sum, so it has a gradient of its own
    both = {"backward": ([0, 1, 2, 3], 15 * NC, 4 * NC)}
    shapes = [x, x, (C,), (C,)]
    yield Call("sum + norm", 2 * L, ops.residual_layer_norm, shapes, (9 * NC, 4 * NC), both)
    yield linear(size, "qkv", C, 3 * C)
    seen = 2.0 * N * (T + 1) * C  # two products with the half of T x T that is seen
    attend = partial(ops.multi_head_attention, heads=H, causal=True)
    passed = {"backward": ([0], 2.5 * seen, 8 * NC)}
    yield Call("attention", L, attend, [(B, T, 3 * C)], (seen, 4 * NC), passed)
    yield linear(size, "projection", C, C)
    yield linear(size, "expand + GELU", C, 4 * C, gelu=True)
    yield linear(size, "contract", 4 * C, C)
    # a kernel may make the gradients in the forward pass: both are one part
    head, three = partial(head_and_back, targets), 6.0 * N * V * C
    moved = 2 * NC + 3.0 * V * C
    yield Call("head + cross-entropy", 1, head, [x, (V, C)], (three, moved), {})


def linear(size: Size, name: str, inputs: int, outputs: int, gelu: bool = False) -> Call:
    """A linear layer, with GELU or without."""
    N, place = size.batch * size.context, (size.batch, size.context, inputs)
    x, y, weight = float(N * inputs), float(N * outputs), float(inputs * outputs)
    flops, shapes = 2.0 * N * inputs * outputs, [place, (inputs, outputs), (outputs,)]
    if gelu:  # its input is kept, and its gradient is part of both products
        once = {"backward": ([0, 1, 2], 2 * flops, 2 * (x + y + weight) + y)}
        moved = x + 2 * y + weight
        return Call(name, size.layers, ops.linear_gelu, shapes, (flops, moved), once)
    moved = x + y + weight
    twice = {"dx": ([0], flops, moved), "dW, db": ([1, 2], flops, moved)}
    return Call(name, size.layers, ops.linear, shapes, (flops, moved), twice)


def head_and_back(targets: Tensor, h: Tensor, table: Tensor) -> None:
    """The loss of a tied head, forward and backward."""
    h.requires_grad = table.requires_grad = True
    loss = ops.linear_cross_entropy(h, table, targets, transposed=True)
    backward_pass([(loss.node, np.ones_like(loss.array))], {h.node, table.node}, False)


def parts(bench: Bench) -> Iterator[Part]:
    """Each op, forward and backward, and the update."""
    for call in calls(bench.size, bench.device):
        yield from _parts_of(bench, call)
    yield update_part(bench)


def _parts_of(bench: Bench, call: Call) -> Iterator[Part]:
    numbers = sum(map(math.prod, call.shapes))
    copies = min(REPEATS, 1 + int(CACHE / (2 * numbers)))
    sets = [[bench.random(*shape) for shape in call.shapes] for _ in range(copies)]
    works = [partial(call.op, *sets[i % copies]) for i in range(REPEATS)]
    itemsize = as_dtype(bench.size.dtype).itemsize
    flops, moved = call.forward
    direction = "forward" if call.backward else "both"
    yield Part(f"{call.name}, {direction}", call.count, flops, itemsize * moved, bench.ms(works))
    for name, (places, flops, moved) in call.backward.items():
        ms = statistics.median(_backward(bench, call, sets, places) for _ in range(ROUNDS))
        yield Part(f"{call.name}, {name}", call.count, flops, itemsize * moved, ms)


def _backward(bench: Bench, call: Call, sets: list[list[Tensor]], places: list[int]) -> float:
    """The time of one backward pass to some inputs. The graphs are made before: a pass may
    overwrite what it has used.
    """
    passes = []
    for i in range(REPEATS):
        leaves = [x.detach() for x in sets[i % len(sets)]]
        for place in places:
            leaves[place].requires_grad = True
        found = call.op(*leaves)
        results = found if isinstance(found, tuple) else (found,)
        seeds = [(y.node, bench.random(*y.shape).array) for y in results]
        nodes = {leaves[place].node for place in places}
        passes.append(partial(backward_pass, seeds, nodes, False))
    first, *others = passes
    first()
    wait(bench.device)
    host = 0.001 * len(others)
    return bench.between(lambda: [work() for work in others], host) / len(others)


def update_part(bench: Bench) -> Part:
    """The global norm, clipping and AdamW, on the gradients of a real step."""
    ours = Ours(bench.size, bench.device)
    gradients(ours.model, ours.optimizer, *random_batches(bench.size, 1)[0])
    count = sum(flat.gradients.array.size for flat in ours.optimizer.flats)
    itemsize = as_dtype(bench.size.dtype).itemsize
    # the gradient in twice, the weight out; master and both moments in and out
    moved = count * (3 * itemsize + 24)
    update = partial(clipped_step, ours.optimizer, RECIPE["clip"])
    return Part("norm, clipping, AdamW", 1, 17 * count, moved, bench.ms([update] * REPEATS))


def rates(bench: Bench) -> Rates:
    """The ceilings of this GPU."""
    side = 8192 if bench.device != "cpu" else 64
    pairs = [(bench.random(side, side), bench.random(side, side)) for _ in range(2)]
    product = bench.ms([partial(ops.matmul, *pairs[i % 2]) for i in range(REPEATS)])
    source = bench.module.ones((side * side * 8,), np.float32)  # 2 GiB
    target = bench.module.empty_like(source)
    copy = bench.ms([partial(bench.module.copyto, target, source)] * REPEATS)
    return Rates(2e3 * side**3 / product, 2e3 * source.nbytes / copy)


def step_ms(bench: Bench) -> float:
    """The time of a whole step, as it is in a row of them: the host is in it where the GPU waits
    for the host.
    """
    ours, batch = Ours(bench.size, bench.device), random_batches(bench.size, 1)[0]
    row = lambda: [ours.step(*batch, RECIPE["lr"]) for _ in range(2 * REPEATS)]
    row()
    return statistics.median(bench.between(row) / (2 * REPEATS) for _ in range(ROUNDS))


def measure(size: Size, device: str) -> dict[str, Any]:
    """Parts, ceilings, the whole step, and its kernels."""
    bench = Bench(size, device)
    layers, width, heads, context, batch, vocabulary, dtype = size
    shape = f"{layers} x {width}, {heads} heads, T {context}, B {batch}, V {vocabulary}, {dtype}"
    found = {
        "title": f"{versions(device).get('GPU', 'CPU')}: a training step of {shape}",
        "rates": rates(bench)._asdict(),
        "parts": [part._asdict() for part in parts(bench)],
        "step": step_ms(bench),
    }
    bench.free()
    return {**found, "kernels": kernels_of_step(size, device)}


def table(measured: dict[str, Any]) -> str:
    """Markdown: each part, and the sum beside the step."""
    ceilings = Rates(**measured["rates"])
    lines = [
        f"Ceilings of this run: {ceilings.flops / 1e12:.0f} TFLOP/s (8192 x 8192 product), "
        f"{ceilings.bytes / 1e12:.2f} TB/s (copy).\n",
        "| part | a step | ms each | floor | floor / ms | ms a step | TFLOP/s | TB/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    total = total_floor = 0.0
    for part in (Part(**fields) for fields in measured["parts"]):
        floor, rate = part.floor(ceilings), 1e-9 / part.ms
        total += part.count * part.ms
        total_floor += part.count * floor
        lines.append(
            f"| {part.name} | {part.count} | {part.ms:.3f} | {floor:.3f} | {floor / part.ms:.0%} | "
            f"{part.count * part.ms:.2f} | {rate * part.flops:.0f} | {rate * part.bytes:.2f} |"
        )
    step = measured["step"]
    lines.append(f"| sum |  |  | {total_floor:.2f} | {total_floor / total:.0%} | {total:.2f} | | |")
    lines.append(f"| the step |  |  |  | {total_floor / step:.0%} | {step:.2f} |  |  |")
    return "\n".join(lines) + "\n"
