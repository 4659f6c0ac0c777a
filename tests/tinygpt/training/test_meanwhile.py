"""Saving while a GPU trains on: a thread writes copies, and every promise of saving is kept. The
thread is real here, and the GPU is not.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor.memory import pinned
from tensor.memory.devices import array_module
from tests.helpers.on_thread import OnThread
from tests.helpers.program import TINY, losses
from tinygpt.__main__ import main
from tinygpt.errors import InputError
from tinygpt.model import GPT
from tinygpt.runs import checkpoint, snapshots
from tinygpt.runs import run as runs
from tinygpt.training import loop
from tinygpt.training.meanwhile import Copied, Meanwhile
from tinygpt.training.reading import Moment

STEPS = ["--text", "text.txt", "--steps", "12", "--evaluate", "3", "--validation", "0.2"]


@pytest.fixture(autouse=True)
def on_thread(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    (here / "text.txt").write_text("the cat sat on the mat. " * 40)
    monkeypatch.setattr(loop, "Meanwhile", OnThread)


def saving(
    monkeypatch: pytest.MonkeyPatch, before: Callable[[int], None]
) -> list[tuple[int, bytes]]:
    """Let each checkpoint be written after `before(its step)`: the steps and weights of all."""
    save, wrote = runs.save, list[tuple[int, bytes]]()

    def writing(run: Any, content: runs.Content) -> None:
        before(content.state.step)
        save(run, content)
        wrote.append((content.state.step, (run.folder / runs.MODEL).read_bytes()))

    monkeypatch.setattr(loop.runs, "save", writing)
    return wrote


def at_step(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], Any]) -> None:
    """Let this happen when a step (from 1) begins. A measuring is no step."""
    loss, steps = GPT.loss, iter(range(1, 100))

    def acting(self: GPT, *arguments: Any, **options: Any) -> Any:
        if self.learning and len(arguments) == 3 and next(steps) == number:
            act()
        return loss(self, *arguments, **options)

    monkeypatch.setattr(GPT, "loss", acting)


def files(run: str) -> dict[str, bytes]:
    names = (runs.MODEL, runs.OPTIMIZER, runs.BEST)
    kept = Path(run).glob(f"{snapshots.FOLDER}/*")
    return {path.name: path.read_bytes() for path in (*(Path(run, name) for name in names), *kept)}


def step_of(run: str) -> int:
    state = checkpoint.state_of(Path(run))
    return 0 if state is None else state.step


# -- a whole training


def test_a_thread_writes_what_was_there_when_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps after it write over weights and moments meanwhile. The end waits for the thread."""
    in_main: list[bool] = []

    def slowly(step: int) -> None:
        in_main.append(threading.current_thread() is threading.main_thread())
        time.sleep(0.02)

    late = saving(monkeypatch, slowly)
    assert main(["train", *TINY, *STEPS, "--out", "late"]) == 0
    assert in_main == [False] * 4 + [True]
    monkeypatch.setattr(loop, "Meanwhile", Meanwhile)
    prompt = saving(monkeypatch, lambda step: None)
    assert main(["train", *TINY, *STEPS, "--out", "prompt"]) == 0
    assert [step for step, _ in late[:5]] == [3, 6, 9, 12, 12]
    assert late[:5] == prompt
    assert files("late") == files("prompt")
    assert checkpoint.state_of(Path("late")) == checkpoint.state_of(Path("prompt"))
    assert [r["step"] for r in losses(Path("late"))] == [r["step"] for r in losses(Path("prompt"))]


