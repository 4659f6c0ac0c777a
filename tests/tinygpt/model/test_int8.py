"""Weights of 8 bits: the rounding, and the kernel that multiplies with them, which agrees with the
dequantised weights in the ordinary layers.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from tensor import kernels, no_grad, random
from tensor.errors import GraphError, OptionError
from tensor.kernels.cpu import compiled
from tensor.optim import AdamW
from tests.helpers.kernel_runs import compiled_kernels, taken
from tests.tinygpt.model.test_cache import VARIANTS, ids_of, in_portions, make
from tinygpt import GPT, GPTConfig, InputError
from tinygpt.config import FinetuneConfig
from tinygpt.model.adapters import adapt, draw, merged_weights
from tinygpt.model.int8 import to_int8

__all__ = ["compiled_kernels"]
# odd sizes, and more rows, inputs and outputs than a tile of the kernel has
ODD = [
    {"width": 21, "heads": 3, "vocabulary": 67},
    {"width": 66, "heads": 2, "vocabulary": 130, "layers": 1},
    {"width": 1, "heads": 1, "vocabulary": 2, "layers": 1},
]


def channels(outputs: int, inputs: int) -> Any:
    """Channels of all sizes, one of them 0 and one of the smallest numbers that there are."""
    w = np.random.default_rng(0).standard_normal((outputs, inputs)).astype(np.float32)
    w *= np.logspace(-20, 20, outputs, dtype=np.float32)[:, None]
    w[1], w[2] = 0, np.float32(1e-45)
    return w


def test_each_channel_has_a_scale_and_no_weight_is_off_by_more_than_half_of_it() -> None:
    w = channels(9, 37)
    q, scale = to_int8(w)
    assert (q.dtype, scale.dtype) == (np.int8, np.float32)
    np.testing.assert_array_equal(scale, np.abs(w).max(1) / np.float32(127))
    assert np.abs(q.astype(int)).max(1).tolist() == [127, 0, 0, *[127] * 6]
    exact = np.delete(scale.astype(np.float64)[:, None] * q - w, 2, axis=0)
    assert (np.abs(exact) <= np.delete(scale, 2)[:, None] * (0.5 + 1e-5)).all()


def test_halves_and_signs() -> None:
    """Symmetric: the opposite weights have the opposite q; halves are rounded to even."""
    w = np.array([[127, 0.5, 1.5, -2.5, -126.6]], np.float32)
    assert to_int8(w)[0].tolist() == [[127, 0, 2, -2, -127]]
    assert to_int8(-w)[0].tolist() == [[-127, 0, -2, 2, 127]]


@pytest.mark.parametrize("options", [*VARIANTS, *ODD], ids=str)
def test_the_kernel_agrees_with_dequantised_weights(
    options: dict[str, Any], compiled_kernels: Any
) -> None:
    """16 bits of x are the only difference: 1e-3 of the logits; rounded weights differ by more."""
    model, ids = make("float32", **options).to_int8(), ids_of(3, 40) % options.get("vocabulary", 11)
    for portions in ([40], [1] * 6, [37, 1, 2]):
        found = in_portions(model, ids, portions)
        assert taken("decode") == ("decode_in_one_call", "cpu kernel")
        with kernels.off():
            expected = in_portions(model, ids, portions)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


def test_every_product_is_rounded_and_nothing_else(device: str) -> None:
    """The model's logits are those of a float model whose weights are q times scale."""
    for options in ({}, {"tied": False}):
        model, expected = (make("float64", device, **options) for _ in range(2))
        model.to_int8()
        own, tables = expected.state_dict(), ("token_embedding.weight", "position_embedding")
        names = {name for name, x in own.items() if x.ndim == 2 and name not in tables}
        assert len(names) == 12 + (options != {})
        for name in names:
            q, scale = to_int8(own[name].numpy().T.astype(np.float32))
            own[name][...] = (q * scale[:, None]).T
        ids = ids_of(2, 40)
        if options:
            np.testing.assert_allclose(model(ids).numpy(), expected(ids).numpy(), atol=1e-9)
            continue
        h = expected.hidden(ids).numpy()
        q, scale = to_int8(own["token_embedding.weight"].numpy().astype(np.float32))
        np.testing.assert_allclose(model(ids).numpy(), h @ (q * scale[:, None]).T, atol=1e-9)


