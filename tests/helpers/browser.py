"""A browser for tests, and the page of a small run in it: fixtures, which conftest.py takes from
here.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tinygpt.__main__ import main

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
MODEL = [
    "--width",
    "16",
    "--heads",
    "2",
    "--layers",
    "2",
    "--context",
    "24",
    "--batch",
    "4",
    "--steps",
    "40",
    "--snapshots",
    "4",
]
PROMPT = "The cat sat on"


class Watched:
    """A page that was opened, and all that it said and asked for."""

    def __init__(self, browser: Any, path: Path, **options: Any):
        self.page = browser.new_page(**({"viewport": {"width": 1280, "height": 900}} | options))
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.open(path)

    def open(self, path: Path) -> None:
        """The page, as if for the first time."""
        self.said.clear()
        self.asked.clear()
        self.page.bring_to_front()  # a page behind another is not drawn
        self.page.goto(path.as_uri())
        self.until("performance.getEntriesByName('look: ready').length")

    def __call__(self, script: str) -> Any:
        return self.page.evaluate(script)

    def until(self, condition: str) -> None:
        """Wait, not with the page's own eval, which its policy forbids."""
        for _ in range(100):
            if self(condition):
                return
            self.page.wait_for_timeout(20)
        raise AssertionError(condition)

    def settle(self) -> None:
        self.page.wait_for_timeout(60)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A headless browser. Without one, or without playwright, its tests are skipped."""
    sync_api = pytest.importorskip("playwright.sync_api")
    found = next(
        (
            found
            for name in ("chromium", "google-chrome", "chromium-browser")
            if (found := shutil.which(name))
        ),
        None,
    )
    if found is None:
        pytest.skip("no Chromium here")
    with sync_api.sync_playwright() as play:
        opened = play.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield opened
        opened.close()


def made(folder: Path, text: str | None, prompt: str, *options: str) -> Path:
    """A short run in that folder, and its page."""
    with contextlib.chdir(folder):
        given = []
        if text is not None:
            Path("text.txt").write_text(text, encoding="utf-8")
            given = ["--text", "text.txt"]
        assert main(["train", *given, *MODEL, *options]) == 0
        assert main(["look", "--prompt", prompt]) == 0
    return next(folder.glob("runs/*/look.html"))


@pytest.fixture(scope="module")
def look_page(chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a small run on the story."""
    return made(tmp_path_factory.mktemp("look"), None, PROMPT)


@pytest.fixture(scope="module")
def tab(chromium: Any, look_page: Path) -> Watched:
    """One for many tests: to open the page anew is faster than to open a browser's."""
    return Watched(chromium, look_page)


@pytest.fixture
def opened(tab: Watched, look_page: Path) -> Iterator[Watched]:
    """The page; afterwards it must have said nothing, and asked for nothing but itself."""
    tab.open(look_page)
    yield tab
    tab.settle()
    assert tab.said == []
    assert tab.asked == [look_page.as_uri()]
