"""The page of `tinygpt look` in a real browser: what it shows, how it answers, and that nothing in
a text becomes more than text.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tests.helpers.browser import PROMPT, Watched, made
from tinygpt.__main__ import main
from tinygpt.inside.look import gather, page
from tinygpt.model.gpt import GPT
from tinygpt.runs import run as runs

HOSTILE = (
    "</script><script>hacked=1</script><img src=x onerror=hacked=1>\"'`&lt;\x1b[2J\u202e\u2028"
    "\\</script x><script x>hacked=1</script x><!--<script x"
)


@pytest.fixture(scope="module")
def model(look_page: Path) -> GPT:
    return runs.load(look_page.parent)[1]


def weights_by_hand(model: GPT, ids: list[int]) -> list[Any]:
    """Attention of each block worked out from its own q and k, with the engine's softmax: (H, T,
    T).
    """
    found, T = [], len(ids)
    x = model.embed(np.array(ids))
    for block in model.blocks:
        C, H = model.config.width, model.config.heads
        q, k, _ = (
            part.view(1, T, H, C // H).transpose(1, 2)
            for part in block.attention.qkv(block.attention_norm(x)).split(C, axis=-1)
        )
        scores = q @ k.transpose(-1, -2) * (C // H) ** -0.5
        found.append(
            scores.masked_fill(tensor.tril(tensor.ones(T, T)) == 0, float("-inf"))
            .softmax(-1)
            .detach()
            .numpy()[0]
        )
        x = block(x)
    return found


# -- the numbers


def test_attention_is_the_models(opened: Watched, model: GPT) -> None:
    """Every weight of every head, to 1e-6; and what the page says of a cell is that number."""
    ids = opened("facts.ids")
    read = """([block, head]) => {
        const weight = attentionOf(now.sight, block, head);
        const seen = (query, key) => (key > query ? 0 : weight(query, key));
        return facts.ids.map((_, query) => facts.ids.map((_, key) => seen(query, key)));
    }"""
    for block, expected in enumerate(weights_by_hand(model, ids)):
        for head in range(model.config.heads):
            shown = np.array(opened.page.evaluate(read, [block, head]))
            np.testing.assert_allclose(shown, expected[head], atol=1e-6, rtol=0)
    opened.page.locator("#block label").nth(1).click()
    opened.page.locator("#head label").nth(1).click()
    canvas = opened.page.locator("#attention canvas")
    canvas.focus()
    for key in ("End", "ArrowLeft", "ArrowUp", "ArrowLeft", "ArrowLeft"):
        canvas.press(key)
    said = opened.page.locator("#attention .said").text_content()
    row, column, number = (
        re.search(pattern, said)
        for pattern in (
            r"position (\d+)\) takes",
            r"from .*position (\d+)\)",
            r"takes ([\d.e\u2212-]+) from",
        )
    )
    assert row is not None
    assert column is not None
    assert number is not None
    expected = weights_by_hand(model, ids)[1][1][int(row[1]), int(column[1])]
    assert float(number[1].replace("\u2212", "-")) == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_a_hover_tells_what_a_token_looks_at(opened: Watched, model: GPT) -> None:
    ids = opened("facts.ids")
    weights = weights_by_hand(model, ids)[0][0]
    for place in (5, 11, 0):
        opened.page.locator("#tokens li").nth(place).hover()
        opened.settle()
        shares = opened(
            "[...document.querySelectorAll('#tokens li')].map((chip) => chip.lastChild.textContent)"
        )
        expected = [
            f"{round(100 * float(w))} %" if w >= 0.005 else "\u00b7"
            for w in weights[place, : place + 1]
        ]
        for shown, wanted, w in zip(shares, expected, weights[place], strict=False):
            assert shown == wanted or abs(100 * w % 1 - 0.5) < 1e-3  # at the edge either will do
        assert set(shares[place + 1 :]) <= {"\u00a0"}
        assert opened("document.querySelectorAll('#tokens .later').length") == len(ids) - place - 1
        assert opened.page.locator("#tokens [aria-selected=true]").count() == 1
        most = int(weights[place, : place + 1].argmax())
        assert f"(position {place}) takes most from" in opened.page.locator("#seen").text_content()
        assert f"(position {most}) " in opened.page.locator("#seen").text_content() or most == place


def test_candidates_are_the_softmax_of_the_logits(opened: Watched, model: GPT) -> None:
    ids = opened("facts.ids")
    p = model(np.array(ids)).softmax(-1).detach().numpy()[0]
    for place in (3, len(ids) - 1):
        opened.page.locator("#tokens li").nth(place).hover()
        found = opened(f"expected(now.sight, {place})")
        assert [candidate["id"] for candidate in found] == list(
            np.argsort(-p[place], kind="stable")[:8]
        )
        np.testing.assert_allclose(
            [candidate["p"] for candidate in found], np.sort(p[place])[::-1][:8], atol=1e-6
        )
        assert opened.page.locator("#candidates tr").count() == 8
        assert (
            opened.page.locator("#candidates tr")
            .first.text_content()
            .endswith(opened(f"percent({p[place].max()})"))
        )


CORNERS = """(number) => {
  const value = reader(steps[number]);
  const finite = (number) => (Number.isFinite(number) ? number : 0);
  return [0, 3, 9].map((row) => [0, 2, 7].map((column) => finite(value(row, column))));
}"""


def test_every_step_shows_its_numbers(opened: Watched, look_page: Path, model: GPT) -> None:
    run, _, tokenizer = runs.load(look_page.parent)
    walked = gather.gather(run, model, tokenizer, gather.LookConfig(PROMPT)).arrays
    steps = opened(
        "steps.map((step) => ({ name: step.name, title: step.title, "
        "kind: step.kind, like: step.like, axes: step.axes }))"
    )
    opened.page.locator("#head label").nth(1).click()
    for number, step in enumerate(steps):
        opened(f"document.querySelector('[data-step=\"{number}\"]').click()")
        assert opened("$('step-title').textContent") == step["title"]
        assert opened("$('steps').querySelectorAll('[aria-current]').length") == 1
        if step["kind"] != "array":
            continue
        value = walked[step["name"]]
        array = value.array if step["axes"][0] != "B" else value.array[0]
        array = array[1] if array.ndim == 3 else array
        shown = np.array(opened.page.evaluate(CORNERS, number))
        expected = (
            np.where(np.tri(array.shape[0], array.shape[1]), array, 0)
            if step["like"] == "masked"
            else array
        )
        np.testing.assert_allclose(shown, expected[np.ix_([0, 3, 9], [0, 2, 7])], rtol=1e-6)
        said = opened("$('step-facts').textContent")
        assert f"({', '.join(map(str, value.shape))})" in said
        assert f"({', '.join(map(str, value.strides))})" in said
        assert ("Contiguousyes" if value.contiguous else "Contiguousno") in said


def test_a_cell_of_a_step_tells_its_number(opened: Watched, model: GPT) -> None:
    ids = opened("facts.ids")
    canvas = opened.page.locator("#step canvas")
    canvas.focus()
    canvas.press("PageUp")
    for _ in range(3):
        canvas.press("ArrowRight")
    row, column = opened(
        "document.querySelector('#step .said').textContent"
        ".match(/position (\\d+)\\), column (\\d+)/).slice(1)"
    )
    said = float(
        opened.page.locator("#step .said").text_content().split(": ")[1].replace("\u2212", "-")
    )
    assert said == pytest.approx(
        float(model.embed(np.array(ids)).numpy()[0, int(row), int(column)]), rel=1e-4
    )


def test_all_is_counted_from_0(opened: Watched) -> None:
    """Blocks, heads and positions, wherever they are named, as in the code: the second head of the
    first block is weights[0, 1] of blocks.0.
    """
    assert (
        "counted from 0, as in the code: blocks.0.attention.weights[0, 2]."
        in opened.page.locator("#reading + .lead").text_content()
    )
    for field in ("block", "head"):
        assert opened.page.locator(f"#{field}").inner_text().split() == [field.title(), "0", "1"]
    opened.page.locator("#head label").nth(1).click()
    opened.page.locator("#tokens li").nth(7).hover()
    assert opened("$('attention-title').textContent").startswith("Block 0, head 1, ")
    assert opened("$('seen').textContent").startswith("\u2423 (position 7) takes most from ")
    assert opened("$('tokens').children[7].ariaLabel").startswith("space, position 7, ")
    assert opened(
        "[...document.querySelectorAll('#thumbnails .row > span')].map((name) => name.textContent)"
    ) == ["Block 0", "Block 1"]
    parts = opened(
        "[...document.querySelectorAll('#steps summary')].map((name) => name.textContent)"
    )
    assert parts == [
        "Text",
        "Embedding",
        "Block 0: attention",
        "Block 0: feed-forward",
        "Block 1: attention",
        "Block 1: feed-forward",
        "Prediction",
    ]
    opened("change({ step: steps.findIndex((step) => step.name === 'blocks.1.q') })")
    assert opened("$('step-note').textContent").startswith("Block 1, head 1: ")
    assert not opened(
        "/layers? \\d|\\d layers|\\(token \\d/i"
        ".test(document.body.textContent.replace(/{.*}/s, ''))"
    )


def test_the_first_view_is_where_the_model_knows_least(opened: Watched, model: GPT) -> None:
    """The entropy of what it expects is largest there, of all tokens of the prompt but the first,
    which sees only itself.
    """
    ids, prompt = opened("[facts.ids, facts.prompt]")
    p = model(np.array(ids)).softmax(-1).detach().numpy()[0, :prompt].astype(np.float64)
    entropy = [-sum(x * np.log(x) for x in row if x > 0) for row in p]
    assert entropy[opened("now.token")] == max(entropy[1:])


# -- as it was learned


def test_the_slider_moves_through_the_snapshots(chromium: Any, look_page: Path) -> None:
    """With motion reduced all is there at once: attention of the fresh weights, their embeddings,
    their text.
    """
    watched = Watched(chromium, look_page, reduced_motion="reduce")
    run, model, tokenizer = runs.load(look_page.parent)
    look = gather.gather(run, model, tokenizer, gather.LookConfig(PROMPT))
    slider = watched.page.locator("#when")
    slider.focus()
    slider.press("Home")
    assert (
        watched.page.locator("#when-said").text_content()
        == slider.get_attribute("aria-valuetext")
        == "after step 0"
    )
    first = look.sights[0]
    shown = np.array(
        watched(
            "facts.ids.map((_, key) => attentionOf(now.sight, 1, 0)(facts.ids.length - 1, key))"
        )
    )
    np.testing.assert_allclose(shown, first.attention[1][0][-1], atol=0.5 / 255 + 1e-6)
    np.testing.assert_allclose(watched("[...chart.at]"), first.points.ravel(), rtol=1e-6)
    rows = watched.page.locator("#samples tbody tr")
    assert rows.count() == len(look.sights) == 4
    assert rows.nth(0).get_attribute("aria-current") == "true"
    assert first.written.replace(" ", "\u2423") in rows.nth(0).text_content().replace(" ", "\u2423")
    slider.press("End")
    rows.nth(2).click()
    assert watched("now.sight") == 2
    assert watched.page.locator("#losses-note").text_content().count("After step") == 1
    assert watched.said == []


def test_the_best_weights_are_named(chromium: Any, tmp_path: Path) -> None:
    """Where they are not the last. With --last those are shown, and nothing is said."""
    made(
        tmp_path,
        "The cat sat on the mat. The dog ran. " * 9,
        "The cat",
        "--steps",
        "12",
        "--lr",
        "1",
        "--evaluate",
        "1",
    )
    best = json.loads((tmp_path / "runs/text-1/state.json").read_text())["best_step"]
    assert 0 < best < 12
    watched = Watched(chromium, tmp_path / "runs/text-1/look.html")
    for where in ("#when-said", "#attention-title", "#losses-note"):
        assert f"fter step {best} (the best)" in watched.page.locator(where).text_content()
    assert [
        name
        for name in watched.page.locator("#samples button").all_text_contents()
        if "best" in name
    ] == [f"{best} (the best)"]
    watched.page.locator("#samples tbody tr").last.click()
    assert watched("$('when-said').textContent") == "after step 12"
    with contextlib.chdir(tmp_path):
        assert main(["look", "--prompt", "The cat", "--last"]) == 0
    watched.open(tmp_path / "runs/text-1/look.html")
    assert watched("$('when-said').textContent") == "after step 12"
    assert not watched("JSON.stringify(facts.sights).includes('\"best\":true')")


def test_points_travel_and_arrive(opened: Watched) -> None:
    """Half way they are in between; play goes through all and stops."""
    before = opened("[...chart.at]")
    opened("change({ sight: 0 })")
    opened.until("chart.at.every((value, i) => value === numbers('map 0')[i])")
    np.testing.assert_allclose(opened("[...chart.at]"), opened("[...numbers('map 0')]"))
    assert opened("[...chart.at]") != before
    opened.page.locator("#play").click()
    assert opened.page.locator("#play").get_attribute("aria-pressed") == "true"
    opened.page.locator("#play").click()
    assert opened.page.locator("#play").text_content() == "Play"
    assert opened("now.sight") == 1


def test_a_long_text_is_set_small_and_cropped(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not kept is said, and nothing is shown in its place."""
    monkeypatch.setattr(page, "STEPS", 100_000)
    monkeypatch.setattr(page, "SNAPSHOTS", 40_000)
    text = "The cat sat on the mat. The dog ran in the park. " * 40
    watched = Watched(
        chromium,
        made(
            tmp_path,
            text,
            text[:110],
            "--context",
            "128",
            "--steps",
            "3",
            "--batch",
            "1",
            "--validation",
            "0",
        ),
    )
    assert watched.page.locator("#tokens.many li").count() == 126
    rows, first = watched(
        "[steps.find((step) => step.name === 'embed').rows, facts.sights[0].first]"
    )
    assert 1 < rows < 126
    assert 0 < first < 126
    assert f"the last {rows} are kept" in watched("$('step-note').textContent")
    watched("change({ sight: 0, token: 0 })")
    assert f"of the last {126 - first} tokens" in watched("$('seen').textContent")
    assert watched("$('tokens').querySelectorAll('.later').length") == 126
    watched("change({ token: 125 })")
    assert watched("$('tokens').querySelectorAll('.later').length") == 0
    for number in range(watched("steps.length")):
        watched(f"change({{ step: {number} }})")
    watched.page.locator("#attention canvas").hover()
    watched.settle()
    assert watched.said == []


