"""loss.png while a training goes on: there, whole, with the floor; and seldom enough to cost
little.
"""

from __future__ import annotations

import os
import time
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.helpers.program import TINY
from tinygpt.__main__ import main
from tinygpt.runs import curves as plot
from tinygpt.runs import run as runs
from tinygpt.training import loop
from tinygpt.training.meanwhile import Meanwhile

pytestmark = pytest.mark.usefixtures("here")
PNG = b"\x89PNG\r\n\x1a\n"


def test_it_is_drawn_when_the_run_is_saved(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    """Here each time; a reader always finds a whole one, and it holds the floor and all steps so
    far.
    """
    drawn: list[tuple[Any, int]] = []
    draw = plot.draw

    def noted(metrics: Path, picture: Path, **lines: Any) -> None:
        reader = picture.open("rb") if picture.exists() else None
        draw(metrics, picture, **lines)
        assert picture.read_bytes().startswith(PNG)
        if reader:  # who looks meanwhile sees the one before, to its end
            with reader:
                assert reader.read().endswith(b"IEND\xaeB`\x82")
        drawn.append((lines["floor"], metrics.read_text().count("\n")))

    monkeypatch.setattr(plot, "draw", noted)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PICTURE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PICTURE_SHARE", 0)
    assert main(["train", *TINY, "--steps", "4"]) == 0
    # after the steps; and at the end, with the loss over all windows
    assert [lines for _, lines in drawn] == [1, 2, 3, 5]
    assert all(isinstance(floor, float) for floor, _ in drawn)
    assert not list(here.rglob("*.tmp"))


def test_a_short_run_is_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(plot, "draw", lambda *_, **__: calls.append(1))
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    assert main(["train", *TINY, "--steps", "20"]) == 0
    assert len(calls) == 1


def test_a_drawing_that_takes_long_comes_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """At most a fiftieth of the time, whatever it takes."""
    now, drawn = [0.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def draw(*_: Path) -> None:
        drawn.append(now[0])
        now[0] += 2.0

    run, meanwhile = SimpleNamespace(folder=Path()), Meanwhile("cpu")
    parts = {"draw_picture": draw, "run": run, "meanwhile": meanwhile}
    parts |= {"begin_picture": lambda: loop.Training.begin_picture(training)}
    training = cast("loop.Training", SimpleNamespace(**parts, next_picture=loop.PICTURE_SECONDS))
    while now[0] < 1000:
        loop.Training.refresh(training)
        now[0] += 1.0
    assert drawn[0] == 30.0
    assert [round(b - a) for a, b in pairwise(drawn)] == [102] * (len(drawn) - 1)


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), AttributeError("no font"), MemoryError()]
)
def test_bug_86_a_picture_that_cannot_be_drawn_ends_no_training(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is said once, in one line, and not promised at the end."""

    def fail(*arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PICTURE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PICTURE_SHARE", 0)
    assert main(["train", *TINY, "--steps", "4"]) == 0
    out, err = capsys.readouterr()
    assert err.count("\n") == 1
    assert err.startswith("the picture cannot be drawn (")
    assert "saved in runs/story-1\n" in out
    assert not Path("runs/story-1/loss.png").exists()
    assert runs.load(Path("runs/story-1"))[0].name == "runs/story-1"


@pytest.mark.skipif(os.name == "nt", reason="signals cannot be sent there")
def test_ctrl_c_while_it_is_drawn(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The drawing ends, and the next step is the last: nothing is lost."""
    import signal

    draw, calls = plot.draw, iter(range(100))

    def interrupted(*arguments: Any, **options: Any) -> None:
        if next(calls) == 0:
            signal.raise_signal(signal.SIGINT)
        draw(*arguments, **options)

    monkeypatch.setattr(plot, "draw", interrupted)
    monkeypatch.setattr(loop, "SAVE_SECONDS", 0.0)
    monkeypatch.setattr(loop, "PICTURE_SECONDS", 0.0)
    assert main(["train", *TINY, "--steps", "100"]) == 130
    assert "stopped after step 2 of 100" in capsys.readouterr().out
    assert runs.load(Path("runs/story-1"))[0].name == "runs/story-1"
    assert Path("runs/story-1/loss.png").read_bytes().startswith(PNG)
