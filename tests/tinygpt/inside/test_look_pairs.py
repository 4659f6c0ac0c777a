"""`tinygpt look` of an encoder-decoder: source and target, and the attention of each and between
them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tensor
from tests.helpers.browser import Watched
from tests.helpers.program import refused
from tests.tinygpt.inside.test_look import blocks_of, facts_of, softmax
from tinygpt.__main__ import main
from tinygpt.config import EncoderDecoderConfig, LookConfig
from tinygpt.ids import SOS, SourceTarget
from tinygpt.inside.look import gather, page
from tinygpt.inside.look.steps import arrays_of, steps
from tinygpt.model.encoder_decoder import EncoderDecoder
from tinygpt.runs import run as runs

SOURCE = "adbfc"
ANTI_DIAGONAL = [4, 3, 2, 1, 0]


def looked(run: Path, **choices: Any) -> gather.Look:
    return gather.gather(*runs.load(run), LookConfig(SOURCE, **choices))


# -- what it gathers


def test_the_best_head_reads_the_source_from_its_end(reversing: Path) -> None:
    """Rows: <sos> and the target that the model wrote. Columns: the source. The first untrained
    weights do not.
    """
    look = looked(reversing)
    assert (look.text.given, look.text.written) == ("adbfc -> ", "cfbda")
    assert look.text.words == [*SOURCE, "<sos>", *"cfbda"]
    assert [step.map for step in look.maps] == ["encoder 0", "decoder 0", "cross 0"]
    encoder, decoder, cross = look.sight.attention
    assert [weights.shape for weights in look.sight.attention] == [(2, 5, 5), (2, 6, 6), (2, 6, 5)]
    best = max(cross[:, :5, ::-1], key=lambda weights: float(np.trace(weights)))[:, ::-1]
    assert best.argmax(-1).tolist() == ANTI_DIAGONAL
    assert best[range(5), ANTI_DIAGONAL].min() > 0.6
    fresh = look.sights[0].attention[2]
    assert all(head[:5].argmax(-1).tolist() != ANTI_DIAGONAL for head in fresh)
    assert not np.triu(decoder, 1).any()
    assert encoder.min() > 0  # no mask
    losses = [sight.loss for sight in look.sights]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[0] > 2 > 0.1 > losses[-1]


def test_the_loss_is_that_of_the_written_tokens(reversing: Path) -> None:
    _, model, tokenizer = runs.load(reversing)
    target = tokenizer.encode(SOURCE[::-1])
    x = SourceTarget(np.array([tokenizer.encode(SOURCE)]), np.array([[SOS, *target[:-1]]]))
    loss = looked(reversing).sight.loss
    assert loss == pytest.approx(float(model.loss(x, np.array([target]))), rel=1e-4)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_each_step_is_what_its_formula_says(norm: Any) -> None:
    tensor.manual_seed(3)
    shape = {"context": 9, "width": 12, "heads": 3, "layers": 2, "norm": norm}
    model = EncoderDecoder(EncoderDecoderConfig(11, **shape)).eval()
    with tensor.no_grad():
        for parameter in model.parameters():
            parameter[...] = parameter + tensor.randn(*parameter.shape) * 0.3
    x = SourceTarget(np.array([[3, 4, 5, 9]]), np.array([[1, 9, 5, 4, 6, 7]]))
    found = {name: value.array for name, value in arrays_of(model, x).items()}
    assert {step.name for step in steps(model.config)} == found.keys()
    logits = model(x.source, x.target).numpy()
    np.testing.assert_allclose(found["logits"], logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found["source.ids"], x.source)
    np.testing.assert_array_equal(found["target.ids"], x.target)
    np.testing.assert_allclose(found["encoder_norm"], model.encode(x.source).numpy(), rtol=1e-4)
    for at in ("decoder.0.", "decoder.1."):
        q = found[at + "cross.q"].reshape(1, 6, 3, 4).swapaxes(1, 2)
        kv = found[at + "cross.kv"].reshape(1, 4, 2, 3, 4)
        k, v = np.moveaxis(kv, (2, 3), (0, 2))
        scores = q @ k.swapaxes(-1, -2) / 2
        np.testing.assert_allclose(found[at + "cross.scores"], scores, rtol=1e-4, atol=1e-5)
        weights = softmax(scores)
        np.testing.assert_allclose(found[at + "cross.weights"], weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[at + "cross.heads"], weights @ v, rtol=1e-4, atol=1e-5)
        stream = found[at + ("middle" if norm == "pre" else "attention_norm")]
        np.testing.assert_array_equal(
            found[at + "crossed"], stream + found[at + "cross.projection"]
        )


# -- what it writes and refuses


def test_a_picture_and_the_answer_are_for_the_source(
    reversing: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--attention", "heads.png", "--embeddings", "map.png", "--out", "page.html"]
    assert main(["look", str(reversing), "--prompt", SOURCE, "--length", "2", *files]) == 0
    assert capsys.readouterr().out.startswith("adbfc -> cf\n")
    assert {path.name for path in here.iterdir()} == {"heads.png", "map.png", "page.html"}
    pairs = str(reversing)
    for arguments, says in (
        ([pairs, "--prompt", "abcabcabc"], "'abcabcabc' has 9 characters, and"),
        ([pairs, "--prompt", "a!"], "character '!' at position 1 is not one of the"),
    ):
        refused(capsys, "look", *arguments, says=says)


def test_of_earlier_weights_the_last_rows_are_kept(
    reversing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many of each map as fit."""
    look = looked(reversing)
    monkeypatch.setattr(page, "SNAPSHOTS", 40 * 2 * 2)  # 40 weights of two heads, two snapshots
    text = page.page(look, runs.load(reversing)[2])
    facts, blocks = facts_of(text), blocks_of(text)
    # a row of 5 more of the encoder, and one of 3 + 5 of the decoder, would be too many
    assert [sight["first"] for sight in facts["sights"]] == [3, 3, 0]
    sizes = [blocks[f"attention 0 {i} 0"].size for i in range(3)]
    assert sizes == [10, 4 + 5 + 6, 15]
    packed = np.round(look.sights[0].attention[2][1, 3:] * 255)
    np.testing.assert_array_equal(blocks["attention 0 2 1"], packed.ravel())


