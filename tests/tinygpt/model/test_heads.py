"""Classifiers: where a class is read, padding, gradients, sizes, and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tensor import Generator, Tensor, no_grad
from tinygpt import BERT, GPT
from tinygpt.config import BERTClassifierConfig, BERTConfig, GPTClassifierConfig, GPTConfig
from tinygpt.data.labels import text_batch
from tinygpt.ids import CLS, IGNORED, PAD
from tinygpt.model.heads import BERTClassifier, Classifier, GPTClassifier, with_fresh_head
from tinygpt.model.sizes import ENTRY, least_bytes, matrix_count, parameter_count
from tinygpt.runs import gpt2

VOCABULARY, CONTEXT, LABELS = 13, 10, ("cat", "dog", "owl")
SHAPE: dict[str, Any] = {"width": 12, "heads": 3, "layers": 2}
ROWS = [[4, 5, 6, 7, 8, 9], [7, 4], [5]]


def made(base: str, device: str = "cpu", **options: Any) -> Classifier:
    """A classifier whose weights all count."""
    kind = BERTClassifierConfig if base == "bert" else GPTClassifierConfig
    model: Any = BERTClassifier if base == "bert" else GPTClassifier
    config = kind(VOCABULARY, CONTEXT, **SHAPE, **options, labels=LABELS)
    found: Classifier = model(config, dtype="float64", device=device, draw=False)
    draws = Generator(3)
    drawn = {name: 0.4 * draws.normal(x.shape) for name, x in found.state_dict().items()}
    found.load_state_dict({name: Tensor(x, device=device) for name, x in drawn.items()})
    return found.eval()


def rows_of(base: str) -> list[list[int]]:
    return [[CLS, *row] for row in ROWS] if base == "bert" else ROWS


@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_padding_does_not_count(base: str, device: str) -> None:
    """A text says the same alone and beside a longer text."""
    model, rows = made(base, device), rows_of(base)
    x, places = text_batch(rows, base)
    assert places.tolist() == ([0, 0, 0] if base == "bert" else [5, 1, 0])
    with no_grad():
        logits = model(x).to("cpu").numpy()[np.arange(3), places]
        for row, found in zip(rows, logits, strict=True):
            alone, place = text_batch([row], base)
            expected = model(alone).to("cpu").numpy()[0, place[0]]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
    assert np.abs(logits[0] - logits[1]).max() > 1e-3


@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_the_whole_text_is_read(base: str) -> None:
    """Each token of the text moves the logits of the place that says the class."""
    model, row = made(base), rows_of(base)[0]
    x, places = text_batch([row], base)
    with no_grad():
        before = model(x).numpy()[0, places[0]]
        for changed in range(base == "bert", len(row)):
            other = x.copy()
            other[0, changed] = 10
            assert np.abs(model(other).numpy()[0, places[0]] - before).max() > 1e-6, changed


@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_gradients(base: str) -> None:
    """Against central differences, in float64: the head, and what lies below."""
    model = made(base)
    x, places = text_batch(rows_of(base), base)
    y = np.full(x.shape, IGNORED)
    y[np.arange(3), places] = [2, 0, 1]
    model.loss(x, y).backward()
    draws = np.random.default_rng(0)
    for name, parameter in model.named_parameters():
        array, grad = parameter.array, parameter.grad
        assert grad is not None
        for _ in range(3):
            place = tuple(int(draws.integers(n)) for n in array.shape)
            kept, losses = array[place], []
            for step in (1e-5, -1e-5):
                array[place] = kept + step
                losses.append(model.loss(x, y).item())
            array[place] = kept
            slope = (losses[0] - losses[1]) / 2e-5
            assert abs(slope - grad.numpy()[place]) < 1e-8, (name, place)


def test_the_loss_is_the_mean_over_texts(device: str) -> None:
    """Of -ln of the label's probability, by hand."""
    model = made("gpt", device)
    x, places = text_batch(ROWS, "gpt")
    y = np.full(x.shape, IGNORED)
    y[np.arange(3), places] = [2, 0, 1]
    with no_grad():
        logits = model(x).to("cpu").numpy()[np.arange(3), places]
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        expected = -np.log(p[np.arange(3), [2, 0, 1]]).mean()
        assert abs(model.loss(x, y).item() - expected) < 1e-12


