"""Decoding with an encoder-decoder: equal to the whole forward pass wherever tokens come, for
sources of unequal length, up to the end of the context; and the memory is read once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tensor
from tensor import Tensor, no_grad, random
from tensor.errors import ShapeError
from tinygpt import SampleConfig
from tinygpt.config import EncoderDecoderConfig
from tinygpt.errors import InputError
from tinygpt.generation.generate import steps
from tinygpt.ids import PAD, SOS, padded
from tinygpt.model.encoder_decoder import EncoderDecoder

SIZES = {"vocabulary": 11, "context": 9, "width": 24, "heads": 3, "layers": 2}
VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm": "pre", "activation": "gelu", "positions": "learned"},
    {"bias": False, "tied": False, "heads": 1},
]
SOURCES = [[4, 5, 6, 7, 8, 9, 10, 3, 4], [7], [9, 3, 5], [10, 10, 4, 6]]
CLOSE = {"float64": 1e-12, "float32": 1e-6}


def make(dtype: str, device: str = "cpu", **options: Any) -> EncoderDecoder:
    """The same weights in every dtype; every parameter counts, the gains and biases too."""
    config = EncoderDecoderConfig(**SIZES | options)
    model = EncoderDecoder(config, dtype=dtype, device=device, draw=False).eval()
    draws = np.random.default_rng(1)
    for parameter in model.parameters():
        drawn = draws.standard_normal(parameter.shape).astype(np.float32) * 0.3
        with no_grad():
            parameter[...] = Tensor(
                drawn + (parameter.ndim == 1), dtype=parameter.dtype, device=device
            )
    return model


def targets_of(rows: int, length: int) -> Any:
    ids = np.random.default_rng(5).integers(3, 11, (rows, length))
    ids[:, 0] = SOS
    return ids


def ids_on(model: EncoderDecoder, ids: Any) -> Tensor:
    return Tensor(ids, device=model.device)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_the_cache_equals_the_whole_pass(options: dict[str, Any], dtype: str, device: str) -> None:
    """Each row alone, without <pad>, is the oracle: in one portion, token by token, and both."""
    model, target = make(dtype, device, **options), targets_of(4, 9)
    whole = np.concatenate(
        [model([s], t[None]).numpy() for s, t in zip(SOURCES, target, strict=True)]
    )
    close = CLOSE[dtype] * np.abs(whole).max()
    given = model.given(SOURCES)
    for portions in ([9], [1] * 9, [3, 1, 5]):
        cache, start = given.new_cache(4), 0
        for size in portions:
            new = ids_on(model, target[:, start : start + size])
            logits = given.decode(new, cache).numpy()
            expected = whole[:, start : start + size]
            np.testing.assert_allclose(logits, expected, rtol=0, atol=close)
            start += size
        assert cache.seen.tolist() == [9] * 4
        with pytest.raises(ShapeError, match="1 new tokens for a cache that holds 9"):
            given.decode(ids_on(model, target[:, :1]), cache)
    batch = model(padded(SOURCES)[0], target).numpy()
    np.testing.assert_allclose(batch, whole, rtol=0, atol=close)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_some_rows_go_on_and_others_ended(dtype: str, device: str) -> None:
    """Rows 0 and 2 end; then rows 3 and 1 in this order; then row 3 alone."""
    model, target = make(dtype, device), targets_of(4, 9)
    whole = model(padded(SOURCES)[0], target).numpy()
    given = model.given(SOURCES)
    cache, seen = given.new_cache(4), np.zeros(4, int)
    for rows, size in (([0, 1, 2, 3], 2), ([3, 1], 3), ([3], 4)):
        new = np.stack([target[row, seen[row] : seen[row] + size] for row in rows])
        logits = given.decode(ids_on(model, new), cache.of(rows), last=True).numpy()
        seen[rows] += size
        close = CLOSE[dtype] * np.abs(whole).max()
        np.testing.assert_allclose(
            logits[:, 0], whole[rows, seen[rows] - 1], rtol=0, atol=close, err_msg=str(rows)
        )
    assert cache.seen.tolist() == [2, 5, 2, 9]


def test_rows_that_were_reordered(device: str) -> None:
    """Each row goes on with the tokens and the source of the row that it took over."""
    model, target = make("float64", device), targets_of(4, 9)
    given, order = model.given(SOURCES), np.array([2, 1, 2, 0])
    cache = given.new_cache(4)
    given.decode(ids_on(model, target[:, :4]), cache)
    given.decode(ids_on(model, target[[1], 4:6]), cache.of([1]))
    cache.reorder(order)
    assert cache.seen.tolist() == [4, 6, 4, 4]
    rows = [0, 2, 3]
    logits = given.decode(ids_on(model, target[:3, 4:7]), cache.of(rows)).numpy()
    for row, found, new in zip(rows, logits, target[:3, 4:7], strict=True):
        text = np.concatenate([target[order[row], :4], new])
        expected = model([SOURCES[order[row]]], text[None]).numpy()[0, 4:]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_several_rows_for_each_source(device: str) -> None:
    model, target = make("float64", device), targets_of(4, 3)
    given = model.given(SOURCES[:2])
    logits = given.decode(ids_on(model, target), given.new_cache(4)).numpy()
    expected = model(padded([SOURCES[0]] * 2 + [SOURCES[1]] * 2)[0], target).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    with pytest.raises(ShapeError, match="3 rows for 2 sources: as many rows for each"):
        given.new_cache(3)


def test_the_memory_is_made_once(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """One encoding, and one projection to keys and values a layer, for 9 tokens of each target."""
    model, made = make("float64", device), []
    encode, kv = EncoderDecoder.encode, type(model.decoder[0].cross_attention.kv).__call__  # type: ignore[union-attr]
    projections = {id(block.cross_attention.kv) for block in model.decoder}  # type: ignore[union-attr]

    def counted(layer: Any, x: Tensor) -> Tensor:
        if id(layer) in projections:
            made.append("kv")
        return kv(layer, x)

    monkeypatch.setattr(tensor.nn.Linear, "__call__", counted)
    monkeypatch.setattr(
        EncoderDecoder, "encode", lambda *given: made.append("encode") or encode(*given)
    )
    written = list(
        steps(model.given(SOURCES), [[SOS]] * 4, SampleConfig(length=9), [random.Generator(0)] * 4)
    )
    assert len(written) == 36
    assert made == ["encode", "kv", "kv"]


@pytest.mark.parametrize("length", [3, 9, 40])
def test_a_target_ends_with_the_context(length: int, device: str) -> None:
    """The window does not slide: <sos> and 8 tokens fill a context of 9, and the ninth is the last.
    A longer prompt has room for less.
    """
    model = make("float64", device)
    given, texts = model.given(SOURCES[:2]), [[SOS], [SOS, 4, 5, 6]]
    written: list[list[int]] = [[], []]
    config = SampleConfig(length=length, temperature=0)
    for i, step in steps(given, texts, config, [random.Generator(0)] * 2):
        whole = model([SOURCES[i]], [texts[i] + written[i]]).numpy()[0, -1]
        np.testing.assert_allclose(step.logits, whole, rtol=0, atol=1e-11)
        written[i].append(step.token)
    assert [len(tokens) for tokens in written] == [min(length, 9), min(length, 6)]
    with pytest.raises(ShapeError, match="10 tokens do not fit the model's context of 9"):
        steps(given, [[SOS], [SOS] + [4] * 9], config, [random.Generator(0)] * 2)


def test_nothing_is_recorded_and_no_dropout(device: str) -> None:
    model, target = make("float64", device, dropout=0.5), targets_of(4, 4)
    expected = model(padded(SOURCES)[0], target).numpy()
    model.train()
    given = model.given(SOURCES)
    logits = given.decode(ids_on(model, target), given.new_cache(4))
    assert not logits.requires_grad
    np.testing.assert_allclose(logits.numpy(), expected, rtol=0, atol=1e-12 * abs(expected).max())


@pytest.mark.parametrize(
    ("sources", "message"),
    [
        ([], "no source to read"),
        ([[4], []], r"sources\[1\] of shape \(0,\): one sequence of 1 to 9 token ids"),
        ([[4], [PAD, PAD]], r"sources\[1\] of shape \(2,\): .* not all of them <pad>"),
        ([[4] * 10], r"sources\[0\] of shape \(10,\): one sequence of 1 to 9 token ids"),
        ([[[4]]], r"sources\[0\] of shape \(1, 1\)"),
        ([[4, 11]], "token 11 is outside this model's vocabulary, 0 to 10"),
        ([[-1]], "token -1 is outside this model's vocabulary, 0 to 10"),
        ([[4.5]], r"sources\[0\] holds float64: ids must be integers"),
    ],
)
def test_wrong_sources(sources: Any, message: str) -> None:
    with pytest.raises((ValueError, IndexError, TypeError), match=message):
        make("float32").given(sources)


def test_sources_may_be_padded_arrays_or_tensors(device: str) -> None:
    model, target = make("float64", device), targets_of(4, 2)
    ids, found = padded(SOURCES)[0], []
    for sources in (SOURCES, ids, Tensor(ids), [Tensor(source) for source in SOURCES]):
        given = model.given(sources)  # type: ignore[arg-type]
        found.append(given.decode(ids_on(model, target), given.new_cache(4)).numpy())
    assert all(np.array_equal(found[0], logits) for logits in found)


def test_an_empty_prompt() -> None:
    with pytest.raises(InputError, match="the prompt is empty"):
        steps(make("float32").given([[4]]), [[]], SampleConfig(), [random.Generator(0)])
