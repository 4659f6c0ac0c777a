"""`tinygpt step` on the screen, driven by textual's own driver: forward, backward, breakpoints,
quit; and what a newcomer may do wrong.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("textual")

from rich.text import Text
from textual.pilot import Pilot
from textual.widgets import Input, Static

from tests.helpers.program import TINY, refused
from tests.tinygpt.inside.test_step import damaged, session
from tinygpt.__main__ import main
from tinygpt.commands import step
from tinygpt.inside.step import panes
from tinygpt.inside.step.names import Names
from tinygpt.inside.step.recorded import Session, recorded
from tinygpt.inside.step.screen import StepApp
from tinygpt.inside.step.training import trained
from tinygpt.runs import run as runs
from tinygpt.training import jobs

DRAWN = Path("runs/story-1/step-blocks.0.attention.qkv.linear.bias.png")
Script = Callable[["Driven"], Awaitable[None]]


class Driven:
    """A program under a test's hands."""

    def __init__(self, app: StepApp, pilot: Pilot[None]):
        self.app, self.pilot = app, pilot

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)

    async def answer(self, key: str, text: str) -> None:
        """Open a dialog, fill it in, confirm. Typing takes the driver a tenth of a second a key:
        one test does it.
        """
        await self.press(key)
        self.app.screen.query_one(Input).value = text
        await self.press("enter")

    def text(self, pane: str) -> str:
        """What a pane holds."""
        content = self.app.screen_stack[0].query_one(f"#{pane}", Static).content
        assert isinstance(content, Text)  # never markup
        return content.plain

    @property
    def place(self) -> str:
        return self.text("position")


def drive(script: Script, what: Session | None = None, size: tuple[int, int] = (80, 24)) -> StepApp:
    """Run the program without a terminal, and the script on it."""

    async def run() -> StepApp:
        app = StepApp(what or session())
        async with app.run_test(size=size) as pilot:
            await pilot.pause()
            await script(Driven(app, pilot))
        return app

    return asyncio.run(run())


# -- what must be shown


def test_an_encoder_decoder_on_the_screen(reversing: Path) -> None:
    """Its parts are those of the recording; the watched weights stand beside source and target."""

    async def script(d: Driven) -> None:
        assert "encoder.0" in d.text("tree")
        await d.answer("slash", "decoder.0.cross_attention")
        assert "decoder.0.cross_attention" in d.text("position")
        await d.answer("w", "decoder.0.cross_attention.weights")
        watched = d.text("watch").splitlines()
        assert watched[-7].split() == list("abcde")
        assert watched[-6].startswith("'<sos>' ")
        await d.press("b")
        assert d.text("position").startswith(" backward ")

    drive(script, recorded(*runs.load(reversing), "abcde", "reference"), (120, 50))


@pytest.mark.parametrize("size", [(80, 24), (140, 45)])
def test_forward_backward_breakpoint_and_quit(size: tuple[int, int], run: Path) -> None:
    async def script(d: Driven) -> None:
        count = len(d.app.walk.stops)
        assert d.place.startswith(f" forward  1 of {count} ")
        await d.press("n", "n", "right", "right", "p")
        assert f" 4 of {count} " in d.place
        assert "layer_norm" in d.place
        assert "➤ layer_norm" in d.text("tree")
        assert "y = gain * (x - mean)" in d.text("values")
        assert "from embed.add" in d.text("values")
        await d.press("b")
        assert d.place.startswith(" backward ")
        assert "cross_entropy" in d.place
        assert "backward starts here: dL/dL = 1" in d.app.walk.stop.inputs[0].note
        await d.press("n", "n")
        assert "of 1" in d.text("values")
        await d.answer("x", "op=gelu")
        assert "breakpoint op=gelu" in d.text("status")
        await d.press("c")
        assert d.place.startswith(" backward ")
        assert "gelu" in d.place
        assert "● breakpoint" in d.place or size[0] == 80
        await d.press("c")
        assert "last stop" in d.text("status")
        await d.answer("x", "1")
        assert not d.app.walk.breaks
        await d.press("q")

    assert drive(script, size=size).return_code == 0


