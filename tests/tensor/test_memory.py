"""Memory: gradients of their own, arrays freed as the walk goes, graphs freed without the cycle collector, chains of any depth."""

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
from tensor.autograd import Node, reachable
from tensor.errors import GradientError, MutationError, ShapeError
from tensor.gradient_cases import CASES, Case
from tensor.kernels import KERNELS
from tensor.op import OPS, compute_op
from tensor.storage import user_line
from tests.tensor.sharing import assert_nothing_shared, saved_arrays

Array = Any
EIGHT_MB = 8 * 2**20


def leaf(values: Any, device: str) -> Tensor:
    return Tensor(np.asarray(values, dtype=np.float64), device=device, requires_grad=True)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def values(x: Tensor | None) -> Any:
    assert x is not None
    return x.tolist()


# -- gradients share memory with nothing ------------------------------------------------------------------------------------


def test_bug_03_aliased_gradient_buffers(device: str) -> None:
    x, y = leaf([1.0, 2.0], device), leaf([3.0, 4.0], device)
    z = x + y
    ((z * 1.0).sum() + (x * 10.0).sum()).backward()
    assert values(x.grad) == [11, 11]
    assert values(y.grad) == [1, 1]
    assert_nothing_shared({"x.grad": x.grad, "y.grad": y.grad}, {"x": x, "y": y, "z": z})


@pytest.mark.parametrize(
    "program",
    [
        lambda x, y: x + y,
        lambda x, y: (x + y) + (x - y),
        lambda x, y: x.clone() + y.T.T,
        lambda x, y: x.view(-1).view(2, 2) + y.unsqueeze(0).squeeze(0),
        lambda x, y: x.contiguous() + y.to("float64"),
        lambda x, y: (x.expand(1, 2, 2) + y)[0],
        lambda x, y: tensor.concatenate([x, y])[1:3],
        lambda x, y: sum(x.split(1) + y.split(1))[0] + x,
        lambda x, y: tensor.where([[True, False]], x, y),
        lambda x, y: tensor.maximum(x, y),
        lambda x, y: tensor.linear(x, y, y[0]),
    ],
)
def test_bug_03_gradients_that_pass_through(program: Callable[[Tensor, Tensor], Tensor], device: str) -> None:
    """Where a rule hands its upstream gradient on as it is, or a view of it, what arrives must still be each leaf's own."""
    x, y = leaf(draw(2, 2), device), leaf(draw(2, 2, seed=1), device)
    apart = [leaf(draw(2, 2), device), leaf(draw(2, 2, seed=1), device)]
    out = program(x, y)
    dy = Tensor(draw(*out.shape, seed=2), device=device)
    saved = saved_arrays(out)
    program(*apart).backward(dy)
    out.backward(dy, retain_graph=True)
    once = [values(x.grad), values(y.grad)]
    others = {"x": x, "y": y, "out": out, "upstream": dy, **saved}
    assert_nothing_shared({"x.grad": x.grad, "y.grad": y.grad}, others)
    (x * 10.0).sum().backward()  # adds into x.grad, and must not be felt anywhere else
    assert values(y.grad) == once[1]
    assert values(dy) == draw(*out.shape, seed=2).tolist()
    np.testing.assert_allclose(x.grad.numpy(), np.array(once[0]) + 10, rtol=1e-14)  # type: ignore[union-attr]
    assert once == [values(apart[0].grad), values(apart[1].grad)]


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{case.op}-{i}") for i, case in enumerate(CASES)])
def test_bug_03_whatever_the_op(case: Case, device: str) -> None:
    """Three passes over one graph, each leaf with two consumers: 3 times the gradient, and none in shared memory."""
    leaves = [leaf(x, device) for x in case.inputs(0)]
    out = case.call(*leaves)
    outs = list(out) if isinstance(out, tuple) else [out]
    loss = sum(((y * y).sum() for y in outs), sum((x * x * 0.5).sum() for x in leaves))
    assert isinstance(loss, Tensor)
    kept = saved_arrays(loss)
    before = {name: Tensor.from_array(array).numpy().copy() for name, array in kept.items()}
    loss.backward(retain_graph=True)
    once = [x.grad.clone().numpy() for x in leaves]  # type: ignore[union-attr]
    for passes in (2, 3):
        loss.backward(retain_graph=True)
        for x, dx in zip(leaves, once, strict=True):
            np.testing.assert_allclose(x.grad.numpy(), passes * dx, rtol=1e-12, atol=1e-13)  # type: ignore[union-attr]
    tensors = {f"tensor {i}": t for i, t in enumerate([*leaves, *outs])}
    assert_nothing_shared({f"gradient {i}": x.grad for i, x in enumerate(leaves)}, {**tensors, **kept})
    assert_nothing_shared({f"grad() {i}": dx for i, dx in enumerate(grad(loss, [*leaves, *outs], retain_graph=True))}, {**tensors, **kept})
    for name, array in kept.items():
        np.testing.assert_array_equal(Tensor.from_array(array).numpy(), before[name], err_msg=f"backward wrote to {name}")


