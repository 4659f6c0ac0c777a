"""An op's own source, run again line by line: what a debugger shows when it steps into an op.

The reference of an op is a function of its arrays, so running it again on the same arrays does the
same. A trace function (`sys.settrace`)
notes at each line which local variables have changed, as copies: a line that writes in place (`y +=
bias`) changes no earlier moment.
"""

from __future__ import annotations

import inspect
import sys
from _thread import start_new_thread
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from queue import SimpleQueue
from tokenize import TokenError
from types import CodeType, FrameType
from typing import Any, NamedTuple

import numpy as np

from tensor.tensor import Tensor

_LEFT_OUT = ("backward",)  # names that hold functions; everything else that a line binds is shown


class Moment(NamedTuple):
    """What stands after a line has run."""

    number: int  # of the line, in its file
    text: str
    values: dict[str, Any]  # the local variables that the line bound or changed: arrays as copies


class Source(NamedTuple):
    """The source of a function."""

    file: str
    first: int  # the number of its first line
    lines: tuple[str, ...]


def source_of(function: Callable[..., Any]) -> Source:
    """Where a function stands, and its lines; without lines where there is no source file."""
    code = inspect.unwrap(function).__code__
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, SyntaxError, TokenError):  # no file, or one that has changed since
        return Source(code.co_filename, code.co_firstlineno, ())
    return Source(code.co_filename, first, tuple(line.rstrip("\n") for line in lines))


def replay(
    function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]
) -> tuple[Any, list[Moment]]:
    """(what the function returns, its moments). A first moment, at its `def`, holds what it was
    given and what its closure knows.
    """
    source = source_of(function)
    recorder = _Recorder(inspect.unwrap(function).__code__, source)
    result = _apart(partial(copy_context().run, recorder.watch, function, arguments, options))
    text = dict(enumerate(source.lines, source.first))
    return result, [
        Moment(number, text.get(number, "").strip(), values) for number, values in recorder.moments
    ]


def _apart(function: Callable[[], Any]) -> Any:
    """function(), in a thread of its own: its trace function ends with it.

    So an interrupt leaves no trace function here, and the trace function of a debugger stays. No
    thread of `threading`: an interrupt while one starts can end as a RuntimeError.
    """
    answers: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def answer() -> None:
        try:
            answers.put((function(), None))
        except BaseException as error:
            answers.put((None, error))

    start_new_thread(answer, ())
    result, error = answers.get()
    if error is not None:
        raise error
    return result


class _Recorder:
    """Follows one call of one code object."""

    def __init__(self, code: CodeType, source: Source):
        self.code = code
        self.moments: list[tuple[int, dict[str, Any]]] = []
        self.known: dict[str, Any] = {}
        self.frame: FrameType | None = None
        # below decorators
        self.line = source.first + next(
            (i for i, line in enumerate(source.lines) if line.lstrip().startswith("def ")), 0
        )
        self.began = False

    def watch(
        self, function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]
    ) -> Any:
        """Call the function and follow it."""
        sys.settrace(self.enter)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(None)
            self.frame = None  # it holds the recorder, and through its callers all that they hold

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is not self.code or self.frame is not None:
            return None  # what it calls is not followed
        self.frame = frame
        self._note(frame, {})
        return self.step

    def step(self, frame: FrameType, event: str, argument: Any) -> Any:
        """`line`: the line before has run, and this one is next.   `return`: the last has run."""
        if event == "exception":
            return self.step
        if self.began:
            self._note(frame, _results(argument) if event == "return" else {})
        self.began, self.line = True, frame.f_lineno
        return self.step

    def _note(self, frame: FrameType, returned: dict[str, Any]) -> None:
        changed = returned
        for name, value in frame.f_locals.items():
            if name in _LEFT_OUT or callable(value):
                continue
            if isinstance(value, Tensor):
                value = value.numpy()
            if name not in self.known or not _same(self.known[name], value):
                self.known[name] = changed[name] = _copy(value)
        self.moments.append((self.line, changed))


def _results(returned: Any) -> dict[str, Any]:
    """What a function returns, under the name `return`: of an op its result, without the backward
    beside it.
    """
    if (
        isinstance(returned, tuple)
        and len(returned) == 2
        and (callable(returned[1]) or isinstance(returned[1], tuple))
    ):
        returned = returned[0]  # (y, backward), where backward may be a tuple of functions
    parts = [
        _copy(part.numpy() if isinstance(part, Tensor) else part)
        for part in (returned if type(returned) is tuple else (returned,))
    ]
    return {"return": tuple(parts) if type(returned) is tuple else parts[0]}


def _copy(value: Any) -> Any:
    """A copy of an array, of NumPy or CuPy, also in tuples and lists; else the value itself: a
    dtype has no strides, a Layout no dtype.
    """
    if type(value) in (tuple, list):
        return type(value)(map(_copy, value))
    return value.copy() if hasattr(value, "strides") and hasattr(value, "dtype") else value


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal in kind and content."""
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return (
            a.shape == b.shape
            and a.dtype == b.dtype
            and np.array_equal(a, b, equal_nan=a.dtype.kind not in "OSU")
        )
    if type(a) is not type(b):
        return False
    if type(a) in (tuple, list):
        return len(a) == len(b) and all(map(_same, a, b))
    try:
        return bool(a == b)
    except ValueError:  # an array that is not NumPy's
        return False
