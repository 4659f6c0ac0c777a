"""How ops run just now: recording or not, watching for anomalies or not, with kernels or not.

The switches are context variables, so threads and tasks do not see each other's.
"""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Mode:
    """The switches, for a stretch of code."""

    recording: bool = True
    anomaly: bool = False
    kernels_off: frozenset[str] = frozenset()  # op names; "*" is all of them
    reads: Callable[..., None] | None = None  # told what ops are given, for a checkpoint (recompute.py)
    tape: Any = None  # told what ops did, for `tensor.record` (tape/recording.py)
    switch: Switch | None = None  # what made this mode, and of which other
    outer: Mode | None = None


MODE: ContextVar[Mode] = ContextVar("tensor_mode", default=Mode())  # noqa: B039 (frozen)


class Switch:
    """A context manager and decorator that sets fields of the mode, and takes back its own change and no other: generators that hold
    one each may end in any order, and threads may share one."""

    def __init__(self, **changes: Any):
        self._changes = changes

    def __enter__(self) -> None:
        self._apply(MODE.get())

    def _apply(self, outer: Mode) -> None:
        changes = dict(self._changes)
        if "kernels_off" in changes:  # these add up, so that an inner switch never turns back on what an outer one turned off
            changes["kernels_off"] |= outer.kernels_off
        MODE.set(replace(outer, switch=self, outer=outer, **changes))

    def __exit__(self, *_: object) -> None:
        mode, later = MODE.get(), []
        while mode.switch is not self and mode.outer is not None:
            later.append(mode.switch)
            mode = mode.outer
        if mode.outer is not None:  # None: entered in another context, which has ended
            MODE.set(mode.outer)
            for switch in reversed(later):
                switch._apply(MODE.get())  # type: ignore[union-attr]

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.isasyncgenfunction(function):
            raise TypeError(f"a switch cannot decorate the async generator {function.__name__!r}: use `with` inside it, around what does not yield")
        if inspect.isgeneratorfunction(function):
            return self._around_generator(function)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with Switch(**self._changes):
                    return await function(*args, **kwargs)

            return awaited

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with Switch(**self._changes):
                return function(*args, **kwargs)

        return wrapped

    def _around_generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Each resumption runs with the switch set, and what consumes the generator does not see it."""

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            generator = function(*args, **kwargs)
            resume: Callable[[], Any] = functools.partial(next, generator)
            while True:
                try:
                    with Switch(**self._changes):
                        item = resume()
                except StopIteration as stop:
                    return stop.value
                try:
                    resume = functools.partial(generator.send, (yield item))
                except GeneratorExit:
                    with Switch(**self._changes):
                        generator.close()
                    raise
                except BaseException as error:
                    resume = functools.partial(generator.throw, error)

        return wrapped


def watched(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: a function that is no op, whose time stands on a tape too."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        tape = MODE.get().tape
        if tape is None:
            return function(*args, **kwargs)
        start = time.perf_counter()
        result = function(*args, **kwargs)
        tape.work(function.__qualname__, start)
        return result

    return call


def no_grad() -> Switch:
    """`with no_grad():` or `@no_grad()`: results carry no graph, and leaves may be written."""
    return Switch(recording=False)


def detect_anomaly() -> Switch:
    """`with detect_anomaly():` stops at the first op, forward or backward, that makes a NaN or an infinity. Slow: each result is read once more."""
    return Switch(anomaly=True)
