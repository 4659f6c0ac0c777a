"""GPT-2 as Hugging Face stores it, read and written: config.json and model.safetensors.
Radford et al. 2019

The tables below say which key of config.json is which of our choices, and which tensor is which of
our parameters.

    load(folder) -> GPT         what stands in the folder, in the dtype of the file
    save(model, folder)         the same files, which `transformers` loads
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tensor.dtypes import DTypeLike, promote
from tensor.memory.devices import Array
from tinygpt.config import GPTConfig
from tinygpt.errors import InputError
from tinygpt.files import KEYS, FilePath, brief, read_json, replace, write_json, writing
from tinygpt.model.gpt import GPT
from tinygpt.runs import checkpoint
from tinygpt.runs.checkpoint import Arrays
from tinygpt.runs.gpt2_tensors import (
    CONFIG,
    FILES,
    PREFIX,
    WEIGHTS,
    read_tensors,
    refuse_pickle,
)
from tinygpt.terminal import shown
from tinygpt.tokenizers.byte_pair import END, BytePairTokenizer
from tinygpt.tokenizers.gpt2_files import RESTORE
from tinygpt.tokenizers.gpt2_folder import SETTINGS, check_settings

VOCABULARY, MERGES = "vocab.json", "merges.txt"
# their config.json in the folder of a run that was imported: the way back says again what only they
# know
KEPT = "gpt2.json"

# -- the tables

# Theirs -> ours, and what a config.json that does not say means.
CHOICES: dict[str, tuple[str, Any]] = {
    "vocab_size": ("vocabulary", 50257),
    "n_positions": ("context", 1024),
    "n_embd": ("width", 768),
    "n_head": ("heads", 12),
    "n_layer": ("layers", 12),
    "resid_pdrop": ("dropout", 0.1),
    "tie_word_embeddings": ("tied", True),
    "layer_norm_epsilon": ("epsilon", 1e-5),
}
# one dropout of ours; it changes nothing but a training
DROPOUTS = "resid_pdrop", "embd_pdrop", "attn_pdrop"
# their names -> ours; of several the first is written
ACTIVATIONS = {
    "gelu_new": "gelu",
    "gelu_pytorch_tanh": "gelu",
    "gelu_fast": "gelu",
    "gelu": "gelu_erf",
    "relu": "relu",
}
# What their models could do otherwise and ours does one way: the values that mean it; the first is
# the one that a missing key means, and that is written.
FIXED: dict[str, tuple[Any, ...]] = {
    "model_type": ("gpt2",),
    "activation_function": tuple(ACTIVATIONS),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "add_cross_attention": (False,),
}
# A config.json of a model that came with none.
USUAL: dict[str, Any] = {key: meanings[0] for key, meanings in FIXED.items()}
USUAL |= {"architectures": ["GPT2LMHeadModel"], "n_inner": None, "torch_dtype": None}
# What ours could do otherwise, and GPT-2 does one way.
GPT2: dict[str, Any] = {"positions": "learned", "norm": "pre", "bias": True}

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
    arrays = matched(read_tensors(Path(folder)), config)
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
    refuse_pickle(Path(folder))
    keys: dict[str, Any] = read_json(Path(folder) / CONFIG, KEYS, advice=f"{RESTORE}: {FILES}")
    return keys


def as_config(keys: Mapping[str, Any]) -> GPTConfig:
    """Our choices for their keys. Raises InputError for a model that is no GPT-2 as it is built
    here, with the key and what it may be.
    """
    check_settings(keys, FIXED, CONFIG)
    choices: dict[str, Any] = {}
    for key, (name, usual) in CHOICES.items():
        value = keys.get(key, usual)
        if not (type(value) is type(usual) or (type(usual) is float and type(value) is int)):
            raise _unsupported(key, value, f": a value like {json.dumps(usual)} is needed")
        choices[name] = value
    for key in DROPOUTS:
        value = keys.get(key, 0.1)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise _unsupported(key, value, ": a number, at least 0 and below 1, is needed")
    choices["activation"] = ACTIVATIONS[keys.get("activation_function", "gelu_new")]
    inner, usual = keys.get("n_inner"), 4 * choices["width"]
    if inner not in (None, usual):
        why = f" is not supported, only null or 4 n_embd, here {usual}"
        raise _unsupported("n_inner", inner, why)
    try:
        return GPTConfig(**choices, **GPT2 | {"bias": keys.get("bias") is not False})
    except InputError as error:
        name, _, rest = str(error).partition(" ")
        theirs = next(key for key, (ours, _) in CHOICES.items() if ours == name)
        raise InputError(f"{CONFIG}: {theirs} {rest}") from None


def _unsupported(key: str, value: Any, why: str) -> InputError:
    return InputError(f"{CONFIG}: {key} {brief(json.dumps(value))}{why}")


def matched(found: Arrays, config: GPTConfig) -> Arrays:
    """Their tensors under our names. Raises InputError for the first that is missing, has another
    shape or is not known.
    """
    state: Arrays = {}
    left = dict(found)
    for ours, theirs, shape in rows(config):
        array = left.pop(theirs, None)
        if array is None and not config.bias and theirs.endswith(".bias"):
            array = np.zeros(shape, found["wte.weight"].dtype)  # a LayerNorm without a bias
        if array is None or array.shape != shape:
            problem = f"of shape {shape} is missing in {WEIGHTS}"
            if array is not None:
                problem = f"has shape {array.shape}, not {shape}"
            raise InputError(f"{theirs} {problem}\n{CONFIG} and {WEIGHTS} must be of one model")
        state[ours] = turned(theirs, array)
    table = found["wte.weight"]  # some files store the shared table twice
    if config.tied and not np.array_equal(left.pop(HEAD, table), table, equal_nan=True):
        raise InputError(
            f"{HEAD} differs from wte.weight, which {CONFIG} ties it to\n"
            "set tie_word_embeddings to false there, if the head is its own"
        )
    for name, array in left.items():
        raise InputError(
            f"{brief(name)} of shape {array.shape} is in {WEIGHTS}, and the model of {CONFIG} has "
            "no such tensor"
        )
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
    folder = Path(folder)
    content = as_keys(model, keys)
    if os.path.lexists(folder) and not (folder.is_dir() and not any(folder.iterdir())):
        raise InputError(f"{shown(folder)} exists and is not an empty folder\nname a new one")
    temporary = folder.absolute().with_name(f".{folder.absolute().name}.{os.getpid()}.tmp")
    try:
        with writing(folder, "name a folder you may write to"):
            temporary.mkdir(parents=True)
            _write(temporary, model, content, tokenizer)
            if folder.exists():
                folder.rmdir()  # Windows moves no folder over another, not even over an empty one
            replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def as_keys(model: GPT, keys: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The config.json of a model: `keys`, if given, with our choices in their places. Raises
    InputError for what GPT-2 has not.
    """
    config, dtype = model.config, model.token_embedding.weight.dtype.name
    for name, only in GPT2.items():
        if getattr(config, name) != only:
            raise InputError(
                f"GPT-2 cannot hold this model: its {name} is {getattr(config, name)}, GPT-2's "
                f"{only}\ntrain one as GPT-2 is, with the defaults"
            )
    content = dict(USUAL if keys is None else keys)
    for key, (name, usual) in CHOICES.items():
        if keys is None or content.get(key, usual) != getattr(config, name):
            content |= (
                dict.fromkeys(DROPOUTS, config.dropout)
                if name == "dropout"
                else {key: getattr(config, name)}
            )
    if ACTIVATIONS.get(content.get("activation_function", "gelu_new")) != config.activation:
        names = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
        content["activation_function"] = names[config.activation]
    # its name in transformers 5 and before
    content |= {key: dtype for key in ("dtype", "torch_dtype") if key in content}
    if as_config(content) != config:
        raise InputError(
            f"the {CONFIG} that this model came with ({KEPT} in its run) is of another model\n"
            "without it the usual one is written"
        )
    return content


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