def test_steps_are_taken_while_a_checkpoint_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the next one: memory holds one copy at a time."""
    gone_on, copies = threading.Event(), list[int]()
    at_step(monkeypatch, 6, gone_on.set)

    def copied(self: OnThread, *groups: Any) -> Copied:
        copies.append(1)
        return copy(self, *groups)

    def waiting(step: int) -> None:
        if step == 3:
            assert gone_on.wait(10)
            time.sleep(0.1)
            assert len(copies) == 1

    copy = OnThread.copied
    monkeypatch.setattr(OnThread, "copied", copied)
    saving(monkeypatch, waiting)
    assert main(["train", *TINY, *STEPS, "--snapshots", "0", "--out", "one"]) == 0
    assert step_of("one") == 12


def test_an_error_of_the_thread_ends_the_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Soon, not at the next checkpoint. It is said, and the checkpoint before is whole."""
    bad, made = [6], list[OnThread]()

    def full(step: int) -> None:
        if step in bad:
            bad.remove(step)
            raise InputError("cannot save to one (No space left on device)\nfree some space there")

    saving(monkeypatch, full)

    def make(device: str) -> OnThread:
        made.append(OnThread(device))
        return made[-1]

    monkeypatch.setattr(loop, "Meanwhile", make)
    at_step(monkeypatch, 7, lambda: wait([work for work, _ in made[-1]._under_way], 10))
    assert main(["train", *TINY, *STEPS, "--out", "one"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert step_of("one") == 3
    assert losses(Path("one"))[-1]["step"] < 9
    assert main(["train", "--resume", "one"]) == 0
    assert step_of("one") == 12


def test_a_snapshot_that_cannot_be_written_ends_no_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(run: Any, step: int, weights: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(loop.snapshots, "save", refused)
    assert main(["train", *TINY, *STEPS, "--snapshots", "2", "--out", "one"]) == 0
    said = [f"no snapshot of step {step}: No space left on device\n" for step in (0, 12)]
    assert capsys.readouterr().err.startswith(said[0])
    assert step_of("one") == 12


def test_a_second_ctrl_c_waits_for_what_is_being_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is then said to be saved is there."""
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    def late(step: int) -> None:
        assert stopped.wait(10)
        time.sleep(0.05)

    at_step(monkeypatch, 5, stop)
    saving(monkeypatch, late)
    assert main(["train", *TINY, *STEPS, "--out", "one"]) == 130
    assert "the run is saved up to step 3;" in capsys.readouterr().err
    assert step_of("one") == 3


def test_a_folder_that_is_renamed_while_the_thread_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last checkpoint; it follows."""
    write, names = runs.checkpoint.write_arrays, iter(["", "", "", "elsewhere"])

    def renaming(path: Path, *rest: Any) -> Any:
        if path.name.startswith("optimizer") and (name := next(names, "")):
            Path("one").rename(name)
        return write(path, *rest)

    monkeypatch.setattr(runs.checkpoint, "write_arrays", renaming)
    assert main(["train", *TINY, *STEPS, "--evaluate-share", "1", "--out", "one"]) == 0
    assert not Path("one").exists()
    assert step_of("elsewhere") == 12


def test_the_curve_is_drawn_by_the_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one is not: nothing goes on then."""
    monkeypatch.setattr(loop, "PICTURE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PICTURE_SHARE", 0)
    drawn: list[bool] = []

    def draw(self: loop.Training, metrics: Path, picture: Path) -> None:
        drawn.append(threading.current_thread() is threading.main_thread())

    monkeypatch.setattr(loop.Training, "draw_picture", draw)
    assert main(["train", *TINY, *STEPS, "--out", "one"]) == 0
    assert drawn == [False, False, False, True]


# -- its parts


def test_work_is_done_in_order_and_ended_here() -> None:
    done: list[Any] = []

    def end(future: Future[int]) -> None:
        done.append((future.result(), threading.current_thread() is threading.main_thread()))
        if future.result() == 1:  # what an end begins is awaited too
            meanwhile.do(lambda: 9, end)

    with OnThread("cpu") as meanwhile:
        for number in (1, 2):
            meanwhile.do(lambda number=number: time.sleep(0.01) or number, end)  # type: ignore[misc]
        assert done == []
    assert done == [(1, True), (2, True), (9, True)]
    meanwhile.do(lambda: 5, end)  # outside, at once
    assert done[-1] == (5, True)


def test_the_error_that_came_first_counts() -> None:
    def fail() -> None:
        raise InputError("second")

    def end(future: Future[None]) -> None:
        future.result()

    def begun(after: list[Exception]) -> None:
        with OnThread("cpu") as meanwhile:
            meanwhile.do(fail, end)
            for error in after:
                raise error

    with pytest.raises(ValueError, match="first"):
        begun([ValueError("first")])
    with pytest.raises(InputError, match="second"):
        begun([])


def test_a_wait_that_is_interrupted_forgets_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a second Ctrl-C: what was awaited is ended by the end of the `with`."""
    done, interrupts = list[int](), iter([KeyboardInterrupt])
    exception = Future.exception

    def interrupted(self: Future[Any]) -> BaseException | None:
        for interrupt in interrupts:
            raise interrupt
        return exception(self)

    def begun() -> None:
        with OnThread("cpu") as meanwhile:
            meanwhile.do(lambda: 1, lambda future: done.append(future.result()))
            meanwhile.wait()

    monkeypatch.setattr(Future, "exception", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begun()
    assert done == [1]


def test_a_cpu_copies_nothing_and_has_no_thread() -> None:
    array = np.ones(3)
    with Meanwhile("cpu") as meanwhile:
        assert meanwhile.copied({"x": array}).ready()[0]["x"] is array
        done: list[int] = []
        meanwhile.do(lambda: done.append(threading.active_count()), lambda future: None)
        assert done == [threading.active_count()]


def test_copies_are_awaited(monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever writes them, and not before."""
    waits: list[str] = []
    monkeypatch.setattr(Moment, "wait", lambda moment: waits.append(moment.device))
    copied = Copied(({"x": 1},), Moment("cpu"))
    assert waits == []
    assert copied.ready() == ({"x": 1},)
    assert waits == ["cpu"]


def test_copies_of_a_gpu(device: str) -> None:
    """As the arrays were, also where their memory has gaps or another order."""
    if device == "cpu":
        pytest.skip("needs a GPU, --device cuda")
    cupy = array_module(device)
    whole = cupy.arange(60, dtype=np.float32).reshape(6, 10)
    given = [whole, whole[:, ::2], whole.T, cupy.zeros(0, np.int64), cupy.array(7, np.int8)]
    given.append(whole.astype("bfloat16"))
    expected = [array.get() for array in given]
    copies = pinned.copies(given)
    moment = Moment(device)
    whole[...] = 0
    found = Copied(({str(i): copy for i, copy in enumerate(copies)},), moment).ready()[0]
    for array, copy in zip(expected, found.values(), strict=True):
        assert copy.dtype == array.dtype
        assert np.array_equal(copy, array)
