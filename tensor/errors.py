"""What goes wrong, by name. Each error is also the builtin a user would catch without knowing this
file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CodeType, TracebackType
from typing import Any, ParamSpec, TypeVar

from tensor.arguments import mistake

P = ParamSpec("P")
R = TypeVar("R")
CALLERS: set[CodeType] = set()  # functions of the engine that call a hook


class TensorError(Exception):
    """What the engine refuses. The message is complete, so the traceback is cut to the user's line
    and one of the engine's.
    """


class ViewError(TensorError, ValueError, RuntimeError):
    """The strides cannot express the wanted shape, so only a copy could (ValueError as in NumPy,
    RuntimeError as in PyTorch).
    """


class ShapeError(TensorError, ValueError):
    """Shapes, axes or indices that do not fit together."""


class DTypeError(TensorError, TypeError):
    """A dtype that the operation is not defined for."""


class ArgumentError(TensorError, TypeError):
    """An argument that the function does not have, that is missing, or that is of another kind."""


class OptionError(TensorError, ValueError):
    """An option that has no such value."""


class RangeError(TensorError, OverflowError):
    """A number that an integer dtype cannot hold."""


class GraphError(TensorError, RuntimeError):
    """No backward pass: nothing recorded, the graph freed, or no upstream gradient."""


class MutationError(TensorError, RuntimeError):
    """Memory that a graph still needs was written, or was about to be."""


class DeviceError(TensorError, RuntimeError):
    """A device that is not there, or two devices in one operation."""


class GradientError(TensorError, AssertionError):
    """A gradient is wrong: of the wrong shape, not finite, or not what central differences say."""


class StateError(TensorError, ValueError, RuntimeError):
    """A state dict of another model (RuntimeError as in PyTorch)."""


class FileError(TensorError, ValueError):
    """A file that holds no tensors."""


class IndexingError(TensorError, IndexError):
    """An index that is not there, or is no index."""


def refused(error: Exception, function: Callable[..., Any], inputs: Any, options: Any) -> Any:
    """The error to raise in place of an error in a call: a TensorError, or the operating system's.
    None if the arguments fit, so that the fault is elsewhere, and its traceback is needed.

    An argument that does not fit may end in any error: ctypes and struct have their own.
    """
    complete = isinstance(error, (TensorError, OSError)) and type(error) is not ArgumentError
    if complete:
        return error.with_traceback(None)
    words = mistake(function, inputs, options)
    if words is not None:
        return ArgumentError(words)
    return error.with_traceback(None) if isinstance(error, ArgumentError) else None


def _in_users_function(error: Exception) -> TracebackType | None:
    """The frames of a hook that failed, without the engine's frames that led to the hook. None
    where none failed.
    """
    part = error.__traceback__
    while part is not None and part.tb_frame.f_code not in CALLERS:
        part = part.tb_next
    return part and part.tb_next


def brief(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: the traceback of what `function` refuses ends in its own frame, one below the
    user's line. Arguments that do not fit are refused in words. Of an error in a hook, the hook's
    frames follow.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        # Python forgets the name `error` at the end: an error and a frame that names the error
        # would be a circle of references
        except Exception as error:
            frames = _in_users_function(error)
            if frames is not None:
                raise error.with_traceback(frames)  # noqa: B904 (keeps the cause that it has)
            error = refused(error, function, args, kwargs)
            if error is None:
                raise
            raise error from None

    named: Any = call
    named.__code__ = named.__code__.replace(
        co_name=function.__name__, co_qualname=function.__qualname__
    )
    return call
