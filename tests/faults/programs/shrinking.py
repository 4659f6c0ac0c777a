"""The shortest program that still differs, and its text."""

from __future__ import annotations

from collections.abc import Iterator

from tests.faults.programs.comparing import Difference
from tests.faults.programs.namespaces import SOURCES
from tests.faults.programs.running import Run, replayed
from tests.faults.programs.step import HERE, TORCH, Step


def shrunk(steps: list[Step], wanted: Difference) -> list[Step]:
    """Leave out steps, and go round them, as long as a difference of that kind stays; an error
    must stay one of the same op.
    """
    found = True
    while found:
        found = False
        for shorter in candidates(steps):
            difference = replayed(shorter).difference
            if difference and difference.sort == wanted.sort:
                steps, found = shorter, True
                break
    return steps


def candidates(steps: list[Step]) -> Iterator[list[Step]]:
    """Shorter programs: without the last half, quarter, ... of the steps, without one, and with
    one input of a step in place of its result.
    """
    n = len(steps) // 2
    while n > 1:
        for start in range(0, len(steps) - n + 1, n):
            yield _closed(steps[:start] + steps[start + n :])
        n //= 2
    for i in reversed(range(len(steps))):
        yield _closed(steps[:i] + steps[i + 1 :])
    for i, step in enumerate(steps):
        for x in step.inputs:
            if x.startswith("x"):
                yield steps[:i] + [later.renamed(step.out, x) for later in steps[i + 1 :]]


def _closed(steps: list[Step]) -> list[Step]:
    """Without the steps whose inputs nobody makes any more."""
    made: set[str] = set()
    kept = []
    for step in steps:
        if step.names <= made:
            kept.append(step)
            made.add(step.out)
    return kept


def printed(steps: list[Step], run: Run) -> str:
    """The program, runnable in either library, and what differs."""
    assert run.difference is not None
    kind, where, text = run.difference
    lines = [f"# {kind} of {where}: " + text.replace("\n", "\n#     ")]
    for library in (HERE, TORCH):
        lines.append(f"# -- {library}")
        lines += [step.text(library) for step in steps]
    return "\n".join(lines)


def runnable(steps: list[Step], library: str) -> str:
    """The whole file for a library."""
    return "\n".join([SOURCES[library], *(step.text(library) for step in steps)])