def private(rule: Callable[..., Any]) -> Any:
    """A compute op of a test, out of the public registry."""
    op = compute_op(rule)
    del OPS[rule.__name__], KERNELS[rule.__name__]
    return op


@private
def careless(a: Array, b: Array, *, way: str) -> Any:
    """a + b, handing back gradients in all the ways that tempt an engine to add in place where it must not."""
    ones = np.ones_like(a)  # kept, and handed out each time

    def backward(dy: Array) -> tuple[Array, Array]:
        own = dy.copy()
        read_only = np.broadcast_to(own[:1], own.shape)
        ways = {
            "upstream to both": (dy, dy),
            "one array to both": (own, own),
            "an array and a view of it": (own, own[...]),
            "a view and its array": (own[::1], own),
            "parts of one array": tuple(np.stack([dy, dy])),
            "an input": (a * 0 + dy, b),
            "an array it keeps": (ones, ones),
            "a read-only one": (read_only, read_only),
        }
        return ways[way]  # type: ignore[return-value]

    return a + b, backward


@pytest.mark.parametrize(
    "way", ["upstream to both", "one array to both", "an array and a view of it", "a view and its array", "parts of one array", "an input", "an array it keeps", "a read-only one"]
)
def test_bug_03_careless_rules(way: str, device: str) -> None:
    x, y = leaf([1.0, 1.0], device), leaf([1.0, 1.0], device)
    h, k = x * 1.0, y * 1.0
    out = careless(h, k, way=way) + careless(k, h, way=way)
    loss = out.sum() + (x * 3.0).sum() + (h * 4.0).sum()
    for passes in (1, 2, 3):
        loss.backward(retain_graph=True)
        assert values(x.grad) == [9.0 * passes] * 2
        assert values(y.grad) == [2.0 * passes] * 2
    direct = careless(x, y, way=way).sum()
    x.grad = y.grad = None
    for passes in (1, 2, 3):
        direct.backward(retain_graph=True)
        assert values(x.grad) == [passes] * 2
        assert values(y.grad) == [passes] * 2
    assert_nothing_shared({"x.grad": x.grad, "y.grad": y.grad}, {"x": x, "y": y, **saved_arrays(direct, loss)})
    assert values(x) == [1, 1]


# -- upstream gradients and .grad in the hands of users -----------------------------------------------------------------------


def test_the_upstream_gradient_stays_the_users(device: str) -> None:
    x, y = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    dy = np.array([1.0, 1.0])
    (x + y).backward(dy)
    x.backward(dy)
    dy[...] = np.nan  # reused by its owner
    assert values(x.grad) == [2, 2]
    assert values(y.grad) == [1, 1]
    (x + y).backward(np.broadcast_to(np.array(1.0), (2,)))  # read-only
    (x + y).backward(np.ones(4)[::-2])
    assert values(y.grad) == [3, 3]


