"""Memory: arrays freed as the walk goes, graphs freed without the cycle collector, chains of any
depth.
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, detect_anomaly, grad, no_grad
from tensor.errors import GradientError
from tensor.gradient_cases import CASES
from tensor.graph import Node, reachable
from tensor.memory.storage import user_line
from tests.helpers.making import draw, leaf, values

EIGHT_MB = 8 * 2**20


# -- freed as it goes


def live_bytes(device: str) -> int:
    """Bytes in arrays just now (under tracemalloc, on the CPU)."""
    if device == "cpu":
        return tracemalloc.get_traced_memory()[0]
    import cupy

    return int(cupy.get_default_memory_pool().used_bytes())


@contextmanager
def arrays_counted(device: str) -> Iterator[Callable[[], float]]:
    """A counter of 8 MB arrays alive beyond those there at the start."""
    tracemalloc.start()
    start = live_bytes(device)
    try:
        yield lambda: round((live_bytes(device) - start) / EIGHT_MB, 2)
    finally:
        tracemalloc.stop()


def test_twenty_additions_keep_two_arrays(device: str) -> None:
    with arrays_counted(device) as count:
        x = y = tensor.ones(EIGHT_MB // 8, dtype="float64", device=device, requires_grad=True)
        for _ in range(20):
            y = y + x
        assert count() <= 2.1  # x and y
        for _ in range(20):
            y = -(y - 1.0) * 2.0
        assert count() <= 2.1
        if device == "cpu":
            tracemalloc.reset_peak()
        y.sum().backward()
        assert count() <= 3.1  # x, y and x.grad
        assert tracemalloc.get_traced_memory()[1] < 6 * EIGHT_MB


def test_only_what_a_rule_mentions_is_kept(device: str) -> None:
    with arrays_counted(device) as count:
        x = y = tensor.ones(EIGHT_MB // 8, dtype="float64", device=device, requires_grad=True)
        for _ in range(10):
            y = (y * 0.5).exp()  # keeps its result, not its input
        assert count() <= 11.1
        y = x * x.detach()[:].view(-1)
        assert count() <= 2.1
        y = x.sum() + (x * 2.0).mean() + tensor.concatenate([x, x]).sum()  # nothing at all is kept
        assert count() <= 1.1


def test_saved_arrays_are_released_as_the_walk_goes(device: str) -> None:
    alive: list[float] = []
    with arrays_counted(device) as count:
        x = tensor.ones(EIGHT_MB // 8, dtype="float64", device=device, requires_grad=True)
        h = x * 0.1
        h.register_hook(lambda g: alive.append(count()))
        y = h
        for _ in range(10):
            y = (y * 0.5).exp()
        y = y.sum()
        assert count() >= 11
        y.backward(retain_graph=True)
        y.backward()
        kept, freed = alive
        assert kept >= 11
        # x, h, x.grad, the gradient, the hook's copy and what the first pass left
        assert freed <= 6
        assert count() <= 3.1  # y is still named, and holds nothing
        z = x * 2.0
        square = z * z
        del z
        square.sum().backward()
        assert count() <= 4.1  # and the square; its node no longer holds z


# -- freed without the cycle collector


@contextmanager
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def watch(*tensors: Tensor) -> list[weakref.ref[Any]]:
    """Weak references to tensors and to all nodes behind them, leaves' apart."""
    nodes = [node for node in reachable(t.node for t in tensors) if node.op != "leaf"]
    return [weakref.ref(x) for x in (*tensors, *nodes)]


def resident() -> int:
    """Bytes of this process in memory, 0 where the system does not say."""
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * 4096 if status.exists() else 0


def test_bug_07_reference_cycles_keep_the_graph(device: str) -> None:
    w = tensor.full((256, 1024), 0.01, dtype="float64", device=device, requires_grad=True)
    gain, bias = (
        tensor.ones(1024, dtype="float64", device=device, requires_grad=True),
        tensor.zeros(1024, dtype="float64", device=device, requires_grad=True),
    )
    data = Tensor(draw(256, 256), device=device)
    watched: list[weakref.ref[Any]] = []
    sizes: list[int] = []
    with without_collector():
        for _ in range(50):
            h = tensor.layer_norm(data @ w, gain, bias)  # 2 MB each
            first, second = h.split(512, axis=1)
            y = first.gelu() * second.softmax()
            remove = y.register_hook(lambda g: None)
            loss = (y * y).mean() + w.sum() * 1e-3
            watched += watch(loss, h, first, second, y)
            loss.backward()
            with no_grad():
                w -= w.grad * 1e-3
            w.grad = None
            del h, first, second, y, loss, remove
            assert not any(ref() for ref in watched)
            sizes.append(resident())
    assert sizes[-1] - sizes[4] < 30 * 2**20  # each step makes more than that