def test_the_same_bits_for_any_threads_and_for_rows_alone_or_together(
    compiled_kernels: Any,
) -> None:
    model, ids = make("float32", width=66, heads=2, vocabulary=130).to_int8(), ids_of(5, 12)
    together = in_portions(model, ids, [1] * 12)
    for threads in (1, 2, 4):
        compiled_kernels.set_threads(threads)
        np.testing.assert_array_equal(in_portions(model, ids, [1] * 12), together)
        alone = [in_portions(model, ids[i : i + 1], [1] * 12) for i in range(5)]
        np.testing.assert_array_equal(np.concatenate(alone), together)


def test_sums_stay_below_32_bits(compiled_kernels: Any) -> None:
    """All weights are as large as the channel's largest, and all x as the row's: of products of
    127 and 32767, 520 would be too many.
    """
    config = GPTConfig(5, 3, 130, 1, 1, norm="post", activation="relu", bias=False)
    model = GPT(config, generator=random.Generator(0)).eval()
    block = model.blocks[0]
    with no_grad():
        block.attention_norm.gain[...] = 0.0
        block.attention_norm.bias[...] = 1.0
        block.feed_forward.expand.weight[...] = 1.0
        block.feed_forward.projection.weight[...] = np.linspace(0.5, 1.5, 130)
    model.to_int8()
    ids = np.array([[1]])
    found = model(ids, model.new_cache()).numpy()
    assert taken("decode")[1] == "cpu kernel"
    with kernels.off():
        expected = model(ids).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_numbers_that_are_not_finite(compiled_kernels: Any) -> None:
    model = make("float32")
    with no_grad():
        model.blocks[1].feed_forward.expand.weight[2, 3] = np.nan
    with pytest.raises(InputError, match=r"blocks\.1\.feed_forward\.expand is not finite"):
        model.to_int8()
    model = make("float32", norm="post").to_int8()
    with no_grad():  # a bias may be so: the reference then says what comes of it
        model.blocks[0].attention.qkv.bias[...] = np.inf
    assert np.isnan(in_portions(model, ids_of(1, 3), [3])).all()


@pytest.mark.parametrize(("tied", "name"), [(True, "token_embedding"), (False, "head")])
def test_the_error_of_a_head_has_the_name_of_its_weight(tied: bool, name: str) -> None:
    model = make("float32", tied=tied)
    with no_grad():
        getattr(model, name).weight[0, 0] = np.inf
    with pytest.raises(InputError, match=f"^the weight of {name} is not finite"):
        model.to_int8()


def test_a_weight_beyond_float32_is_not_called_infinite() -> None:
    """Nor does NumPy warn of it."""
    model = make("float64")
    with no_grad():
        model.blocks[0].attention.qkv.weight[0, 0] = 1e39
    with warnings.catch_warnings(action="error"), pytest.raises(InputError, match="in float32"):
        model.to_int8()


def test_without_a_compiler_the_reference_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_DISABLED", False)
    monkeypatch.setattr(compiled, "unavailable", lambda: "no C compiler found")
    model = make("float32").to_int8()
    text = model.generate([1, 2], 5, temperature=0)
    assert taken("decode") == ("reference", "no C compiler found")
    with kernels.off():
        assert model.generate([1, 2], 5, temperature=0) == text


def test_a_rounded_model_keeps_only_tables_in_float32() -> None:
    model = make("float32").to_int8()
    assert {name for name, x in model.named_parameters() if x.ndim == 2} == {
        "token_embedding.weight",
        "position_embedding",
    }
    counts = [x.dtype.itemsize * x.size for x in model.state_dict().values() if x.dtype.kind == "i"]
    assert sum(counts) == 3 * 12 * 24 * 24 + 11 * 24


def test_a_rounded_model_does_not_learn() -> None:
    """Its table of tokens would, and a tied head would stay as it was."""
    model, ids = make("float32").to_int8().train(), ids_of(1, 3)
    with pytest.raises(OptionError, match="all frozen"):
        AdamW(model, lr=0.1)
    with pytest.raises(GraphError):
        model.loss(ids, ids).backward()


def test_layers_with_adapters_are_rounded_too() -> None:
    """As the one matrix that each of them is."""
    model, plain = (make("float32", tied=False) for _ in range(2))
    adapt(model, FinetuneConfig(lora=2), (3, 4))
    with no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".B"):
                parameter[...] = 0.1
    draw(model, random.Generator(0))
    plain.load_state_dict(merged_weights(model))
    model.to_int8()
    plain.to_int8()
    assert not [name for name, _ in model.named_parameters() if name.endswith((".A", ".B"))]
    ids = ids_of(2, 5)
    np.testing.assert_array_equal(model(ids).numpy(), plain(ids).numpy())
