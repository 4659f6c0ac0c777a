"""How ops run just now: recording or not, with kernels or not, under which random key, and so on.

All switches are fields of one context variable, so threads and tasks do not see each other's.
"""

from __future__ import annotations

import functools
import inspect
import io
import time
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, fields
from itertools import repeat, starmap
from operator import attrgetter, getitem, not_
from typing import Any, Generic, ParamSpec, TypeVar

from tensor.errors import brief

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T", covariant=True)


@dataclass(slots=True, eq=False)
class Mode(dict[object, "Mode"]):
    """The switches, for a stretch of code. No field is written later.

    mode[key]: the mode when the block of the switch with that key has ended.
    """

    recording: bool = True
    anomaly: bool = False
    kernels_off: frozenset[str] = frozenset()  # op names; "*" is all of them
    tf32: bool = False  # products of float32 on a GPU round their operands to 11 bits
    deterministic: bool = False  # kernels add in a fixed order, also where that takes longer
    reads: Callable[..., None] | None = None  # told what ops are given, for a checkpoint
    tape: Any = None  # told what ops did, for `tensor.record` (recording/recording.py)
    observed: bool = False  # `reads`, `tape` or `anomaly` looks at each op
    evaluating: bool = False  # no module is in training
    drawing: bool = True  # layers draw the weights that they start with
    key: Any = None  # of random layers (random.py)
    stream: Any = None  # in place of the default generator, while a checkpoint runs again
    switch: Switch[Any] | None = None  # what made this mode, and of which other
    outer: Mode | None = None

    def __missing__(self, key: object) -> Mode:
        """A block that ends before one inside it, as in generators: the other's change stays.

        A key that is not here (a generator that began in another context) changes nothing.
        """
        if self.switch is None or self.outer is None:
            return self
        return self.switch.over(self.outer[key])


MODE: ContextVar[Mode] = ContextVar("tensor_mode", default=Mode())  # noqa: B039 (written once)
_fields = attrgetter(*(field.name for field in fields(Mode)))
_NOW = starmap(MODE.get, repeat(()))  # the mode, as often as one asks


class Switch(io.IOBase, Generic[T]):
    """A context manager and a decorator: changes fields of the mode for a block.

    One switch may be used many times, within itself too. An interrupt leaves no switch on, for
    Python looks for signals in two places: where a Python function begins, and after a call.

        __enter__   may be Python. The change is its last act, and no call: `map` makes the
                    change while its result is unpacked.
        __exit__    must be C, since an interrupt may come before the first line of a Python
                    function. IOBase.__exit__ is C, and calls `close`. Here `close` is a chain
                    of C functions: MODE.set(MODE.get()[key]).

    Only a block that ends before one inside it needs Python for that (`Mode.__missing__`).
    """

    closed = True  # for IOBase, which closes what is not closed when it is thrown away

    def __init__(self, **changes: Any):
        self._changes = changes
        self._key = object()
        outer = map(getitem, _NOW, repeat(self._key))
        left = map(not_, map(MODE.set, outer))  # False: the exception of the block goes on
        self.close = left.__next__  # type: ignore[method-assign, assignment]

    def __enter__(self) -> T:  # type: ignore[override]
        mode, given = self.over(MODE.get()), self._changes.get("tape")
        (_,) = map(MODE.set, (mode,))
        return given  # type: ignore[return-value]

    def over(self, outer: Mode) -> Mode:
        """The mode inside a block, of that around it."""
        mode = Mode(*_fields(outer))
        for name, value in self._changes.items():
            setattr(mode, name, value)
        mode.kernels_off |= outer.kernels_off  # an inner switch turns no kernel back on
        mode.observed = mode.anomaly or mode.reads is not None or mode.tape is not None
        mode.switch, mode.outer = self, outer
        mode[self._key] = outer
        return mode

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        if (
            inspect.isgeneratorfunction(function)
            or inspect.iscoroutinefunction(function)
            or inspect.isasyncgenfunction(function)
        ):
            raise TypeError(
                f"{function.__name__!r} pauses (yield, await), "
                "and a switch decorates only functions that do not\nuse `with` inside it"
            )

        @functools.wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
            with self:
                return function(*args, **kwargs)

        return wrapped


def switch(make: Callable[P, Switch[T]]) -> Callable[P, Switch[T]]:
    """Decorator of a function that makes a switch: as a decorator, the switch may stand without
    brackets. `@no_grad` is `@no_grad()`.
    """

    @brief
    @functools.wraps(make)
    def call(*args: Any, **kwargs: Any) -> Any:
        if args and callable(args[0]):
            return make()(*args)  # type: ignore[call-arg]
        return make(*args, **kwargs)

    return call


def watched(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: a function that is no op, but whose time is recorded too."""

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


@switch
def no_grad() -> Switch[None]:
    """`with no_grad():` or `@no_grad()`: results carry no graph, and leaves may be written."""
    return Switch(recording=False)


@switch
def enable_grad() -> Switch[None]:
    """`with enable_grad():` or `@enable_grad()`: results carry their graph, also inside a
    `no_grad()`.
    """
    return Switch(recording=True)


@switch
def set_grad_enabled(enabled: bool) -> Switch[None]:
    """`with set_grad_enabled(training):` is `enable_grad()` or `no_grad()`. It is a decorator too;
    alone in a line it changes nothing, and warns.
    """
    return _OnlyWith(recording=bool(enabled))


class _OnlyWith(Switch[None]):
    """A switch that warns when it is thrown away unused."""

    used = False

    def over(self, outer: Mode) -> Mode:
        self.used = True
        return super().over(outer)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        self.used = True
        return super().__call__(function)

    def __del__(self) -> None:
        if not self.used:
            warnings.warn(
                "set_grad_enabled changes nothing alone in a line: write `with` before it",
                stacklevel=2,
            )


@switch
def detect_anomaly() -> Switch[None]:
    """`with detect_anomaly():` stops at the first op, forward or backward, that makes a NaN or an
    infinity. Slow: each result is read once more.
    """
    return Switch(anomaly=True)