def fail_in_backward(x: Tensor) -> Tensor:
    y = (x * x).exp()
    y.register_hook(lambda g: g[None])  # of the wrong shape
    loss = y.sum()
    with pytest.raises(GradientError):
        loss.backward()
    return loss


@pytest.mark.parametrize(
    "use",
    [
        lambda x: x * x,
        lambda x: (x * x).detach() * x,
        lambda x: (y := (x * x).sum()).backward() or y,
        lambda x: (y := (x * x).sum()).backward(retain_graph=True) or y,
        lambda x: [y := (x * x).sum(), grad(y, x)][0],
        lambda x: [y := x * x, y.view(-1).detach().numpy(), y.storage, y.layout, y[0].explain()][0],
        lambda x: [y := x * x, y.register_hook(lambda g: g * 2), y.sum().backward()][0],
        lambda x: detect_anomaly()(lambda: (x * x).exp())(),
        lambda x: x.split(1)[0] * x.T[0],
        lambda x: x.to("float32").to("bfloat16").exp().to("float16").sum(),
        fail_in_backward,
    ],
)
def test_bug_07_graphs_die_with_their_last_name(
    use: Callable[[Tensor], Tensor], device: str
) -> None:
    with without_collector():
        x = leaf(draw(2, 2), device)
        y = use(x)
        refs = watch(y)
        del y
        assert not any(ref() for ref in refs)
        accumulator = weakref.ref(x.node)
        del x
        assert accumulator() is None


def test_bug_07_every_op_frees_its_graph(device: str) -> None:
    with without_collector():
        for case in CASES:
            for backward in (False, True):
                leaves = [leaf(x, device) for x in case.inputs(0)]
                out = case.call(*leaves)
                outs = list(out) if isinstance(out, tuple) else [out]
                refs = watch(*outs)
                if backward:
                    grad(outs, leaves, [Tensor(np.ones(y.shape), device=device) for y in outs])
                del out, outs, leaves
                assert not any(ref() for ref in refs), case.op


# -- chains of any depth


def chain(x: Tensor, length: int) -> Tensor:
    y = x
    for _ in range(length):
        y = y + 1.0
    return y


def test_bug_06_recursion_depth(device: str) -> None:
    x = leaf(0.0, device)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(250)  # any recursion in the depth of the graph would meet it
    try:
        y = chain(x, 50_000)
        y.backward(retain_graph=True)
        assert values(grad(y, x)[0]) == 1
        del y  # freed
        y = chain(x, 50_000)
        middle = y * 2.0
        middle.backward()
        assert values(x.grad) == 3
        del middle, y
        z = chain(x, 50_000)
        del z  # never walked: the destructors alone
        for view in (lambda h: h.unsqueeze(0)[0], lambda h: h.view(1).split(1)[0].view(())):
            v = x
            for _ in range(5_000):
                v = view(v)
            (dx,) = grad(v, x)
            assert values(dx) == 1
            assert repr(v.node)
            del v
    finally:
        sys.setrecursionlimit(limit)


def test_bug_06_a_hundred_thousand_nodes() -> None:
    """Of nodes alone: walked, freed by the walk, and deleted unwalked."""
    x = leaf(1.0, "cpu")
    one, line = np.ones(()), user_line(0)

    def link() -> Node:
        node = x.node
        for _ in range(100_000):
            node = Node("link", (node,), (lambda dy: dy,), (), (), one.dtype, line)
        return node

    y = Tensor.from_array(one)
    y.node = link()
    del y
    y = Tensor.from_array(one)
    y.node = link()
    y.backward()
    assert values(x.grad) == 1
    first = y.node
    assert first.parents == ()
    del first, y
