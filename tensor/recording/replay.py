"""The source of an op, run again line by line: what a debugger shows when it steps into an op.

The reference of an op is a function of its arrays, so a second run on the same arrays does the
same. At each line a trace function (`sys.settrace`) notes which local variables have changed. It
copies the values, so a line that writes in place (`y += bias`) does not change an earlier moment.
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
from types import FrameType
from typing import Any, NamedTuple

import numpy as np

from tensor.tensor import Tensor


class Moment(NamedTuple):
    """A line that has run."""

    number: int  # of the line, in its file
    text: str
    values: dict[str, Any]  # the local variables that the line bound or changed; arrays are copies


class Source(NamedTuple):
    """The source of a function."""

    file: str
    first: int  # the number of its first line
    lines: tuple[str, ...]


def source_of(function: Callable[..., Any]) -> Source:
    """The file of a function, and its lines; no lines where the file cannot be read."""
    code = inspect.unwrap(function).__code__
    try:
        lines, first = inspect.getsourcelines(code)
    except (OSError, SyntaxError, TokenError):  # no file, or one that has changed since
        return Source(code.co_filename, code.co_firstlineno, ())
    return Source(code.co_filename, first, tuple(line.rstrip("\n") for line in lines))


def replay(
    function: Callable[..., Any], arguments: Sequence[Any], options: dict[str, Any]
) -> tuple[Any, list[Moment]]:
    """(the result of the function, its moments). The first moment is the line of the `def`: it
    holds the arguments, and the variables of the closure.
    """
    recorder = _Recorder(function)
    call = partial(function, *arguments, **options)
    result = _apart(partial(copy_context().run, recorder.watch, call))
    return result, recorder.moments


def _apart(function: Callable[[], Any]) -> Any:
    """function(), in a thread of its own: the trace function ends with the thread.

    So an interrupt leaves no trace function here, and the trace function of a debugger stays. A
    thread of `threading` will not do: an interrupt while it starts can end as a RuntimeError.
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
    """Follows the first call of one function."""

    def __init__(self, function: Callable[..., Any]):
        source = source_of(function)
        self.code = inspect.unwrap(function).__code__
        self.text = {i: line.strip() for i, line in enumerate(source.lines, source.first)}
        self.moments: list[Moment] = []
        self.known: dict[str, Any] = {}
        self.frame: FrameType | None = None
        self.line: int | None = None  # the line that runs

    def watch(self, call: Callable[[], Any]) -> Any:
        """Call the function and follow it."""
        sys.settrace(self.enter)
        try:
            return call()
        finally:
            sys.settrace(None)
            self.frame = None  # the frame holds this recorder, so the two would form a cycle

    def enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        """Begin at the `def`, which is below the decorators."""
        if frame.f_code is not self.code or self.frame is not None:
            return None  # a function that the function calls is not followed
        self.frame = frame
        start = (i for i, text in self.text.items() if text.startswith("def "))
        self._note(frame, next(start, self.code.co_firstlineno), {})
        return self.step

    def step(self, frame: FrameType, event: str, argument: Any) -> Any:
        """`line`: the line before has run, and this one is next.   `return`: the last has run."""
        if event != "exception":
            if self.line is not None:
                self._note(frame, self.line, _results(argument) if event == "return" else {})
            self.line = frame.f_lineno
        return self.step

    def _note(self, frame: FrameType, line: int, changed: dict[str, Any]) -> None:
        """Add the moment of a line, with the local variables that have changed."""
        for name, value in frame.f_locals.items():
            if name == "backward" or callable(value):  # `backward` may be a tuple of functions
                continue
            new = _copy(value)
            if name not in self.known or not _same(self.known[name], new):
                self.known[name] = changed[name] = new
        self.moments.append(Moment(line, self.text.get(line, ""), changed))


def _results(returned: Any) -> dict[str, Any]:
    """The result of a function under the name `return`; of an op without the backward beside it."""
    match returned:
        case (y, backward) if callable(backward) or isinstance(backward, tuple):
            returned = y
    return {"return": _copy(returned)}


def _copy(value: Any) -> Any:
    """A copy of a tensor or an array as an array, also in tuples and lists; else the value."""
    if type(value) in (tuple, list):
        return type(value)(map(_copy, value))
    if isinstance(value, Tensor):
        value = value.numpy()
    # of NumPy or CuPy: a dtype has no strides, a Layout no dtype
    return value.copy() if hasattr(value, "strides") and hasattr(value, "dtype") else value


def _same(a: Any, b: Any) -> bool:
    """Whether two values are equal in kind and content."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        alike = a.shape == b.shape and a.dtype == b.dtype
        return alike and a.tobytes() == b.tobytes()
    if type(a) in (tuple, list):
        return len(a) == len(b) and all(map(_same, a, b))
    try:
        return bool(a == b)
    except ValueError:  # an array that is not NumPy's
        return False
