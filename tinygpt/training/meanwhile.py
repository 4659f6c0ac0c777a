"""Files written while a GPU trains on: a thread writes them, from copies of what the GPU had.

On a CPU they are written at once. A thread would take its time from the cores that train, and the
copies would take memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, Self, TypeAlias

from tensor.memory import pinned
from tensor.memory.devices import Array
from tinygpt.training.reading import Moment

Arrays: TypeAlias = "Mapping[str, Array]"
Work: TypeAlias = "Callable[[], Any]"
# called when the work has ended; result() raises what the work raised
Then: TypeAlias = "Callable[[Future[Any]], None]"
# seconds that the training waits at most when the thread runs Python: a step queues much in one
SWITCH = 1e-4


class Meanwhile:
    """`with Meanwhile(device) as meanwhile:` pieces of work are done one after the other: by a
    thread, or outside the `with` and on a CPU at once.

    At the end of the `with`, all work is done. After an error in the `with`, that error counts.
    """

    def __init__(self, device: str):
        self.device = device
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: list[tuple[Future[Any], Then]] = []

    def __enter__(self) -> Self:
        if self.device != "cpu":
            self._pool, self._before = ThreadPoolExecutor(1), sys.getswitchinterval()
            sys.setswitchinterval(SWITCH)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            with suppress(*[Exception] * (kind is not None)):
                self.wait()
        finally:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None
                sys.setswitchinterval(self._before)

    def do(self, work: Work, then: Then) -> None:
        """Do the work after all before it, and then, at a `look` or `wait`, call `then` here."""
        future = at_once(work) if self._pool is None else self._pool.submit(work)
        self._under_way.append((future, then))
        if self._pool is None:
            self.wait()

    def look(self) -> None:
        """End what is done. Raises what `then` raises."""
        while self._under_way and self._under_way[0][0].done():
            future, then = self._under_way.pop(0)
            then(future)

    def wait(self) -> None:
        """End all work, also what `then` begins."""
        while self._under_way:
            # a Ctrl-C may end this wait: the work is still there, for the end of the `with`
            self._under_way[0][0].exception()
            self.look()

    def copied(self, *groups: Arrays) -> Copied:
        """These arrays as they are now."""
        if self._pool is None:
            return Copied(groups, Moment("cpu"))
        arrays = [array for group in groups for array in group.values()]
        copies = iter(pinned.copies(arrays))
        found = tuple(dict(zip(group, copies, strict=False)) for group in groups)
        return Copied(found, Moment(self.device))


class Copied(NamedTuple):
    """Arrays that are whole after a moment."""

    groups: tuple[Arrays, ...]
    moment: Moment

    def ready(self) -> tuple[Arrays, ...]:
        """The arrays, when they are whole."""
        self.moment.wait()
        return self.groups


def at_once(work: Work) -> Future[Any]:
    """The work, done."""
    future: Future[Any] = Future()
    try:
        future.set_result(work())
    except BaseException as error:
        future.set_exception(error)
    return future