@pytest.mark.parametrize(
    "options", [{}, {"bias": False, "tied": False}, {"norm": "pre", "positions": "sinusoidal"}]
)
@pytest.mark.parametrize("base", ["gpt", "bert"])
def test_sizes(base: str, options: dict[str, Any]) -> None:
    """Those that are known before the model is made."""
    model = made(base, **options)
    state = model.state_dict()
    assert parameter_count(model.config) == sum(x.size for x in state.values())
    least = parameter_count(model.config) * 2 + len(state) * ENTRY
    assert least_bytes(model.config) == least
    blocks = [x for name, x in model.named_parameters() if "blocks" in name and x.ndim == 2]
    assert matrix_count(model.config) == sum(x.size for x in blocks)


@pytest.mark.parametrize("base", ["gpt", "bert"])
@pytest.mark.parametrize("tied", [True, False])
def test_a_classifier_made_from_a_base(base: str, tied: bool) -> None:
    """The base's weights, without its own head; the new head follows from the seed."""
    config: Any = BERTConfig if base == "bert" else GPTConfig
    config = config(VOCABULARY, CONTEXT, **SHAPE, tied=tied)
    before: Any = (BERT if base == "bert" else GPT)(config, generator=Generator(1))
    there = made(base, tied=tied)
    kind = type(there)
    weights = with_fresh_head(before.state_dict(), kind, there.config, seed=5)
    there.load_state_dict(weights)
    ids = np.array([rows_of(base)[0]])
    with no_grad():
        expected = before.eval().hidden(ids).numpy() @ weights["head.weight"].numpy()
        np.testing.assert_allclose(there(ids).numpy(), expected, atol=1e-6)
    head = weights["head.weight"].numpy()
    assert head.shape == (12, 3)
    assert 0.01 < head.std() < 0.03
    again = with_fresh_head(before.state_dict(), kind, there.config, seed=5)
    assert np.array_equal(head, again["head.weight"].numpy())


def test_a_classifier_writes_no_text() -> None:
    with pytest.raises(TypeError, match="a classifier writes no text"):
        made("gpt").generate([4, 5], 3)  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore")
def test_the_loss_of_transformers(transformers: Any, tmp_path: Path) -> None:
    """GPT2ForSequenceClassification reads the last token that is no padding: the same loss, and the
    same gradient of the head.
    """
    import torch

    model = made("gpt", activation="gelu")
    body = GPT(GPTConfig(VOCABULARY, CONTEXT, **SHAPE), dtype="float64", draw=False)
    state = model.state_dict()
    body.load_state_dict({name: x for name, x in state.items() if name != "head.weight"})
    gpt2.save(body, tmp_path / "gpt2")
    theirs = transformers.GPT2ForSequenceClassification.from_pretrained(
        tmp_path / "gpt2", num_labels=len(LABELS), pad_token_id=PAD, dtype=torch.float64
    ).eval()
    with torch.no_grad():
        theirs.score.weight.copy_(torch.tensor(state["head.weight"].numpy().T))
    x, places = text_batch(ROWS, "gpt")
    y = np.full(x.shape, IGNORED)
    y[np.arange(3), places] = [2, 0, 1]
    loss = model.loss(x, y)
    loss.backward()
    expected = theirs(torch.tensor(x), labels=torch.tensor([2, 0, 1])).loss
    expected.backward()
    assert abs(loss.item() - expected.item()) < 1e-9
    found = dict(model.named_parameters())["head.weight"].grad
    assert found is not None
    np.testing.assert_allclose(found.numpy(), theirs.score.weight.grad.numpy().T, atol=1e-9)