def test_a_run_of_which_only_the_weights_are_there(
    chromium: Any, look_page: Path, tmp_path: Path
) -> None:
    """As one that was imported: no losses, no snapshots, no step."""
    shutil.copytree(look_page.parents[1], tmp_path / "runs")
    for name in ("metrics.jsonl", "state.json"):
        (tmp_path / "runs" / "story-1" / name).unlink()
    shutil.rmtree(tmp_path / "runs" / "story-1" / "snapshots")
    with contextlib.chdir(tmp_path):
        assert main(["look", "--prompt", PROMPT, "--length", "0"]) == 0
    watched = Watched(chromium, tmp_path / "runs/story-1/look.html")
    assert watched("$('when-said').textContent") == "as it is"
    assert watched("$('when').disabled && $('play').disabled")
    assert "kept no snapshots" in watched("$('learning-lead').textContent")
    assert "holds no losses" in watched("$('losses-note').textContent")
    for where in ("#map", "#samples"):
        watched.page.locator(where).scroll_into_view_if_needed()
        watched.settle()
    assert watched.said == []


# -- text is data


@pytest.mark.parametrize("tokenizer", ["character", "bpe", "word"])
def test_no_text_becomes_markup(chromium: Any, tmp_path: Path, tokenizer: str) -> None:
    """In corpus, tokenizer and prompt: shown letter for letter, what would not be seen as an
    escape.
    """
    options = [
        "--tokenizer",
        tokenizer,
        *(["--tokens", "300"] if tokenizer == "bpe" else []),
        "--context",
        "200",
        "--steps",
        "4",
    ]
    watched = Watched(chromium, made(tmp_path, f"{HOSTILE} " * 30, HOSTILE, *options))
    assert watched.said == []
    assert len(watched.asked) == 1
    assert watched("typeof hacked") == "undefined"
    assert (
        watched("document.querySelectorAll('img, iframe, object, embed, link, base').length") == 0
    )
    assert watched("[...document.scripts].filter((script) => !script.type).length") == 9
    shown = watched.page.locator("#text").text_content()
    assert shown.startswith("</script><script>hacked=1</script><img src=x onerror=hacked=1>")
    assert "\\x1b[2J\\u202e\\u2028" in shown
    assert not set(watched("document.body.innerText")) & set("\x1b\u202e\u2028")
    chips = watched(
        "[...document.querySelectorAll('#tokens li .word')].slice(0, facts.prompt)"
        ".map((word) => word.textContent).join('')"
    )
    assert chips.replace("\u2423", " ") == shown[: len(chips)]
    watched.page.set_viewport_size({"width": 375, "height": 800})
    for number in range(watched("steps.length")):
        watched(f"change({{ step: {number} }})")
        assert watched("document.documentElement.scrollWidth") <= 375
    assert watched.said == []


def test_the_policy_allows_nothing_else(opened: Watched) -> None:
    """A script that got in all the same would not run, and nothing can be asked for."""
    opened(
        "{ const added = document.createElement('script'); added.textContent = 'hacked = 1'; "
        "document.body.append(added); }"
    )
    opened(
        "{ const added = document.createElement('img'); added.src = 'http://127.0.0.1:9/x.png'; "
        "document.body.append(added); }"
    )
    opened(
        "{ const added = document.createElement('div'); "
        "added.innerHTML = '<b onclick=\"hacked=1\" id=bold>x</b>'; "
        "document.body.append(added); bold.click(); }"
    )
    opened("fetch('http://127.0.0.1:9/').catch(() => 0)")
    opened.settle()
    assert opened("typeof hacked") == "undefined"
    assert len(opened.said) >= 3
    assert all("Content Security Policy" in line or "CSP" in line for line in opened.said), (
        opened.said
    )
    opened.said.clear()
    opened.asked[1:] = [url for url in opened.asked[1:] if "127.0.0.1" not in url]
