"""How fast the page of `tinygpt look` opens and answers the mouse, in Chromium without a window.

    python benchmarks/look_page.py

The page has 512 tokens, 4 layers of 4 heads and 8 sets of weights. The weights are from a run of 8
steps on random letters: such a page is as large as any other. Opening is the time from the
navigation until the map of attention is drawn. A hover is the time from the browser's event until
the frame after it. Ten pages are opened, and fifty tokens and cells of the map are hovered. Printed
are the median and the worst. Needs the package playwright, and Chromium on the path.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

TOKENS, PAGES, HOVERS = 512, 10, 50
MODEL = (
    f"--context {TOKENS} --width 128 --heads 4 --layers 4 --tokenizer byte "
    "--batch 1 --steps 8 --validation 0"
).split()
MIDDLES = (
    "[...document.querySelectorAll('#tokens li')].map((chip) => chip.getBoundingClientRect())"
    ".map((box) => [box.x + box.width / 2, box.y + box.height / 2])"
)
NOTE_HOVERS = """() => {
  window.hovers = [];
  addEventListener("pointermove", (event) => requestAnimationFrame(() => {
    const channel = new MessageChannel(); // its message comes after the frame has been drawn
    channel.port1.onmessage = () => hovers.push(performance.now() - event.timeStamp);
    channel.port2.postMessage(0);
  }), { capture: true });
}"""


def make_page(folder: Path) -> Path:
    """A short run, and its page."""
    letters = (
        np.random.default_rng(0).integers(97, 123, 4 * TOKENS).astype(np.uint8).tobytes().decode()
    )
    (folder / "text.txt").write_text(letters)
    program = [sys.executable, "-m", "tinygpt"]
    subprocess.run(
        [*program, "train", "--text", "text.txt", *MODEL],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    subprocess.run(
        [*program, "look", "--prompt", letters[: TOKENS - 16]],
        cwd=folder,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return next(folder.glob("runs/*/look.html"))


def opening(browser: Browser, page: Path) -> float:
    """Milliseconds from the navigation to the first view."""
    tab = browser.new_page()
    tab.goto(page.as_uri())
    until(tab, "performance.getEntriesByName('look: drawn attention').length > 0")
    taken: float = tab.evaluate(
        "performance.getEntriesByName('look: drawn attention')[0].startTime"
    )
    tab.close()
    return taken


def until(tab: Page, condition: str) -> None:
    """Wait; not with the page's own eval, which its policy forbids."""
    while not tab.evaluate(condition):
        tab.wait_for_timeout(10)


def hovering(tab: Page, boxes: list[tuple[float, float]]) -> list[float]:
    """Milliseconds of each hover."""
    tab.evaluate(NOTE_HOVERS)
    for number, (x, y) in enumerate(boxes, 1):
        tab.mouse.move(x, y)
        until(tab, f"hovers.length >= {number}")
        tab.wait_for_timeout(20)
    found: list[float] = tab.evaluate("hovers")
    return found


def places(tab: Page) -> list[tuple[float, float]]:
    """In turn the middle of a token and of a cell, far apart."""
    draw = np.random.default_rng(1)
    chips: list[list[float]] = tab.evaluate(MIDDLES)
    box: dict[str, Any] | None = tab.locator("#attention canvas").bounding_box()
    assert box is not None
    found = []
    for _ in range(HOVERS // 2):
        x, y = chips[int(draw.integers(len(chips)))]
        found.append((x, y))
        found.append(
            (
                box["x"] + box["width"] * float(draw.uniform(0.05, 0.95)),
                box["y"] + min(box["height"], 500) * float(draw.uniform(0.05, 0.95)),
            )
        )
    return found


def main() -> None:
    chromium = next(
        found
        for name in ("chromium", "google-chrome", "chromium-browser")
        if (found := shutil.which(name))
    )
    with tempfile.TemporaryDirectory() as name, sync_playwright() as play:
        page = make_page(Path(name))
        arguments = [
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--disable-component-update",
            "--disable-sync",
        ]
        browser = play.chromium.launch(executable_path=chromium, args=arguments)
        opened = [opening(browser, page) for _ in range(PAGES)]
        tab = browser.new_page(viewport={"width": 1280, "height": 1400})
        tab.goto(page.as_uri())
        tab.wait_for_timeout(2000)
        hovers = hovering(tab, places(tab))
        browser.close()
        print(f"{page.stat().st_size / 2**20:.1f} MiB, {TOKENS} tokens")
        print(
            f"opens in   {statistics.median(opened):6.0f} ms, at worst {max(opened):.0f}   "
            "(wanted: under 2,000)"
        )
        print(
            f"hovers in  {statistics.median(hovers):6.1f} ms, at worst {max(hovers):.1f}   "
            "(wanted: under 50)"
        )


if __name__ == "__main__":
    main()