def test_a_leaf_as_its_own_upstream(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    (x + x).backward(x)
    x.backward(x)
    assert values(x.grad) == [3, 6]
    assert values(x) == [1, 2]
    assert_nothing_shared({"x.grad": x.grad}, {"x": x})


def test_a_gradient_as_upstream_of_its_own_accumulation(device: str) -> None:
    """x.grad grows while the walk still reads what was passed in: g + g + g is 3g, not 4g."""
    x, w = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    x.grad = Tensor(np.array([1.0, 1.0]), device=device)
    (x + x + w).backward(x.grad)
    assert values(x.grad) == [3, 3]
    assert values(w.grad) == [1, 1]


def test_grad_is_one_buffer_that_accumulates(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    (x * 2.0).sum().backward()
    held = x.grad
    assert held is not None
    copy = held.clone()
    (x * 3.0).sum().backward()
    assert x.grad is held
    assert values(held) == [5, 5]
    assert values(copy) == [2, 2]
    x.grad = None
    (x * 7.0).sum().backward()
    assert values(held) == [5, 5]  # what was handed out is not reused


def test_grad_written_in_place_by_the_user(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    (x * 2.0).sum().backward()
    held = x.grad
    x.grad *= 0.5  # type: ignore[operator]
    x.grad += 10.0
    assert x.grad is held
    x.grad[0] = 0.0
    (x * 3.0).sum().backward()
    assert values(x.grad) == [3, 14]


def test_grad_set_by_the_user(device: str) -> None:
    """What is given is copied: two leaves given one tensor, or its own data, must not grow into each other."""
    x, y = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    given = Tensor(np.array([1.0, 1.0]), device=device)
    x.grad = y.grad = given
    (x * 2.0 + y * 3.0).sum().backward()
    assert (values(x.grad), values(y.grad), values(given)) == ([3, 3], [4, 4], [1, 1])
    for odd in (x, x.detach(), Tensor(np.array([5.0]), device=device).expand(2), y.grad):
        x.grad = odd
        was = values(odd)
        (x * 2.0).sum().backward()
        assert values(x.grad) == [w + 2 for w in was]
        assert values(odd) == was
        assert x.grad.node is None  # type: ignore[union-attr]
    for wrong in (Tensor(np.ones(3)), Tensor(np.ones((2, 1))), Tensor(np.ones(2, np.float32))):
        with pytest.raises(ShapeError, match=r"\.grad of a tensor \(2,\) float64 cannot be"):
            x.grad = wrong


def test_a_gradient_in_a_graph(device: str) -> None:
    """A saved .grad that backward itself adds to would change the slopes half way: that is a write like any other."""
    x, w = leaf([1.0, 2.0], device), leaf([1.0, 1.0], device)
    x.grad = Tensor(np.array([10.0, 10.0]), device=device)
    (w * x.grad).sum().backward()
    assert values(w.grad) == [10, 10]
    y = (w * x.grad * x).sum()
    with pytest.raises(MutationError, match=r"saved by `multiply` at test_memory\.py:\d+ .* was written at test_memory\.py:\d+"):
        y.backward()
    w.grad = None
    y = (w * x.grad.clone() * x).sum()
    slope = np.array(values(x.grad))
    y.backward()
    assert values(w.grad) == (slope * np.array([1.0, 2.0])).tolist()


def test_results_of_grad_are_the_users(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    h = x + 0.0
    y = (h * h).sum() + h.sum()
    for dx, dh in (grad(y, [x, h], retain_graph=True) for _ in range(3)):
        assert values(dx) == values(dh) == [3, 5]
        dx[...] = np.nan  # type: ignore[index]
        dh *= np.nan  # noqa: PLW2901
    assert values(x) == [1, 2]


# -- freed as it goes ---------------------------------------------------------------------------------------------------------


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
        assert freed <= 6  # x, h, x.grad, the gradient, the hook's copy and what the first pass left
        assert count() <= 3.1  # y is still named, and holds nothing


# -- freed without the cycle collector ------------------------------------------------------------------------------------------


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
    gain, bias = tensor.ones(1024, dtype="float64", device=device, requires_grad=True), tensor.zeros(1024, dtype="float64", device=device, requires_grad=True)
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
                w -= w.grad * 1e-3  # type: ignore[operator]
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
def test_bug_07_graphs_die_with_their_last_name(use: Callable[[Tensor], Tensor], device: str) -> None:
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


# -- chains of any depth --------------------------------------------------------------------------------------------------------


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
            for _ in range(10_000):
                v = view(v)
            (dx,) = grad(v, x)
            assert values(dx) == 1
            assert repr(v.node)
            del v
    finally:
        sys.setrecursionlimit(limit)


def test_bug_06_two_hundred_thousand_nodes() -> None:
    """Of nodes alone: walked, freed by the walk, and deleted unwalked."""
    x = leaf(1.0, "cpu")
    one, line = np.ones(()), user_line(0)

    def link() -> Node:
        node = x.node
        for _ in range(200_000):
            node = Node("link", (node,), (lambda dy: dy,), (), (), one.dtype, line)
        return node  # type: ignore[no-any-return]

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
