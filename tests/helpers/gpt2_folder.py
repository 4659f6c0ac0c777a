"""GPT-2 from its formulas, with the names of Hugging Face, and the folder in which it is stored:
what reading and writing are held against.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

Arrays = dict[str, np.ndarray[Any, Any]]
Keys = dict[str, Any]

# with a tokenizer
BYTES: Keys = {"vocab_size": 258, "n_positions": 16, "n_embd": 8, "n_head": 2, "n_layer": 2}


def drawn(size: Keys, dtype: Any = "float32") -> Arrays:
    """Every tensor of a GPT-2, none of them at 0 or 1, large enough that each counts."""
    C, rng = size["n_embd"], np.random.default_rng(3)
    shapes: dict[str, tuple[int, ...]] = {
        "wte.weight": (size["vocab_size"], C),
        "wpe.weight": (size["n_positions"], C),
    }
    for h in (f"h.{i}." for i in range(size["n_layer"])):
        shapes |= {
            h + "ln_1.weight": (C,),
            h + "ln_1.bias": (C,),
            h + "ln_2.weight": (C,),
            h + "ln_2.bias": (C,),
        }
        shapes |= {
            h + "attn.c_attn.weight": (C, 3 * C),
            h + "attn.c_attn.bias": (3 * C,),
            h + "attn.c_proj.weight": (C, C),
            h + "attn.c_proj.bias": (C,),
        }
        shapes |= {
            h + "mlp.c_fc.weight": (C, 4 * C),
            h + "mlp.c_fc.bias": (4 * C,),
            h + "mlp.c_proj.weight": (4 * C, C),
            h + "mlp.c_proj.bias": (C,),
        }
    shapes |= {"ln_f.weight": (C,), "ln_f.bias": (C,)}
    return {
        name: (0.3 * rng.standard_normal(shape)).astype(dtype) for name, shape in shapes.items()
    }


def by_hand(w: Arrays, size: Keys, ids: np.ndarray[Any, Any]) -> Arrays:
    """What leaves each layer, and the logits, in float64.   ids: (T,)"""
    T, H = len(ids), size["n_head"]
    w = {name: array.astype(np.float64) for name, array in w.items()}

    def norm(x: Any, name: str) -> Any:
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * w[name + ".weight"]
            + w[name + ".bias"]
        )

    def conv1d(x: Any, name: str) -> Any:
        return x @ w[name + ".weight"] + w[name + ".bias"]

    x = w["wte.weight"][ids] + w["wpe.weight"][:T]
    left = {"embedding": x}
    for i in range(size["n_layer"]):
        q, k, v = (
            part.reshape(T, H, -1).transpose(1, 0, 2)
            for part in np.split(conv1d(norm(x, f"h.{i}.ln_1"), f"h.{i}.attn.c_attn"), 3, axis=-1)
        )
        scores = np.where(
            np.tril(np.ones((T, T), bool)),
            q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1]),
            -np.inf,
        )
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y = weights / weights.sum(-1, keepdims=True) @ v
        x = x + conv1d(y.transpose(1, 0, 2).reshape(T, -1), f"h.{i}.attn.c_proj")
        h = conv1d(norm(x, f"h.{i}.ln_2"), f"h.{i}.mlp.c_fc")
        x = x + conv1d(
            0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3))),
            f"h.{i}.mlp.c_proj",
        )
        left[f"layer {i}"] = x
    return left | {"logits": norm(x, "ln_f") @ w.get("lm_head.weight", w["wte.weight"]).T}


def tokens(size: Keys) -> np.ndarray[Any, Any]:
    """As many as the context holds."""
    return np.asarray(np.random.default_rng(1).integers(0, size["vocab_size"], size["n_positions"]))


def write(
    folder: Path, size: Keys, arrays: Arrays, prefix: str = "transformer.", **keys: Any
) -> Path:
    """A folder as Hugging Face writes it; with a tokenizer if the vocabulary is that of BYTES."""
    folder.mkdir(exist_ok=True)
    named = {
        name if name == "lm_head.weight" else prefix + name: np.ascontiguousarray(array)
        for name, array in arrays.items()
    }
    save_file(named, folder / "model.safetensors", metadata={"format": "pt"})
    dtype = arrays["wte.weight"].dtype.name
    content = (
        {
            "model_type": "gpt2",
            "bos_token_id": 1,
            "eos_token_id": 2,
            "initializer_range": 0.02,
            "dtype": dtype,
            "task": {"max": 50},
        }
        | size
        | keys
    )
    (folder / "config.json").write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    if size["vocab_size"] == 258:
        visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
        symbols = [*map(chr, visible), *(chr(256 + n) for n in range(256 - len(visible)))]
        words = {word: i for i, word in enumerate([*symbols, "th", "<|endoftext|>"])}
        (folder / "vocab.json").write_text(json.dumps(words))
        (folder / "merges.txt").write_text("#version: 0.2\nt h\n", encoding="utf-8")
    return folder
