"""The encoder-decoder: who sees whom, and padding, which nobody sees."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, kernels
from tinygpt import EncoderDecoder, EncoderDecoderConfig
from tinygpt.ids import IGNORED, PAD, SOS, SourceTarget
from tinygpt.model.block import Around, through_blocks

VOCABULARY, CONTEXT = 11, 40
FORMS: list[dict[str, Any]] = [
    {},
    {"norm": "pre", "activation": "gelu", "positions": "learned"},
    {"bias": False, "tied": False},
]


def made(dtype: str = "float64", **options: Any) -> EncoderDecoder:
    """A model whose weights all count."""
    config = EncoderDecoderConfig(VOCABULARY, CONTEXT, width=12, heads=3, layers=2, **options)
    model = EncoderDecoder(config, dtype=dtype, draw=False)
    rng = np.random.default_rng(0)
    with tensor.no_grad():
        for parameter in model.parameters():
            parameter[...] = Tensor(0.4 * rng.standard_normal(parameter.shape), dtype=dtype)
    return model.eval()


def batch(sources: tuple[int, ...], targets: tuple[int, ...]) -> tuple[SourceTarget, Any]:
    """Sources and targets of these lengths, and the right answers, with padding after each."""
    rng = np.random.default_rng(1)
    rows = []
    for lengths in (sources, targets, targets):
        ids = rng.integers(3, VOCABULARY, (len(lengths), max(lengths)))
        ids[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = PAD
        rows.append(ids)
    source, target, y = rows
    target[:, 0] = SOS
    return SourceTarget(source, target), np.where(y == PAD, IGNORED, y)


def test_each_token_of_the_source_reaches_all_outputs_of_the_encoder() -> None:
    """The first output depends on the last token: an encoder is not causal."""
    for form in FORMS:
        model, source = made(**form), batch((6,), (1,))[0].source
        before = model.encode(source).numpy()
        for changed in range(6):
            other = source.copy()
            other[0, changed] = 3 + (source[0, changed] - 2) % 8
            moved = np.abs(model.encode(other).numpy() - before).max(axis=-1)
            assert moved.min() > 1e-6, (form, changed)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_no_token_of_the_target_sees_the_future(dtype: str) -> None:
    """The gradient of the future is exactly 0, and a changed future changes no bit."""
    for form in FORMS:
        model, (x, _) = made(dtype, **form), batch((6, 3), (35, 35))
        memory, mask = model.encode(x.source), model.mask(x.source)
        embedded = model.embed(x.target).detach()
        embedded.requires_grad = True
        around = Around(memory=memory, memory_mask=mask)
        h = through_blocks(model.decoder, model.decoder_norm, embedded, around)
        before = model(x.source, x.target).numpy()
        for t in (0, 17, 33):
            y = (h[:, t] * h[:, t]).sum()
            (gradient,) = tensor.grad(y, [embedded], retain_graph=True)
            assert (gradient.numpy()[:, t + 1 :] == 0).all(), (form, t)
            assert np.abs(gradient.numpy()[:, : t + 1]).min(axis=(0, 2)).max() > 0
            other = x.target.copy()
            other[:, t + 1 :] = 3
            after = model(x.source, other).numpy()
            assert np.array_equal(after[:, : t + 1], before[:, : t + 1]), (form, t)


def test_the_target_sees_the_whole_source() -> None:
    model, (x, _) = made(), batch((6,), (4,))
    before = model(x.source, x.target).numpy()
    for changed in range(6):
        source = x.source.copy()
        source[0, changed] = 3 + (source[0, changed] - 2) % 8
        moved = np.abs(model(source, x.target).numpy() - before).max(axis=-1)
        assert moved.min() > 1e-6, changed


def results(model: EncoderDecoder, x: SourceTarget, y: Any) -> list[Any]:
    """Logits where a target counts, the loss, and the gradients of all parameters."""
    logits, loss = model(x.source, x.target), model.loss(x, y, "sum")
    gradients = tensor.grad(loss, model.parameters())
    return [logits.numpy()[y != IGNORED], loss.numpy(), *(g.numpy() for g in gradients)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-6)])
def test_appended_padding_changes_nothing(dtype: str, tolerance: float) -> None:
    """After sources and after targets: the logits, the loss and its gradients."""
    for form in FORMS:
        model, (x, y) = made(dtype, **form), batch((6, 3), (5, 4))
        longer = SourceTarget(*(np.pad(ids, ((0, 0), (0, 30))) for ids in (x.source, x.target)))
        more = np.pad(y, ((0, 0), (0, 30)), constant_values=IGNORED)
        for before, after in zip(results(model, x, y), results(model, longer, more), strict=True):
            atol = tolerance * max(1, np.abs(before).max())
            np.testing.assert_allclose(after, before, rtol=0, atol=atol)


def test_what_padding_holds_changes_no_bit() -> None:
    """Without kernels, in a batch of one shape: other positions, and another row beside it."""
    for form in FORMS:
        model, (x, _) = made(**form), batch((9, 4), (7, 7))
        with kernels.off(), tensor.no_grad():
            before = model(x.source, x.target).numpy()[1]
            memory = model.encode(x.source).numpy()[1, :4]
            x.source[0] = 3 + (x.source[0] - 2) % 8  # the other row of the batch
            model.position_embedding[7:] = 5.0
            assert np.array_equal(model.encode(x.source).numpy()[1, :4], memory), form
            assert np.array_equal(model(x.source, x.target).numpy()[1], before), form