def test_into_goes_through_the_source(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("slash", "blocks.0.attention.attention")
        await d.press("i")
        assert "line 1 of" in d.place
        while "scores = scale" not in next(
            line for line in d.text("source").splitlines() if line.startswith("➤")
        ):
            assert "line" in d.place
            await d.press("n")
        assert "➤ scores" in d.text("values")
        assert "(1,2,6,6)" in d.text("values")
        await d.press("o")
        assert "line" not in d.place
        assert "attention" in d.place

    drive(script)


def test_a_name_leads_to_the_line_that_makes_it_and_heads_turn(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.press("g", *"n.w")
        d.app.screen.query_one(Input).value += "eights"
        await d.press("tab", "enter")
        assert any(
            line.startswith("➤") and "weights = softmax_array" in line
            for line in d.text("source").splitlines()
        )
        assert "[0, 0, :, :], 1 of 2" in d.text("values")
        one = d.text("values")
        await d.press("right_square_bracket")
        assert "[0, 1, :, :], 2 of 2" in d.text("values")
        assert one.splitlines()[-6:] != d.text("values").splitlines()[-6:]
        await d.press("left_square_bracket")
        assert d.text("values") == one
        await d.answer("g", "nothing.like.this")
        assert "nothing here is named" in d.text("status")
        await d.press("g", "escape")
        assert d.text("values") == one

    drive(script, size=(140, 45))


def test_arrays_are_chosen_watched_and_drawn(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("g", "blocks.0.attention.qkv")
        assert "➤ out    y " in d.text("values")
        await d.press("a")
        assert "➤ in     x " in d.text("values")
        d.app.action_array(-2)
        assert "➤ in     bias" in d.text("values")
        await d.press("d")
        assert d.text("status") == f"drawn: {DRAWN.resolve()}"
        await d.answer("w", "blocks.0.attention.weights")
        assert "6 x 6" in d.text("watch")
        await d.press("n")
        assert "6 x 6" in d.text("watch")
        await d.answer("w", "no.such")
        assert "nothing in this recording is named" in d.text("status")
        await d.answer("w", "")
        assert not d.app.query_one("#watch").display
        await d.press("down", "m", "question_mark")
        assert len(d.app.screen_stack) == 2
        await d.press("n")  # any key closes the help, and does no more
        assert len(d.app.screen_stack) == 1

    drive(script)
    assert (
        Path("runs/story-1/step-blocks.0.attention.qkv.linear.bias.png")
        .read_bytes()
        .startswith(b"\x89PNG")
    )


def test_wrong_breakpoints_are_told(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("x", "op=gelv")
        assert "did you mean gelu?" in d.text("status")
        await d.answer("x", "shape=a")
        assert "whole numbers" in d.text("status")
        assert not d.app.walk.breaks
        await d.press("c")
        assert "there is no breakpoint" in d.text("status")
        await d.press("n")
        assert "this is the last stop" in d.text("status")

    drive(script)


def test_the_first_nan_is_found(run: Path) -> None:
    damaged(run, "blocks.0.feed_forward.expand.weight", (3, 7), np.nan)

    async def script(d: Driven) -> None:
        assert "holds 1 NaN" in d.text("status")
        await d.answer("x", "nan")
        await d.press("c")
        assert "blocks.0.feed_forward linear" in d.place
        assert "held already by weight, blocks.0.feed_forward.expand.weight" in d.text("values")
        await d.answer("g", "loss")
        assert "1 NaN" in d.text("values")

    drive(script, size=(140, 45))


def test_a_step_of_training(run: Path) -> None:
    what, taken = trained(jobs.reopened(None), "reference")

    async def script(d: Driven) -> None:
        await d.answer("g", "clip_gradients")
        assert f"norm {taken.norm:.6g}" in d.text("values")
        await d.answer("g", "final_norm.gain.update")
        assert d.place.startswith(" update ")
        assert "mean of squared gradients" in d.text("values")
        await d.press("i", "n")
        assert any(
            line.startswith("➤") and "m *= b1" in line for line in d.text("source").splitlines()
        )

    drive(script, what, size=(140, 45))


# -- text is data


def test_text_is_never_markup(here: Path) -> None:
    text = "[red]a[/red] [@click=app.quit]b[/] $x [/] "
    Path("text.txt").write_text(text * 4)
    assert main(["train", *TINY, "--context", "32", "--text", "text.txt", "--steps", "1"]) == 0

    async def script(d: Driven) -> None:
        assert "[red]a[/red] [@click=app" in d.text("title")
        await d.answer("g", "[/red]")
        assert "'[/red]'" in d.text("status")
        await d.answer("x", "op=[bold]")
        await d.answer("w", "[blue]")
        assert "'[blue]'" in d.text("status")

    drive(script, session("[red]a[/red] [@click=app.quit]"))


def test_every_stop_can_be_shown_in_any_room(run: Path) -> None:
    """All stops and all their lines, in the smallest window and in a large one; no line is wider
    than the pane.
    """
    w = session().walk
    for width, height in ((24, 4), (56, 12), (110, 30)):
        for i in range(len(w.stops)):
            w.go(i)
            for _ in range(3):
                for text in (
                    panes.tree(w, width, height),
                    panes.source(w, panes.View(), width, height),
                ):
                    assert max(map(len, text.plain.splitlines()), default=0) <= width
                    assert len(text.plain.splitlines()) <= height
                assert panes.arrays(w, panes.View(), width, height, Names()).plain
                if i % 5 or w.into():
                    break
                w.next()


def test_shown_without_colour(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(d: Driven) -> None:
        await d.press("n", "n", "n")
        assert "➤ out" in d.text("values")
        assert "-█" in d.text("values")

    drive(script)


# -- where it cannot run


def test_without_textual_it_says_what_to_install(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    find = step.importlib.util.find_spec
    monkeypatch.setattr(
        step.importlib.util, "find_spec", lambda name: None if name == "textual" else find(name)
    )
    refused(capsys, "step", says="pip install 'tinygpt[step]'")


def test_it_starts_where_a_terminal_is(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first breakpoint, if one was given."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    started: list[Any] = []
    monkeypatch.setattr(StepApp, "run", lambda self: started.append(self.walk.stop.op))
    assert main(["step", "--break", "op=gelu"]) == 0
    assert started == ["gelu"]
    assert "textual" in sys.modules
