"""GPT-2 of Hugging Face: what is read computes what GPT-2 computes, and `transformers` reads what
is written.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tensor
from tensor import no_grad, random
from tests.helpers.gpt2_folder import BYTES, Arrays, Keys, by_hand, drawn, tokens, write
from tinygpt import GPT, GPTConfig
from tinygpt.errors import InputError
from tinygpt.runs import gpt2
from tinygpt.tokenizers import BytePairTokenizer

DIFFERENT: Keys = {"vocab_size": 37, "n_positions": 12, "n_embd": 24, "n_head": 3, "n_layer": 4}
# any table could be another, or lie on its side
SQUARE: Keys = {"vocab_size": 24, "n_positions": 24, "n_embd": 24, "n_head": 3, "n_layer": 4}
SIZES = pytest.mark.parametrize("size", [DIFFERENT, SQUARE], ids=["different", "square"])


def ours(model: GPT, ids: np.ndarray[Any, Any]) -> Arrays:
    with no_grad():
        x = model.embed(ids)
        left = {"embedding": x}
        for i, block in enumerate(model.blocks):
            left[f"layer {i}"] = x = block(x)
        return {
            name: value.to("cpu").numpy()[0]
            for name, value in (left | {"logits": model(ids)}).items()
        }


def compare(model: GPT, arrays: Arrays, size: Keys, atol: float = 1e-9) -> None:
    found, expected = ours(model, tokens(size)), by_hand(arrays, size, tokens(size))
    assert list(found) == list(expected)
    for name, values in expected.items():  # the first layer that differs is named
        np.testing.assert_allclose(found[name], values, rtol=0, atol=atol, err_msg=name)


# -- the same numbers


@SIZES
def test_bug_61_each_layer_gives_what_gpt2_gives(tmp_path: Path, size: Keys, device: str) -> None:
    arrays = drawn(size)
    compare(gpt2.load(write(tmp_path, size, arrays), dtype="float64", device=device), arrays, size)
    model = GPT.from_gpt2(tmp_path, device=device)
    assert model.token_embedding.weight.dtype == tensor.float32
    assert not model.training
    compare(model, arrays, size, atol=1e-4)


@pytest.mark.parametrize("prefix", ["transformer.", ""], ids=["transformer.", "bare"])
def test_bug_61_prefix_and_masks(tmp_path: Path, prefix: str) -> None:
    """Old files hold the causal mask of each layer, files of the bare model have no prefix, some
    hold the tied table twice.
    """
    arrays = drawn(DIFFERENT)
    masks = {f"h.{i}.attn.bias": np.tril(np.ones((1, 1, 12, 12), np.uint8)) for i in range(4)}
    masks |= {f"h.{i}.attn.masked_bias": np.array(-1e4, np.float32) for i in range(4)}
    write(tmp_path, DIFFERENT, arrays | masks | {"lm_head.weight": arrays["wte.weight"]}, prefix)
    compare(gpt2.load(tmp_path, dtype="float64"), arrays, DIFFERENT)


@SIZES
def test_bug_61_a_head_of_its_own(tmp_path: Path, size: Keys) -> None:
    arrays = drawn(size) | {
        "lm_head.weight": 0.3 * np.random.default_rng(4).standard_normal((size["vocab_size"], 24))
    }
    write(tmp_path, size, arrays, tie_word_embeddings=False)
    compare(gpt2.load(tmp_path, dtype="float64"), arrays, size)


@SIZES
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_bug_61_what_is_written(tmp_path: Path, size: Keys, tied: bool) -> None:
    """The names of Hugging Face, its shapes, and the very bytes that were read: nothing on its
    side, and the head only where it is its own.
    """
    arrays = drawn(size) | (
        {}
        if tied
        else {
            "lm_head.weight": np.random.default_rng(4)
            .standard_normal((size["vocab_size"], 24))
            .astype(np.float32)
        }
    )
    write(tmp_path / "a", size, arrays, tie_word_embeddings=tied)
    gpt2.save(gpt2.load(tmp_path / "a"), tmp_path / "b")
    written = load_file(tmp_path / "b" / "model.safetensors")
    assert set(written) == {
        name if name == "lm_head.weight" else f"transformer.{name}" for name in arrays
    }
    for name, array in arrays.items():
        found = written[name if name == "lm_head.weight" else f"transformer.{name}"]
        assert np.array_equal(found, array), name
    keys = json.loads((tmp_path / "b" / "config.json").read_text())
    assert {key: keys[key] for key in size} == size
    assert keys["tie_word_embeddings"] is tied
    compare(gpt2.load(tmp_path / "b", dtype="float64"), arrays, size)


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float64"])
def test_other_dtypes(tmp_path: Path, dtype: Any) -> None:
    arrays = drawn(DIFFERENT, dtype)
    write(tmp_path, DIFFERENT, arrays)
    assert gpt2.load(tmp_path).token_embedding.weight.dtype == np.dtype(dtype)
    compare(gpt2.load(tmp_path, dtype="float64"), arrays, DIFFERENT)
    write(tmp_path, DIFFERENT, arrays | {"wpe.weight": arrays["wpe.weight"].astype(np.float32)})
    # the widest
    assert gpt2.load(tmp_path).token_embedding.weight.dtype == np.result_type(
        np.float32, "float64" if dtype == "float64" else "float32"
    )


def test_several_files(tmp_path: Path) -> None:
    arrays = drawn(DIFFERENT)
    write(tmp_path, DIFFERENT, arrays)
    whole = load_file(tmp_path / "model.safetensors")
    os.remove(tmp_path / "model.safetensors")
    places = {name: f"model-0000{1 + i % 3}-of-00003.safetensors" for i, name in enumerate(whole)}
    for file in set(places.values()):
        save_file(
            {name: array for name, array in whole.items() if places[name] == file}, tmp_path / file
        )
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": places})
    )
    compare(gpt2.load(tmp_path, dtype="float64"), arrays, DIFFERENT)
    os.remove(tmp_path / "model-00002-of-00003.safetensors")
    with pytest.raises(InputError, match=r"model-00002-of-00003\.safetensors is missing"):
        gpt2.load(tmp_path)


# -- against transformers


@pytest.mark.filterwarnings("ignore")
@SIZES
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_what_transformers_saves(transformers: Any, tmp_path: Path, size: Keys, tied: bool) -> None:
    """Logits within 1e-4 in float32 and 1e-9 in float64, the same greedy text; saved again: the
    same bytes.
    """
    import torch

    torch.manual_seed(0)
    theirs = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(**size, tie_word_embeddings=tied, bos_token_id=1, eos_token_id=2)
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0, 0.3)
        for norm in (
            module for module in theirs.modules() if isinstance(module, torch.nn.LayerNorm)
        ):
            norm.weight.add_(1)
        theirs.transformer.wpe.weight.mul_(18)  # or it would say one word again and again
    theirs.save_pretrained(tmp_path / "theirs")
    model, precise = gpt2.load(tmp_path / "theirs"), gpt2.load(tmp_path / "theirs", dtype="float64")
    ids = tokens(size)
    with torch.no_grad():
        np.testing.assert_allclose(
            ours(model, ids)["logits"], theirs(torch.tensor(ids[None])).logits[0], rtol=0, atol=1e-4
        )
        text = theirs.generate(
            torch.tensor(ids[None, :3]), max_new_tokens=9, do_sample=False, eos_token_id=None
        )[0].tolist()
        assert model.generate(ids[:3], 9, temperature=0) == text
        assert len(set(text[3:])) > 3
        expected = theirs.to(torch.float64)(torch.tensor(ids[None])).logits[0]
    np.testing.assert_allclose(ours(precise, ids)["logits"], expected, rtol=0, atol=1e-9)
    arrays = {
        name.removeprefix("transformer."): array
        for name, array in load_file(tmp_path / "theirs/model.safetensors").items()
    }
    # the oracle of the tests above
    np.testing.assert_allclose(by_hand(arrays, size, ids)["logits"], expected, rtol=0, atol=1e-9)
    gpt2.save(model, tmp_path / "ours", keys=gpt2.read_keys(tmp_path / "theirs"))
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 1e-4), ("float64", 1e-9)])
def test_what_transformers_loads(
    transformers: Any, tmp_path: Path, tied: bool, dtype: str, atol: float
) -> None:
    import torch

    model = GPT(
        GPTConfig(37, 12, 24, 3, 4, tied=tied), generator=random.Generator(0), dtype=dtype
    ).eval()
    rng = np.random.default_rng(0)
    model.load_state_dict(
        {
            name: 0.3 * rng.standard_normal(weights.shape)
            for name, weights in model.state_dict().items()
        }
    )
    gpt2.save(model, tmp_path / "made")
    theirs, about = transformers.GPT2LMHeadModel.from_pretrained(
        tmp_path / "made", dtype=getattr(torch, dtype), output_loading_info=True
    )
    assert not any(about.values()), about  # nothing missing, nothing unknown
    assert theirs.config.dtype == getattr(torch, dtype)
    with torch.no_grad():
        np.testing.assert_allclose(
            ours(model, tokens(DIFFERENT))["logits"],
            theirs.eval()(torch.tensor(tokens(DIFFERENT)[None])).logits[0],
            rtol=0,
            atol=atol,
        )


@pytest.mark.filterwarnings("ignore")
def test_transformers_reads_our_tokenizer(transformers: Any, tmp_path: Path) -> None:
    source = write(tmp_path / "a", BYTES, drawn(BYTES))
    tokenizer = BytePairTokenizer.from_gpt2(source / "vocab.json", source / "merges.txt")
    gpt2.save(gpt2.load(source), tmp_path / "b", tokenizer=tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "b")
    for text in ("the path thereof", "Käse  \n\t猫 🐈 th'th"):
        assert theirs(text)["input_ids"] == list(tokenizer.encode(text))
    # <|endoftext|>
    assert json.loads((tmp_path / "b/config.json").read_text())["eos_token_id"] == 257