# -- the page in a browser


@pytest.fixture(scope="module")
def pair_page(reversing: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "page.html"
    assert main(["look", str(reversing), "--prompt", SOURCE, "--out", str(path)]) == 0
    return path


def test_the_page(chromium: Any, pair_page: Path, reversing: Path) -> None:
    """It begins with the cross-attention; each map shows the model's weights; a token of the target
    looks at the source, and after a token of the source nothing is expected.
    """
    look, watched = looked(reversing), Watched(chromium, pair_page)
    read = """([block, head, rows, columns]) => {
        const weight = attentionOf(now.sight, block, head);
        const { rows: [row], columns: [column] } = facts.maps[block];
        return Array.from({ length: rows }, (_, r) => Array.from({ length: columns }, (_, c) => {
            const share = weight(row + r, column + c);
            return Number.isNaN(share) ? 0 : share;
        }));
    }"""
    for block, weights in enumerate(look.sight.attention):
        for head, expected in enumerate(weights):
            shown = watched.page.evaluate(read, [block, head, *expected.shape])
            np.testing.assert_allclose(shown, expected, atol=1e-6)
    page = watched.page
    title = page.locator("#attention-title")
    assert title.text_content().startswith("Decoder block 0: cross-attention, head 0, after step")
    best = int(np.argmax([np.trace(w[:5, ::-1]) for w in look.sight.attention[2]]))
    page.locator("#head label").nth(best).click()
    page.locator("#tokens li").nth(7).hover()  # the second token of the target
    watched.settle()
    assert page.locator("#seen").text_content().startswith("f (position 2) takes most from b (pos")
    note = "The model wrote \u201cb\u201d: its choice number 1, marked above."
    assert page.locator("#next-note").text_content() == note
    assert page.locator("#tokens .begins").text_content().startswith("<sos>")
    page.locator("#tokens li").nth(2).hover()
    watched.settle()
    assert page.locator("#seen").text_content() == (
        "Decoder block 0: cross-attention: its rows are the tokens of the target. Choose one."
    )
    assert page.locator("#next table").is_hidden()
    assert "choose one of the target" in page.locator("#next-note").text_content()
    page.locator("#block label").nth(0).click()
    watched.settle()
    assert page.locator("#seen").text_content().startswith("b (position 2) takes most from ")
    shape = "[steps.find((step) => step.map === 2)].map((step) => [step.rows, step.kept])[0]"
    assert watched(shape) == [6, 5]
    assert watched("reader(steps.find((step) => step.map === 2))(0, 4)") == pytest.approx(
        look.sight.attention[2][best, 0, 4]
    )
    for i in range(watched("steps.length")):
        watched(f"change({{ step: {i} }})")
    watched("change({ sight: 0 })")
    watched.settle()
    assert watched.said == []
    assert watched.asked == [pair_page.as_uri()]
