"""GPT-2 as Hugging Face stores it, read and written: config.json and model.safetensors.
Radford et al. 2019

The tables below say which key of config.json is which of our choices, and which tensor is which of
our parameters.

    load(folder) -> GPT         what stands in the folder, in the dtype of the file
    save(model, folder)         the same files, which `transformers` loads
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensor.dtypes import DTypeLike, promote
from tensor.memory.devices import Array
from tinygpt.config import GPTConfig
from tinygpt.files import FilePath, write_json
from tinygpt.model.gpt import GPT
from tinygpt.runs import checkpoint, families
from tinygpt.runs.checkpoint import Arrays
from tinygpt.runs.families import Family, new_folder
from tinygpt.runs.tensors import (
    CONFIG,
    WEIGHTS,
    WRAPPERS,
    read_tensors,
    refuse_twins,
    refuse_unknown,
    taken,
)
from tinygpt.tokenizers.byte_pair import END, BytePairTokenizer
from tinygpt.tokenizers.gpt2_folder import SETTINGS

VOCABULARY, MERGES = "vocab.json", "merges.txt"
# their config.json in the folder of a run that was imported: the way back says again what only they
# know
KEPT = "gpt2.json"

# -- the tables

DROPOUTS = "resid_pdrop", "embd_pdrop", "attn_pdrop"
FAMILY = Family(
    name="GPT-2",
    files=f"a GPT-2 of Hugging Face is a folder with {CONFIG}, {WEIGHTS}, and tokenizer.json or "
    f"{VOCABULARY} and {MERGES}",
    config=GPTConfig,
    choices={
        "vocab_size": ("vocabulary", 50257),
        "n_positions": ("context", 1024),
        "n_embd": ("width", 768),
        "n_head": ("heads", 12),
        "n_layer": ("layers", 12),
        "resid_pdrop": ("dropout", 0.1),
        "tie_word_embeddings": ("tied", True),
        "layer_norm_epsilon": ("epsilon", 1e-5),
    },
    dropouts=DROPOUTS,
    activation="activation_function",
    activations={
        "gelu_new": "gelu",
        "gelu_pytorch_tanh": "gelu",
        "gelu_fast": "gelu",
        "gelu": "gelu_erf",
        "relu": "relu",
    },
    inner=("n_inner", None),
    fixed={
        "model_type": ("gpt2",),
        "scale_attn_weights": (True,),
        "scale_attn_by_inverse_layer_idx": (False,),
        "add_cross_attention": (False,),
    },
    ours={"positions": "learned", "norm": "pre", "bias": True},
    written={"architectures": ["GPT2LMHeadModel"], "n_inner": None, "torch_dtype": None},
)
PREFIX = "transformer."  # before all names but the head's; files of the bare GPT2Model do without
PREFIXES = re.compile(rf"{WRAPPERS}(transformer\.)?")
# the causal mask, which old files hold as well
BUFFER = re.compile(r"h\.\d+\.attn\.(masked_)?bias")

# In each block: ours, theirs, and the shape in widths. Their Conv1D keeps (inputs, outputs) as our
# Linear does, q, k and v side by side.
BLOCK: list[tuple[str, str, tuple[int, ...]]] = [
    ("attention_norm.gain", "ln_1.weight", (1,)),
    ("attention_norm.bias", "ln_1.bias", (1,)),
    ("attention.qkv.weight", "attn.c_attn.weight", (1, 3)),
    ("attention.qkv.bias", "attn.c_attn.bias", (3,)),
    ("attention.projection.weight", "attn.c_proj.weight", (1, 1)),
    ("attention.projection.bias", "attn.c_proj.bias", (1,)),
    ("feed_forward_norm.gain", "ln_2.weight", (1,)),
    ("feed_forward_norm.bias", "ln_2.bias", (1,)),
    ("feed_forward.expand.weight", "mlp.c_fc.weight", (1, 4)),
    ("feed_forward.expand.bias", "mlp.c_fc.bias", (4,)),
    ("feed_forward.projection.weight", "mlp.c_proj.weight", (4, 1)),
    ("feed_forward.projection.bias", "mlp.c_proj.bias", (1,)),
]
HEAD = "lm_head.weight"  # torch's Linear, (outputs, inputs): the one that is transposed


def rows(config: GPTConfig) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Every parameter of the model: our name, theirs without the prefix, the shape it has there."""
    yield "token_embedding.weight", "wte.weight", (config.vocabulary, config.width)
    yield "position_embedding", "wpe.weight", (config.context, config.width)
    for i in range(config.layers):
        for ours, theirs, widths in BLOCK:
            if not config.bias and ours.endswith(("qkv.bias", "projection.bias", "expand.bias")):
                continue
            shape = tuple(n * config.width for n in widths)
            yield f"blocks.{i}.{ours}", f"h.{i}.{theirs}", shape
    yield "final_norm.gain", "ln_f.weight", (config.width,)
    yield "final_norm.bias", "ln_f.bias", (config.width,)
    if not config.tied:
        yield "head.weight", HEAD, (config.vocabulary, config.width)


