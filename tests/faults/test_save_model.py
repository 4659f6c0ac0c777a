"""Whenever a save is cut short, the run loads, its files are of one checkpoint, and the next save
leaves nothing behind.

Every state that a kill can leave, then every later operation: sample, resume, a save that is the
best one or not, a save that finds the disk full at each of its own operations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor.random import Generator
from tests.faults.save_model import Disk, Tree, put, states, tree, unflushed
from tests.helpers.program import created
from tinygpt import GPT, CharacterTokenizer, GPTConfig, TrainConfig
from tinygpt.errors import InputError
from tinygpt.runs import checkpoint
from tinygpt.runs import run as runs
from tinygpt.runs.checkpoint import Progress
from tinygpt.runs.run import Run
from tinygpt.training.step import optimizer_of

TOKENIZER = CharacterTokenizer("The cat.")
CONFIG = GPTConfig(TOKENIZER.size, context=2, width=2, heads=1, layers=1)
MODEL = GPT(CONFIG, generator=Generator(0))
OPTIMIZER = optimizer_of(MODEL, TrainConfig())
KEPT = {runs.CONFIG, runs.TOKENIZER, runs.MODEL, runs.OPTIMIZER, runs.STATE}
SNAPSHOT = "snapshots/1.safetensors"


def save(run: Run, progress: Progress) -> None:
    """A checkpoint in which every number is the step."""
    for parameter in MODEL.parameters():
        parameter.array[...] = progress.step
    for array in OPTIMIZER.state_dict()["arrays"].values():
        array[...] = progress.step
    OPTIMIZER.counts = dict.fromkeys(OPTIMIZER.counts, progress.step)
    runs.save(run, runs.gathered(MODEL, OPTIMIZER, progress))


def following(progress: Progress, best: bool) -> Progress:
    step = progress.step + 1
    return (
        Progress(step, 1 / step, 1 / step, step)
        if best
        else replace(progress, step=step, loss=2.0, worse=0)
    )


def check(run: Run) -> Progress:
    """Load all there is, as resume and sample do: of one checkpoint, and the best weights those
    that were measured.

    Where it stands.
    """
    progress = runs.resume(run, MODEL, OPTIMIZER)
    assert numbers([*MODEL.state_dict().values(), *OPTIMIZER.state_dict()["arrays"].values()]) == {
        progress.step
    }
    assert set(OPTIMIZER.counts.values()) == {progress.step}
    _, best, _ = runs.load(run.folder, best=True)
    assert numbers(best.state_dict().values()) == {progress.best_step or progress.step}
    return progress


def numbers(arrays: Any) -> set[float]:
    return {
        float(number) for array in arrays for number in np.unique(getattr(array, "array", array))
    }


def names(progress: Progress) -> set[str]:
    return KEPT | ({runs.BEST} if progress.best_step else set())


# -- what is there before the save that is cut short


def old(files: Tree) -> Tree:
    """As a version without seals wrote it."""
    state = json.loads(files[runs.STATE])
    del state["files"]
    return {**files, runs.STATE: json.dumps(state).encode()}


def starts(run: Run) -> Iterator[tuple[str, Tree]]:
    """Folders of each history, with what other saves may have left in them.

    In each the run stands at step 2, or nowhere.
    """
    nothing = tree(run.folder)
    yield "fresh", nothing
    made = {}
    for first in (False, True):
        for second in (False, True):
            put(run.folder, nothing)
            progress = following(Progress(), first)
            with Disk(run.folder):
                save(run, progress)
                save(run, following(progress, second))
            made[first, second] = tree(run.folder)
            yield f"best {first}, then {second}", made[first, second]
    whole, other = made[True, False], made[False, True]
    for name, content in {
        "empty": b"",
        "half": other[runs.BEST][:50],
        "another": other[runs.BEST],
    }.items():
        yield (
            f"{name} .new files",
            {**whole, f"{runs.BEST}.new": content, f"{runs.MODEL}.new": content},
        )
    yield (
        "the library's own",
        {
            **whole,
            ".tmpAbC123": b"x",
            "snapshots/.tmpXYZ789": b"x",
            SNAPSHOT: b"kept",
            f"{SNAPSHOT}.tmp": b"x",
        },
    )
    yield "an old version", old(whole)
    yield (
        "an old version, and what it left",
        {**old(whole), f"{runs.BEST}.new": b"", f"{runs.MODEL}.new": other[runs.MODEL]},
    )
    unmoved = {f"{name}.new": whole[name] for name in (runs.MODEL, runs.OPTIMIZER)} | {
        f"{runs.STATE}.new": old(whole)[runs.STATE]
    }
    before = {**old(made[True, True]), runs.BEST: whole[runs.BEST]}
    yield "an old version, killed while it moved", {**before, **unmoved}
    yield (
        "the same, and a best file of a save before",
        {**before, **unmoved, f"{runs.BEST}.new": b""},
    )
    unmoved[f"{runs.STATE}.new"] = whole[runs.STATE]
    before = {**made[True, True], runs.BEST: whole[runs.BEST]}
    yield (
        "killed while it moved, and another best file",
        {**before, **unmoved, f"{runs.BEST}.new": other[runs.BEST]},
    )
    yield (
        "killed before it moved",
        {
            **nothing,
            **{f"{name}.new": other[name] for name in names(Progress(2, 1, 1, 2)) - set(nothing)},
        },
    )


# -- every state, every later operation


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return created(Run(CONFIG, TrainConfig(), "The", folder=tmp_path / "run"), TOKENIZER)


def cut_short(run: Run, before: Tree, best: bool) -> Iterator[tuple[Progress | None, Tree]]:
    """The states that a save leaves when it is killed, and where the run must then stand; None
    where it never was saved.
    """
    put(run.folder, before)
    old_progress = check(run) if any(name.startswith(runs.STATE) for name in before) else None
    new_progress = following(old_progress or Progress(), best)
    with Disk(run.folder) as disk:
        save(run, new_progress)
    after = tree(run.folder)
    assert set(after) - {SNAPSHOT} == names(new_progress)
    assert unflushed(disk.operations) == []
    mark = next(i for i, op in enumerate(disk.operations) if op.target == f"{runs.STATE}.new")
    for done, files in states(before, disk.operations):
        yield (new_progress if done > mark else old_progress), files
    assert files == after  # nothing was done that is not in the model


def later(run: Run, files: Tree, expected: Progress | None, settled: set[frozenset[Any]]) -> None:
    """All that can come next, each from the same state.

    A save first settles; from there on it does the same for all states that are then equal.
    """
    put(run.folder, files)
    if expected is None:
        with pytest.raises(InputError, match="is missing"):
            runs.load(run.folder)
    else:
        assert check(run) == expected
    assert tree(run.folder) == files  # looking changes nothing
    for best in (False, True):
        put(run.folder, files)
        progress = following(expected or Progress(), best)
        with Disk(run.folder) as disk:
            save(run, progress)
        assert check(run) == progress
        assert set(tree(run.folder)) - {SNAPSHOT} == names(progress)
    settling = next(i for i, operation in enumerate(disk.operations) if operation.kind == "make")
    *_, (_, after) = states(files, disk.operations[:settling])
    known = frozenset(after.items()) in settled
    settled.add(frozenset(after.items()))
    for number in range(settling if known else len(disk.operations)):
        put(run.folder, files)
        full(run, expected, progress, number)


def full(run: Run, before: Progress | None, progress: Progress, number: int) -> None:
    """A save that finds the disk full at that operation says so, or had done all that matters; then
    the disk has room again.
    """
    with Disk(run.folder, full=number):
        try:
            save(run, progress)
        except InputError as error:
            assert "No space left" in str(error)  # noqa: PT017 (the state is checked below)
    now = None if before is None and checkpoint.state_of(run.folder) is None else check(run)
    assert now in (before, progress)
    after = following(now or Progress(), best=False)
    with Disk(run.folder):
        save(run, after)
    assert check(run) == after
    assert set(tree(run.folder)) - {SNAPSHOT} == names(after)


def test_bug_80_whenever_a_save_is_cut_short(run: Run) -> None:
    seen: dict[frozenset[Any], Progress | None] = {}
    settled: set[frozenset[Any]] = set()
    for history, before in list(starts(run)):
        for best in (False, True):
            for expected, files in cut_short(run, before, best):
                state = frozenset(files.items())
                if state not in seen:
                    seen[state] = expected
                    later(run, files, expected, settled)
                assert seen[state] == expected, history
    assert len(seen) > 100, len(seen)
    print(len(seen), len(settled))
