"""BERT: who sees whom, padding, segments, sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tensor import Tensor, kernels, no_grad, random
from tensor.errors import ShapeError
from tinygpt import BERT, BERTConfig
from tinygpt.ids import CLS, PAD
from tinygpt.model.sizes import ENTRY, least_bytes, parameter_count

VOCABULARY, CONTEXT = 11, 9
VARIANTS: list[dict[str, Any]] = [
    {},
    {"norm": "pre", "activation": "relu"},
    {"bias": False, "tied": False},
    {"positions": "sinusoidal", "segments": 1},
]


def made(device: str = "cpu", **options: Any) -> BERT:
    """A model whose weights all count."""
    config = BERTConfig(VOCABULARY, CONTEXT, width=12, heads=3, layers=2, **options)
    model = BERT(config, dtype="float64", device=device, draw=False)
    rng = np.random.default_rng(0)
    drawn = {name: 0.4 * rng.standard_normal(p.shape) for name, p in model.state_dict().items()}
    model.load_state_dict({name: Tensor(array, device=device) for name, array in drawn.items()})
    return model.eval()


def texts(*lengths: int) -> Any:
    """Ids, one text of each length, with padding after it."""
    ids = np.random.default_rng(1).integers(4, VOCABULARY, (len(lengths), max(lengths)))
    ids[:, 0] = CLS
    ids[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = PAD
    return ids


def test_each_token_sees_all_tokens(device: str) -> None:
    model, ids = made(device), texts(6)
    before = model.hidden(ids).numpy()
    for changed in range(6):
        other = ids.copy()
        other[0, changed] = 4 + (ids[0, changed] - 3) % 7
        moved = np.abs(model.hidden(other).numpy() - before).max(axis=-1)
        assert moved.min() > 1e-6, changed


def test_padding_changes_nothing(device: str) -> None:
    """Alone and beside a longer text; in a batch of the same shape, bit for bit without kernels."""
    model, ids = made(device), texts(9, 5, 2)
    with no_grad():
        hidden, vectors = model.hidden(ids).numpy(), model.vectors(ids).numpy()
        for row, length in enumerate((9, 5, 2)):
            alone = ids[row : row + 1, :length]
            np.testing.assert_allclose(
                model.hidden(alone).numpy()[0], hidden[row, :length], rtol=0, atol=1e-12
            )
            np.testing.assert_allclose(
                model.vectors(alone).numpy()[0], vectors[row], rtol=0, atol=1e-12
            )
            np.testing.assert_allclose(
                vectors[row], hidden[row, :length].mean(axis=0), rtol=0, atol=1e-12
            )
        with kernels.off():
            model.position_embedding[5:] = 7.0  # only padding stands there in texts of 5 and 2
            changed = model.hidden(ids).numpy()
            model.position_embedding[5:] = 3.0
            assert np.array_equal(model.hidden(ids).numpy()[1, :5], changed[1, :5])


def test_padding_gets_no_gradient() -> None:
    model, ids = made(), texts(6, 3)
    y = np.where(ids == PAD, -1, ids)
    model.loss(ids, y).backward()
    assert (model.segment_embedding.weight.grad.numpy()[1] == 0).all()  # type: ignore[union-attr]
    whole = model.loss(ids[1:, :3], y[1:, :3], "sum").item()
    assert model.loss(ids, y, "sum").item() == pytest.approx(
        whole + model.loss(ids[:1], y[:1], "sum").item(), abs=1e-10
    )


def test_segments() -> None:
    """Segment 0 is the default; each token's own segment counts, and each needs one."""
    model, ids = made(), texts(6)
    zero, parts = np.zeros_like(ids), np.array([[0, 0, 0, 1, 1, 1]])
    plain = model(ids).numpy()
    np.testing.assert_allclose(model(ids, zero).numpy(), plain, rtol=0, atol=1e-12)
    for segments in (zero + 1, parts):
        assert np.abs(model(ids, segments).numpy() - plain).max() > 1e-3
    assert np.array_equal(model(ids[0], parts[0]).numpy(), model(ids, parts).numpy())
    with pytest.raises(ShapeError, match=r"segments of shape \(1, 5\) for ids of shape \(1, 6\)"):
        model(ids, parts[:, :5])
    with pytest.raises(IndexError, match="2"):
        model(ids, zero + 2)


def test_states_end_in_what_the_head_reads() -> None:
    for options in VARIANTS:
        model, ids = made(**options), texts(6, 4)
        states = model.hidden_states(ids)
        last = states[-1] if model.final_norm is None else model.final_norm(states[-1])
        assert len(states) == 3
        np.testing.assert_allclose(last.numpy(), model.hidden(ids).numpy(), rtol=0, atol=1e-12)


def test_sizes() -> None:
    for options in VARIANTS:
        model = made(**options)
        numbers = sum(parameter.size for parameter in model.parameters())
        assert parameter_count(model.config) == numbers
        assert least_bytes(model.config) == 2 * numbers + ENTRY * len(model.state_dict())
    # BertForMaskedLM with the weights of bert-base-uncased
    assert parameter_count(BERTConfig(30522, 512, 768, 12, 12)) == 109_514_298


def test_a_fresh_model_knows_nothing() -> None:
    model = BERT(BERTConfig(VOCABULARY, CONTEXT), generator=random.Generator(0))
    ids = texts(9, 7)
    assert model.loss(ids, ids).item() == pytest.approx(np.log(VOCABULARY), abs=0.1)


def test_padding_alone_has_no_vector() -> None:
    """Not 0 / 0, a vector of NaN."""
    with pytest.raises(ShapeError, match="no vector"):
        made().vectors([[CLS, 4], [PAD, PAD]])