def plain(name: str) -> str | None:
    """Their name without prefixes; None for a mask."""
    name = PREFIXES.sub("", name, count=1)
    return None if BUFFER.fullmatch(name) else name


def turned(theirs: str, array: Array) -> Array:
    """Their array as ours, and ours as theirs."""
    return array.T if theirs == HEAD else array


# -- reading


def load(
    folder: FilePath,
    *,
    vocabulary: int | None = None,
    dtype: DTypeLike | None = None,
    device: str = "cpu",
) -> GPT:
    """The model in a folder of Hugging Face's, ready to write (dropout off), in the dtype of its
    file unless another is given.

    vocabulary: the number of tokens to keep, where the table of tokens was padded beyond them.
    Nothing is executed. Names and shapes are compared with what config.json means before memory is
    asked for. Raises InputError for a file that is missing or damaged, for a key that means another
    model, and for a tensor that is missing, unknown or of another shape, with both.
    """
    config = as_config(read_keys(folder))
    arrays = matched(read_tensors(Path(folder), plain, FAMILY.files), config)
    if vocabulary is not None:
        config = dataclasses.replace(config, vocabulary=vocabulary)
        table = arrays["token_embedding.weight"]
        arrays["token_embedding.weight"] = table[:vocabulary]
        if not config.tied:
            arrays["head.weight"] = arrays["head.weight"][:, :vocabulary]
    dtype = dtype or promote(*{array.dtype for array in arrays.values()})
    model = GPT(config, draw=False, dtype=dtype, device=device)
    model.load_state_dict(arrays)
    return model.eval()


def read_keys(folder: FilePath) -> dict[str, Any]:
    """What config.json says, as it stands. Raises InputError."""
    return families.read_keys(folder, FAMILY.files)


def as_config(keys: Mapping[str, Any]) -> GPTConfig:
    """Our choices for their keys, as `families.as_config`. nanoGPT may do without biases."""
    config: GPTConfig = families.as_config(keys, FAMILY, bias=keys.get("bias") is not False)
    return config


def matched(found: Arrays, config: GPTConfig) -> Arrays:
    """Their tensors under our names. Raises InputError for the first that is missing, has another
    shape or is not known.
    """
    state: Arrays = {}
    left = dict(found)
    for ours, theirs, shape in rows(config):
        if theirs not in left and not config.bias and theirs.endswith(".bias"):
            left[theirs] = np.zeros(shape, found["wte.weight"].dtype)  # a LayerNorm without a bias
        array = taken(left, theirs, shape)
        state[ours] = turned(theirs, array)
    if config.tied:
        refuse_twins(left, HEAD, "wte.weight", found["wte.weight"])
    refuse_unknown(left)
    return state


# a constructor that knows files stands above the model
GPT.from_gpt2 = staticmethod(load)  # type: ignore[attr-defined]


# -- writing


def save(
    model: GPT,
    folder: FilePath,
    *,
    tokenizer: BytePairTokenizer | None = None,
    keys: Mapping[str, Any] | None = None,
) -> None:
    """Make a folder that `transformers` loads: config.json, model.safetensors, and with a tokenizer
    vocab.json and merges.txt.

    keys: the config.json that the model came with; what it says beyond our choices is kept. The
    whole folder appears in one move. Raises InputError where GPT-2 cannot be what the model is, and
    for a folder that holds something or cannot be written.
    """
    content = families.as_keys(model, FAMILY, keys, KEPT)
    with new_folder(Path(folder)) as temporary:
        _write(temporary, model, content, tokenizer)


def _write(
    folder: Path, model: GPT, content: dict[str, Any], tokenizer: BytePairTokenizer | None
) -> None:
    if tokenizer is not None:
        tokenizer.save_gpt2(folder / VOCABULARY, folder / MERGES)
        # vocab.json does not say which tokens are special; of END transformers knows it
        named = {str(i): {"content": t} for t, i in tokenizer.specials.items() if t != END}
        if named:
            settings = {"tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": named}
            write_json(folder / SETTINGS, settings)
    for key in ("bos_token_id", "eos_token_id"):
        # unsaid, it would mean 50256
        content.setdefault(key, tokenizer.specials.get(END) if tokenizer else None)
    write_json(folder / CONFIG, content)
    state = model.state_dict()
    arrays = {
        PREFIX * (theirs != HEAD) + theirs: turned(theirs, state[ours].array)
        for ours, theirs, shape in rows(model.config)
    }
    checkpoint.write_arrays(folder / WEIGHTS, arrays, form="pt")
