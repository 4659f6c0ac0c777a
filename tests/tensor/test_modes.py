"""How ops run just now: no_grad and detect_anomaly in every setting that could leak them, hooks, threads."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, detect_anomaly, grad, kernels, no_grad
from tensor.errors import GradientError, GraphError
from tensor.mode import MODE
from tensor.storage import Storage
from tests.tensor.sharing import assert_nothing_shared

Array = Any


def leaf(values: Any, device: str = "cpu") -> Tensor:
    return Tensor(np.asarray(values, dtype=np.float64), device=device, requires_grad=True)


def draw(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape)


def recording() -> bool:
    """Whether an op would be recorded here and now."""
    return (leaf(1.0) * 2.0).requires_grad


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    before = MODE.get()
    yield
    leaked = MODE.get()
    MODE.set(before)
    assert leaked is before


# -- no_grad ----------------------------------------------------------------------------------------------------------------


def test_no_grad_records_nothing(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    with no_grad():
        for y in (x * 2.0, x[0], x.view(2, 1), x.split(1)[0], x.expand(3, 2), x.to("float32"), tensor.concatenate([x, x]), x.exp().sum()):
            assert y.node is None
            assert y.is_leaf
        assert x.requires_grad
        made = leaf([1.0], device)
        assert made.requires_grad  # a leaf is what it is asked to be
    assert not x.storage.saved
    assert (made * x).requires_grad


def test_no_grad_does_not_stop_backward(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    y = (x * x).sum()
    with no_grad():
        y.backward(retain_graph=True)
        assert grad(y, x)[0].tolist() == [2, 4]  # type: ignore[union-attr]
    assert x.grad.tolist() == [2, 4]  # type: ignore[union-attr]


def test_bug_10_no_grad_leaks_nesting_and_exceptions() -> None:
    with no_grad():
        with no_grad():
            assert not recording()
        assert not recording()  # the inner one puts back what was there, not True
        with detect_anomaly(), kernels.off():
            assert not recording()
            assert MODE.get().anomaly
        assert not MODE.get().anomaly
        with pytest.raises(ZeroDivisionError), no_grad():
            raise ZeroDivisionError
        assert not recording()
    assert recording()
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert recording()
    switch = no_grad()
    for _ in range(2):  # used again
        with switch:
            assert not recording()
            with switch:  # and in itself
                assert not recording()
            assert not recording()
        assert recording()


def test_bug_10_no_grad_leaks_from_functions() -> None:
    @no_grad()
    def factorial(n: int) -> int:
        assert not recording()
        return 1 if n == 0 else n * factorial(n - 1)

    @no_grad()
    def fail() -> None:
        raise ZeroDivisionError

    assert factorial(5) == 120
    assert recording()
    with pytest.raises(ZeroDivisionError):
        fail()
    assert recording()
    assert factorial.__name__ == "factorial"

    class Model:
        @no_grad()
        def method(self, n: int, *, more: int = 0) -> int:
            assert not recording()
            return n + more

        @staticmethod
        @no_grad()
        def static() -> bool:
            return recording()

    assert Model().method(1, more=2) == 3
    assert not Model.static()


def test_bug_10_no_grad_leaks_from_generators() -> None:
    log: list[Any] = []

    @no_grad()
    def count(n: int) -> Iterator[int]:
        try:
            for i in range(n):
                assert not recording()
                sent = yield i
                log.append((sent, recording()))
        except KeyError as error:
            log.append((type(error), recording()))
            yield -1
        finally:
            log.append(("closed", recording()))
        return "done"  # type: ignore[return-value]

    assert inspect.isgeneratorfunction(count)
    for _ in count(3):
        assert recording()  # the consumer does not see the generator's mode
    g: Any = count(3)
    next(g)
    assert recording()
    assert g.send("hello") == 1
    assert g.throw(KeyError()) == -1
    assert recording()
    with pytest.raises(StopIteration, match="done"):
        next(g)
    half: Any = count(3)
    next(half)
    half.close()
    assert recording()
    with pytest.raises(ZeroDivisionError):
        failing: Any = count(3)
        next(failing)
        failing.throw(ZeroDivisionError())
    assert recording()
    assert {seen for _, seen in log} == {False}  # inside, at every resumption, also while closing
    assert ("hello", False) in log
    assert (KeyError, False) in log

    @no_grad()
    def delegate() -> Iterator[int]:
        yield from count(2)

    assert list(delegate()) == [0, 1]
    with no_grad():  # consumed inside another
        assert list(count(2)) == [0, 1]
        assert not recording()


def test_bug_10_no_grad_leaks_from_interleaved_generators() -> None:
    """`with` inside a generator is seen by its consumer while it is suspended (Python's way), but never after all have ended."""

    def hold() -> Iterator[int]:
        with no_grad():
            yield 1

    first, second = hold(), hold()
    next(first)
    next(second)
    assert list(first) == []  # ends in the order of opening: not last in, first out
    assert not recording()  # the second still holds
    assert list(second) == []
    assert recording()
    first, second = hold(), hold()
    next(first)
    with detect_anomaly():
        next(second)
        first.close()
        assert MODE.get().anomaly
        assert not recording()
        second.close()
        assert recording()
        assert MODE.get().anomaly
    assert not MODE.get().anomaly


def test_bug_10_no_grad_leaks_from_coroutines() -> None:
    @no_grad()
    async def quiet(gate: asyncio.Event) -> bool:
        before = recording()
        await gate.wait()
        return before or recording()

    async def loud(gate: asyncio.Event) -> bool:
        before = recording()
        gate.set()
        await asyncio.sleep(0)
        return before and recording()

    async def holding(gate: asyncio.Event) -> bool:
        with no_grad():
            await gate.wait()
            return recording()

    async def main() -> None:
        gate = asyncio.Event()
        assert await asyncio.gather(quiet(gate), holding(gate), loud(gate), quiet(gate), loud(gate)) == [False, False, True, False, True]
        assert recording()
        with no_grad():
            task = asyncio.create_task(loud(gate))  # a task starts with the modes of where it was made
        assert not await task
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(quiet(asyncio.Event()), 0.01)  # cancelled
        assert recording()

    asyncio.run(main())
    assert recording()


def test_async_generators_are_refused_rather_than_ignored() -> None:
    with pytest.raises(TypeError, match=r"cannot decorate the async generator 'numbers': use `with` inside it"):

        @no_grad()
        async def numbers() -> AsyncIterator[int]:
            yield 1


def test_bug_10_no_grad_leaks_between_threads() -> None:
    inside, done = threading.Event(), threading.Event()
    seen: list[bool] = []

    def quiet() -> None:
        with no_grad():
            inside.set()
            done.wait(10)
            seen.append(recording())

    thread = threading.Thread(target=quiet)
    thread.start()
    inside.wait(10)
    assert recording()  # while the other thread is inside
    done.set()
    thread.join()
    assert seen == [False]
    with no_grad(), ThreadPoolExecutor(1) as pool:
        assert pool.submit(recording).result()  # a new thread starts with the defaults ...
        assert not pool.submit(contextvars.copy_context().run, recording).result()  # ... unless given a copy of the context


def test_bug_10_one_switch_shared_by_threads() -> None:
    switch = no_grad()
    both_in, both_out = threading.Barrier(2), threading.Barrier(2)

    def use() -> tuple[bool, bool]:
        with switch:
            both_in.wait(10)
            inside = recording()
        both_out.wait(10)
        return inside, recording()

    with ThreadPoolExecutor(2) as pool:
        assert [f.result() for f in [pool.submit(use), pool.submit(use)]] == [(False, True)] * 2


def test_switches_add_up() -> None:
    @kernels.off("gelu")
    def inner() -> frozenset[str]:
        return MODE.get().kernels_off

    with kernels.off("softmax"):
        assert inner() == {"gelu", "softmax"}
        with kernels.off():
            assert "*" in inner()
        assert MODE.get().kernels_off == {"softmax"}
    assert MODE.get().kernels_off == frozenset()


# -- detect_anomaly -----------------------------------------------------------------------------------------------------------


def line() -> int:
    frame = inspect.currentframe()
    assert frame is not None
    assert frame.f_back is not None
    return frame.f_back.f_lineno


def test_anomaly_forward_names_op_line_shapes_and_five_behind(device: str) -> None:
    x = leaf([[1.0, -1.0]], device)
    with detect_anomaly():
        a = x * 2.0
        b = a + 1.0
        c = b - 0.5
        d = c * b
        e = d + a
        f = e - 10.0
        at = line() + 2
        with pytest.raises(GradientError) as caught:
            f.log()
    text = str(caught.value)
    first, *rest = text.splitlines()
    assert first == f"2 of 2 values not finite from `log` at test_modes.py:{at} `f.log()`, (1, 2) <- (1, 2)"
    assert len(rest) == 5
    assert [r.split("`")[1] for r in rest] == ["subtract", "add", "multiply", "subtract", "add"]  # the nearest first
    assert "`f = e - 10.0`" in rest[0]
    assert all("test_modes.py:" in r and "(1, 2) <- " in r for r in rest)


def test_anomaly_backward_names_the_op(device: str) -> None:
    x, w = leaf([0.0, 4.0], device), leaf([1.0, 1.0], device)
    with detect_anomaly():
        h = x * 1.0
        at = line() + 1
        y = h.sqrt()
        loss = (w * y + w).sum()
        with pytest.raises(GradientError, match=rf"non-finite gradient from backward of `sqrt` at test_modes\.py:{at} `y = h\.sqrt\(\)`") as caught:
            loss.backward()
    assert "input 0 of shape (2,)" in str(caught.value)
    assert "behind it: `multiply`" in str(caught.value)
    assert x.grad is None
    assert w.grad is None  # already known when it stopped, but not deposited
    (x.sqrt() * w).sum().backward()  # outside, infinities pass
    assert x.grad.tolist() == [float("inf"), 0.25]  # type: ignore[union-attr]


def test_anomaly_gives_the_same_gradients(device: str) -> None:
    for hooked in (False, True):
        leaves = [leaf(draw(2, 3, seed=i), device) for i in range(3)]
        calm = [leaf(draw(2, 3, seed=i), device) for i in range(3)]

        def loss(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
            h = tensor.concatenate([a * b, b + c]).softmax()
            first, _ = h.split(2)
            return (first * a).sum() + (b * b).sum()

        if hooked:
            for x in (leaves[1], calm[1]):
                x.register_hook(lambda g: g * 2.0)
        for _ in range(2):
            with detect_anomaly():
                loss(*leaves).backward()
            loss(*calm).backward()
        for x, y in zip(leaves, calm, strict=True):
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-14)  # type: ignore[union-attr]
        assert_nothing_shared({str(i): x.grad for i, x in enumerate(leaves)}, {f"data {i}": x for i, x in enumerate(leaves)})


def test_anomaly_does_not_accuse_masks(device: str) -> None:
    """-inf put there on purpose: by value, by option, in a constant, and what softmax and logsumexp make of it."""
    x = leaf(draw(3, 3), device)
    mask = np.triu(np.ones((3, 3), bool), 1)
    infinite = Tensor(np.where(mask, -np.inf, 0.0), device=device)
    with detect_anomaly():
        for scores in (
            x.masked_fill(mask, float("-inf")),
            tensor.where(mask, float("-inf"), x),
            x + infinite,
            x.pad(((0, 0), (0, 1)), value=float("-inf")),
            tensor.concatenate([x, infinite]),
            tensor.maximum(x.masked_fill(mask, float("-inf")), infinite),
        ):
            weights = scores.softmax()
            (weights * weights).sum().backward(retain_graph=True)
            picked = scores.log_softmax().masked_fill(Tensor(np.isinf(scores.numpy()), device=device), 0.0)
            (picked * picked).sum().backward(retain_graph=True)
            scores.logsumexp().sum().backward()
        everything = x.masked_fill(np.ones((3, 3), bool), float("-inf"))
        everything.softmax().sum().backward()
        tensor.attention(x, x, x, mask=~mask).sum().backward()
        tensor.attention(x, x, x, infinite).sum().backward()
        with pytest.raises(GradientError, match="from `exp`"):
            (x * 0.0 + 1e4).exp()  # an infinity that no input held
        with pytest.raises(GradientError, match="from `subtract`"):
            infinite - infinite  # and NaN in any case
    assert np.isfinite(x.grad.numpy()).all()  # type: ignore[union-attr]


def test_anomaly_outside_a_graph_and_of_one_output_of_several(device: str) -> None:
    constant = Tensor(np.array([0.0, 1.0]), device=device)
    at = line() + 2
    with detect_anomaly(), pytest.raises(GradientError, match=rf"1 of 2 values not finite from `log` at test_modes\.py:{at} .*\nnothing recorded behind it"):
        constant.log()
    x = leaf([1.0, 2.0], device)
    with detect_anomaly(), pytest.raises(GradientError, match="behind it: leaves only"):
        (x / Tensor(np.array([0.0, 1.0]), device=device)).sum()
    with detect_anomaly():
        assert (constant > 0).tolist() == [False, True]
        assert x.to("int64").tolist() == [1, 2]
        assert Tensor([1.0], dtype="bfloat16", device=device).exp().dtype == tensor.bfloat16


# -- hooks ------------------------------------------------------------------------------------------------------------------


def test_hooks_see_and_replace(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    h = x * 3.0
    log: list[Any] = []
    h.register_hook(lambda g: log.append(("h", g.tolist())))
    x.register_hook(lambda g: log.append(("x", g.tolist())))
    h.register_hook(lambda g: g * 10.0)
    h.register_hook(lambda g: log.append(("h after", g.tolist())))
    (h * h + h).sum().backward()
    assert log == [("h", [7, 13]), ("h after", [70, 130]), ("x", [210, 390])]  # once each, complete, in the order of registering
    assert x.grad.tolist() == [210, 390]  # type: ignore[union-attr]


def test_hooks_on_leaves_run_once_with_the_sum(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    log: list[Any] = []
    x.register_hook(lambda g: log.append(g.tolist()))
    for _ in range(2):
        (x * 2.0 + x * x + x).sum().backward()
    assert log == [[5, 7], [5, 7]]  # of each pass, not of what .grad holds
    assert x.grad.tolist() == [10, 14]  # type: ignore[union-attr]
    x.register_hook(lambda g: g * 0.0)
    (x * 2.0).sum().backward()
    assert x.grad.tolist() == [10, 14]  # type: ignore[union-attr]


def test_hooks_on_pieces_views_and_roots(device: str) -> None:
    x = leaf(draw(4), device)
    first, last = x.split(2)
    first.register_hook(lambda g: g * 2.0)
    last.register_hook(lambda g: g * 3.0)  # not called: no gradient comes
    view = x[1:]
    view.register_hook(lambda g: g * 5.0)
    y = first.sum() + view.sum()
    y.register_hook(lambda g: g * 7.0)
    y.backward(retain_graph=True)
    assert x.grad.tolist() == [14, 49, 35, 35]  # type: ignore[union-attr]
    dx, dfirst, dy = grad(y, [x, first, y])  # what hooks make of it is what grad() finds, too
    assert dx.tolist() == [14, 49, 35, 35]  # type: ignore[union-attr]
    assert dfirst.tolist() == [14, 14]  # type: ignore[union-attr]
    assert dy.tolist() == 7  # type: ignore[union-attr]


def test_hooks_are_removed(device: str) -> None:
    x = leaf([1.0], device)
    remove_first = x.register_hook(lambda g: g * 2.0)
    remove_second = x.register_hook(lambda g: g * 3.0)
    assert grad(x * 1.0, x, np.ones(1))[0].tolist() == [6]  # type: ignore[union-attr]
    assert remove_second() is None
    assert grad(x * 1.0, x, np.ones(1))[0].tolist() == [2]  # type: ignore[union-attr]
    x.register_hook(lambda g: g * 5.0)
    remove_second()  # again: must not take the new one away
    assert grad(x * 1.0, x, np.ones(1))[0].tolist() == [10]  # type: ignore[union-attr]
    remove_first()
    assert grad(x * 1.0, x, np.ones(1))[0].tolist() == [5]  # type: ignore[union-attr]
    removers: list[Callable[[], None]] = []
    removers.append(x.register_hook(lambda g: removers[0]()))  # one that removes itself while it runs
    assert grad(x * 1.0, x, np.ones(1))[0].tolist() == [5]  # type: ignore[union-attr]
    assert len(x.node.hooks) == 1
    with pytest.raises(GraphError, match="in no graph"):
        x.detach().register_hook(lambda g: None)


def test_hooks_get_copies_and_give_copies(device: str) -> None:
    """A hook that writes to what it is shown, keeps it, or returns memory of others changes nothing else."""
    x, w = leaf([1.0, 2.0], device), leaf([1.0, 2.0], device)
    kept: list[Tensor] = []
    constant = Tensor(np.array([5.0, 5.0]), device=device)

    def spoil(g: Tensor) -> None:
        kept.append(g)
        g *= 100.0

    for make in (lambda: x * 1.0, lambda: x.clone(), lambda: x.T, lambda: (x + 0.0)[:]):
        h = make()
        h.register_hook(spoil)
        (h + h).sum().backward()
        assert x.grad.tolist() == [2, 2]  # type: ignore[union-attr]
        x.grad = None
    (x * w).sum().backward()
    x.register_hook(lambda g: constant)
    w.register_hook(lambda g: x.grad)
    for _ in range(2):
        (x + w).sum().backward()
        (x + 0.0).sum().backward()
    assert constant.tolist() == [5, 5]
    assert_nothing_shared({"x.grad": x.grad, "w.grad": w.grad}, {"constant": constant, "x": x, **{f"kept {i}": k for i, k in enumerate(kept)}})


def test_hooks_that_return_the_wrong_thing_are_named(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    for wrong in (lambda g: g[0], lambda g: g.to("float32"), lambda g: g[None]):
        remove = x.register_hook(wrong)
        with pytest.raises(GradientError, match=r"hook on `leaf` returned .* for a gradient \(2,\) float64"):
            (x * 2.0).sum().backward()
        remove()
        assert x.grad is None
    x.register_hook(lambda g: g.numpy() * 3.0)  # an ndarray will do
    (x * 2.0).sum().backward()
    assert x.grad.tolist() == [6, 6]  # type: ignore[union-attr]


# -- threads --------------------------------------------------------------------------------------------------------------------


def test_threads_take_gradients_of_shared_leaves(device: str) -> None:
    """Two threads, graphs of their own on leaves in common, grad() in each: the same numbers as one after the other."""
    w, gain = leaf(draw(8, 8), device), leaf(draw(8, seed=1), device)

    def work(seed: int) -> list[Array]:
        data = Tensor(draw(4, 8, seed=seed), device=device)
        loss = (tensor.layer_norm(data @ w, gain, gain).gelu() @ w.T).softmax().log().mean()
        return [dx.numpy() for dx in grad(loss, [w, gain]) if dx is not None]

    expected = [work(seed) for seed in range(40)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            found = list(pool.map(work, range(40)))
    finally:
        sys.setswitchinterval(interval)
    for a, b in zip(expected, found, strict=True):
        for one, other in zip(a, b, strict=True):
            np.testing.assert_array_equal(one, other)
    assert w.grad is None
    assert gain.grad is None


def test_threads_walk_one_graph_together(device: str) -> None:
    x = leaf(draw(50), device)
    h = x
    for _ in range(30):
        h = (h * 1.01).sin() + x
    y = h.sum()
    expected = grad(y, x, retain_graph=True)[0]
    assert expected is not None
    with ThreadPoolExecutor(2) as pool:
        for (dx,) in pool.map(lambda _: grad(y, x, retain_graph=True), range(20)):
            assert dx is not None
            np.testing.assert_array_equal(dx.numpy(), expected.numpy())


def test_threads_agree_on_the_storage_of_a_leaf(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Made when first asked for, by two threads at once: were there two, a write would be counted in one and looked for in the other."""
    x, gate = leaf([1.0, 2.0], device), threading.Barrier(2)

    def slow(array: Array) -> Storage:
        time.sleep(0.05)  # long enough for the other thread to come by
        return Storage(array)

    monkeypatch.setattr(tensor.core, "Storage", slow)

    def save() -> Any:
        gate.wait(10)
        return (x * x).node.saved[0][0]

    with ThreadPoolExecutor(2) as pool:
        first, second = (f.result() for f in [pool.submit(save), pool.submit(save)])
    assert first is second is x.storage
