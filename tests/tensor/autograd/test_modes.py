"""How ops run just now: no_grad in every setting that could leak it, and threads."""

from __future__ import annotations

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, detect_anomaly, grad, kernels, nn, no_grad
from tensor.memory.storage import Storage
from tensor.mode import MODE
from tensor.recording import Recording
from tests.helpers.making import draw, leaf, values

Array = Any


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


# -- no_grad


def test_no_grad_records_nothing(device: str) -> None:
    x = leaf([1.0, 2.0], device)
    with no_grad():
        for y in (
            x * 2.0,
            x[0],
            x.view(2, 1),
            x.split(1)[0],
            x.expand(3, 2),
            x.to("float32"),
            tensor.concatenate([x, x]),
            x.exp().sum(),
        ):
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
        assert values(grad(y, x)[0]) == [2, 4]
    assert values(x.grad) == [2, 4]


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


def test_gradients_switched_on_inside_no_grad() -> None:
    x = leaf([1.0, 2.0], "cpu")
    with no_grad():
        with tensor.enable_grad():
            assert (x * 2.0).requires_grad
        for enabled in (True, False):
            with tensor.set_grad_enabled(enabled):
                assert (x * 2.0).requires_grad == enabled
        assert not (x * 2.0).requires_grad
    made = tensor.enable_grad()(lambda: (x * 2.0).requires_grad)
    decorated = tensor.set_grad_enabled(False)(lambda: (x * 2.0).requires_grad)
    with no_grad():
        assert made()
    assert not decorated()
    with pytest.warns(UserWarning, match="changes nothing alone in a line") as warned:
        tensor.set_grad_enabled(False)
    assert warned[0].filename == __file__
    assert (x * 2.0).requires_grad


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


def test_a_decorator_without_brackets() -> None:
    def mode() -> Any:
        return MODE.get()

    assert not no_grad(mode)().recording
    assert tensor.enable_grad(mode)().recording
    assert detect_anomaly(mode)().anomaly
    assert kernels.tf32(mode)().tf32
    assert kernels.deterministic(mode)().deterministic
    assert kernels.off(mode)().kernels_off == {"*"}
    assert nn.evaluating(mode)().evaluating
    assert not nn.undrawn(mode)().drawing
    assert no_grad(mode).__name__ == "mode"
    with pytest.raises(TypeError, match="takes enabled as True or False"):
        tensor.set_grad_enabled(mode)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="too many positional arguments"):
        no_grad(1)  # type: ignore[call-arg]


def test_bug_10_no_grad_leaks_from_generators() -> None:
    """A decorated function that pauses would leave the switch on with its caller: it is refused."""

    def generator() -> Iterator[int]:
        yield 1

    async def coroutine() -> int:
        return 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    functions: list[Any] = [generator, coroutine, asynchronous]
    for function in functions:
        with pytest.raises(
            TypeError, match=rf"'{function.__name__}' pauses .*\nuse `with` inside it"
        ):
            no_grad()(function)


def test_bug_10_no_grad_leaks_from_interleaved_generators() -> None:
    """`with` inside a generator is seen by its consumer while it is suspended (Python's way), but
    never after all have ended.
    """

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


def test_bug_10_no_grad_leaks_into_another_context() -> None:
    """A generator that began in one context and is thrown away in another changes nothing there."""

    def hold() -> Iterator[int]:
        with no_grad():
            yield 1

    generator = hold()
    contextvars.copy_context().run(next, generator)
    assert recording()
    with no_grad(), detect_anomaly():
        generator.close()
        assert not recording()
        assert MODE.get().anomaly
    assert recording()


def test_bug_10_no_grad_leaks_from_an_exit_stack() -> None:
    with ExitStack() as stack:
        stack.enter_context(no_grad())
        assert isinstance(stack.enter_context(tensor.record()), Recording)
        assert not recording()
    assert recording()


def test_bug_10_no_grad_leaks_from_coroutines() -> None:
    async def quiet(gate: asyncio.Event) -> bool:
        with no_grad():
            before = recording()
            await gate.wait()
            return before or recording()

    async def loud(gate: asyncio.Event) -> bool:
        before = recording()
        gate.set()
        await asyncio.sleep(0)
        return before and recording()

    async def main() -> None:
        gate = asyncio.Event()
        assert await asyncio.gather(quiet(gate), loud(gate), quiet(gate), loud(gate)) == [
            False,
            True,
            False,
            True,
        ]
        assert recording()
        with no_grad():
            # a task starts with the modes of where it was made
            task = asyncio.create_task(loud(gate))
        assert not await task
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(quiet(asyncio.Event()), 0.01)  # cancelled
        assert recording()

    asyncio.run(main())
    assert recording()


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
        # ... unless given a copy of the context
        assert not pool.submit(contextvars.copy_context().run, recording).result()


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


# -- threads


def test_threads_take_gradients_of_shared_leaves(device: str) -> None:
    """Two threads, graphs of their own on leaves in common, grad() in each: the same numbers as one
    after the other.
    """
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


def test_bug_22_threads_agree_on_the_storage_of_a_leaf(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made when first asked for, by two threads at once: were there two, a write would be counted
    in one and looked for in the other.
    """
    x, gate = leaf([1.0, 2.0], device), threading.Barrier(2)

    def slow(array: Array) -> Storage:
        time.sleep(0.05)  # long enough for the other thread to come by
        return Storage(array)

    monkeypatch.setattr(tensor.base, "Storage", slow)

    def save() -> Any:
        gate.wait(10)
        return (x * x).node.saved[0][0]

    with ThreadPoolExecutor(2) as pool:
        first, second = (f.result() for f in [pool.submit(save), pool.submit(save)])
    assert first is second is x.storage
