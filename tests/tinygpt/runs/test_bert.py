"""BERT of Hugging Face: what is read computes what `transformers` computes, and `transformers`
reads what is written.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tensor import no_grad
from tinygpt import BERT, BERTConfig
from tinygpt.errors import InputError
from tinygpt.ids import PAD
from tinygpt.runs import bert

SIZE = {
    "vocab_size": 37,
    "max_position_embeddings": 12,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
}
RNG = np.random.default_rng(0)
IDS, SEGMENTS = RNG.integers(1, 37, (3, 12)), RNG.integers(0, 2, (3, 12))
IDS[1, 8:] = PAD
KNOWN = IDS != PAD
PRECISE = [("float32", 1e-4), ("float64", 1e-9)]


def theirs_of(transformers: Any, kind: str, **keys: Any) -> Any:
    """Their model of that kind, with weights that all count."""
    import torch

    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.BertConfig(**SIZE, **keys)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model


def answers(theirs: Any, dtype: str) -> Any:
    """Their logits, or their hidden states where there is no head."""
    import torch

    ids, segments, known = (torch.tensor(array) for array in (IDS, SEGMENTS, KNOWN.astype(int)))
    with torch.no_grad():
        found = theirs.to(getattr(torch, dtype))(ids, attention_mask=known, token_type_ids=segments)
    return found[0].numpy()[KNOWN]


def compare(model: BERT, expected: Any, atol: float, head: bool = True) -> None:
    with no_grad():
        found = (model if head else model.hidden)(IDS, SEGMENTS).numpy()[KNOWN]
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


@pytest.mark.filterwarnings("ignore")
def test_what_transformers_saves(transformers: Any, tmp_path: Path) -> None:
    """Logits within 1e-4 in float32 and 1e-9 in float64, with padding and segments; saved again:
    the same bytes.
    """
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("BertForMaskedLM", {}),
        ("BertForMaskedLM", {"tie_word_embeddings": False, "hidden_act": "relu"}),
        ("BertForPreTraining", {"hidden_act": "gelu_new"}),
        ("BertModel", {"layer_norm_eps": 1e-5}),
    ]
    for number, (kind, keys) in enumerate(kinds):
        folder = tmp_path / str(number)
        theirs = theirs_of(transformers, kind, **keys)
        theirs.save_pretrained(folder)
        for dtype, atol in PRECISE:
            model = BERT.from_bert(folder, dtype=dtype)  # type: ignore[attr-defined]
            compare(model, answers(theirs, dtype), atol, kind != "BertModel")
        if number == 0:
            bert.save(bert.load(folder), tmp_path / "again", keys=bert.read_keys(folder))
            for name in ("config.json", "model.safetensors"):
                assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_what_transformers_loads(transformers: Any, tmp_path: Path) -> None:
    import torch

    for tied in (True, False):
        for dtype, atol in PRECISE:
            config = BERTConfig(37, 12, 24, 3, 2, tied=tied)
            model = BERT(config, dtype=dtype, draw=False)
            state, rng = model.state_dict(), np.random.default_rng(0)
            model.load_state_dict(
                {name: 0.3 * rng.standard_normal(p.shape) for name, p in state.items()}
            )
            folder = tmp_path / f"{tied} {dtype}"
            bert.save(model.eval(), folder)
            theirs, about = transformers.BertForMaskedLM.from_pretrained(
                folder, dtype=getattr(torch, dtype), output_loading_info=True
            )
            assert not any(about.values()), about  # nothing missing, nothing unknown
            compare(model, answers(theirs.eval(), dtype), atol)


def written(folder: Path, **keys: Any) -> Path:
    """A small BERT in a folder, with other keys in its config.json."""
    bert.save(BERT(BERTConfig(37, 12, 24, 3, 2)), folder)
    content = json.loads((folder / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps(content))
    return folder


def renamed(folder: Path, change: Any) -> dict[str, Any]:
    """The tensors of the folder's file, changed and written back."""
    arrays = change(load_file(folder / "model.safetensors"))
    save_file(arrays, folder / "model.safetensors")
    return dict(arrays)


def test_old_files(tmp_path: Path) -> None:
    """They call a norm's gain gamma, and store numbers of positions and what is shared twice."""
    expected = bert.load(written(tmp_path / "a")).state_dict()
    old = lambda name: name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta")

    def change(arrays: dict[str, Any]) -> dict[str, Any]:
        table, bias = "bert.embeddings.word_embeddings.weight", "cls.predictions.bias"
        more = {
            "bert.embeddings.position_ids": np.arange(12)[None],
            "cls.predictions.decoder.weight": arrays[table].copy(),
            "cls.predictions.decoder.bias": arrays[bias].copy(),
        }
        return {old(name): array for name, array in arrays.items()} | more

    renamed(tmp_path / "a", change)
    found = bert.load(tmp_path / "a").state_dict()
    for name, tensor in expected.items():
        assert np.array_equal(found[name].numpy(), tensor.numpy()), name


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"model_type": "roberta"}, 'model_type "roberta" is not supported, only "bert"'),
        ({"is_decoder": True}, "is_decoder true is not supported"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"pad_token_id": 1}, "pad_token_id 1 is not supported, only 0 or null"),
        ({"hidden_act": "silu"}, 'hidden_act "silu" is not supported'),
        ({"intermediate_size": 100}, "intermediate_size 100 is not supported, only 4 hidden_size"),
        ({"hidden_size": "24"}, 'hidden_size "24": a value like 768'),
        ({"num_attention_heads": 5}, "hidden_size 24 is not divisible by heads 5"),
        ({"vocab_size": 36}, r"word_embeddings.weight has shape \(37, 24\), not \(36, 24\)"),
        ({"num_hidden_layers": 3}, "encoder.layer.2.attention.self.query.weight of shape"),
        ({"num_hidden_layers": 1}, "the model of config.json has no such tensor"),
    ],
    ids=str,
)
def test_what_is_no_bert_is_refused(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        bert.load(written(tmp_path / "a", **keys))


def test_a_tied_head_that_differs_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "a")
    more = {"cls.predictions.decoder.weight": np.ones((37, 24), np.float32)}
    renamed(tmp_path / "a", lambda arrays: arrays | more)
    with pytest.raises(InputError, match="set tie_word_embeddings to false"):
        bert.load(tmp_path / "a")


def test_what_bert_cannot_hold_is_refused(tmp_path: Path) -> None:
    for options, says in (
        ({"norm": "pre"}, "its norm is pre, BERT's post"),
        ({"bias": False}, "its bias is False"),
    ):
        model = BERT(BERTConfig(37, 12, 24, 3, 2, **options))  # type: ignore[arg-type]
        with pytest.raises(InputError, match=says):
            bert.save(model, tmp_path / "a")
        assert not (tmp_path / "a").exists()
