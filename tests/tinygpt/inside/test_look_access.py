"""The page of `tinygpt look` for everyone: by keyboard, read aloud, in the dark, on a phone,
without motion.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.browser import Watched


def test_everything_is_reached_with_the_keyboard(opened: Watched) -> None:
    """Tab goes through all that can be used, and shows where it is."""
    seen: dict[str, bool] = {}
    for _ in range(160):
        opened.page.keyboard.press("Tab")
        name, outlined = opened("""(() => {
            const at = document.activeElement;
            const style = getComputedStyle(at.type === "radio" ? at.parentElement : at);
            const own = at.id || at.dataset.step || at.dataset.place || at.name;
            const name = own || at.closest("[id]")?.id || at.tagName;
            const outlined = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
            return [at.tagName + " " + name, outlined];
        })()""")
        if name.startswith("BODY"):
            break
        seen[name] = outlined
    kinds = " ".join(seen)
    for wanted in (
        "INPUT when",
        "INPUT block",
        "INPUT head",
        "LI ",
        "CANVAS attention",
        "CANVAS step",
        "CANVAS map",
        "BUTTON play",
        "BUTTON thumbnails",
        "BUTTON 3",
    ):
        assert wanted in kinds, seen
    assert all(seen.values()), seen


def test_a_click_chooses_a_step(opened: Watched) -> None:
    opened.page.locator("#steps button", has_text="Keys k").first.click()
    assert opened.page.locator("#step-title").text_content() == "Keys k"
    opened.page.locator("#thumbnails button").nth(3).click()
    assert opened("[now.block, now.head]") == [1, 1]
    assert "Block 0, head 1:" in opened.page.locator("#step-note").text_content()


def test_arrow_keys_move_through_tokens_and_steps(opened: Watched) -> None:
    opened.page.locator("#tokens [tabindex='0']").focus()
    opened.page.keyboard.press("Home")
    opened.page.keyboard.press("ArrowRight")
    assert opened("now.token") == opened("Number(document.activeElement.dataset.place)") == 1
    opened.page.keyboard.press("End")
    assert opened("now.token") == opened("tokens - 1")
    opened.page.locator("#steps button").first.focus()
    for _ in range(25):  # into the block that was closed
        opened.page.keyboard.press("ArrowDown")
    assert opened("now.step") == 25
    assert opened("document.activeElement.checkVisibility()")
    opened.page.locator("#map").focus()
    opened.page.keyboard.press("ArrowRight")
    assert "Nearest:" in opened.page.locator("#map-said").text_content()


def test_what_is_told_has_names(opened: Watched) -> None:
    """Every control has one, live regions tell what a hover says, and every picture has a
    description.
    """
    unnamed = opened("""[...document.querySelectorAll(
        "button, input, canvas, [role=option], fieldset")].filter((e) => {
        const own = e.getAttribute("aria-label") || e.textContent || e.labels?.[0]?.textContent;
        const label = own || e.parentElement.getAttribute("aria-label");
        return e.checkVisibility() && !label?.trim();
    }).map((e) => e.outerHTML)""")
    assert unnamed == []
    for live in ("#seen", "#attention .said", "#step .said", "#map-said", "#step-title"):
        assert opened.page.locator(live).get_attribute("aria-live") == "polite"
    assert opened("document.documentElement.lang") == "en"
    assert opened(
        "[...document.querySelectorAll('h1, h2, h3')].map((h) => h.tagName[1]).join('')"
    ).startswith("12")


CONTRAST = """() => {
  const pen = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const over = (colour) => {
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data];
  };
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility({ visibilityProperty: true })) continue;
    if (e.closest(".hidden, .skip, script, noscript")) continue;
    pen.clearRect(0, 0, 1, 1);
    over(getComputedStyle(document.body).backgroundColor);
    const above = [];
    for (let at = e; at && at !== document.body; at = at.parentElement) above.unshift(at);
    let ground = null; for (const at of above) ground = over(getComputedStyle(at).backgroundColor);
    const ink = over(getComputedStyle(e).color);
    const [a, b] = [light(ground), light(ink)].sort((x, y) => y - x);
    const what = `${e.tagName}#${e.id}.${e.className} ${e.textContent.slice(0, 30)}`;
    found.push([(a + 0.05) / (b + 0.05), what]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out(chromium: Any, look_page: Path, scheme: str) -> None:
    """Contrast of 4.5 wherever there is text, tokens in the colours of all heads among it."""
    watched = Watched(chromium, look_page, color_scheme=scheme, reduced_motion="reduce")
    for block, head, token in ((0, 0, 13), (1, 1, 23), (1, 0, 5)):
        watched(f"change({{ block: {block}, head: {head}, token: {token} }})")
        found = watched(CONTRAST)
        assert len(found) > 100
        assert found[0][0] >= 4.5, found[:5]
    assert watched("getComputedStyle(document.body).colorScheme") in ("light dark", "")


def test_colours_go_one_way_in_lightness(opened: Watched) -> None:
    """So they are told apart without colour; of both schemes."""
    light = """(name) => table(name).map(([r, g, b]) =>
        0.2126 * (r / 255) ** 2.2 + 0.7152 * (g / 255) ** 2.2 + 0.0722 * (b / 255) ** 2.2)"""
    for scheme, sign in (("light", -1), ("dark", 1)):
        opened.page.emulate_media(color_scheme=scheme)
        share, signed = (
            sign * np.array(opened.page.evaluate(light, name)) for name in ("share", "signed")
        )
        assert (np.diff(share) > -1e-3).all()
        assert abs(share[-1] - share[0]) > 0.5
        assert (np.diff(signed[128:]) > -2e-3).all()
        assert (np.diff(signed[:128]) < 2e-3).all()
    opened.until("$('stronger').textContent === 'brighter'")
    opened.page.emulate_media(color_scheme="light")


@pytest.mark.parametrize("width", [320, 375, 768])
def test_narrow_screens_scroll_down_only(chromium: Any, look_page: Path, width: int) -> None:
    watched = Watched(chromium, look_page, viewport={"width": width, "height": 800})
    for number in range(watched("steps.length")):
        watched(f"change({{ step: {number} }})")
        assert watched("document.documentElement.scrollWidth") <= width, number
    assert watched.said == []


def test_reduced_motion(chromium: Any, look_page: Path) -> None:
    moving, resting = (
        Watched(chromium, look_page, reduced_motion=how) for how in ("no-preference", "reduce")
    )
    duration = "getComputedStyle(document.querySelector('#tokens li')).transitionDuration"
    assert moving(duration) != "0s"
    assert resting(duration) == "0s"


def test_nothing_moves_when_it_is_drawn(opened: Watched) -> None:
    """Who scrolls down finds each thing where it was, and can click it."""
    opened.until("document.querySelector('#step canvas').clientHeight > 100")
    places = """['steps', 'losses', 'map', 'samples', 'end'].map(
        (id) => $(id).getBoundingClientRect().top + scrollY)"""
    before = opened(places)
    for where in ("step", "losses", "map", "samples"):
        opened(f"$('{where}').scrollIntoView()")
        opened.page.wait_for_timeout(60)
    assert opened(places) == before


COLOURS = """(where) => { const canvas = document.querySelector(where); if (!canvas.width) return 0;
    const copy = new OffscreenCanvas(canvas.width, canvas.height);
    const pen = copy.getContext("2d", { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0);
    const seen = pen.getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(seen.data.buffer)).size; }"""
MAPS = ("#attention canvas", "#thumbnails canvas", "#step canvas", "#losses", "#map")


def test_maps_are_drawn_when_they_are_seen(opened: Watched) -> None:
    """The first view is there at once; what lies below it is drawn when one comes there, and holds
    more than one colour.
    """
    opened.until(f"({COLOURS})('#attention canvas') > 20")
    assert opened.page.evaluate(COLOURS, "#losses") <= 1
    for where in ("#step canvas", "#losses", "#map"):
        opened.page.locator(where).scroll_into_view_if_needed()
        opened.until(f"({COLOURS})('{where}') > 10")


# -- on paper --

NOTED = f"""() => addEventListener("beforeprint", () => {{
    window.printedDots = {list(MAPS)}.map({COLOURS});
    window.printedInk = [themed("ink"), themed("card"), getComputedStyle(document.body).color];
}})"""
LAID_OUT = """() => [...document.querySelectorAll("canvas")].map((canvas) => {
    const box = canvas.getBoundingClientRect();
    const card = canvas.closest(".card").getBoundingClientRect();
    const stretched = box.width / box.height / (canvas.width / canvas.height);
    return [stretched, card.right - box.right, card.bottom - box.bottom];
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_is_printed(chromium: Any, look_page: Path, scheme: str) -> None:
    """Where the reader has not been too, in light colours; afterwards the screen is as it was."""
    watched = Watched(chromium, look_page, color_scheme=scheme)
    watched.until(f"({COLOURS})('#attention canvas') > 20")
    ink = watched("themed('ink')")
    watched.page.evaluate(NOTED)
    assert watched.page.pdf().startswith(b"%PDF")
    assert all(found > 10 for found in watched("printedDots")), watched("printedDots")
    assert watched("printedInk") == ["#1c2027", "#ffffff", "rgb(28, 32, 39)"]
    assert watched("[themed('ink'), dark.matches, paper]") == [ink, scheme == "dark", False]
    for where in MAPS:
        watched.page.locator(where).first.scroll_into_view_if_needed()
        # of paper's many dots back to the screen's
        watched.until(f"document.querySelector('{where}').width < 1000")
    assert watched.said == []


def test_nothing_overlaps_on_paper(opened: Watched) -> None:
    """On a sheet narrower than the window each picture keeps its proportions, and stays in its
    card; what follows stands below.
    """
    opened("setPaper(true)")
    opened.page.emulate_media(media="print")
    opened.page.set_viewport_size({"width": 700, "height": 900})
    found = np.array(opened.page.evaluate(LAID_OUT))
    np.testing.assert_allclose(found[:, 0], 1, atol=0.02)
    assert (found[:, 1:] >= 0).all()
    for places in ("header, .bar, section, footer", ".walk nav, .walk .card, .learning .card"):
        boxes = opened.page.evaluate(
            "(places) => [...document.querySelectorAll(places)]"
            ".map((e) => e.getBoundingClientRect().toJSON())",
            places,
        )
        assert all(below["top"] >= above["bottom"] for above, below in itertools.pairwise(boxes)), (
            boxes
        )
    assert opened("document.documentElement.scrollWidth") <= 700
    assert not opened("['play', 'when', 'map-said'].some((id) => $(id).checkVisibility())")
    opened("setPaper(false)")
    opened.page.emulate_media(media="screen")
    opened.page.set_viewport_size({"width": 1280, "height": 900})
