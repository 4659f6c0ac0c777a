"""`tinygpt step` on the screen: leaving, resizing, what Enter takes, planes that stay, the watch,
and a terminal without blocks.
"""

from __future__ import annotations

import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("textual")

from textual.widgets import Input, Static

from tests.helpers.program import refused
from tests.tinygpt.inside.test_step import session
from tests.tinygpt.inside.test_step_screen import Driven, drive
from tinygpt.__main__ import main
from tinygpt.inside import arrays
from tinygpt.inside.step import screen
from tinygpt.inside.step.screen import KEYS, StepApp, keys

pytestmark = pytest.mark.usefixtures("here")  # `refused` reads all files of the working folder


def test_control_c_and_control_q_leave(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupt(d: Driven) -> None:
        await d.press("n", "ctrl+c")

    async def interrupt_a_dialog(d: Driven) -> None:
        await d.press("g", "ctrl+c")

    async def leave(d: Driven) -> None:
        await d.press("ctrl+q")

    assert [drive(script).return_code for script in (interrupt, interrupt_a_dialog, leave)] == [
        130,
        130,
        0,
    ]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", type("Terminal", (), {"isatty": lambda self: True})())
    monkeypatch.setattr(StepApp, "run", lambda self: self.exit(return_code=130))
    assert main(["step"]) == 130


def fits(d: Driven) -> None:
    """Every pane holds what fits its size, and its first line goes over its width."""
    base = d.app.screen_stack[0]
    source, tree = base.query_one("#source", Static), base.query_one("#tree", Static)
    lines = d.text("source").splitlines()
    assert {len(line) for line in lines} == {source.size.width}
    assert len(lines) <= source.size.height
    assert max(map(len, d.text("tree").splitlines())) <= tree.size.width
    marked = next(line for line in d.text("values").splitlines() if line.startswith("➤"))
    assert len(marked) == base.query_one("#arrays").size.width - 1
    assert len(d.text("keys")) <= d.app.size.width


@pytest.mark.parametrize("sizes", [((80, 24), (140, 40), (80, 24)), ((30, 8), (200, 50), (30, 8))])
def test_a_resized_window_is_drawn_at_once(sizes: tuple[tuple[int, int], ...], run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.press("n", "n", "n")
        for size in sizes[1:]:
            await d.pilot.resize_terminal(*size)
            await d.pilot.pause()
            fits(d)

    drive(script, size=sizes[0])


def test_help_and_quit_are_always_among_the_keys() -> None:
    for width in (20, 60, 80, 200):
        assert keys(KEYS, width).plain.startswith("? help q quit")
        assert len(keys(KEYS, width)) <= width
    assert keys(KEYS, 200).plain.endswith("w watch")


def test_enter_takes_the_first_listed(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("w", "attention.weig")
        assert "the first listed was taken, blocks.0.attention.weights" in d.text("status")
        assert "6 x 6" in d.text("watch")
        await d.answer("g", "weights")  # a name ends in it
        assert any(
            line.startswith("➤") and "weights = softmax_array" in line
            for line in d.text("source").splitlines()
        )
        await d.answer("g", "final_n")
        assert "'final_n' alone: the first listed was taken, final_norm" in d.text("status")
        assert "final_norm" in d.place
        await d.answer("x", "9")
        assert not d.app.walk.breaks

    drive(script)


def test_where_it_halted_is_said(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("x", "op=gelu")
        await d.answer("x", "nan")
        await d.press("c")
        assert d.text("status") == "halted at op=gelu"

    drive(script)


def test_a_plane_stays_where_arrays_have_its_shape(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("g", "blocks.0.attention.attention")
        await d.press("right_square_bracket")
        assert "[0, 1, :, :], 2 of 2" in d.text("values")
        await d.press("n", "p")
        assert "[0, 1, :, :], 2 of 2" in d.text("values")
        await d.press("a")  # q
        assert "[0, 1, :, :], 2 of 2" in d.text("values")
        await d.answer("g", "blocks.0.attention.qkv")
        await d.press("a", "a", "right_square_bracket")  # the weight
        assert "there is one plane here" in d.text("status")

    drive(script, size=(140, 45))


def test_tokens_stand_beside_the_map(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("g", "blocks.0.attention.weights")
        lines = d.text("values").splitlines()
        at = next(
            i for i, line in enumerate(lines) if line.split() == ["T", "h", "e", "␣", "c", "a"]
        )
        assert [line[:4] for line in lines[at + 1 : at + 7]] == [
            f"'{token}' " for token in "The ca"
        ]
        await d.press("d")
        assert d.text("status").endswith("step-blocks.0.attention.attention.weights[0,0].png")

    drive(script)
    assert Path("runs/story-1/step-blocks.0.attention.attention.weights[0,0].png").exists()


def test_the_watch_takes_a_place_and_says_when(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("w", "blocks.0.attention.weights[0,1]")
        assert "6 x 6" in d.text("watch")
        assert "(after backward)" not in str(d.app.query_one("#watch").border_title)
        await d.answer("w", "final_norm.gain.grad")
        assert d.place.startswith(" forward ")
        assert "(after backward)" in str(d.app.query_one("#watch").border_title)

    drive(script, size=(100, 40))


def test_the_source_scrolls(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("g", "blocks.0.attention.attention")
        first = d.text("source").splitlines()
        await d.press("shift+down", "shift+down")
        assert d.text("source").splitlines()[:-2] == first[2:]
        await d.press("shift+up", "shift+up")
        assert d.text("source").splitlines() == first

    drive(script)


def test_without_block_characters(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (arrays, screen):
        monkeypatch.setattr(module, "is_plain", lambda: True)

    async def script(d: Driven) -> None:
        await d.answer("w", "blocks.0.attention.weights")
        await d.press("n", "n", "n")
        panes = [
            d.text(pane)
            for pane in ("title", "position", "tree", "values", "source", "watch", "status", "keys")
        ]
        assert all(text.isascii() for text in panes), panes
        assert "> out" in d.text("values")
        assert "-#" in d.text("values")
        await d.press("g")
        assert d.app.screen.query_one(Input).styles.border_top[0] == "ascii"
        drawn = "".join(strip.text for strip in d.app.screen._compositor.render_strips())
        assert drawn.isascii(), set(drawn)

    drive(script, session("The cat"))


def test_the_key_that_closes_the_help_does_nothing_else(run: Path) -> None:
    async def script(d: Driven) -> None:
        for key in ("n", "b", "q", "x", "escape"):
            await d.press("question_mark", key)
            assert len(d.app.screen_stack) == 1
            assert " 1 of " in d.place
        await d.press("n")
        assert " 2 of " in d.place

    assert drive(script).return_code is None


def test_a_key_that_does_nothing_says_so(run: Path) -> None:
    async def script(d: Driven) -> None:
        for key in ("s", "8"):
            await d.press(key)
            said = f"{key} is no key here: n goes on, i into the op; ? lists the keys"
            assert d.text("status") == said
        await d.press("n")
        assert d.text("status") == ""
        await d.press("g", "s")
        assert d.app.screen.query_one(Input).value == "s"
        await d.press("escape", "8")
        for key in ("a", "A"):
            await d.press(key)
            assert d.text("status") == ""
        for key in ("question_mark", "slash", "g", "x", "w"):
            await d.press(key, "escape")
            assert d.text("status") == ""

    drive(script)


def test_pictures_go_where_they_are_asked(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def script(d: Driven) -> None:
        await d.press("d")
        assert d.text("status").startswith("drawn: ")

    before = set(Path().iterdir())
    Path("pictures").mkdir()
    drive(script, replace(session(), folder=Path("pictures")))
    assert [path.name for path in Path("pictures").iterdir()] == ["step-embed.embedding.y[0].png"]
    assert set(Path().iterdir()) - before == {Path("pictures")}
    refused(capsys, "step", "--out", "nowhere", says="--out nowhere: there is no such folder")
    refused(capsys, "step", "--plain", "--out", "pictures", says="--out is for pictures of the")


def test_the_way_to_softmax_fits_the_screen(run: Path) -> None:
    async def script(d: Driven) -> None:
        await d.answer("x", "op=softmax")
        lines = textwrap.wrap(d.text("status"), d.app.screen.query_one("#status").size.width)
        assert "go there: g blocks.0.attention.weights on the screen" in " ".join(lines[:2])

    drive(script, session("The cat"))
